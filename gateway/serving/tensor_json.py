"""Tensors in the protocol's JSON form, for files and reports.

Every data type has a form here. FP16 and BF16, which requests can only bring as binary data, are
numbers like FP32. What is not finite is written as the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``, which any JSON library carries; the bare tokens of a response that was pasted are
read as well.
"""

import math
from itertools import chain
from typing import Any, Final

import numpy as np

from gateway.errors import ConfigError, InvalidTensor
from gateway.serving.samples import from_datatype, to_datatype
from gateway.tables import wrong
from gateway.types import BF16, BOOL, BYTES, Array, DataType

_NOT_FINITE: Final = ("NaN", "Infinity", "-Infinity")
#: The largest number of each floating-point type by name.
_LARGEST: Final = {
    "FP16": float(np.finfo(np.float16).max),
    "BF16": float(from_datatype(np.array(0x7F7F, np.uint16), BF16)),
    "FP32": float(np.finfo(np.float32).max),
    "FP64": float(np.finfo(np.float64).max),
}


def tensor_document(name: str, datatype: DataType, array: Array) -> dict[str, Any]:
    """The tensor as plain JSON values, its elements copied, in row-major order.

    Args:
        array: of ``datatype.numpy``; BYTES elements are ``str`` or ``bytes``.

    Raises:
        InvalidTensor: a BYTES element is not UTF-8, which JSON cannot hold.
    """
    return {
        "name": name,
        "datatype": datatype.name,
        "shape": list(array.shape),
        "data": _elements(name, datatype, array),
    }


def _elements(name: str, datatype: DataType, array: Array) -> list[Any]:
    if datatype is BYTES:
        return [_text(name, index, element) for index, element in enumerate(array.flat)]
    if datatype.name not in _LARGEST:
        integers: list[Any] = array.reshape(-1).tolist()
        return integers
    values = from_datatype(array, datatype).reshape(-1)
    numbers: list[Any] = values.astype(np.float64).tolist()
    if np.isfinite(values).all():
        return numbers
    return [number if math.isfinite(number) else _spelled(number) for number in numbers]


def _text(name: str, index: int, element: str | bytes) -> str:
    try:
        return element.decode() if isinstance(element, bytes) else element
    except UnicodeDecodeError:
        raise InvalidTensor(
            f"tensor '{name}': element {index} is not UTF-8, so it has no JSON form"
        ) from None


def _spelled(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def array_from_json(where: str, datatype: DataType, shape: tuple[int, ...], data: Any) -> Array:
    """The C-contiguous array of ``shape`` and ``datatype.numpy`` that ``data`` spells.

    Args:
        where: where the data stands, for errors.
        data: a list, flat or nested in any way, in row-major order; a bare value is one element.

    Raises:
        ConfigError: too few or too many elements, or one that the data type cannot hold.
    """
    values: list[Any] = data if isinstance(data, list) else [data]
    while list in set(map(type, values)):
        values = list(
            chain.from_iterable(value if type(value) is list else (value,) for value in values)
        )
    if len(values) != math.prod(shape):
        raise ConfigError(
            f"{where} has {len(values)} elements, but the shape {list(shape)} holds"
            f" {math.prod(shape)}"
        )
    for index, value in enumerate(values):
        if not _holds(datatype, value):
            raise wrong(f"{where}[{index}]", f"{_domain(datatype)} for {datatype.name}", value)
    return _array(datatype, values).reshape(shape)


def _array(datatype: DataType, values: list[Any]) -> Array:
    if datatype is BYTES:
        elements = np.empty(len(values), object)
        elements[:] = values
        return elements
    if datatype.name not in _LARGEST:
        return np.array(values, datatype.numpy)
    return to_datatype(np.array([float(value) for value in values], np.float64), datatype)


def _holds(datatype: DataType, value: Any) -> bool:
    if datatype is BYTES:
        return type(value) is str
    if datatype is BOOL:
        return type(value) in (bool, int) and value in (0, 1)
    if datatype.name in _LARGEST:
        # Not by isfinite alone: it refuses a whole number that is too large for a float.
        if type(value) in (int, float) and abs(value) <= _LARGEST[datatype.name]:
            return True
        return value in _NOT_FINITE or (type(value) is float and not math.isfinite(value))
    limits = np.iinfo(datatype.numpy)
    return type(value) is int and limits.min <= value <= limits.max


def _domain(datatype: DataType) -> str:
    if datatype is BYTES:
        return "text"
    if datatype is BOOL:
        return "true or false"
    if datatype.name in _LARGEST:
        return f"a number within {_LARGEST[datatype.name]:.7g} of zero"
    limits = np.iinfo(datatype.numpy)
    return f"an integer from {limits.min} to {limits.max}"
