"""How good predictions were, by their truth: figures with confidence intervals.

Figures are scikit-learn's of the same name, with these conventions: F1 is that of class 1 where
there are two classes and the mean of all classes' otherwise; the area under the ROC curve is the
mean of one class against the rest; the Brier score of two classes is the mean square error of class
1's probability, of more the sum over the classes; the expected calibration error has 15 equal bins
of the highest probability (Guo and others, 2017).

Intervals come from each figure's influence values: what a row adds to the figure, to first order,
has a variance, and that over the rows is the figure's (for the ROC curve that is DeLong's, 1988).
The accuracy's is Wilson's. That of the calibration error is rough: the error is never below 0, and
of few rows it is too high.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_T = TypeVar("_T")

CALIBRATION_BINS: Final = 15
#: The least probability that a logarithm is taken of.
LEAST_PROBABILITY: Final = float(np.finfo(np.float64).eps)

#: Figures that are better when lower.
LOSSES: Final = frozenset({"log_loss", "brier", "expected_calibration_error", "mae", "rmse"})
#: Figures of a classifier and of a regression, in the order in which they are told.
CLASSIFICATION: Final = (
    "accuracy",
    "balanced_accuracy",
    "f1",
    "roc_auc",
    "log_loss",
    "brier",
    "expected_calibration_error",
)
REGRESSION: Final = ("mae", "rmse", "r2")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the interval that surely holds it, as sure as was asked for."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Classified rows with their truth.

    Attributes:
        truth, predicted: the class of each row, from 0.
        classes: how many classes there are.
        probabilities: of each class, a row a row; ``None`` where they are not known.
        confidence: the highest probability of each row; ``None`` where it is not known.
    """

    truth: Ints
    predicted: Ints
    classes: int
    probabilities: Floats | None = None
    confidence: Floats | None = None

    @property
    def right(self) -> Floats:
        """1 for each row that was classified right, else 0."""
        right: Floats = (self.truth == self.predicted).astype(np.float64)
        return right


#: The value of a figure and each row's influence on it; ``None`` where it is not defined.
_Figure = tuple[float, Floats] | None


def classification(judged: Judged, confidence: float = 0.95) -> dict[str, Estimate]:
    """The figures of a classifier; those that need probabilities only where there are some.

    A figure that is not defined for these rows (the area under the ROC curve of one class) is left
    out.

    Args:
        confidence: how surely each interval holds its figure.
    """
    if not len(judged.truth):
        return {}
    made = _estimates(_CLASSIFICATION, judged, confidence)
    made["accuracy"] = wilson(float(judged.right.sum()), len(judged.truth), confidence)
    return made


def regression(truth: Floats, predicted: Floats, confidence: float = 0.95) -> dict[str, Estimate]:
    """The figures of a regression, of one value a row or several: then their mean over the columns.

    R2 is left out where the truth is the same in all rows.
    """
    if not len(truth):
        return {}
    pair = (truth.reshape(len(truth), -1), predicted.reshape(len(truth), -1))
    return _estimates(_REGRESSION, pair, confidence)


def wilson(successes: float, trials: int, confidence: float) -> Estimate:
    """A proportion with Wilson's interval."""
    z, share = _quantile(confidence), successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials)
    half *= math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return Estimate(share, max(middle - half, 0.0), min(middle + half, 1.0))


def roc_auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> _Figure:
    """The area under the ROC curve and the rows' influence (DeLong's placements)."""
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        return None
    values, inverse = np.unique(scores, return_inverse=True)
    above = np.bincount(inverse[positive], minlength=len(values))
    below = np.bincount(inverse[~positive], minlength=len(values))
    misses_under = (np.cumsum(below) - below / 2) / misses
    hits_over = 1 - (np.cumsum(above) - above / 2) / hits
    area = float(misses_under[inverse[positive]].mean())
    rows = len(scores)
    influence = np.where(
        positive,
        (misses_under[inverse] - area) * rows / hits,
        (hits_over[inverse] - area) * rows / misses,
    )
    return area, influence


def _estimates(
    figures: Mapping[str, Callable[[_T], _Figure]], given: _T, confidence: float
) -> dict[str, Estimate]:
    made, z = {}, _quantile(confidence)
    for name, figure in figures.items():
        found = figure(given)
        if found is None:
            continue
        value, influence = found
        half = z * math.sqrt(float((influence**2).sum())) / len(influence)
        least, most = _RANGES[name]
        made[name] = Estimate(value, max(value - half, least), min(value + half, most))
    return made


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _mean(values: Floats) -> tuple[float, Floats]:
    mean = float(values.mean())
    return mean, values - mean


