"""Time, passed in: a decision takes ``now``, and tests use a clock that they move by hand."""

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in nanoseconds."""

    def __call__(self) -> int:
        """Nanoseconds since an arbitrary origin; never goes back."""


#: The clock of the running process (``CLOCK_MONOTONIC``), the one the native core reads too.
monotonic_ns: Clock = time.monotonic_ns


class ManualClock:
    """A clock for tests: stands still until it is told to move."""

    def __init__(self, now_ns: int = 0) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        """The time that was set, in nanoseconds."""
        return self.now_ns

    def advance(self, ns: int) -> None:
        """Move forward by ``ns`` nanoseconds; a negative step is refused with ``ValueError``."""
        if ns < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-ns} ns")
        self.now_ns += ns
