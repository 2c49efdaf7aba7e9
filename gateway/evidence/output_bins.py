"""What a model answers, as one of a few categories a row, so that shares can be compared."""

from collections import Counter
from enum import Enum, auto
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.types import BF16, Array, DataType

Counts: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

#: Most categories of an output, besides the two that hold the rest and what is not a number: each
#: of them costs a part of alpha.
MAX_CATEGORIES: Final = 32
#: Rows of the stable version that categories are made from, where they depend on values.
LEARN: Final = 200
_TENTHS: Final = np.arange(1, 10) / 10


class _Kind(Enum):
    """What a row says: an index of a highest score, a value, a number, or text."""

    SCORES = auto()
    VALUE = auto()
    NUMBER = auto()
    TEXT = auto()


class OutputBins:
    """Sorts the rows of one output into categories that are fixed before any row is counted.

    - floats of several scores a row: the index of the highest;
    - an integer, boolean or text a row, of few values: the value;
    - any other numbers: the tenth of the stable version's distribution that the row's mean is in.

    Where the categories depend on values (all but up to ``MAX_CATEGORIES`` scores), they are made
    from the stable version's first ``learn`` rows or a few more, and those are not counted: a row
    that is compared had no part in the choice. What fits no category counts as ``other``, rows
    with a NaN or an infinity as ``not finite``.

    Attributes:
        categories: their names, in the order of the counts; empty until they are fixed.
    """

    def __init__(self, datatype: DataType | None = None, learn: int = LEARN) -> None:
        self.categories: tuple[str, ...] = ()
        self._datatype = datatype
        self._learn = learn
        self._kind: _Kind | None = None
        self._rows: list[Floats] = []
        self._words: Counter[str] = Counter()
        # One of these sorts: values that are categories, ascending, or edges between categories.
        self._values: Floats | None = None
        self._edges: Floats | None = None
        self._places: dict[str, int] = {}

    def count(self, array: Array, candidate: bool) -> Counts | None:
        """Rows of ``array``, along its first axis, by category; ``None`` until these are fixed."""
        if array.size == 0:
            return None
        array = as_numbers(array, self._datatype)
        if self._kind is None:
            if candidate:
                return None
            self._kind = _kind_of(array)
            if self._kind is _Kind.SCORES and array[0].size <= MAX_CATEGORIES:
                self._fix_values(np.arange(array[0].size, dtype=np.float64))
        if self.categories:
            return np.bincount(self._places_of(array), minlength=len(self.categories))
        if not candidate:
            self._learn_from(array)
        return None

    def _places_of(self, array: Array) -> npt.NDArray[np.intp]:
        """Each row's category."""
        other, not_finite = len(self.categories) - 2, len(self.categories) - 1
        if array.dtype.hasobject is not (self._kind is _Kind.TEXT):
            return np.full(array.shape[0], other)
        if self._kind is _Kind.TEXT:
            return np.array([self._places.get(text, other) for text in _texts(array)], np.intp)
        numbers = self._numbers(array)
        if self._edges is not None:
            places = np.searchsorted(self._edges, numbers)
        else:
            assert self._values is not None
            places = np.minimum(np.searchsorted(self._values, numbers), self._values.size - 1)
            places[self._values[places] != numbers] = other
        places[np.isnan(numbers)] = not_finite
        return places

    def _numbers(self, array: Array) -> Floats:
        """Each row as the number that decides its category; NaN where it is not finite."""
        rows = array.reshape(array.shape[0], -1)
        numbers: Floats
        if self._kind is _Kind.SCORES:
            numbers = rows.argmax(axis=1).astype(np.float64)
        elif rows.shape[1] == 1:
            numbers = rows[:, 0].astype(np.float64)
        else:
            numbers = rows.mean(axis=1, dtype=np.float64)
        if rows.dtype.kind == "f":
            finite = np.isfinite(rows)
            if not finite.all():
                numbers[~finite.all(axis=1)] = np.nan
        return numbers

    def _learn_from(self, array: Array) -> None:
        if self._kind is _Kind.TEXT:
            self._words.update(_texts(array))
            if self._words.total() >= self._learn:
                self._fix_words()
            return
        self._rows.append(self._numbers(array))
        if sum(map(len, self._rows)) >= self._learn:
            numbers = np.concatenate(self._rows)
            self._rows = []
            self._fix_numbers(numbers[np.isfinite(numbers)])

    def _fix_numbers(self, numbers: Floats) -> None:
        values, counts = np.unique(numbers, return_counts=True)
        few = self._kind is _Kind.VALUE and 0 < values.size <= MAX_CATEGORIES
        if few or self._kind is _Kind.SCORES:
            often = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
            self._fix_values(np.sort(values[often]))
        else:
            # Ties make tenths fall together: then there are fewer.
            self._edges = np.unique(np.quantile(numbers, _TENTHS)) if numbers.size else numbers
            self._fix([f"<= {edge:.6g}" for edge in self._edges] + ["above"])

    def _fix_values(self, values: Floats) -> None:
        # One value at least, so that there is a place to look at.
        self._values = values if values.size else np.zeros(1)
        self._fix([f"{value:.15g}" for value in self._values])

    def _fix_words(self) -> None:
        names = [word for word, _ in self._words.most_common(MAX_CATEGORIES)]
        self._places = {name: place for place, name in enumerate(names)}
        self._words = Counter()
        self._fix(names)

    def _fix(self, names: list[str]) -> None:
        self.categories = (*names, "other", "not finite")


def as_numbers(array: Array, datatype: DataType | None) -> Array:
    """``array`` as numbers where it holds the bits of BF16; any other as it is."""
    if datatype is not BF16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def holds_scores(array: Array) -> bool:
    """Whether each row of ``array`` is one vector of floats, as a classifier's scores are."""
    sizes = array.shape[1:]
    return array.dtype.kind == "f" and max(sizes, default=1) > 1 and max(sizes) == array[0].size


def _kind_of(array: Array) -> _Kind:
    if array.dtype.hasobject:
        return _Kind.TEXT
    if holds_scores(array):
        return _Kind.SCORES
    return _Kind.VALUE if array.dtype.kind in "iub" and array[0].size == 1 else _Kind.NUMBER


def _texts(array: Array) -> list[str]:
    """Each row's text, its elements one after the other; BYTES elements are bytes or str."""
    rows = array.reshape(array.shape[0], -1).tolist()
    return [" ".join(map(_text, row)) for row in rows]


def _text(element: bytes | str) -> str:
    return element if isinstance(element, str) else element.decode("utf-8", "replace")