def _accuracy(judged: Judged) -> _Figure:
    return _mean(judged.right)


def _balanced_accuracy(judged: Judged) -> _Figure:
    counts = np.bincount(judged.truth, minlength=judged.classes)
    hits = np.bincount(judged.truth, judged.right, judged.classes)
    present = counts > 0
    recalls = np.divide(hits, counts, out=np.zeros(len(counts)), where=present)
    influence = (judged.right - recalls[judged.truth]) * len(judged.truth) / counts[judged.truth]
    return float(recalls[present].mean()), influence / present.sum()


def _f1(judged: Judged) -> _Figure:
    if judged.classes == 2:
        return _f1_of(judged, 1)
    present = np.union1d(judged.truth, judged.predicted)
    return _mean_of([_f1_of(judged, int(which)) for which in present])


def _f1_of(judged: Judged, which: int) -> tuple[float, Floats]:
    true, told = judged.truth == which, judged.predicted == which
    both = (true & told).astype(np.float64)
    total = true.astype(np.float64) + told
    if not total.any():
        return 0.0, np.zeros(len(true))
    value = 2 * float(both.sum()) / float(total.sum())
    return value, (2 * both - value * total) / total.mean()


def _roc_auc(judged: Judged) -> _Figure:
    if judged.probabilities is None:
        return None
    if judged.classes == 2:
        return roc_auc(judged.probabilities[:, 1], judged.truth == 1)
    present = np.unique(judged.truth)
    parts = [roc_auc(judged.probabilities[:, which], judged.truth == which) for which in present]
    return _mean_of([part for part in parts if part is not None])


def _mean_of(parts: list[tuple[float, Floats]]) -> _Figure:
    if not parts:
        return None
    values, influences = zip(*parts, strict=True)
    return float(np.mean(values)), np.mean(influences, axis=0)


def _log_loss(judged: Judged) -> _Figure:
    if judged.probabilities is None:
        return None
    given = judged.probabilities[np.arange(len(judged.truth)), judged.truth]
    return _mean(-np.log(np.clip(given, LEAST_PROBABILITY, 1.0)))


def _brier(judged: Judged) -> _Figure:
    if judged.probabilities is None:
        return None
    apart = judged.probabilities - np.eye(judged.classes)[judged.truth]
    return _mean(apart[:, 1] ** 2 if judged.classes == 2 else (apart**2).sum(axis=1))


def _calibration_error(judged: Judged) -> _Figure:
    if judged.confidence is None:
        return None
    # The last edge belongs to the last bin, and each other one to the bin below it.
    bins = np.clip(np.ceil(judged.confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1)
    places = bins.astype(np.int64)
    apart = judged.right - judged.confidence
    sums = np.bincount(places, apart, CALIBRATION_BINS)
    value = float(np.abs(sums).sum()) / len(apart)
    return value, np.sign(sums)[places] * apart - value


_Pair = tuple[Floats, Floats]


def _mae(pair: _Pair) -> _Figure:
    return _mean(np.abs(pair[0] - pair[1]).mean(axis=1))


def _rmse(pair: _Pair) -> _Figure:
    parts = []
    for truth, predicted in zip(pair[0].T, pair[1].T, strict=True):
        mean, influence = _mean((truth - predicted) ** 2)
        root = math.sqrt(mean)
        parts.append((root, influence / (2 * root) if root else influence))
    return _mean_of(parts)


def _r2(pair: _Pair) -> _Figure:
    parts = []
    for truth, predicted in zip(pair[0].T, pair[1].T, strict=True):
        error, of_error = _mean((truth - predicted) ** 2)
        spread, of_spread = _mean((truth - truth.mean()) ** 2)
        if not spread:
            return None
        influence = -of_error / spread + error / spread**2 * of_spread
        parts.append((1 - error / spread, influence))
    return _mean_of(parts)


_CLASSIFICATION: Final[dict[str, Callable[[Judged], _Figure]]] = dict(
    zip(
        CLASSIFICATION,
        (_accuracy, _balanced_accuracy, _f1, _roc_auc, _log_loss, _brier, _calibration_error),
        strict=True,
    )
)
_REGRESSION: Final[dict[str, Callable[[_Pair], _Figure]]] = {
    "mae": _mae,
    "rmse": _rmse,
    "r2": _r2,
}
_RANGES: Final = {
    **dict.fromkeys(CLASSIFICATION, (0.0, 1.0)),
    "log_loss": (0.0, math.inf),
    "brier": (0.0, 2.0),
    "mae": (0.0, math.inf),
    "rmse": (0.0, math.inf),
    "r2": (-math.inf, 1.0),
}
