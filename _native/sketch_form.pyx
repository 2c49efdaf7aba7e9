"""The form of sketches as bytes: a head that names kind and version, a checksum, the contents.

All integers and doubles are little-endian, 8 bytes each. What does not hold raises ``ValueError``:
a sketch is read from files and from other processes.
"""

import struct
import zlib

import numpy as np

_HEAD = struct.Struct("<4s4sHHI")
_MAGIC = b"OGSK"


def pack(kind, version, *parts):
    """The bytes of a sketch of ``kind``, four letters; ``parts`` are ints and arrays in order."""
    contents = b"".join(
        struct.pack("<q", part) if isinstance(part, int) else bytes(part) for part in parts
    )
    return _HEAD.pack(_MAGIC, kind, version, 0, zlib.crc32(contents)) + contents


class Reader:
    """Reads what ``pack`` wrote, in the same order.

    Raises ``ValueError`` where it is no sketch of that kind and version, or was changed or cut.
    """

    def __init__(self, data, kind, version):
        data = bytes(data)
        self._name = kind.decode()
        if len(data) < _HEAD.size or data[:4] != _MAGIC:
            raise self.wrong("it does not begin as a sketch does")
        _, found, its_version, _, checksum = _HEAD.unpack_from(data)
        if found != kind:
            raise self.wrong(f"it is of kind {found!r}")
        if its_version != version:
            raise self.wrong(f"it is of version {its_version}, this is version {version}")
        self._data = data
        self._at = _HEAD.size
        if zlib.crc32(memoryview(data)[self._at :]) != checksum:
            raise self.wrong("its checksum does not fit: it was changed or cut")

    def wrong(self, what):
        """The error to raise about the contents."""
        return ValueError(f"not a readable sketch of kind {self._name!r}: {what}")

    def check(self, holds, what):
        """Raise ``wrong(what)`` unless it ``holds``."""
        if not holds:
            raise self.wrong(what)

    def raw(self, size):
        """The next ``size`` bytes."""
        self.check(0 <= size <= len(self._data) - self._at, "it ends early")
        self._at += size
        return self._data[self._at - size : self._at]

    def integer(self, least, most):
        """The next integer, which is from ``least`` to ``most``."""
        (value,) = struct.unpack("<q", self.raw(8))
        self.check(least <= value <= most, f"{value} stands where {least} to {most} should")
        return value

    def integers(self, count):
        """The next ``count`` integers, none of them negative, as an array of ``int64``."""
        values = np.frombuffer(self.raw(8 * count), np.int64)
        self.check(not (values < 0).any(), "a count is negative")
        return values

    def words(self, count):
        """The next ``count`` integers without a sign, as an array of ``uint64``."""
        return np.frombuffer(self.raw(8 * count), np.uint64)

    def numbers(self, count):
        """The next ``count`` doubles, as an array."""
        return np.frombuffer(self.raw(8 * count), np.float64)

    def end(self):
        """There is nothing more."""
        self.check(self._at == len(self._data), "bytes are left at its end")
