"""What memory loaded versions take, and whether another one fits beside them."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from gateway.errors import LoadError
from gateway.serving.memory import available_bytes
from gateway.serving.onnx.graph import files_beside
from gateway.serving.registry import ModelVersion

log = logging.getLogger(__name__)

#: Versions that a refusal names, those that take most.
NAMED_AT_MOST: Final = 4


class MemoryBudget:
    """A ledger of the host memory that versions take or are about to. Event loop's thread only.

    A version takes the larger of what was measured while its sessions were opened and what its
    files hold, once for each session: measured alone would miss memory that the process had free
    before, and weights that are mapped and not yet read. Where several were loaded at the same time
    nobody can tell whose the memory is, and each takes what its files hold. The files count on the
    host for a model that runs on a GPU too, because its weights pass through host memory on their
    way; what it takes of the GPU's own memory is not in this ledger.
    """

    def __init__(
        self, limit_bytes: int = 0, available: Callable[[], int | None] = available_bytes
    ) -> None:
        """Keep the versions within ``limit_bytes`` together; 0 for no limit but the machine's.

        Args:
            available: bytes of memory that the process can still get; ``None`` where nobody can
                tell, and then nothing is refused for it.
        """
        self.limit_bytes: Final = limit_bytes
        self._available = available
        self._taken: dict[ModelVersion, int] = {}
        self._loading: set[ModelVersion] = set()

    def taken(self, entry: ModelVersion) -> int:
        """Bytes that stand for ``entry``; 0 where it is not loaded."""
        return self._taken.get(entry, 0)

    @property
    def total(self) -> int:
        """Bytes that stand for all versions, those that are being loaded included."""
        return sum(self._taken.values())

    def check(self, entry: ModelVersion, needed: int, leaving: Iterable[ModelVersion] = ()) -> None:
        """Raise unless ``entry`` fits with ``needed`` bytes, once ``leaving`` are unloaded.

        Raises:
            LoadError: it does not; the message has the figures.
        """
        gone = set(leaving)
        staying = {other: size for other, size in self._taken.items() if other not in gone}
        held = sum(staying.values())
        if self.limit_bytes and held + needed > self.limit_bytes:
            raise LoadError(
                f"{entry.label} does not fit into memory: it needs {_mb(needed)}, and of the "
                f"{_mb(self.limit_bytes)} that --memory-budget allows {_mb(held)} are taken"
                f"{_by_whom(staying)}. Raise --memory-budget, or {_MEND}"
            )
        available = self._available()
        if available is None:
            return
        freed = sum(self._taken.get(other, 0) for other in gone)
        # What is loaded is in the machine's figure already; what is being loaded comes on top.
        coming = {other: size for other, size in staying.items() if other in self._loading}
        promised = sum(coming.values())
        if promised + needed > available + freed:
            raise LoadError(
                f"{entry.label} does not fit into memory: it needs {_mb(needed)}, and of the "
                f"{_mb(available + freed)} that the machine has available {_mb(promised)} are "
                f"promised to other loads{_by_whom(coming)}; loaded versions take "
                f"{_mb(held - promised)}. Give the machine or the container more memory, or {_MEND}"
            )

    def reserve(self, entry: ModelVersion, needed: int) -> None:
        """Have ``needed`` bytes stand for ``entry``, which is about to be loaded.

        Raises:
            LoadError: as ``check``; nothing is reserved then.
        """
        self.check(entry, needed)
        self.hold(entry, needed)

    def hold(self, entry: ModelVersion, needed: int) -> None:
        """Reserve without a check: what served a moment ago is to serve again."""
        self._taken[entry] = needed
        self._loading.add(entry)

    def settle(self, entry: ModelVersion, actual: int) -> None:
        """``entry`` is loaded, and ``actual`` bytes were measured, 0 for unknown."""
        self._loading.discard(entry)
        self._taken[entry] = max(actual, self._taken.get(entry, 0))
        if self.limit_bytes and self.total > self.limit_bytes:
            log.warning(
                "%s takes %s, more than its files let expect: loaded versions take %s together, "
                "and --memory-budget allows %s",
                entry.label,
                _mb(self._taken[entry]),
                _mb(self.total),
                _mb(self.limit_bytes),
            )

    def release(self, entry: ModelVersion) -> None:
        """Nothing of ``entry`` is in memory any more."""
        self._loading.discard(entry)
        self._taken.pop(entry, None)


def estimate(path: Path, sessions: int) -> int:
    """Bytes that ``sessions`` sessions on the model file at ``path`` take at least; blocks.

    0 where the files cannot be read: what is wrong with them is told when they are loaded.
    """
    try:
        return sessions * sum(file.stat().st_size for file in (path, *files_beside(path)))
    except OSError:
        return 0


_MEND: Final = (
    'let the old version go first (swap_policy = "in_place" in model.toml), or keep fewer previous '
    "versions loaded (--keep-previous)"
)


def _by_whom(taken: dict[ModelVersion, int]) -> str:
    """Who takes most, for messages."""
    most = sorted(taken.items(), key=lambda item: -item[1])
    told = [f"{_mb(size)} by {entry.label}" for entry, size in most[:NAMED_AT_MOST]]
    if len(most) > NAMED_AT_MOST:
        told.append(f"the rest by {len(most) - NAMED_AT_MOST} others")
    return f" ({', '.join(told)})" if told else ""


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
