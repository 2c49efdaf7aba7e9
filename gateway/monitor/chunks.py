"""Some thousands of predictions of one version: as they grow, once they are full, as bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from gateway.monitor.labels import Float64s
from gateway.stream.block import Block
from gateway.types import Array

#: Requests and bytes at which a chunk is full.
_MOST_REQUESTS: Final = 4096
_MOST_BYTES: Final = 1 << 20

Int32s = npt.NDArray[np.int32]


@dataclass(slots=True)
class ChunkData:
    """What a chunk says.

    Attributes:
        ids: of each request.
        request_row: where in its request its first row here is.
        rows: how many rows it has here.
        at: when it was answered, Unix seconds.
        outputs: of all rows, by name; text as objects of ``str``.
        first: where the first row of each request is among all rows.
    """

    ids: list[str]
    request_row: Int32s
    rows: Int32s
    at: Float64s
    outputs: dict[str, Array]
    first: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.first = np.cumsum(self.rows) - self.rows

    def pack(self) -> bytes:
        """All of it as bytes."""
        columns: list[Any] = []
        raw: list[bytes] = []
        for name, array in self.outputs.items():
            if array.dtype.hasobject:
                columns.append([name, list(array.shape), array.reshape(-1).tolist()])
            else:
                columns.append([name, list(array.shape), array.dtype.str])
                raw.append(np.ascontiguousarray(array).tobytes())
        head = orjson.dumps([self.ids, columns])
        counts = (self.request_row, self.rows, self.at)
        return b"".join(
            (len(head).to_bytes(4, "little"), head, *(a.tobytes() for a in counts), *raw)
        )

    @classmethod
    def unpack(cls, body: bytes) -> "ChunkData":
        """What ``pack`` made bytes of."""
        start = 4 + int.from_bytes(body[:4], "little")
        ids, columns = orjson.loads(body[4:start])

        def read(dtype: Any, count: int) -> Array:
            nonlocal start
            array = np.frombuffer(body, dtype, count, start)
            start += array.nbytes
            return array

        count = len(ids)
        made = cls(ids, read(np.int32, count), read(np.int32, count), read(np.float64, count), {})
        for name, shape, form in columns:
            if isinstance(form, list):
                made.outputs[name] = np.array(form, object).reshape(shape)
            else:
                made.outputs[name] = read(np.dtype(form), int(np.prod(shape))).reshape(shape)
        return made


class Chunk:
    """A chunk that is full: where the hash of an id is among ``hashes``, its request is."""

    __slots__ = ("ended", "hashes", "number", "places", "rows", "version")

    def __init__(self, number: int, version: str, data: ChunkData) -> None:
        self.number: Final = number
        self.version: Final = version
        self.rows: Final = int(data.rows.sum())
        self.ended: Final = float(data.at[-1])
        hashes = hashes_of(data.ids)
        order = np.argsort(hashes, kind="stable")
        self.hashes: Final = hashes[order]
        self.places: Final = order.astype(np.uint32)

    def requests(self, begin: int) -> list[int]:
        """The places of requests with the hash that is first at ``begin``, the newest first."""
        end = begin + 1
        while end < len(self.hashes) and self.hashes[end] == self.hashes[begin]:
            end += 1
        found: list[int] = self.places[begin:end].tolist()
        return found[::-1]


class OpenChunk:
    """A chunk that grows."""

    def __init__(self, number: int, version: str) -> None:
        self.number: Final = number
        self.version: Final = version
        self.rows = 0
        self.ids: Final[list[str]] = []
        self.dirty = False
        self._nbytes = 0
        self._places: Final[dict[str, list[int]]] = {}
        self._request_row: Final[list[int]] = []
        self._rows: Final[list[int]] = []
        self._at: Final[list[float]] = []
        self._outputs: Final[list[dict[str, Array]]] = []
        self._data: ChunkData | None = None

    def append(self, block: Block, outputs: dict[str, Array]) -> None:
        """Add the requests of ``block``, of whose outputs ``outputs`` are kept."""
        for place, id in enumerate(block.request_ids(), len(self.ids)):
            self.ids.append(id)
            self._places.setdefault(id, []).append(place)
        self._request_row.extend(block.first_rows or [0] * len(block.request_rows))
        self._rows.extend(block.request_rows.tolist())
        self._at.extend([block.at] * len(block.request_rows))
        self._outputs.append(outputs)
        self._nbytes += sum(_nbytes(array) for array in outputs.values())
        self.rows += block.rows
        self._data = None
        self.dirty = True

    def fits(self, outputs: dict[str, Array], most_rows: int) -> bool:
        """Whether it has room, and outputs of this form may be added."""
        if not self._outputs:
            return True
        if len(self.ids) >= _MOST_REQUESTS or self._nbytes >= _MOST_BYTES or self.rows >= most_rows:
            return False
        same: bool = _form(self._outputs[0]) == _form(outputs)
        return same

    def data(self) -> ChunkData:
        """What it says by now."""
        if self._data is None:
            names = self._outputs[0]
            if len(self._outputs) > 1:
                whole = {n: np.concatenate([part[n] for part in self._outputs]) for n in names}
                self._outputs[:] = [whole]
            self._data = ChunkData(
                list(self.ids),
                np.array(self._request_row, np.int32),
                np.array(self._rows, np.int32),
                np.array(self._at, np.float64),
                self._outputs[0],
            )
        return self._data

    def requests(self, id: str) -> Iterator[int]:
        """The places of requests of that id, the newest first."""
        return reversed(self._places.get(id, ()))


def hashes_of(ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Python's own, which are this process's alone; two ids may share one."""
    return np.fromiter(map(hash, ids), np.int64, len(ids))


def _form(outputs: dict[str, Array]) -> Any:
    return [(name, array.dtype, array.shape[1:]) for name, array in outputs.items()]


def _nbytes(array: Array) -> int:
    if array.dtype.hasobject:
        return sum(len(element) + 64 for element in array.flat)
    return array.nbytes
