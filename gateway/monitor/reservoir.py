"""A bounded, even sample of all rows of a window."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt


class RowReservoir:
    """Keeps ``capacity`` rows, each of those offered with the same chance (Vitter's algorithm R).

    A row is asked for only once it has been chosen, so that what makes it (a projection, say) is
    not paid for the others. Not for several threads.

    Attributes:
        seen: rows offered so far.
    """

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self._capacity: Final = capacity
        self._random: Final = np.random.default_rng(seed)
        self._rows: npt.NDArray[Any] | None = None
        self.seen = 0

    def __len__(self) -> int:
        return min(self.seen, self._capacity)

    def choose(self, rows: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Offer ``rows`` rows: the places of those chosen, and where each is to be kept.

        No two are kept in one place. The chosen ones must be passed to ``keep``.
        """
        numbers = self.seen + np.arange(rows)
        self.seen += rows
        slots = numbers.copy()
        full = numbers >= self._capacity
        slots[full] = self._random.integers(0, numbers[full] + 1)
        chosen = np.flatnonzero(slots < self._capacity)
        # Of two rows for one slot the later one stays, as if they had come one by one.
        slots = slots[chosen]
        _, last = np.unique(slots[::-1], return_index=True)
        places = np.sort(len(slots) - 1 - last)
        return chosen[places], slots[places]

    def keep(self, slots: npt.NDArray[np.int64], rows: npt.NDArray[Any]) -> None:
        """Keep ``rows`` in ``slots``."""
        if self._rows is None:
            self._rows = np.zeros((self._capacity, *rows.shape[1:]), rows.dtype)
        self._rows[slots] = rows

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Offer ``rows`` themselves."""
        chosen, slots = self.choose(len(rows))
        if len(chosen):
            self.keep(slots, rows[chosen])

    @property
    def rows(self) -> npt.NDArray[Any]:
        """What is kept, as a view; of no rows an array of none."""
        if self._rows is None:
            return np.zeros((0, 0))
        return self._rows[: len(self)]

    def clear(self) -> None:
        """Begin anew; the memory stays."""
        self.seen = 0
