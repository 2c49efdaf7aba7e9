"""Work that gets what time the others leave over."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

#: How far threads in the background stand back; as ``nice`` counts.
BACKGROUND_NICENESS: Final = 15


def stand_back(niceness: int = BACKGROUND_NICENESS) -> None:
    """Have the calling thread get what time the others leave over, from now on."""
    # Linux takes the number of a thread here; lowering one's own priority is allowed.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


class Background:
    """One thread that stands back; a context manager that ends it.

    For work that seldom holds the GIL: whoever stands back with it has everybody stand back. The
    thread begins with the priority of the one that asks it for the first time, and can only lower
    it, so whatever threads its work starts stand back for ever.
    """

    def __init__(self) -> None:
        self._thread: Final = ThreadPoolExecutor(1, "background", stand_back)

    def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises; blocks."""
        return self._thread.submit(work).result()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()
