"""How one output of two versions differs, over many pairs of answers to the same request."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.evidence.confidence import Floats, Moments, proportion_bounds
from gateway.evidence.histogram import Histogram
from gateway.evidence.output_bins import as_numbers, holds_scores
from gateway.types import Array, DataType

#: Elements of one lot of pairs that go into the distributions; of more, every n-th does.
_MOST_ELEMENTS: Final = 65_536
#: Squares of numbers beyond it are none: they count with the infinities.
_HUGE: Final = 1e150
_QUANTILES: Final = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike the pairs of a lot are, an element of each array for each pair.

    Attributes:
        agree: whether every value does.
        scored: whether the rows are scores, as a classifier's are.
        flips: whether a row's highest score is at another index.
        distance: 0 of equals to 1 of nothing in common, whatever the scale; 2 where shapes or
            what is not finite differ.
    """

    agree: npt.NDArray[np.bool_]
    scored: npt.NDArray[np.bool_]
    flips: npt.NDArray[np.bool_]
    distance: Floats


class Side:
    """The distribution of one version's values."""

    def __init__(self) -> None:
        self.moments = Moments()
        self.histogram = Histogram()
        self.not_finite = 0

    def add(self, values: Array) -> None:
        """Take in ``values``, numbers of any shape."""
        flat = values.reshape(-1)
        flat = flat[:: -(-flat.size // _MOST_ELEMENTS) or 1].astype(np.float64)
        finite = np.abs(flat) < _HUGE
        if not finite.all():
            self.not_finite += int(flat.size - np.count_nonzero(finite))
            flat = flat[finite]
        self.moments.add(flat)
        self.histogram.add(flat)

    @property
    def seen(self) -> int:
        """How many values went in."""
        return self.moments.count + self.not_finite

    def table(self) -> dict[str, Any]:
        """The distribution as JSON values."""
        seen = self.moments
        names = [f"p{round(share * 100)}" for share in _QUANTILES]
        return {
            "count": seen.count,
            "mean": seen.mean,
            "std": seen.variance**0.5,
            "min": seen.minimum if seen.count else 0.0,
            "max": seen.maximum if seen.count else 0.0,
            "not_finite": self.not_finite,
            **dict(zip(names, self.histogram.quantiles(*_QUANTILES), strict=True)),
        }


class OutputComparison:
    """Compares one output of the primary and the shadow.

    Two floats ``p`` and ``s`` agree if ``|p - s| <= absolute + relative * |p|``, or if both are the
    same infinity or not a number; integers, booleans and text must be equal. What is reported as a
    relative difference is relative to the larger of both. Arrays come with rows along axis 0.
    """

    def __init__(
        self, name: str, datatype: DataType | None, relative: float, absolute: float
    ) -> None:
        self.name = name
        self._pairs = self._agreeing = self._scored = self._flipped = 0
        self._datatype = datatype
        self._relative = relative
        self._absolute = absolute
        self._mismatched = 0
        self._not_finite = 0
        self._largest = 0.0
        self._largest_relative = 0.0
        self._mean_differences = Moments()
        self._primary, self._shadow = Side(), Side()

    def add(self, primary: list[Array], shadow: list[Array]) -> Likeness:
        """Compare pairs of arrays; those of like shapes are compared all at once."""
        if _alike(primary, shadow):
            # By far the most common, and worth a way of its own: whoever waits for the
            # interpreter waits less.
            found = self._compare(_stack(primary), _stack(shadow))
        else:
            found = self._add_by_shape(primary, shadow)
        self._pairs += len(primary)
        self._agreeing += int(np.count_nonzero(found.agree))
        self._scored += int(np.count_nonzero(found.scored))
        self._flipped += int(np.count_nonzero(found.flips))
        return found

    def _add_by_shape(self, primary: list[Array], shadow: list[Array]) -> Likeness:
        count = len(primary)
        agree, scored, flips = np.zeros((3, count), bool)
        found = Likeness(agree, scored, flips, np.full(count, 2.0))
        lots: dict[Any, list[int]] = {}
        for index, (mine, theirs) in enumerate(zip(primary, shadow, strict=True)):
            alike = mine.shape == theirs.shape and mine.dtype == theirs.dtype
            lots.setdefault((mine.shape, mine.dtype) if alike else None, []).append(index)
        for kind, lot in lots.items():
            if kind is None:
                self._mismatched += len(lot)
                continue
            likeness = self._compare(
                _stack([primary[index] for index in lot]), _stack([shadow[index] for index in lot])
            )
            found.agree[lot] = likeness.agree
            found.scored[lot] = likeness.scored
            found.flips[lot] = likeness.flips
            found.distance[lot] = likeness.distance
        return found

    def _compare(self, primary: Array, shadow: Array) -> Likeness:
        """Compare lots of one shape; axis 0 is the pair."""
        if primary.dtype.hasobject:
            return _compare_texts(primary, shadow)
        primary = as_numbers(primary, self._datatype)
        shadow = as_numbers(shadow, self._datatype)
        self._primary.add(primary)
        self._shadow.add(shadow)
        count = primary.shape[0]
        scored, flips = np.zeros((2, count), bool)
        if primary.ndim > 2 and primary.size and holds_scores(primary[0]):
            rows = (*primary.shape[:2], -1)
            mine, theirs = primary.reshape(rows).argmax(axis=2), shadow.reshape(rows).argmax(axis=2)
            scored, flips = np.ones(count, bool), (mine != theirs).any(axis=1)
        agree, distance = self._measure(
            primary.reshape(count, -1).astype(np.float64),
            shadow.reshape(count, -1).astype(np.float64),
            exact=primary.dtype.kind != "f",
        )
        return Likeness(agree, scored, flips, distance)

    def _measure(
        self, mine: Floats, theirs: Floats, *, exact: bool
    ) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Agreement and distance of each pair of ``[pair, element]``."""
        with np.errstate(invalid="ignore", over="ignore"):
            same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
            apart = np.where(same, 0.0, np.abs(mine - theirs))
            finite = apart < _HUGE
            within = apart <= self._absolute + self._relative * np.abs(mine)
        agree = (same if exact else same | (within & finite)).all(axis=1)
        broken = ~finite.all(axis=1)
        apart = np.where(finite, apart, 0.0)
        larger = np.maximum(np.abs(mine), np.abs(theirs))
        size = _magnitude(mine) + _magnitude(theirs)
        relative = np.divide(apart, larger, out=np.zeros_like(apart), where=apart > 0)
        self._not_finite += int(np.count_nonzero(broken))
        self._largest = max(self._largest, float(apart.max(initial=0.0)))
        self._largest_relative = max(self._largest_relative, float(relative.max(initial=0.0)))
        if mine.shape[1]:
            self._mean_differences.add(apart.mean(axis=1)[~broken])
        sums, sizes = apart.sum(axis=1), size.sum(axis=1)
        distance = np.divide(sums, sizes, out=np.zeros_like(sums), where=sums > 0)
        return agree, np.where(broken, 2.0, distance)

    def table(self, alpha: float) -> dict[str, Any]:
        """The comparison as JSON values; each interval by itself is of level ``alpha``."""
        table: dict[str, Any] = {
            "output": self.name,
            "pairs": self._pairs,
            "agreement": share_table(self._agreeing, self._pairs, alpha),
            "shape_mismatches": self._mismatched,
        }
        if self._scored:
            table["argmax_flips"] = share_table(self._flipped, self._scored, alpha)
        mine, theirs = self._primary, self._shadow
        if mine.seen or theirs.seen:
            table |= {
                "not_finite_mismatches": self._not_finite,
                "max_absolute_difference": self._largest,
                "max_relative_difference": self._largest_relative,
                "mean_absolute_difference": mean_table(self._mean_differences, alpha, least=0.0),
                "distribution": {
                    "primary": mine.table(),
                    "shadow": theirs.table(),
                    "kolmogorov_smirnov": mine.histogram.kolmogorov_smirnov(theirs.histogram),
                    "jensen_shannon_bits": mine.histogram.jensen_shannon(theirs.histogram),
                },
            }
        return table


def _alike(primary: list[Array], shadow: list[Array]) -> bool:
    """Whether all arrays have one shape and data type."""
    shape, dtype = primary[0].shape, primary[0].dtype
    return all(
        array.shape == shape and array.dtype is dtype
        for side in (primary, shadow)
        for array in side
    )


def _stack(arrays: list[Array]) -> Array:
    """``np.stack`` of arrays of one shape, several times as fast for many small ones."""
    shape = arrays[0].shape
    return np.concatenate(arrays).reshape(len(arrays), *shape) if shape else np.stack(arrays)


def _magnitude(values: Floats) -> Floats:
    """Sizes that can be summed; 0 of what is not finite."""
    return np.where(np.isfinite(values), np.minimum(np.abs(values), _HUGE), 0.0)


def share_table(hits: int, trials: int, alpha: float) -> dict[str, Any]:
    """A share and the interval that it surely lies in."""
    low, high = proportion_bounds(hits, trials, alpha)
    share = hits / trials if trials else 0.0
    return {"count": hits, "of": trials, "share": share, "low": float(low), "high": float(high)}


def mean_table(seen: Moments, alpha: float, least: float = -math.inf) -> dict[str, Any]:
    """A mean that is no less than ``least``, and its interval, ``None`` until there is one."""
    low, high = seen.bounds(alpha) if seen.count > 1 else (None, None)
    return {"mean": seen.mean, "low": low if low is None else max(low, least), "high": high}


def _compare_texts(primary: Array, shadow: Array) -> Likeness:
    """Text is equal or not; bytes and str of one content are equal."""
    count = primary.shape[0]
    same = np.array(
        [
            [_bytes(a) == _bytes(b) for a, b in zip(mine, theirs, strict=True)]
            for mine, theirs in zip(
                primary.reshape(count, -1).tolist(), shadow.reshape(count, -1).tolist(), strict=True
            )
        ],
        bool,
    ).reshape(count, -1)
    unequal = np.count_nonzero(~same, axis=1) / max(same.shape[1], 1)
    no = np.zeros(count, bool)
    return Likeness(unequal == 0, no, no, unequal)


def _bytes(element: bytes | str) -> bytes:
    return element.encode("utf-8", "surrogateescape") if isinstance(element, str) else element
