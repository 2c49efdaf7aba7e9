"""How good a classifier is where nobody knows the truth: estimated from its own probabilities.

Confidence-based performance estimation as NannyML does it: a probability that is calibrated says
how likely the answer is right, so that the mean over a window is the accuracy to be expected; in
the same way each row counts as a part of a positive and a part of a negative in the ROC curve. It
sees a loss that comes from inputs becoming harder. It does not see one that comes from a changed
relation of inputs and truth: the probabilities then are wrong themselves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.monitor.answers import Answers, AnswerSettings
from gateway.monitor.extras import require
from gateway.monitor.findings import Finding, Level
from gateway.monitor.quality import Estimate, Floats, Ints, Judged, roc_auc
from gateway.monitor.reservoir import RowReservoir

#: Equal-count bins of the calibration error by which it is decided whether to calibrate, and the
#: splits that it is taken over.
DECISION_BINS: Final = 10
DECISION_SPLITS: Final = 3
#: Standard deviations of the reference's windows beyond which an estimate is drift.
DEVIATIONS: Final = 3.0
#: Rows of a window that are kept; of a longer one an even sample.
MOST_ROWS: Final = 20_000
LEAST_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Calibration:
    """From scores to probabilities: a rising line through these points, level beyond them.

    Attributes:
        scores, probabilities: the points; of none nothing is changed.
    """

    scores: Floats
    probabilities: Floats

    def __call__(self, scores: Floats) -> Floats:
        """The probabilities of ``scores``."""
        if not len(self.scores):
            return scores
        return np.interp(scores, self.scores, self.probabilities)

    @classmethod
    def fit(cls, scores: Floats, positive: npt.NDArray[np.bool_]) -> "Calibration":
        """By isotonic regression. Raises ``ConfigError`` where scikit-learn is not installed."""
        isotonic = require("sklearn.isotonic", "performance estimation with reference labels")
        fitted = isotonic.IsotonicRegression(out_of_bounds="clip", increasing=True)
        fitted.fit(scores, positive.astype(np.int64))
        return cls(
            np.asarray(fitted.X_thresholds_, np.float64),
            np.asarray(fitted.y_thresholds_, np.float64),
        )

    @classmethod
    def fit_where_better(cls, scores: Floats, positive: npt.NDArray[np.bool_]) -> "Calibration":
        """As ``fit`` where that lowers the calibration error of rows held out, else unchanged."""
        unchanged = cls(np.zeros(0), np.zeros(0))
        curve = roc_auc(scores, positive)
        if curve is None or curve[0] > 0.999:
            return unchanged
        selection = require(
            "sklearn.model_selection", "performance estimation with reference labels"
        )
        splits = selection.StratifiedShuffleSplit(DECISION_SPLITS, test_size=0.1, random_state=42)
        before, after, true = [], [], []
        for train, test in splits.split(scores, positive):
            before.append(scores[test])
            after.append(cls.fit(scores[train], positive[train])(scores[test]))
            true.append(positive[test])
        truth = np.concatenate(true).astype(np.float64)
        if _error(np.concatenate(before), truth) > _error(np.concatenate(after), truth):
            return cls.fit(scores, positive)
        return unchanged


def _error(probabilities: Floats, truth: Floats) -> float:
    """The expected calibration error over bins of as many rows each."""
    order = probabilities.argsort()
    edges = np.arange(0, len(order) + 1, max(len(order) // DECISION_BINS, 1))
    edges[-1] = len(order)
    apart = np.add.reduceat((probabilities - truth)[order], edges[:-1])
    return float(np.abs(apart).sum()) / len(order)


def expected_roc_auc(probabilities: Floats, scores: Floats) -> float | None:
    """The area under the ROC curve to be expected of ``scores``.

    Args:
        probabilities: how likely each row is a positive.
        scores: what the model orders the rows by. Rows of one score follow one another in the
            curve in no certain order, as NannyML has it.
    """
    ordered = probabilities[np.argsort(scores)[::-1]]
    hits = np.cumsum(ordered)
    # Rounded as NannyML does, so that what rounding adds is no step of the curve.
    hits, misses = np.round(hits, 5), np.round(1 + np.arange(len(ordered)) - hits, 5)
    if not len(ordered) or not hits[-1] or not misses[-1]:
        return None
    rate = np.r_[0.0, hits / hits[-1]]
    return float(np.trapezoid(rate, np.r_[0.0, misses / misses[-1]]))


@dataclass(frozen=True, slots=True)
class Range:
    """Between what the reference's windows were, and some deviations more."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float], deviations: float) -> "Range":
        """The mean and so many standard deviations, within 0 and 1."""
        mean, half = float(np.mean(values)), deviations * float(np.std(values))
        return cls(max(mean - half, 0.0), min(mean + half, 1.0))


