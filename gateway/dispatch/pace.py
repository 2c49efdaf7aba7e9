"""How much work beside the answers the process can afford."""

import os
import time
from typing import Final, NamedTuple

#: Busier than this, of one core, and the event loop's thread has none to spare.
LOOP_LIMIT: Final = 0.75
#: Busier than this, of all cores that it may use, and the process has none to spare.
PROCESS_LIMIT: Final = 0.9
#: A timer that is late by this much waited for a core, or for the loop.
LAG_LIMIT_S: Final = 0.01
#: Below this nothing is let through: a trickle would cost more than it tells.
LEAST: Final = 1 / 64


class Load(NamedTuple):
    """What a process had used at one moment, all in seconds.

    ``at_s`` is monotonic, ``loop_s`` and ``process_s`` the CPU time of the loop's thread and of all
    threads.
    """

    at_s: float
    loop_s: float
    process_s: float


def load_now() -> Load:
    """The load at this moment; to be called on the loop's thread."""
    return Load(time.monotonic(), time.thread_time(), time.process_time())


class Pace:
    """The share of the extra work that is let through: halved while busy, grown back by steps.

    Attributes:
        share: from 0 to 1.

    Args:
        cores: that the process may use; what the system says where ``None``.
    """

    def __init__(self, cores: int | None = None) -> None:
        self.share = 1.0
        self._cores: Final = cores or len(os.sched_getaffinity(0))
        self._last: Load | None = None

    def update(self, load: Load, due_s: float) -> None:
        """Decide anew from ``load``, at a moment that was to be ``due_s``, monotonic seconds."""
        last, self._last = self._last, load
        if last is None or load.at_s <= last.at_s:
            return
        span_s = load.at_s - last.at_s
        busy = (
            load.at_s - due_s > LAG_LIMIT_S
            or (load.loop_s - last.loop_s) / span_s > LOOP_LIMIT
            or (load.process_s - last.process_s) / span_s > PROCESS_LIMIT * self._cores
        )
        if busy:
            self.share = self.share / 2 if self.share > LEAST else 0.0
        else:
            self.share = min(self.share + 0.05, 1.0)
