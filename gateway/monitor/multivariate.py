"""Drift of many columns at once: a classifier and a kernel over samples of bounded size."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.monitor.findings import Finding, Level
from gateway.monitor.reservoir import RowReservoir
from gateway.monitor.two_sample import Classifier, TwoSampleResult, classifier_test, mmd
from gateway.monitor.vectors import WIDTH, ImageVectors, NumberVectors, TextVectors, Vectors

Floats = npt.NDArray[np.float64]

#: Rows that are kept of each window, and of the reference. Each window is compared with others of
#: the reference, as many as it has itself: what is odd about some rows would come back in every
#: window that meets them, and false alarms come many together.
SAMPLE_ROWS: Final = 1000
REFERENCE_ROWS: Final = 4000
#: Rows of a window below which nothing is said.
LEAST_ROWS: Final = 50


class Comparison(StrEnum):
    """A test of all columns at once."""

    CLASSIFIER = "classifier_two_sample"
    MMD = "mmd"


class Content(StrEnum):
    """What a tensor holds."""

    NUMBERS = "numbers"
    IMAGES = "images"
    TEXT = "text"


def vectors_for(content: Content, row: npt.NDArray[Any], seed: int = 0) -> Vectors:
    """What makes vectors of the rows of a tensor; ``row`` is one of them."""
    if content is Content.IMAGES:
        return ImageVectors()
    if content is Content.TEXT:
        return TextVectors()
    return NumberVectors(row.size, WIDTH, seed)


@dataclass(slots=True)
class MultivariateMonitor:
    """Compares a sample of each window's rows with one of a reference. For the monitor's thread.

    A row is made a vector only once the sample takes it: of a window of ``n`` rows about
    ``sample_rows * (1 + ln(n / sample_rows))`` are, and memory is that of two samples, 1 MB with
    the defaults. What a window costs is bounded by the samples' size, and after ``budget_s`` no
    further part of a test is begun.

    Args:
        subject: the tensor's name.
        tests: those wanted.
        level: a p-value below it is drift, and one below ``warning_level`` a warning.
        reference: rows of the training data, as the tensor has them; ``None`` takes the first
            ``sample_rows`` that are added.
        content: what the tensor holds.

    Raises:
        ValueError: the reference has fewer than ``LEAST_ROWS`` rows.
    """

    subject: str
    tests: Sequence[Comparison] = (Comparison.CLASSIFIER, Comparison.MMD)
    level: float = 0.01
    warning_level: float = 0.05
    reference: npt.NDArray[Any] | None = None
    content: Content = Content.NUMBERS
    classifier: Classifier = Classifier.FOREST
    sample_rows: int = SAMPLE_ROWS
    reference_rows: int = REFERENCE_ROWS
    budget_s: float = 2.0
    seed: int = 0
    clock: Callable[[], float] = time.monotonic
    _vectors: Vectors | None = None
    _known: Floats | None = None
    _first: list[Floats] = field(default_factory=list)
    _sample: RowReservoir = field(init=False)
    _draw: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._sample = RowReservoir(self.sample_rows, self.seed)
        self._draw = np.random.default_rng(self.seed)
        if self.reference is None:
            return
        if len(self.reference) < LEAST_ROWS:
            raise ValueError(
                f"the reference of '{self.subject}' has {len(self.reference)} rows, at least "
                f"{LEAST_ROWS} are needed"
            )
        kept = RowReservoir(self.reference_rows, self.seed)
        chosen, slots = kept.choose(len(self.reference))
        kept.keep(slots, self._vectors_of(self.reference[chosen]))
        self._known, self.reference = kept.rows, None

    def _vectors_of(self, rows: npt.NDArray[Any]) -> Floats:
        if self._vectors is None:
            self._vectors = vectors_for(self.content, rows[0], self.seed)
        return self._vectors(rows)

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Take the rows of a block, the rows first."""
        self.offer(len(rows), rows.__getitem__)

    def offer(self, rows: int, at: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
        """Take the rows of a block that are made only where they are wanted.

        Args:
            rows: how many there are.
            at: gives those at some places.
        """
        start = 0
        if self._known is None:
            start = self._learn(rows, at)
        chosen, slots = self._sample.choose(rows - start)
        if len(chosen):
            self._sample.keep(slots, self._vectors_of(at(start + chosen)))

    def _learn(self, rows: int, at: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> int:
        """Take what the reference lacks; how many of the rows that is."""
        have = sum(map(len, self._first))
        taken = min(self.sample_rows - have, rows)
        if taken:
            self._first.append(self._vectors_of(at(np.arange(taken))))
        if have + taken == self.sample_rows:
            self._known, self._first = np.concatenate(self._first), []
        return taken

    def findings(self) -> list[Finding]:
        """What the tests say of the rows since the last call."""
        sample, known = self._sample.rows, self._known
        ends = self.clock() + self.budget_s
        made = []
        if known is not None and len(known) > self.sample_rows:
            known = self._draw.choice(known, self.sample_rows, replace=False, shuffle=False)
        for test in self.tests:
            if known is None:
                made.append(self._nothing(test, "the reference is still being taken"))
            elif len(sample) < LEAST_ROWS:
                made.append(self._nothing(test, f"{len(sample)} rows, {LEAST_ROWS} are needed"))
            elif self.clock() > ends:
                made.append(self._nothing(test, f"no time was left of {self.budget_s:g} s"))
            else:
                result = self._run(test, known, np.asarray(sample), ends - self.clock())
                made.append(self._finding(test, result, len(sample)))
        self._sample.clear()
        return made

    def _run(
        self, test: Comparison, known: Floats, sample: Floats, budget_s: float
    ) -> TwoSampleResult:
        if test is Comparison.MMD:
            # Enough permutations that the level can be reached, and that chance decides little.
            permutations = min(max(200, math.ceil(10 / self.level)), 2000)
            return mmd(known, sample, permutations=permutations, seed=self.seed)
        return classifier_test(
            known,
            sample,
            classifier=self.classifier,
            seed=self.seed,
            budget_s=budget_s,
            clock=self.clock,
        )

    def _finding(self, test: Comparison, result: TwoSampleResult, rows: int) -> Finding:
        level = Level.OK
        if result.p_value < self.level:
            level = Level.DRIFTED
        elif result.p_value < self.warning_level:
            level = Level.WARNING
        return Finding(
            subject=self.subject,
            test=test.value,
            value=result.value,
            p_value=result.p_value,
            threshold=self.level,
            level=level,
            detail="" if result.complete else f"of a part of the folds, after {self.budget_s:g} s",
        )

    def _nothing(self, test: Comparison, why: str) -> Finding:
        return Finding(
            subject=self.subject,
            test=test.value,
            value=None,
            threshold=self.level,
            level=Level.NO_DATA,
            detail=why,
        )
