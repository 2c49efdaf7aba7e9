"""BYTES tensors in binary form, and the shape of any tensor that is not taken as it came."""

import math

import numpy as np

from gateway._native.bytes_tensor import decode_bytes_tensor
from gateway.errors import InvalidTensor
from gateway.types import Array


def bytes_tensor_from_binary(name: str, shape: tuple[int, ...], data: bytes | memoryview) -> Array:
    """Return the object array of ``shape`` whose ``bytes`` elements ``data`` holds, copied.

    Raises ``InvalidTensor`` where a length points past the end or the count of elements differs
    from that of ``shape``. Never allocates more than ``data`` can fill.
    """
    count = math.prod(shape)
    # Each element takes at least its length.
    if count > len(data) // 4:
        raise InvalidTensor(
            f"input '{name}': shape {list(shape)} holds {count} elements, "
            f"but {len(data)} bytes of binary data hold at most {len(data) // 4}"
        )
    array = np.empty(count, np.object_)
    try:
        array[:] = decode_bytes_tensor(data, count)
    except ValueError as error:
        raise InvalidTensor(f"input '{name}': the BYTES data is broken {error}") from None
    return shaped(name, array, shape)


def shaped(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    """Return ``array``, which has the right number of elements, with ``shape``.

    Raises ``InvalidTensor`` for a shape that no array can have: too many axes, or sizes beyond
    memory beside a 0.
    """
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise InvalidTensor(f"input '{name}': shape {list(shape)}: {error}") from None
