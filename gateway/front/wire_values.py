"""Tensor values as JSON: parsed lists to tensor bytes, arrays to JSON text.

Numbers are checked, never coerced: 300 for UINT8, 1.5 for INT32, a string or a boolean for FP32
are errors that name the element. FP16 and BF16 exist on the wire only as binary data.

``NaN``, ``Infinity`` and ``-Infinity`` are written as those bare tokens, as Triton writes them and
as its client and Python's ``json`` read them. Strict JSON has no such numbers; ``null`` would lose
them silently, and a reader that is strict fails loudly and can ask for binary data.
"""

import math
from array import array
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson

from gateway.errors import InvalidTensor
from gateway.front.json_document import shown
from gateway.front.wire_binary import shaped
from gateway.types import BOOL, BYTES, Array, DataType

#: ``array`` type code by data type: it converts a list of numbers at C speed and refuses both
#: what is no number (``TypeError``) and what does not fit (``OverflowError``).
_TYPE_CODES: Final = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP32": "f", "FP64": "d",
}  # fmt: skip
_MAX_FP32: Final = float(np.finfo(np.float32).max)


def tensor_from_json(name: str, datatype: DataType, shape: tuple[int, ...], data: Any) -> Array:
    """Return the C-contiguous array of ``shape`` and ``datatype.numpy`` that ``data`` spells.

    ``data`` is a parsed JSON list, flat or nested in any way, in row-major order; a bare value
    stands for a tensor of one element. BYTES elements stay what they are, ``str`` or, once
    the caller has decoded them, ``bytes``. Raises ``InvalidTensor``.
    """
    values = _flatten(data) if type(data) is list else [data]
    expected = math.prod(shape)
    if len(values) != expected:
        raise InvalidTensor(
            f"input '{name}': shape {list(shape)} holds {expected} elements, "
            f"but 'data' has {len(values)}"
        )
    return shaped(name, _convert(name, datatype, values), shape)


def _flatten(data: list[Any]) -> list[Any]:
    while data and type(data[0]) is list and all(type(row) is list for row in data):
        data = list(chain.from_iterable(data))
    if list not in set(map(type, data)):
        return data
    return list(_leaves(data))


def _leaves(data: list[Any]) -> Iterator[Any]:
    """The values of a ragged nesting, in order; its depth is bounded by the document's."""
    for item in data:
        if type(item) is list:
            yield from _leaves(item)
        else:
            yield item


def _convert(name: str, datatype: DataType, values: list[Any]) -> Array:
    kinds = set(map(type, values))
    if datatype is BYTES:
        if not kinds <= {str, bytes}:
            raise _element_error(name, datatype, values)
        array_of_objects = np.empty(len(values), np.object_)
        array_of_objects[:] = values
        return array_of_objects
    if datatype is BOOL:
        if not kinds <= {bool, int} or not all(value in (0, 1) for value in values):
            raise _element_error(name, datatype, values)
        return np.array(values, np.bool_)
    code = _TYPE_CODES.get(datatype.name)
    if code is None:
        raise InvalidTensor(
            f"input '{name}': {datatype.name} has no JSON form; send it as binary data "
            "(parameters.binary_data_size and the Inference-Header-Content-Length header)"
        )
    if bool in kinds:
        raise _element_error(name, datatype, values)
    try:
        converted = np.frombuffer(array(code, values), datatype.numpy)
    except (TypeError, OverflowError):
        raise _element_error(name, datatype, values) from None
    # A double beyond float32 becomes infinity without an error.
    if code == "f" and not np.isfinite(converted).all() and any(map(_beyond_fp32, values)):
        raise _element_error(name, datatype, values)
    return converted


def _beyond_fp32(value: float) -> bool:
    return abs(value) > _MAX_FP32 and math.isfinite(value) and math.isinf(array("f", (value,))[0])


def _element_error(name: str, datatype: DataType, values: list[Any]) -> InvalidTensor:
    """The error for the first element of ``values`` that ``datatype`` cannot hold."""
    index, value = next(
        (index, value) for index, value in enumerate(values) if not _holds(datatype, value)
    )
    return InvalidTensor(
        f"input '{name}': element {index} is {shown(value)}, "
        f"but {datatype.name} takes {_domain(datatype)}"
    )


def _holds(datatype: DataType, value: Any) -> bool:
    if datatype is BYTES:
        return type(value) in (str, bytes)
    if datatype is BOOL:
        return type(value) in (bool, int) and value in (0, 1)
    if datatype.numpy.kind == "f":
        if type(value) is int:
            return abs(value) <= _MAX_FP32 or datatype.itemsize == 8
        return type(value) is float and (datatype.itemsize == 8 or not _beyond_fp32(value))
    limits = np.iinfo(datatype.numpy)
    return type(value) is int and limits.min <= value <= limits.max


def _domain(datatype: DataType) -> str:
    if datatype is BYTES:
        return "strings"
    if datatype is BOOL:
        return "true and false"
    if datatype.numpy.kind == "f":
        return f"numbers within {np.finfo(datatype.numpy).max:.7g} of zero"
    limits = np.iinfo(datatype.numpy)
    return f"integers from {limits.min} to {limits.max}"


def values_to_json(name: str, datatype: DataType, values: Array) -> Any:
    """Return what ``orjson.dumps(..., OPT_SERIALIZE_NUMPY)`` writes as the values of ``values``.

    ``values`` is C-contiguous, of any shape but a scalar; its nesting is kept. The result may be a
    view of it. Raises ``InvalidTensor`` for FP16 and BF16, and for BYTES that are not UTF-8.
    """
    if datatype is BYTES:
        return _strings(name, values).tolist()
    if datatype is not BOOL and datatype.name not in _TYPE_CODES:
        raise InvalidTensor(
            f"output '{name}': {datatype.name} has no JSON form; ask for it as binary data "
            '("parameters": {"binary_data": true})'
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return orjson.Fragment(_with_special_numbers(values))
    return values


def _with_special_numbers(values: Array) -> bytes:
    # orjson writes null for exactly the values that are not finite.
    pieces = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).split(b"null")
    special = values[~np.isfinite(values)]
    tokens = [
        b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"
        for value in special.tolist()
    ]
    return b"".join(chain.from_iterable(zip(pieces, [*tokens, b""], strict=True)))


def _strings(name: str, values: Array) -> Array:
    strings = np.empty(values.shape, np.object_)
    for index, value in enumerate(values.flat):
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                raise InvalidTensor(
                    f"output '{name}': element {index} is not valid UTF-8; ask for it as binary "
                    'data ("parameters": {"binary_data": true})'
                ) from None
        strings.flat[index] = value
    return strings
