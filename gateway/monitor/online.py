"""Online detectors: changes found value by value, without windows or reference counts.

They are ``river``'s ADWIN, Page-Hinkley and KSWIN, fed with the values of each feature or output in
the order in which they were answered. What one costs decides how many it may have
(``PER_SECOND``, values of all subjects together): a value costs ADWIN some 0.4 us, Page-Hinkley
0.9 us and KSWIN 330 us, because it runs a Kolmogorov-Smirnov test at each.

What the detectors take for granted, and what is done about it:

- ADWIN's bound is for values from 0 to 1 (Bifet and Gavalda 2007, theorem 3.1): values are scaled
  by the reference's range, and held within it.
- Page-Hinkley's allowance and threshold are in the unit of the values: values are scaled by the
  reference's mean and standard deviation, and held within ``WIDEST_DEVIATION`` of them.
- KSWIN looks at ranks; nothing is scaled.

By default their parameters follow from the chance of a false alarm that is asked for, in a window
and over all subjects. River's own defaults do not: KSWIN's alpha is one test's, of which there is
one a value; Page-Hinkley's threshold suits values of a certain size, and its sum forgets
(``alpha = 0.9999``) while the lowest sum, which it is held against, does not: of 200 windows of
1,000 values of a still stream a third would have an alarm.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.monitor.allowance import Allowance
from gateway.monitor.extras import require
from gateway.monitor.findings import Finding, Level

Floats = npt.NDArray[np.float64]

#: Detections that are kept of a window, of all subjects and detectors; more are counted.
MOST_DETECTIONS: Final = 1000
WIDEST_DEVIATION: Final = 4.0
#: Page-Hinkley's allowance, in standard deviations: it looks for shifts larger than this.
ALLOWED_SHIFT: Final = 0.1
#: Values that KSWIN compares, the newest ones with as many of those before them, and all it keeps.
KSWIN_COMPARED: Final = 100
KSWIN_WINDOW: Final = 300


class Kind(StrEnum):
    """A detector of ``river.drift``."""

    ADWIN = "adwin"
    PAGE_HINKLEY = "page_hinkley"
    KSWIN = "kswin"


#: Values a second, of all subjects of a model version together; each about 4% of a core.
PER_SECOND: Final[Mapping[Kind, float]] = {
    Kind.ADWIN: 100_000.0,
    Kind.PAGE_HINKLEY: 45_000.0,
    Kind.KSWIN: 120.0,
}


@dataclass(frozen=True, slots=True)
class Scale:
    """``(value - shift) / by``, held between ``low`` and ``high``."""

    shift: float = 0.0
    by: float = 1.0
    low: float = -math.inf
    high: float = math.inf

    def __call__(self, values: Floats) -> Floats:
        """``values``, scaled."""
        scaled: Floats = np.clip((values - self.shift) / self.by, self.low, self.high)
        return scaled

    @classmethod
    def of_range(cls, low: float, high: float) -> "Scale":
        """From ``low`` to ``high`` becomes from 0 to 1."""
        return cls(low, (high - low) or 1.0, 0.0, 1.0)

    @classmethod
    def of_deviation(cls, mean: float, deviation: float) -> "Scale":
        """In standard deviations from the mean."""
        return cls(mean, deviation or 1.0, -WIDEST_DEVIATION, WIDEST_DEVIATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What is known of a subject's values in the training data."""

    low: float
    high: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> "Reference":
        """Of the finite ones among ``values``; raises ``ValueError`` where there are none."""
        array = np.asarray(values, np.float64)
        array = array[np.isfinite(array)]
        if not array.size:
            raise ValueError("no finite value to take a reference from")
        return cls(
            low=float(array.min()),
            high=float(array.max()),
            mean=float(array.mean()),
            deviation=float(array.std()),
        )

    def scale(self, kind: Kind) -> Scale:
        """What the values of a detector of ``kind`` are scaled by."""
        if kind is Kind.ADWIN:
            return Scale.of_range(self.low, self.high)
        if kind is Kind.PAGE_HINKLEY:
            return Scale.of_deviation(self.mean, self.deviation)
        return Scale()


@dataclass(frozen=True, slots=True)
class Detection:
    """A change that was found.

    Attributes:
        row: the place of the value at which it was found among all rows, from 0.
        at: when that was answered, Unix seconds.
    """

    subject: str
    kind: Kind
    row: int
    at: float


def page_hinkley_threshold(allowance: float, run_length: float) -> float:
    """The threshold at which a false alarm comes once in ``run_length`` values, on either side.

    For values of standard deviation 1; by Siegmund's approximation to the run length of a
    cumulative sum (D. Siegmund, 1985, "Sequential Analysis", 2.60) with twice the run length for
    each of the two sides.
    """
    height = 1.0
    for _ in range(100):
        grown = 1 + 2 * allowance * height + 4 * allowance**2 * run_length
        height = math.log(grown) / (2 * allowance)
    return max(height - 1.166, 1.0)


def parameters(kind: Kind, level: float, subjects: int, rows: int) -> dict[str, float]:
    """The parameters of a detector by the level asked for.

    Args:
        level: the chance of a false alarm in a window, over all subjects.
        subjects: how many there are; each gets its part of the level (Bonferroni).
        rows: of a window.
    """
    each = level / subjects
    if kind is Kind.ADWIN:
        return {"delta": each}
    if kind is Kind.PAGE_HINKLEY:
        threshold = page_hinkley_threshold(ALLOWED_SHIFT, rows / each)
        return {"delta": ALLOWED_SHIFT, "threshold": threshold, "alpha": 1.0}
    return {"alpha": each / rows, "window_size": KSWIN_WINDOW, "stat_size": KSWIN_COMPARED}