class PerformanceEstimator:
    """Estimates a classifier's accuracy and area under the ROC curve. Immutable once made.

    Args:
        reference: rows with their truth and probabilities, not those that it was trained on.
        window_rows: rows of the windows that estimates will be made of: as many are taken for the
            ranges, of the reference in its order.
        calibrate: whether to calibrate the probabilities by the reference; ``None`` where that
            is better on rows held out.
        deviations: see ``DEVIATIONS``.

    Attributes:
        ranges: by figure, what the reference's windows truly were.

    Raises:
        ValueError: the reference has no probabilities, or too few rows for two windows.
        ConfigError: scikit-learn is not installed.
    """

    def __init__(
        self,
        reference: Judged,
        *,
        window_rows: int,
        calibrate: bool | None = None,
        deviations: float = DEVIATIONS,
    ) -> None:
        if reference.probabilities is None:
            raise ValueError("the reference has no probabilities to estimate the performance from")
        if len(reference.truth) < 2 * window_rows:
            raise ValueError(
                f"the reference has {len(reference.truth)} rows, at least two windows of "
                f"{window_rows} are needed"
            )
        self._classes: Final = reference.classes
        self._calibrations: Final = [
            self._calibration(reference, which, calibrate) for which in self._wanted()
        ]
        realised: dict[str, list[float]] = {"accuracy": [], "roc_auc": []}
        for start in range(0, len(reference.truth), window_rows):
            part = slice(start, start + window_rows)
            realised["accuracy"].append(float(reference.right[part].mean()))
            area = _area(reference.probabilities[part], reference.truth[part])
            if area is not None:
                realised["roc_auc"].append(area[0])
        self.ranges: Final = {
            name: Range.of(values, deviations) for name, values in realised.items() if values
        }
        area = _area(reference.probabilities, reference.truth)
        #: Standard deviation of one row's influence on the area.
        self._spread: Final = 0.0 if area is None else float(np.sqrt((area[1] ** 2).mean()))

    def _wanted(self) -> range:
        return range(1, 2) if self._classes == 2 else range(self._classes)

    def _calibration(self, reference: Judged, which: int, calibrate: bool | None) -> Calibration:
        assert reference.probabilities is not None
        scores, positive = reference.probabilities[:, which], reference.truth == which
        if calibrate is None:
            return Calibration.fit_where_better(scores, positive)
        if calibrate:
            return Calibration.fit(scores, positive)
        return Calibration(np.zeros(0), np.zeros(0))

    def calibrated(self, probabilities: Floats) -> Floats:
        """The probabilities of all classes, calibrated, so that they sum to 1."""
        if self._classes == 2:
            of_one = self._calibrations[0](probabilities[:, 1])
            return np.stack([1 - of_one, of_one], axis=1)
        made = np.stack(
            [c(probabilities[:, which]) for which, c in enumerate(self._calibrations)], axis=1
        )
        sums = made.sum(axis=1, keepdims=True)
        return np.where(sums > 0, made / np.where(sums > 0, sums, 1), probabilities)

    def estimate(
        self, probabilities: Floats, predicted: Ints, confidence: float = 0.95
    ) -> dict[str, Estimate]:
        """The figures to be expected, with the intervals that hold those to be realised.

        An interval holds what chance does to a window of these rows, not what wrong probabilities
        do to the estimate.
        """
        if not len(predicted):
            return {}
        told = self.calibrated(probabilities)
        z, rows = NormalDist().inv_cdf(0.5 + confidence / 2), len(predicted)
        right = told[np.arange(rows), predicted]
        half = z * math.sqrt(float((right * (1 - right)).sum())) / rows
        made = {"accuracy": _within(float(right.mean()), half)}
        areas = [expected_roc_auc(told[:, c], probabilities[:, c]) for c in self._wanted()]
        known = [area for area in areas if area is not None]
        if known:
            half = z * self._spread / math.sqrt(rows)
            made["roc_auc"] = _within(float(np.mean(known)), half)
        return made


