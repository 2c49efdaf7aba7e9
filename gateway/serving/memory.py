"""How much memory this process has, and that it gives back what it does not need."""

import ctypes
import os
from pathlib import Path
from typing import Any, Final

_STATM: Final = Path("/proc/self/statm")

#: glibc's number of the option, and what it is set to. Left to itself glibc raises the threshold to
#: the largest block that was freed, up to 32 MiB, and cuts later ones out of the heap of whichever
#: thread asks, where what is freed stays: over loads and unloads of 25 MB memory grew by 200 MB.
_M_MMAP_THRESHOLD: Final = -3
LARGE_BLOCK_BYTES: Final = 4 << 20


def resident_bytes() -> int:
    """Resident memory of the whole process in bytes; 0 where the system does not tell."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


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


def _allocator(function: str) -> Any:
    """A function of glibc's allocator; ``None`` where the C library is another one."""
    try:
        return getattr(ctypes.CDLL(None), function, None)
    except OSError:
        return None