def make(kind: Kind, given: Mapping[str, float], seed: int = 0) -> Any:
    """A detector of river's. Raises ``ConfigError`` where river is not installed."""
    drift = require("river.drift", f"the online detector '{kind}'")
    if kind is Kind.ADWIN:
        return drift.ADWIN(**given)
    if kind is Kind.PAGE_HINKLEY:
        return drift.PageHinkley(**given)
    return drift.KSWIN(**given, seed=seed)


@dataclass(slots=True)
class _Watch:
    """One detector over one subject."""

    subject: str
    kind: Kind
    scale: Scale
    detector: Any
    seen: int = 0
    found: int = 0


@dataclass(slots=True)
class OnlineMonitor:
    """The online detectors of one model version. For the monitor's thread.

    Args:
        subjects: the names of its numeric features and outputs, with what is known of their
            values in the training data; ``None`` leaves them unscaled.
        kinds: the detectors wanted.
        level: the chance of a false alarm in a window, of one kind over all subjects.
        window_rows: rows of a window, for ``level``.
        given: parameters of river's by kind, which take the place of those that follow from
            ``level``.
        per_second: see ``PER_SECOND``; ``None`` for a kind sets it no limit.

    Attributes:
        rows: rows seen so far.
        detections: of the window that is open, in the order of the rows.

    Raises:
        ConfigError: river is not installed.
    """

    subjects: Mapping[str, Reference | None]
    kinds: Sequence[Kind] = (Kind.ADWIN,)
    level: float = 0.05
    window_rows: int = 1000
    given: Mapping[Kind, Mapping[str, float]] = field(default_factory=dict)
    per_second: Mapping[Kind, float | None] = field(default_factory=dict)
    rows: int = 0
    detections: list[Detection] = field(default_factory=list)
    _told: int = 0
    _watches: list[_Watch] = field(default_factory=list)
    _allowances: dict[Kind, Allowance] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = max(len(self.subjects), 1)
        for kind in self.kinds:
            rate = self.per_second.get(kind, PER_SECOND[kind])
            self._allowances[kind] = Allowance(None if rate is None else rate / count)
            found = parameters(kind, self.level, count, self.window_rows)
            found.update(self.given.get(kind, {}))
            for subject, known in self.subjects.items():
                scale = known.scale(kind) if known is not None else Scale()
                self._watches.append(_Watch(subject, kind, scale, make(kind, found)))

    def held_back(self, kind: Kind) -> int:
        """Rows that a kind did not see because there were too many a second."""
        return self._allowances[kind].held_back

    def add(self, columns: Mapping[str, npt.NDArray[Any]], at: float) -> None:
        """Take the rows of a block: the values of each subject, one a row.

        A subject that is missing, and values that are not finite, are passed over.
        """
        rows = max((len(values) for values in columns.values()), default=0)
        for kind, allowance in self._allowances.items():
            places = allowance.choose(rows, at)
            for watch in self._watches:
                if watch.kind is kind and (values := columns.get(watch.subject)) is not None:
                    self._feed(watch, values, places, at)
        self.rows += rows

    def _feed(
        self,
        watch: _Watch,
        values: npt.NDArray[Any],
        places: npt.NDArray[np.int64] | None,
        at: float,
    ) -> None:
        if places is None:
            places = np.arange(len(values))
        numbers = values[places].astype(np.float64)
        finite = np.isfinite(numbers)
        places, numbers = places[finite], watch.scale(numbers[finite])
        watch.seen += len(numbers)
        detector = watch.detector
        update = detector.update
        for place, value in zip(places.tolist(), numbers.tolist(), strict=True):
            update(value)
            if detector.drift_detected:
                watch.found += 1
                if len(self.detections) < MOST_DETECTIONS:
                    row = self.rows + place
                    self.detections.append(Detection(watch.subject, watch.kind, row, at))

    def findings(self) -> list[Finding]:
        """What was found since the last call: the changes of each subject, by each detector.

        ``value`` is their number, and one is enough.
        """
        firsts: dict[tuple[str, Kind], int] = {}
        for detection in self.detections:
            firsts.setdefault((detection.subject, detection.kind), detection.row)
        rows, self._told = self.rows - self._told, self.rows
        made = [
            _finding(watch, firsts.get((watch.subject, watch.kind)), rows)
            for watch in self._watches
        ]
        for watch in self._watches:
            watch.seen = watch.found = 0
        self.detections = []
        return made


def _finding(watch: _Watch, first: int | None, rows: int) -> Finding:
    level, told = Level.OK, []
    if watch.found:
        level = Level.DRIFTED
        told.append("the values have changed" + (f", seen at row {first}" if first else ""))
    elif not watch.seen:
        level = Level.NO_DATA
    if watch.seen < rows:
        told.append(f"{watch.seen} of {rows} values were looked at")
    return Finding(
        subject=watch.subject,
        test=watch.kind.value,
        value=None if level is Level.NO_DATA else float(watch.found),
        threshold=1.0,
        level=level,
        detail="; ".join(told),
    )
