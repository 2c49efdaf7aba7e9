"""How many rows a second a costly test may look at."""

from typing import Final

import numpy as np
import numpy.typing as npt


class Allowance:
    """A token bucket of rows. Not for several threads.

    What it passes of a block is spread evenly over the block, and what it holds back is counted:
    a test that sees every tenth row sees a change after ten times as many rows, but sees it.

    Args:
        per_second: rows a second; ``None`` for all.
        burst: rows that may come at once after a pause; a second's worth, and at least one, by
            default.

    Attributes:
        passed, held_back: rows so far.
    """

    def __init__(self, per_second: float | None, burst: float | None = None) -> None:
        self._per_second: Final = per_second
        self._most: Final = max(per_second or 0.0, 1.0) if burst is None else burst
        self._tokens = self._most
        self._at: float | None = None
        self.passed = 0
        self.held_back = 0

    def choose(self, rows: int, at: float) -> npt.NDArray[np.int64] | None:
        """The places of the rows that may be looked at, of ``rows`` at ``at`` (seconds).

        ``None`` for all. A clock that goes back adds nothing.
        """
        if self._per_second is None:
            self.passed += rows
            return None
        if self._at is not None and at > self._at:
            self._tokens = min(self._most, self._tokens + (at - self._at) * self._per_second)
        self._at = at if self._at is None else max(at, self._at)
        count = min(rows, int(self._tokens))
        self._tokens -= count
        self.passed += count
        self.held_back += rows - count
        if count == rows:
            return None
        return np.arange(count, dtype=np.int64) * rows // max(count, 1)
