"""System shared memory: POSIX objects that a client on this machine shares with the server.

The trust is the system's own: whoever may open the object may write to it at any time, also while
a request that names it is in flight.
"""

import contextlib
import mmap
import os
import stat
from typing import Any, Final

from gateway.errors import Conflict, InvalidRequest, NotFound

#: Where the system keeps POSIX shared memory objects.
_DIRECTORY: Final = "/dev/shm"


class _Region:
    """A mapped object and the stretch of it that was registered."""

    __slots__ = ("byte_size", "key", "map", "offset")

    def __init__(self, key: str, offset: int, byte_size: int) -> None:
        self.key: Final = key
        self.offset: Final = offset
        self.byte_size: Final = byte_size
        descriptor = _open(key)
        try:
            size = os.fstat(descriptor).st_size
            if offset + byte_size > size:
                raise InvalidRequest(
                    f"shared memory '{key}' has {size} bytes; "
                    f"{byte_size} from offset {offset} do not fit"
                )
            self.map: Final = mmap.mmap(descriptor, size)
        except OSError as error:
            raise InvalidRequest(f"cannot map shared memory '{key}': {error.strerror}") from None
        finally:
            os.close(descriptor)

    def view(self) -> memoryview:
        """The registered stretch; its owner may have made the object smaller meanwhile."""
        end = self.offset + self.byte_size
        if self.map.size() < end:
            raise InvalidRequest(f"shared memory '{self.key}' was made smaller than it was")
        return memoryview(self.map)[self.offset : end]

    def close(self) -> None:
        # Requests in flight may still read it; the last of their views unmaps it then.
        with contextlib.suppress(BufferError):
            self.map.close()


class SharedMemoryRegions:
    """The registered regions by name; for the event loop's thread."""

    def __init__(self) -> None:
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Map ``byte_size`` bytes from ``offset`` of the object ``key`` as the region ``name``.

        Raises ``Conflict`` where the name is taken, and ``InvalidRequest`` where there is no such
        object, it may not be opened for reading and writing, or it is too small.
        """
        if not name:
            raise InvalidRequest("a shared memory region needs a name")
        if name in self._regions:
            raise Conflict(
                f"shared memory region '{name}' is registered already; unregister it first"
            )
        if offset < 0 or byte_size <= 0:
            raise InvalidRequest(
                "a shared memory region needs an offset of at least 0 and a byte_size above 0; "
                f"got {offset} and {byte_size}"
            )
        self._regions[name] = _Region(key, offset, byte_size)

    def unregister(self, name: str = "") -> None:
        """Forget the region ``name``, or all for ``""``; an unknown name is already forgotten.

        Views that were read from it stay valid.
        """
        names = [name] if name else list(self._regions)
        for each in names:
            region = self._regions.pop(each, None)
            if region is not None:
                region.close()

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """Name, key, offset and byte_size of one region, or of all for ``""``.

        Raises ``NotFound`` for an unknown name.
        """
        if name:
            self._find(name)
        return [
            {
                "name": each,
                "key": region.key,
                "offset": region.offset,
                "byte_size": region.byte_size,
            }
            for each, region in self._regions.items()
            if name in ("", each)
        ]

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """Return a view of ``byte_size`` bytes from ``offset`` of the region ``name``.

        The view stays valid after the region is unregistered. Raises ``NotFound`` and
        ``InvalidRequest``.
        """
        return self._stretch(name, offset, byte_size).toreadonly()

    def write(self, name: str, offset: int, byte_size: int, data: bytes | memoryview) -> None:
        """Copy ``data`` to ``offset`` of the region ``name``.

        Raises ``NotFound``, and ``InvalidRequest`` where ``data`` is larger than ``byte_size`` or
        the stretch is not within the region; nothing is written then.
        """
        if len(data) > byte_size:
            raise InvalidRequest(
                f"the output has {len(data)} bytes, "
                f"but {byte_size} are set aside for it in shared memory region '{name}'"
            )
        self._stretch(name, offset, byte_size)[: len(data)] = data

    def _stretch(self, name: str, offset: int, byte_size: int) -> memoryview:
        region = self._find(name)
        if offset < 0 or byte_size < 0 or offset + byte_size > region.byte_size:
            raise InvalidRequest(
                f"shared memory region '{name}' has {region.byte_size} bytes; "
                f"{byte_size} from offset {offset} are not within it"
            )
        return region.view()[offset : offset + byte_size]

    def _find(self, name: str) -> _Region:
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"there is no shared memory region '{name}'; register it first")
        return region


def _open(key: str) -> int:
    """Open the object ``key`` and nothing else: no path, no link, no device."""
    name = key.removeprefix("/")
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise InvalidRequest(
            f"{key!r} is not the key of a shared memory object: a name, with one '/' before it"
        )
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(f"{_DIRECTORY}/{name}", flags)
    except (OSError, UnicodeEncodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequest(f"cannot open shared memory '{key}': {reason}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidRequest(f"'{key}' is not a shared memory object")
    return descriptor
