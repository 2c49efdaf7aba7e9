"""How far two distributions are apart: pure functions, on counts and on samples.

Counts are of the same bins or categories on both sides, the reference first. A *sample* is values
and, where they do not all count alike, their weights; what is missing (NaN) is not in it. Which
library counts, fills and scales how is said here and in ``binning.py``, and nowhere else.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.monitor.p_values import chi_square_tail, kolmogorov_smirnov_tail

Floats = npt.NDArray[np.float64]

#: Evidently's stand-in for an empty bin's share, and what the smallest share is divided by where
#: that is no larger.
EMPTY_SHARE: Final = 1e-4
EMPTY_PART: Final = 1e6
#: Values of the smaller side that a bin is to be expected to hold, for a p-value that can be relied
#: on.
EXPECTED: Final = 5
#: Evidently's least standard deviation that a distance is divided by.
LEAST_DEVIATION: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Sample:
    """Values, ascending, with what each counts.

    Attributes:
        cumulated: the weight of each value and all before it.
        size: how many independent values it stands for.
    """

    values: Floats
    cumulated: Floats
    size: float

    @classmethod
    def of(
        cls, values: npt.ArrayLike, weights: npt.ArrayLike | None = None, size: float | None = None
    ) -> "Sample":
        """The sample of ``values``, NaNs left out.

        Args:
            weights: how often each value was seen; once where it is ``None``.
            size: how many independent values the weights stand for, their sum unless told.
        """
        found = np.asarray(values, np.float64).reshape(-1)
        counted = np.ones(found.size) if weights is None else np.asarray(weights, np.float64)
        there = ~np.isnan(found)
        if not there.all():
            found, counted = found[there], counted[there]
        order = np.argsort(found, kind="stable")
        cumulated = np.cumsum(counted[order])
        total = float(cumulated[-1]) if cumulated.size else 0.0
        return cls(found[order], cumulated, total if size is None else size)

    def shares_at(self, points: Floats) -> Floats:
        """The share of the sample at or below each of ``points``."""
        places = np.searchsorted(self.values, points, side="right")
        shares: Floats = np.concatenate([[0.0], self.cumulated])[places] / self.cumulated[-1]
        return shares


# -- on counts --------------------------------------------------------------------------------


def psi(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """The population stability index, Evidently's: natural logarithm, empty bins filled."""
    before, after = _filled(_shares(reference)), _filled(_shares(current))
    return float(np.sum((before - after) * np.log(before / after)))


def jensen_shannon(reference: npt.ArrayLike, current: npt.ArrayLike, *, base: float = 2.0) -> float:
    """The Jensen-Shannon *distance*, the square root of the divergence.

    ``base`` 2 is NannyML's, and the distance is then at most 1; ``math.e`` is Evidently's.
    """
    before, after = _shares(reference), _shares(current)
    middle = (before + after) / 2
    divergence = (_relative_entropy(before, middle) + _relative_entropy(after, middle)) / 2
    return math.sqrt(max(divergence, 0.0) / math.log(base))


def chance(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """The p-value of counts that may be few: Pearson's, with sparse bins taken together.

    A bin is sparse where less than ``EXPECTED`` values of the smaller side are expected in it: one
    value in a bin of the reference's tail would else be proof.
    """
    table = np.array([_counts(reference), _counts(current)])
    sizes = table.sum(axis=1)
    sparse = table.sum(axis=0) * (sizes.min() / sizes.sum()) < EXPECTED
    table = np.column_stack([table[:, ~sparse], table[:, sparse].sum(axis=1)])
    return chi_square(table[0], table[1])[1]


def chi_square(reference: npt.ArrayLike, current: npt.ArrayLike) -> tuple[float, float]:
    """Pearson's test that both were drawn alike, and its p-value.

    As ``scipy.stats.chi2_contingency(..., correction=False)``, and NannyML's: the reference is a
    sample too. Categories that neither has seen are left out.
    """
    table = np.array([_counts(reference), _counts(current)])
    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return statistic, chi_square_tail(statistic, table.shape[1] - 1)


def chi_square_fit(reference: npt.ArrayLike, current: npt.ArrayLike) -> tuple[float, float]:
    """Pearson's test that ``current`` has the shares of ``reference``, and its p-value.

    As ``scipy.stats.chisquare``, and Evidently's: the reference's shares are taken for the truth.
    Of a category that it has not seen, a single one is proof: the statistic is infinite.
    """
    before, after = _counts(reference), _counts(current)
    either = (before > 0) | (after > 0)
    expected, after = before[either] * (after.sum() / before.sum()), after[either]
    with np.errstate(divide="ignore"):
        statistic = float(np.sum((after - expected) ** 2 / expected))
    return statistic, chi_square_tail(statistic, int(either.sum()) - 1)


class Apart:
    """How far the cumulative distributions of two samples are apart, at each of their values.

    What the tests of samples have in common, so that several of them cost little more than one.
    """

    def __init__(self, reference: Sample, current: Sample) -> None:
        self._sizes: Final = reference.size, current.size
        self._points: Final = np.sort(
            np.concatenate([reference.values, current.values]), kind="stable"
        )
        self._apart: Final = np.abs(
            reference.shares_at(self._points) - current.shares_at(self._points)
        )

    def kolmogorov_smirnov(self, method: str) -> tuple[float, float]:
        """See ``kolmogorov_smirnov``."""
        statistic = float(self._apart.max())
        return statistic, kolmogorov_smirnov_tail(statistic, *self._sizes, method)

    def wasserstein(self) -> float:
        """See ``wasserstein``."""
        return float(np.sum(self._apart[:-1] * np.diff(self._points)))


# -- on samples -------------------------------------------------------------------------------


def kolmogorov_smirnov(
    reference: Sample, current: Sample, *, method: str = "auto"
) -> tuple[float, float]:
    """The largest difference of both cumulative distributions, and its two-sided p-value.

    As ``scipy.stats.ks_2samp``. ``method`` is scipy's: ``"exact"``, ``"asymp"``, or ``"auto"``:
    exact while no sample has more than 10,000 values. The exact one takes time by the product of
    both sizes; samples with weights have the asymptotic one.
    """
    return Apart(reference, current).kolmogorov_smirnov(method)


def wasserstein(reference: Sample, current: Sample) -> float:
    """The first Wasserstein distance, in the values' own unit, as scipy's."""
    return Apart(reference, current).wasserstein()


def wasserstein_over_deviation(reference: Sample, current: Sample, deviation: float) -> float:
    """The same over the reference's standard deviation, as Evidently's."""
    return over_deviation(wasserstein(reference, current), deviation)


def over_deviation(distance: float, deviation: float) -> float:
    """A distance over the reference's standard deviation, which counts as 0.001 at least."""
    return distance / max(deviation, LEAST_DEVIATION)


# -- parts ------------------------------------------------------------------------------------


def _counts(counts: npt.ArrayLike) -> Floats:
    found = np.asarray(counts, np.float64)
    if not found.sum() > 0:
        raise ValueError("expected counts of at least one value, got none")
    return found


def _shares(counts: npt.ArrayLike) -> Floats:
    found = _counts(counts)
    shares: Floats = found / found.sum()
    return shares


def _filled(shares: Floats) -> Floats:
    empty = shares == 0
    if not empty.any():
        return shares
    least = float(shares[~empty].min())
    return np.where(empty, least / EMPTY_PART if least <= EMPTY_SHARE else EMPTY_SHARE, shares)


def _relative_entropy(of: Floats, to: Floats) -> float:
    there = of > 0
    return float(np.sum(of[there] * np.log(of[there] / to[there])))
