"""Reads an ``.onnx`` file without its weights.

Parsing a whole model holds the GIL for as long as its weights take to copy, which live traffic
feels when a version of hundreds of megabytes is loaded beside it, and doubles the memory for a
moment. Nearly all of a model is the payload of ``GraphProto.initializer``, so the file is mapped,
its fields are walked, and only what describes the model is handed to the protobuf parser.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

import onnx

from gateway.errors import LoadError

_GRAPH = 7  # ModelProto.graph
_INITIALIZER = 5  # GraphProto.initializer
#: TensorProto's dims, data_type, name, external_data, data_location; all else is payload.
_TENSOR_HEAD = frozenset((1, 2, 8, 13, 14))

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def skim(path: Path) -> onnx.ModelProto:
    """The model with every initializer of its main graph reduced to name, type and dimensions.

    Raises:
        LoadError: the file cannot be read, or is not an ONNX model.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise LoadError(f"{path} is empty, not an ONNX model")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                model = onnx.ModelProto.FromString(_model(data))
    except LoadError:
        raise
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:
        # Our own walk and protobuf's parser (whose class differs by implementation) alike.
        raise LoadError(f"{path} is not an ONNX model, or is damaged: {error}") from error
    if not model.HasField("graph"):
        raise LoadError(f"{path} is not an ONNX model: it holds no graph")
    return model


def _model(data: mmap.mmap) -> bytes:
    kept = bytearray()
    for number, wire, tag, start, end in _fields(data, 0, len(data)):
        if number == _GRAPH and wire == _LENGTH:
            _append(kept, _GRAPH, _graph(data, start, end))
        else:
            kept += data[tag:end]
    return bytes(kept)


def _graph(data: mmap.mmap, start: int, end: int) -> bytes:
    kept = bytearray()
    for number, wire, tag, inside, after in _fields(data, start, end):
        if number == _INITIALIZER and wire == _LENGTH:
            head = b"".join(
                data[tensor_tag:tensor_end]
                for field, _, tensor_tag, _, tensor_end in _fields(data, inside, after)
                if field in _TENSOR_HEAD
            )
            _append(kept, _INITIALIZER, head)
        else:
            kept += data[tag:after]
    return bytes(kept)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Every field of a message: number, wire type, and where tag, value and field end lie."""
    position = start
    while position < end:
        tag = position
        key, position = _varint(data, position, end)
        number, wire = key >> 3, key & 7
        value = position
        if wire == _VARINT:
            _, position = _varint(data, position, end)
        elif wire == _FIXED64:
            position += 8
        elif wire == _FIXED32:
            position += 4
        elif wire == _LENGTH:
            length, value = _varint(data, position, end)
            position = value + length
        else:
            raise ValueError(f"wire type {wire} at byte {tag}")
        if position > end:
            raise ValueError(f"the field at byte {tag} ends beyond byte {end}")
        yield number, wire, tag, value, position


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"no integer ends at byte {position}")


def _append(kept: bytearray, number: int, payload: bytes) -> None:
    kept.append(number << 3 | _LENGTH)
    length = len(payload)
    while length >= 0x80:
        kept.append(length & 0x7F | 0x80)
        length >>= 7
    kept.append(length)
    kept += payload
