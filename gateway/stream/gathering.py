"""Small batches that are published together, as one block."""

from math import prod
from typing import Final

import numpy as np

from gateway._native.gatherer import Gatherer
from gateway.serving.lane import Batch
from gateway.serving.onnx.slot import Slot
from gateway.serving.signature import Signature, TensorSpec
from gateway.serving.slices import SlicePart
from gateway.stream.block import Int64s
from gateway.stream.columns import Column, Columns
from gateway.types import BYTES, Array

#: The header by which a caller names the CloudEvent that its request is.
EVENT_ID_HEADER: Final = b"ce-id"

#: Rows that are published at once at most, and the memory of them.
MOST_ROWS: Final = 2048
MOST_BYTES: Final = 256 << 10
#: Larger rows are copied once more for little: what a block costs by itself is less.
MOST_ROW_BYTES: Final = 8192


class Gathering:
    """Gathers the batches of one version until they are taken. For the event loop's thread.

    Making a block of every batch costs tens of microseconds, more than a short model takes to run
    it; adding one to those before it costs two.

    Attributes:
        wants_ids, wants_event_ids: what is kept of each request besides its rows; to be set while
            there are none.
        ids, event_ids, first_rows: as of a ``Block``, of each request.
    """

    def __init__(self, columns: Columns, row_bytes: list[int], specs: list[TensorSpec]) -> None:
        self._inputs: Final = [column.index for column in columns.inputs]
        self._outputs: Final = [column.index for column in columns.outputs]
        most = max(1, min(MOST_ROWS, MOST_BYTES // max(sum(row_bytes), 1)))
        self._arrays: Final[list[Array]] = [
            np.empty((most, *spec.shape[1:]), spec.datatype.numpy) for spec in specs
        ]
        self._table: Final = np.empty((most, 2), np.int64)
        self._gatherer: Final = Gatherer(
            [array.reshape(-1).view(np.uint8) for array in self._arrays],
            row_bytes,
            self._table,
            most,
        )
        self.wants_ids = False
        self.wants_event_ids = False
        self.ids: list[str] = []
        self.event_ids: list[str] = []
        self.first_rows: list[int] = []

    @property
    def rows(self) -> int:
        """Rows that it has."""
        return self._gatherer.rows

    @property
    def is_empty(self) -> bool:
        """Whether there is no request in it; one of no rows is one."""
        return not self._gatherer.requests

    def add(self, batch: Batch, slot: Slot, arrays: list[Array], ended_ns: int) -> bool:
        """Copy a batch; whether that was possible, see ``Gatherer``."""
        given = slot.inputs(batch)
        tensors = [given[i] for i in self._inputs] + [arrays[i] for i in self._outputs]
        if not self._gatherer.add(batch, tensors, ended_ns):
            return False
        if self.wants_ids:
            self.ids += [ticket.sink.request_id() for ticket in batch.tickets]
            self.first_rows += [first_row(ticket.sink) for ticket in batch.tickets]
        if self.wants_event_ids:
            self.event_ids += [event_id(ticket.sink) for ticket in batch.tickets]
        return True

    def requests(self) -> tuple[Int64s, Int64s]:
        """Rows of each request, and its latency in nanoseconds."""
        table = self._table[: self._gatherer.requests]
        return table[:, 0].copy(), table[:, 1].copy()

    def tensors(self) -> tuple[list[Array], list[Array]]:
        """All rows of the inputs and of the outputs, as views that are valid until ``clear``."""
        arrays = [array[: self._gatherer.rows] for array in self._arrays]
        return arrays[: len(self._inputs)], arrays[len(self._inputs) :]

    def clear(self) -> None:
        """Begin again with nothing."""
        self._gatherer.clear()
        self.ids, self.event_ids, self.first_rows = [], [], []


def first_row(sink: object) -> int:
    """Where the rows of a request's part begin among its own; 0 but for a slice."""
    return sink.first_row if type(sink) is SlicePart else 0


def event_id(sink: object) -> str:
    """The id of the event that a request is; ``""`` where it has none."""
    header: bytes | None = sink.header(EVENT_ID_HEADER)  # type: ignore[attr-defined]
    return "" if header is None else header.decode("latin-1")


def gathering_of(signature: Signature, columns: Columns) -> Gathering | None:
    """A gathering for a version's batches; ``None`` where they are better published one by one.

    That is where rows are large or differ in size, or have no place of their own in a tensor.
    """
    chosen: list[tuple[Column, TensorSpec]] = [
        *((column, signature.inputs[column.index]) for column in columns.inputs),
        *((column, signature.outputs[column.index]) for column in columns.outputs),
    ]
    specs = [spec for _, spec in chosen]
    if not specs or not all(_has_plain_rows(spec) for spec in specs):
        return None
    row_bytes = [prod(spec.shape[1:]) * spec.datatype.itemsize for spec in specs]
    if sum(row_bytes) > MOST_ROW_BYTES:
        return None
    return Gathering(columns, row_bytes, specs)


def _has_plain_rows(spec: TensorSpec) -> bool:
    return (
        spec.batch_axis == 0
        and spec.datatype is not BYTES
        and not spec.optional
        and min(spec.shape[1:], default=1) > 0
    )
