"""How much memory this process has, how much more it can get, and that it gives back the rest."""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

_STATM: Final = Path("/proc/self/statm")

#: glibc's number of the option, and what it is set to. Left to itself glibc raises the threshold to
#: the largest block that was freed, up to 32 MiB, and cuts later ones out of the heap of whichever
#: thread asks, where what is freed stays: over loads and unloads of 25 MB memory grew by 200 MB.
_M_MMAP_THRESHOLD: Final = -3
LARGE_BLOCK_BYTES: Final = 4 << 20

#: Seconds between two times that freed memory is given back.
PAUSE_S: Final = 2.0

#: Bytes that are left to everybody else: the requests in flight, the system.
RESERVE_BYTES: Final = 64 << 20


def resident_bytes() -> int:
    """Resident memory of the whole process in bytes; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def available_bytes(root: Path = Path("/")) -> int | None:
    """Host memory that the process can still get, less ``RESERVE_BYTES``; never below 0.

    The least of what the machine has available without swapping and what each control group around
    the process (version 2 or 1) leaves of its limit. Cached files that a group would give up
    first do not count as used.

    Args:
        root: where the system's files are; another place for tests.

    Returns:
        bytes; ``None`` where the system tells none of these figures.
    """
    figures = [*_machine(root), *_control_groups(root)]
    return max(0, min(figures) - RESERVE_BYTES) if figures else None


def _machine(root: Path) -> Iterator[int]:
    meminfo = _fields(root / "proc/meminfo", ":")
    if "MemAvailable" in meminfo:
        yield meminfo["MemAvailable"] * 1024


def _control_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for group in _around(mounts, path):
                yield from _left(group, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for group in _around(mounts / "memory", path):
                yield from _left(
                    group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
                )


def _around(mount: Path, path: str) -> Iterator[Path]:
    """The group at ``path`` and all that it lies in.

    Inside a container the path may be the host's, while the mount shows the container's own group
    as the outermost: what is not there is passed over.
    """
    inner = PurePosixPath(path.lstrip("/"))
    for group in (inner, *inner.parents) if inner.parts else (inner,):
        yield mount / group


def _left(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    """What one group leaves of its limit; nothing where it has none."""
    try:
        most, used = int((group / limit).read_text()), int((group / usage).read_text())
    except (OSError, ValueError):
        # "max" is no number: there is no limit.
        return
    yield max(0, most - used + _fields(group / "memory.stat", None).get(cache, 0))


def _fields(file: Path, separator: str | None) -> dict[str, int]:
    """The numbers of a file of lines of a name, ``separator`` and a number."""
    try:
        pairs = [line.split(separator, 1) for line in file.read_text().splitlines()]
        return {name: int(value.split()[0]) for name, value in pairs if value.split()}
    except (OSError, ValueError):
        return {}


def give_back_large_blocks() -> None:
    """From now on a freed block of ``LARGE_BLOCK_BYTES`` goes back to the system, where it can."""
    mallopt = _allocator("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def give_back_free_memory() -> None:
    """Return to the system what was freed in smaller blocks, where it can; takes milliseconds."""
    trim = _allocator("malloc_trim")
    if trim is not None:
        trim(0)


class FreeMemory:
    """Gives back what unloads have freed, at most once in ``PAUSE_S``.

    While it is given back nobody gets memory, so whoever is answered meanwhile waits a few
    milliseconds. For the event loop's thread; the work is done on another one.

    Args:
        loop: where it is put off.
        give_back: what is done; ``give_back_free_memory`` unless a test asks for another.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        give_back: Callable[[], None] = give_back_free_memory,
    ) -> None:
        self._loop = loop
        self._give_back = give_back
        self._resting: asyncio.TimerHandle | None = None
        self._wanted = False

    def freed(self) -> None:
        """Something was unloaded: give it back now, or once the pause is over."""
        if self._resting is not None:
            self._wanted = True
            return
        self._resting = self._loop.call_later(PAUSE_S, self._rested)
        self._loop.run_in_executor(None, self._give_back)

    def _rested(self) -> None:
        self._resting = None
        if self._wanted:
            self._wanted = False
            self.freed()

    def close(self) -> None:
        """Nothing more is given back."""
        if self._resting is not None:
            self._resting.cancel()


def _allocator(function: str) -> Any:
    """A function of glibc's allocator; ``None`` where the C library is another one."""
    try:
        return getattr(ctypes.CDLL(None), function, None)
    except OSError:
        return None
