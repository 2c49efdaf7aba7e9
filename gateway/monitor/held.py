"""The predictions of one model that wait for their truth: the newest ones, in constant memory.

They are kept in *chunks* of a few thousand requests of one version. What is in memory of a chunk
that is full is twelve bytes a request, by which ids are found; its ids and outputs are on the disk.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.monitor.chunks import Chunk, ChunkData, OpenChunk, hashes_of
from gateway.monitor.labels import TOP_INDEX, TOP_VALUE, WIDEST
from gateway.serving.samples import from_datatype
from gateway.serving.settings import LabelSettings
from gateway.stream.block import Block
from gateway.stream.columns import Column
from gateway.types import BYTES, Array

#: Rows at which a chunk is full, as a part of all that are held.
_PART: Final = 8
#: Requests that are remembered to have been held, eight bytes each: a multiple of the rows that
#: are held, and so many at least.
_GONE_PART: Final = 4
_LEAST_GONE: Final = 1 << 16
#: Chunks of a model whose ids and outputs are in memory, too.
_MOST_READ: Final = 4


class ChunkStore(Protocol):
    """Where chunks lie."""

    def save_chunk(self, number: int, model: str, version: str, body: bytes) -> None:
        """Write a chunk, or write it again."""

    def read_chunk(self, number: int) -> bytes:
        """What was written."""

    def drop_chunk(self, number: int) -> None:
        """Forget a chunk, and the labels of its predictions."""


#: A full chunk that may have an id, and where the hash of the id is first in it.
Candidate: TypeAlias = tuple[Chunk, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a prediction is held: a row of a chunk's data, and its row in the request."""

    chunk: "Chunk | OpenChunk"
    index: int
    row: int


class SeveralRows(Exception):
    """The request has several rows, and none was named."""