def _within(value: float, half: float) -> Estimate:
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0))


def _area(probabilities: Floats, truth: Ints) -> tuple[float, Floats] | None:
    if probabilities.shape[1] == 2:
        return roc_auc(probabilities[:, 1], truth == 1)
    found = [roc_auc(probabilities[:, c], truth == c) for c in np.unique(truth)]
    parts = [part for part in found if part is not None]
    if not parts:
        return None
    areas, influences = zip(*parts, strict=True)
    return float(np.mean(areas)), np.mean(influences, axis=0)


@dataclass(slots=True)
class EstimationMonitor:
    """Estimates the performance in each window of one version. For the monitor's thread."""

    estimator: PerformanceEstimator
    answers: AnswerSettings
    most_rows: int = MOST_ROWS
    seed: int = 0
    _read: Answers = field(init=False)
    _sample: RowReservoir = field(init=False)

    def __post_init__(self) -> None:
        self._read = Answers(self.answers)
        self._sample = RowReservoir(self.most_rows, self.seed)

    def add(self, outputs: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take the outputs of a block, rows first.

        Raises:
            ValueError: the output with the probabilities is not there, or is too wide.
        """
        read = self._read.read(outputs)
        if read.probabilities is None:
            raise ValueError(
                f"'{self.answers.output}' has only its highest value; without the probabilities of "
                "all classes the performance cannot be estimated"
            )
        good = np.isfinite(read.probabilities).all(axis=1) & (read.predicted >= 0)
        self._sample.add(np.column_stack([read.probabilities, read.predicted])[good])

    def findings(self) -> list[Finding]:
        """The estimates of the rows since the last call.

        Below the reference's range is drift. Above it is a warning: a model does not become better
        by itself, but what it is asked may have become easier.
        """
        rows = self._sample.rows.copy()
        seen = self._sample.seen
        self._sample.clear()
        if seen < LEAST_ROWS:
            detail = f"{seen} rows, {LEAST_ROWS} are needed"
            return [
                Finding(
                    subject="",
                    test=f"estimated_{name}",
                    value=None,
                    threshold=found.low,
                    level=Level.NO_DATA,
                    detail=detail,
                )
                for name, found in self.estimator.ranges.items()
            ]
        made = self.estimator.estimate(rows[:, :-1], rows[:, -1].astype(np.int64))
        return [self._finding(name, estimate, seen) for name, estimate in made.items()]

    def _finding(self, name: str, estimate: Estimate, rows: int) -> Finding:
        wanted = self.estimator.ranges.get(name, Range(0.0, 1.0))
        level = Level.OK
        if estimate.value < wanted.low:
            level = Level.DRIFTED
        elif estimate.value > wanted.high:
            level = Level.WARNING
        return Finding(
            subject="",
            test=f"estimated_{name}",
            value=estimate.value,
            threshold=wanted.low,
            level=level,
            detail=(
                f"{estimate.low:.4g} to {estimate.high:.4g} expected of {rows} rows; the "
                f"reference's windows had {wanted.low:.4g} to {wanted.high:.4g}"
            ),
        )
