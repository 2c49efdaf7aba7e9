"""Tells people which models are being loaded, and how far they are."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion

log = logging.getLogger(__name__)

#: Seconds between two lines about loads that still run: soon at first, rarer as they go on.
INTERVALS_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0)


class LoadProgress:
    """Logs a line about the running loads now and then, as long as there are any.

    Event loop's thread only.
    """

    def __init__(self) -> None:
        self._running: dict[ModelVersion, tuple[float, str]] = {}
        self._done = 0
        self._lines = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def track(self, entry: ModelVersion) -> Iterator[None]:
        """Count ``entry`` among the running loads for as long as the block runs."""
        self._running[entry] = (time.monotonic(), "")
        self._schedule()
        try:
            yield
        finally:
            del self._running[entry]
            self._done += 1
            if not self._running:
                self._rest()

    def phase(self, entry: ModelVersion, state: State, phase: str) -> None:
        """Note what a running load is at: its state, and the stage of it in a few words."""
        if entry not in self._running:
            return
        self._running[entry] = (self._running[entry][0], phase)
        if state is not entry.state:
            entry.move(state)
        entry.reason = phase

    def _schedule(self) -> None:
        if self._timer is None:
            delay_s = INTERVALS_S[min(self._lines, len(INTERVALS_S) - 1)]
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tell)

    def _tell(self) -> None:
        self._timer = None
        now = time.monotonic()
        for entry, (since, phase) in self._running.items():
            log.info(
                "%s is still loading after %.0f s%s (%d loaded before it)",
                entry.label,
                now - since,
                f": {phase}" if phase else "",
                self._done,
            )
        self._lines += 1
        self._schedule()

    def _rest(self) -> None:
        self._lines = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
