"""System shared memory: POSIX objects that a client on this machine shares with the server.

The trust is the system's own: whoever may open the object may write to it at any time, also while
a request that names it is in flight, and may make it smaller. Objects are therefore read and
written through their descriptors and never mapped: a touched page that its owner has cut off would
end the whole process with SIGBUS, where a read merely comes back short.
"""

import os
import stat
from typing import Any, Final

from gateway.errors import Conflict, InvalidRequest, NotFound, RequestTooLarge

#: Where the system keeps POSIX shared memory objects.
_DIRECTORY: Final = "/dev/shm"


class _Region:
    """An open object and the stretch of it that was registered."""

    __slots__ = ("byte_size", "descriptor", "key", "offset")

    def __init__(self, key: str, offset: int, byte_size: int) -> None:
        self.key: Final = key
        self.offset: Final = offset
        self.byte_size: Final = byte_size
        self.descriptor: Final = _open(key)
        size = os.fstat(self.descriptor).st_size
        if offset + byte_size > size:
            self.close()
            raise InvalidRequest(
                f"shared memory '{key}' has {size} bytes; "
                f"{byte_size} from offset {offset} do not fit"
            )

    def read(self, offset: int, byte_size: int) -> memoryview:
        """A copy of ``byte_size`` bytes from ``offset`` of the stretch."""
        # Asked first, so that no memory is set aside for what is not there.
        self._check_size(offset + byte_size)
        data = memoryview(bytearray(byte_size))
        done = 0
        while done < byte_size:
            try:
                count = os.preadv(self.descriptor, [data[done:]], self.offset + offset + done)
            except OSError as error:
                raise self._failed("read", error) from None
            if not count:
                raise self._shrunk()
            done += count
        return data.toreadonly()

    def write(self, offset: int, data: memoryview) -> None:
        """Copy ``data`` to ``offset`` of the stretch."""
        # Writing past the end would make the object larger again.
        self._check_size(offset + len(data))
        done = 0
        while done < len(data):
            try:
                done += os.pwrite(self.descriptor, data[done:], self.offset + offset + done)
            except OSError as error:
                raise self._failed("written", error) from None

    def close(self) -> None:
        os.close(self.descriptor)

    def _check_size(self, end: int) -> None:
        if os.fstat(self.descriptor).st_size < self.offset + end:
            raise self._shrunk()

    def _shrunk(self) -> InvalidRequest:
        return InvalidRequest(f"shared memory '{self.key}' was made smaller than it was")

    def _failed(self, done: str, error: OSError) -> InvalidRequest:
        return InvalidRequest(f"shared memory '{self.key}' cannot be {done}: {error.strerror}")


class SharedMemoryRegions:
    """The registered regions by name; for the event loop's thread."""

    def __init__(self, max_read_bytes: int = 256 << 20) -> None:
        """Begin with no region; one read may copy ``max_read_bytes``."""
        self._max_read_bytes: Final = max_read_bytes
        self._regions: dict[str, _Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make ``byte_size`` bytes from ``offset`` of the object ``key`` known as ``name``.

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

        What was read from it stays valid.
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
        """Return a copy of ``byte_size`` bytes from ``offset`` of the region ``name``, read-only.

        Raises ``NotFound``, ``RequestTooLarge`` and ``InvalidRequest``.
        """
        region = self._stretch(name, offset, byte_size)
        if byte_size > self._max_read_bytes:
            raise RequestTooLarge(
                f"an input in shared memory may have {self._max_read_bytes} bytes, got "
                f"{byte_size}; --max-request-bytes raises the limit"
            )
        return region.read(offset, byte_size)

    def write(self, name: str, offset: int, byte_size: int, data: bytes | memoryview) -> None:
        """Copy ``data`` to ``offset`` of the region ``name``.

        Raises ``NotFound``, and ``InvalidRequest`` where ``data`` is larger than ``byte_size`` or
        the stretch is not within the region or no longer within its object; nothing is written
        then.
        """
        if len(data) > byte_size:
            raise InvalidRequest(
                f"the output has {len(data)} bytes, "
                f"but {byte_size} are set aside for it in shared memory region '{name}'"
            )
        self._stretch(name, offset, byte_size).write(offset, memoryview(data))

    def _stretch(self, name: str, offset: int, byte_size: int) -> _Region:
        """The region ``name``, if it has ``byte_size`` bytes from ``offset``."""
        region = self._find(name)
        if offset < 0 or byte_size < 0 or offset + byte_size > region.byte_size:
            raise InvalidRequest(
                f"shared memory region '{name}' has {region.byte_size} bytes; "
                f"{byte_size} from offset {offset} are not within it"
            )
        return region

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
