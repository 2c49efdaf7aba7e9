"""BYTES tensors in binary form: each element is a 4-byte little-endian length, then its bytes."""

import math
from struct import Struct

import numpy as np

from gateway.errors import InvalidTensor
from gateway.types import Array

_LENGTH = Struct("<I")


def bytes_tensor_from_binary(name: str, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
    """Return the object array of ``shape`` whose ``bytes`` elements ``data`` holds, copied.

    Raises ``InvalidTensor`` where a length points past the end or the count of elements differs
    from that of ``shape``. Never allocates more than ``data`` can fill.
    """
    elements: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        start = position + 4
        if start > end:
            raise InvalidTensor(
                f"input '{name}': element {len(elements)} has {end - position} bytes where its "
                "4-byte length should be"
            )
        (size,) = _LENGTH.unpack_from(data, position)
        position = start + size
        if position > end:
            raise InvalidTensor(
                f"input '{name}': element {len(elements)} claims {size} bytes, "
                f"but {end - start} are left"
            )
        elements.append(bytes(data[start:position]))
    expected = math.prod(shape)
    if len(elements) != expected:
        raise InvalidTensor(
            f"input '{name}': shape {list(shape)} holds {expected} elements, "
            f"but the binary data has {len(elements)}"
        )
    array = np.empty(expected, np.object_)
    array[:] = elements
    return array.reshape(shape)


def bytes_tensor_to_binary(values: Array) -> bytes:
    """Return the binary form of an object array of ``bytes`` and ``str`` (as UTF-8) elements."""
    parts: list[bytes] = []
    for value in values.flat:
        element = value.encode() if isinstance(value, str) else value
        parts += (_LENGTH.pack(len(element)), element)
    return b"".join(parts)
