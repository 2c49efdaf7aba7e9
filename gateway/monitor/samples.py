"""A sample of the numbers of a window's step, for the tests that need values."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway._native.sketch_reservoir import Reservoir
from gateway.monitor.features import FeatureTable

#: Most bytes of the samples of all steps of a window; of wide models fewer rows are kept.
MOST_BYTES: Final = 16 << 20


class FeatureSamples:
    """A uniform sample of the rows of some features, which are numbers.

    Samples of several steps merge. For one thread; the loops run without the GIL.

    Args:
        names: of the features.
        rows: most rows of the sample.
        steps: how many such samples a window has; all of one size, so that they merge exactly.
        seed: differs between steps that are to be merged.
    """

    def __init__(self, names: Iterable[str], rows: int, steps: int, seed: int) -> None:
        self._names: Final = frozenset(names)
        fit = MOST_BYTES // max(8 * len(self._names) * steps, 1)
        self._rows: Final = max(min(rows, fit), 1)
        self._seed: Final = seed
        # By the place of a table: the columns that are sampled, and their rows.
        self._columns: dict[int, list[int]] = {}
        self._kept: dict[int, Reservoir] = {}
        self._places: dict[str, tuple[int, int]] = {}

    def add_tables(self, tables: list[FeatureTable]) -> None:
        """Offer the rows of what a layout has made of a block."""
        if not self._places and self._names:
            self._open(tables)
        for at, columns in self._columns.items():
            values = tables[at].values
            whole = len(columns) == values.shape[1]
            self._kept[at].add(values if whole else values[:, columns])

    def merge(self, other: "FeatureSamples") -> None:
        """Sample what ``other`` has sampled too."""
        for at, kept in other._kept.items():
            if at not in self._kept:
                self._kept[at] = Reservoir(self._rows, kept.columns, np.float64, self._seed)
            self._kept[at].merge(kept)
        self._columns = self._columns or other._columns
        self._places = self._places or other._places

    def clear(self) -> None:
        """Forget what was sampled."""
        for kept in self._kept.values():
            kept.clear()

    def values(self) -> dict[str, npt.NDArray[np.float64]]:
        """The sample of each feature."""
        rows = {at: kept.rows() for at, kept in self._kept.items()}
        return {name: rows[at][:, column] for name, (at, column) in self._places.items()}

    def _open(self, tables: list[FeatureTable]) -> None:
        for at, table in enumerate(tables):
            columns = [place for place, name in enumerate(table.names) if name in self._names]
            if columns:
                self._columns[at] = columns
                self._kept[at] = Reservoir(self._rows, len(columns), np.float64, self._seed)
            for place, column in enumerate(columns):
                self._places[table.names[column]] = (at, place)