class HeldPredictions:
    """The newest predictions of one model. For one thread.

    Args:
        store: where chunks lie.

    Attributes:
        rows: how many are held.
        settings: how many may be, and for how long.
    """

    def __init__(self, model: str, settings: LabelSettings, store: ChunkStore) -> None:
        self.rows = 0
        self.settings = settings
        self._model: Final = model
        self._store: Final = store
        self._chunks: Final[deque[Chunk]] = deque()
        self._open: Final[dict[str, OpenChunk]] = {}
        self._read: Final[dict[int, ChunkData]] = {}
        self._gone: Final[deque[npt.NDArray[np.int64]]] = deque()
        self._gone_count = 0

    # -- what is held -------------------------------------------------------------------------

    def restore(self, number: int, version: str, body: bytes) -> None:
        """Hold a chunk that was written before; the oldest comes first."""
        chunk = Chunk(number, version, ChunkData.unpack(body))
        self._chunks.append(chunk)
        self.rows += chunk.rows

    def add(self, block: Block, next_number: int) -> int:
        """Hold the predictions of ``block``; a new chunk gets ``next_number``. The next number."""
        outputs = kept_outputs(block, self.settings)
        if not outputs:
            return next_number
        chunk = self._open.get(block.version)
        if chunk is not None and not chunk.fits(outputs, max(self.settings.hold_rows // _PART, 1)):
            self._fill(chunk)
            chunk = None
        if chunk is None:
            chunk = self._open[block.version] = OpenChunk(next_number, block.version)
            next_number += 1
        chunk.append(block, outputs)
        self.rows += block.rows
        while self.rows > self.settings.hold_rows and self._chunks:
            self._evict()
        return next_number

    def save(self) -> None:
        """Write what is not on the disk yet."""
        for chunk in self._open.values():
            if chunk.dirty:
                self._save(chunk)

    def expire(self, now: float) -> None:
        """Let go of what was answered longer ago than ``hold_hours``."""
        oldest = now - self.settings.hold_hours * 3600
        for version, chunk in tuple(self._open.items()):
            if chunk.data().at[-1] < oldest:
                self._fill(chunk)
                del self._open[version]
        while self._chunks and self._chunks[0].ended < oldest:
            self._evict()

    def _save(self, chunk: OpenChunk) -> None:
        self._store.save_chunk(chunk.number, self._model, chunk.version, chunk.data().pack())
        chunk.dirty = False

    def _fill(self, chunk: OpenChunk) -> None:
        self._save(chunk)
        self._chunks.append(Chunk(chunk.number, chunk.version, chunk.data()))

    def _evict(self) -> None:
        chunk = self._chunks.popleft()
        self._store.drop_chunk(chunk.number)
        self._read.pop(chunk.number, None)
        self.rows -= chunk.rows
        self._gone.append(chunk.hashes)
        self._gone_count += len(chunk.hashes)
        most = max(_GONE_PART * self.settings.hold_rows, _LEAST_GONE)
        while self._gone_count > most and len(self._gone) > 1:
            self._gone_count -= len(self._gone.popleft())

    # -- looking predictions up ---------------------------------------------------------------

    def candidates(self, ids: Sequence[str]) -> list[list[Candidate]]:
        """The full chunks that may have each of ``ids``, the newest first."""
        wanted = hashes_of(ids)
        found: list[list[Candidate]] = [[] for _ in ids]
        for chunk in reversed(self._chunks):
            indices = _indices(chunk.hashes, wanted)
            for place in np.flatnonzero(chunk.hashes[indices] == wanted).tolist():
                found[place].append((chunk, int(indices[place])))
        return found

    def find(self, id: str, row: int | None, candidates: Sequence[Candidate]) -> Place | None:
        """Where that row is held, the newest of its id where there are several.

        Raises:
            SeveralRows: the request has several, and ``row`` is ``None``.
        """
        for chunk in reversed(self._open.values()):
            for place in chunk.requests(id):
                if (found := _row_of(chunk, chunk.data(), place, row)) is not None:
                    return found
        for full, begin in candidates:
            data = self.data(full)
            for place in full.requests(begin):
                if data.ids[place] == id:
                    found = _row_of(full, data, place, row)
                    if found is not None:
                        return found
        return None

    def were_held(self, ids: Sequence[str]) -> list[bool]:
        """Which of ``ids`` were held and have been let go of, as far as is remembered."""
        wanted = hashes_of(ids)
        found = np.zeros(len(ids), bool)
        for hashes in self._gone:
            found |= hashes[_indices(hashes, wanted)] == wanted
        return found.tolist()

    def data(self, chunk: Chunk | OpenChunk) -> ChunkData:
        """What a chunk says."""
        if isinstance(chunk, OpenChunk):
            return chunk.data()
        data = self._read.get(chunk.number)
        if data is None:
            data = ChunkData.unpack(self._store.read_chunk(chunk.number))
            while len(self._read) >= _MOST_READ:
                del self._read[next(iter(self._read))]
            self._read[chunk.number] = data
        return data


def kept_outputs(block: Block, settings: LabelSettings) -> dict[str, Array]:
    """What is kept of the outputs of ``block``, see ``Joined.outputs``."""
    kept: dict[str, Array] = {}
    for column in block.columns.outputs:
        if not settings.outputs or column.name in settings.outputs:
            kept.update(_kept(column, block.outputs[column.name], block.rows))
    return kept


def _kept(column: Column, array: Array, rows: int) -> dict[str, Array]:
    width = array.size // rows
    if column.datatype is BYTES:
        if width > WIDEST:
            return {}
        texts = [e.decode("utf-8", "replace") if isinstance(e, bytes) else e for e in array.flat]
        return {column.name: np.array(texts, object).reshape(array.shape)}
    array = from_datatype(array, column.datatype)
    if width <= WIDEST:
        return {column.name: array}
    flat = array.reshape(rows, -1)
    top = flat.argmax(axis=1)
    return {
        column.name + TOP_INDEX: top.astype(np.int32),
        column.name + TOP_VALUE: flat[np.arange(rows), top],
    }


def _row_of(chunk: Chunk | OpenChunk, data: ChunkData, place: int, row: int | None) -> Place | None:
    """The place of a request's row among the rows of the chunk, ``None`` where it has it not."""
    first, rows = int(data.request_row[place]), int(data.rows[place])
    if row is None:
        if rows > 1 or first > 0:
            raise SeveralRows
        row = 0
    if not first <= row < first + rows:
        return None
    return Place(chunk, int(data.first[place]) + row - first, row)


def _indices(hashes: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Where each of ``wanted`` is first in ``hashes``, if it is; those are sorted, one at least."""
    return np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
