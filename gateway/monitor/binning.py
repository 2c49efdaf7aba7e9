"""From raw windows to counts, each library in its own way.

For windows that lie whole in memory, and as the oracle of what the counters do online. Evidently's
bins are made of both windows, so that no counter can have them; NannyML's of the reference alone.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

#: Distinct values of the reference up to which Evidently takes a number for a category.
EVIDENTLY_FEW: Final = 20
#: NannyML does so up to so many, if they are also at most this share of the reference.
NANNYML_FEW: Final = 50
NANNYML_SHARE: Final = 0.1


def evidently_counts(reference: npt.ArrayLike, current: npt.ArrayLike) -> tuple[Counts, Counts]:
    """Both windows in Evidently's bins: Sturges' on both together, or every value there is."""
    before, after = _numbers(reference), _numbers(current)
    if len(np.unique(before)) <= EVIDENTLY_FEW:
        return category_counts(before, after)
    edges = np.histogram_bin_edges(np.concatenate([before, after]), bins="sturges")
    return np.histogram(before, edges)[0], np.histogram(after, edges)[0]


def nannyml_counts(reference: npt.ArrayLike, current: npt.ArrayLike) -> tuple[Counts, Counts]:
    """Both windows in NannyML's bins: Doane's on the reference, and one for all that is outside.

    A number of few values is a category, and what the reference has not seen is outside.
    """
    before, after = _numbers(reference), _numbers(current)
    values = np.unique(before)
    if len(values) > NANNYML_FEW or len(values) / len(before) > NANNYML_SHARE:
        edges = doane_edges(before)
        pair = np.histogram(before, edges)[0], np.histogram(after, edges)[0]
    else:
        pair = _counts_of(values, before), _counts_of(values, after)
    outside = [
        len(window) - counts.sum() for window, counts in zip((before, after), pair, strict=True)
    ]
    return np.append(pair[0], outside[0]), np.append(pair[1], outside[1])


def doane_edges(reference: Floats) -> Floats:
    """The edges of Doane's bins."""
    return np.histogram_bin_edges(reference, bins="doane")


def category_counts(reference: Any, current: Any) -> tuple[Counts, Counts]:
    """How often each value of either window is in each; numbers or text."""
    before, after = np.asarray(reference), np.asarray(current)
    values = np.unique(np.concatenate([before, after]))
    return _counts_of(values, before), _counts_of(values, after)


def _counts_of(values: Any, window: Any) -> Counts:
    """How often each of ``values``, which are ascending, is in ``window``."""
    found, counts = np.unique(window, return_counts=True)
    places = np.minimum(np.searchsorted(values, found), len(values) - 1)
    known = values[places] == found
    made = np.zeros(len(values), np.int64)
    made[places[known]] = counts[known]
    return made


def _numbers(window: npt.ArrayLike) -> Floats:
    """The window without what is missing."""
    numbers = np.asarray(window, np.float64).reshape(-1)
    return numbers[~np.isnan(numbers)]
