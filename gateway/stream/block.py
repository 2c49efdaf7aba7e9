"""What is published: the predictions of a batch, or of several small ones."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.stream.columns import Columns
from gateway.types import Array

Int64s = npt.NDArray[np.int64]

#: Bytes that a block takes beside its arrays, about.
OVERHEAD_BYTES = 1024


class Prediction(NamedTuple):
    """One request of a block: its rows of every tensor, as views.

    Attributes:
        id: the caller's id of the request, or one that the gateway gave it; unique enough to find
            the request by.
        first_row: the place of its first row among the rows of the block.
        request_row: the place of its first row in the request; 0 but for a slice of a long one.
        latency_ns: from its acceptance to the end of the run.
    """

    id: str
    first_row: int
    rows: int
    latency_ns: int
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    request_row: int = 0


class Block:
    """Predictions of one model version. Immutable, and shared by all who get it.

    A *prediction* is a row: a request of five rows brings five. Where a model takes no batches,
    each request is a row.

    Attributes:
        model, version: who made them.
        number: the place of the first row in the version's stream; rows that were sampled out or
            dropped have no number.
        at: when they were answered, Unix seconds.
        columns: what ``inputs`` and ``outputs`` hold.
        request_rows: rows of each request, in the order of the rows.
        latency_ns: of each request, from its acceptance to the end of the run.
        ids: of each request, ``""`` where the caller gave none; ``None`` where nobody wants them.
        loaded_ms: when the version was loaded, Unix milliseconds: the numbers began again then.
        event_ids: as ``ids``, but the ``Ce-Id`` header where a request had one.
        first_rows: of each request, the place of its first row here among all of the request's: a
            long one comes in slices; ``None`` where every request is whole.
        inputs, outputs: all rows of each published tensor by its name, the rows first. An input
            that the batch left out is missing.
        nbytes: memory that it takes.
    """

    __slots__ = (
        "at", "columns", "event_ids", "first_rows", "ids", "inputs", "latency_ns",
        "loaded_ms", "model", "nbytes", "number", "outputs", "request_rows", "rows", "version",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        version: str,
        columns: Columns,
        *,
        number: int,
        at: float,
        request_rows: Int64s,
        latency_ns: Int64s,
        ids: list[str] | None,
        event_ids: list[str] | None,
        inputs: dict[str, Array],
        outputs: dict[str, Array],
        first_rows: list[int] | None = None,
        loaded_ms: int = 0,
    ) -> None:
        self.model = model
        self.version = version
        self.columns = columns
        self.number = number
        self.at = at
        self.request_rows = request_rows
        self.latency_ns = latency_ns
        self.ids = ids
        self.event_ids = event_ids
        self.first_rows = first_rows
        self.loaded_ms = loaded_ms
        self.inputs = inputs
        self.outputs = outputs
        self.rows = int(request_rows.sum())
        self.nbytes = OVERHEAD_BYTES + sum(
            _size(array) for arrays in (inputs, outputs) for array in arrays.values()
        )

    def request_ids(self) -> list[str]:
        """The id of each request: the caller's, or else one that no other prediction has."""
        given = self.ids if self.ids is not None else [""] * len(self.request_rows)
        if all(given):
            return given
        made = f"{self.model}-{self.version}-{self.loaded_ms:x}"
        firsts = (np.cumsum(self.request_rows) - self.request_rows + self.number).tolist()
        return [id or f"{made}-{first}" for id, first in zip(given, firsts, strict=True)]

    def predictions(self) -> Iterator[Prediction]:
        """Its requests, one by one."""
        first = 0
        ids = self.request_ids()
        for place, rows in enumerate(self.request_rows.tolist()):
            end = first + rows
            yield Prediction(
                ids[place],
                first,
                rows,
                int(self.latency_ns[place]),
                {name: array[first:end] for name, array in self.inputs.items()},
                {name: array[first:end] for name, array in self.outputs.items()},
                self.first_rows[place] if self.first_rows is not None else 0,
            )
            first = end


def _size(array: Array) -> int:
    if array.dtype.hasobject:
        return sum(len(element) + 64 for element in array.flat)
    return array.nbytes
