"""A histogram of any numbers in constant memory, with bins that are fixed beforehand."""

import numpy as np
import numpy.typing as npt

from gateway.types import Array

#: Bins an octave: quantiles are right to half a bin, some 2% of the value.
_PER_OCTAVE = 16
#: Magnitudes from 2**-40 to 2**60 have bins of their own; smaller ones count as 0.
_LEAST, _MOST = -40, 60
_SIDE = (_MOST - _LEAST) * _PER_OCTAVE
_EDGES = 2.0 ** (np.arange(_SIDE + 1) / _PER_OCTAVE + _LEAST)


class Histogram:
    """Counts numbers by sign and magnitude; takes 26 KB whatever it has seen.

    The bins are the same in every histogram, so that two of them can be compared.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros(2 * _SIDE + 1, np.int64)

    def add(self, values: Array) -> None:
        """Take in ``values``, finite numbers of any shape."""
        values = values.reshape(-1)
        magnitude = np.abs(values.astype(np.float64))
        with np.errstate(divide="ignore"):
            place = np.floor((np.log2(magnitude) - _LEAST) * _PER_OCTAVE)
        place = np.clip(place, -1, _SIDE - 1).astype(np.int64) + 1
        np.negative(place, out=place, where=values < 0)
        self.counts += np.bincount(place + _SIDE, minlength=self.counts.size)

    def quantiles(self, *shares: float) -> list[float]:
        """The values that so large shares of all are at or below; 0 of none."""
        if not self.counts.any():
            return [0.0] * len(shares)
        below = np.cumsum(self.counts)
        places = np.searchsorted(below, np.array(shares) * below[-1]) - _SIDE
        return [_value(int(place)) for place in places]

    def kolmogorov_smirnov(self, other: "Histogram") -> float:
        """Largest difference of both cumulative distributions, 0 to 1; 0 if one is empty."""
        mine, theirs = self._shares(), other._shares()
        if mine is None or theirs is None:
            return 0.0
        return float(np.abs(np.cumsum(mine) - np.cumsum(theirs)).max())

    def jensen_shannon(self, other: "Histogram") -> float:
        """Divergence of both distributions (J. Lin, 1991), 0 to 1 bits; 0 if one is empty."""
        mine, theirs = self._shares(), other._shares()
        if mine is None or theirs is None:
            return 0.0
        mean = (mine + theirs) / 2
        return float((_relative_entropy(mine, mean) + _relative_entropy(theirs, mean)) / 2)

    def _shares(self) -> npt.NDArray[np.float64] | None:
        total = int(self.counts.sum())
        return self.counts / total if total else None


def _value(place: int) -> float:
    """The middle of a bin, counted from that of 0."""
    if place == 0:
        return 0.0
    middle = float(np.sqrt(_EDGES[abs(place) - 1] * _EDGES[abs(place)]))
    return middle if place > 0 else -middle


def _relative_entropy(of: npt.NDArray[np.float64], to: npt.NDArray[np.float64]) -> float:
    there = of > 0
    return float((of[there] * np.log2(of[there] / to[there])).sum())
