"""Predictions as JSON.

Numbers that are not finite become ``null``, BF16 becomes what it stands for, and bytes that are not
UTF-8 are written with escapes, as ``\\xff``.
"""

import time
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import orjson

from gateway.serving.samples import from_datatype
from gateway.stream.block import Block
from gateway.stream.columns import Column
from gateway.types import BYTES, Array

#: What orjson writes: an array of numbers, or lists of text.
Values: TypeAlias = Array | list[Any]

#: Rows that are encoded before the event loop is let in; one takes some microseconds.
STRIDE: Final = 16

JSON_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY


class Breather:
    """Leaves the interpreter to the event loop, should it wait, every so many rows.

    Else a thread keeps it for the whole switch interval, and who is to be answered waits as long.
    """

    def __init__(self) -> None:
        self._rows = 0

    def did(self, rows: int) -> None:
        """So many rows more are done."""
        self._rows += rows
        if self._rows >= STRIDE:
            self._rows = 0
            time.sleep(0)


def values_of(column: Column, array: Array) -> Values:
    """The elements of ``array`` as they are written, the rows first."""
    if column.datatype is BYTES:
        text: list[Any] = _text(array.tolist())
        return text
    return from_datatype(array, column.datatype)


def block_values(block: Block) -> tuple[dict[str, Values], dict[str, Values]]:
    """The inputs and the outputs of ``block`` by name, the rows first."""
    inputs = {c.name: values_of(c, block.inputs[c.name]) for c in present(block)}
    outputs = {c.name: values_of(c, block.outputs[c.name]) for c in block.columns.outputs}
    return inputs, outputs


def present(block: Block) -> list[Column]:
    """The columns of the inputs that the batch had."""
    return [column for column in block.columns.inputs if column.name in block.inputs]


def timestamp(at: float) -> str:
    """Unix seconds as RFC 3339 in UTC, microseconds included."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def text_of(element: str | bytes) -> str:
    """An element of a BYTES tensor as text."""
    return element if isinstance(element, str) else element.decode("utf-8", "backslashreplace")


def _text(elements: Any) -> Any:
    return [_text(e) for e in elements] if isinstance(elements, list) else text_of(elements)
