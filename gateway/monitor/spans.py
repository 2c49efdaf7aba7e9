"""Consecutive predictions as monitors take them: many blocks as one, cut where a window ends."""

from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np

from gateway.stream.block import Block, Int64s


class Span:
    """A block that was made of several, and when its rows were answered. Immutable.

    It is of rows: the ids of requests are not in it.

    Attributes:
        block: all rows together; its ``at`` is that of the last one.
        rows: how many there are.
    """

    __slots__ = ("_at", "_ends", "_first", "block", "rows")

    def __init__(self, block: Block, ends: Int64s, at: Sequence[float], first: int = 0) -> None:
        """Rows of several blocks.

        Args:
            ends, at: of each of those, how many rows are in it and before it, and its time.
            first: of the rows that ``ends`` counts, how many come before the first one here.
        """
        self.block: Final = block
        self.rows: Final = block.rows
        self._ends: Final = ends
        self._at: Final = at
        self._first: Final = first

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> "Span":
        """The rows of ``blocks``, which are alike; copied once where there are several."""
        ends = np.cumsum([block.rows for block in blocks])
        return cls(_joined(blocks), ends, [block.at for block in blocks])

    def time(self, row: int) -> float:
        """When the row was answered, Unix seconds."""
        return self._at[int(np.searchsorted(self._ends, self._first + row, side="right"))]

    def part(self, start: int, stop: int) -> "Span":
        """The rows from ``start`` to before ``stop``, as views."""
        if start == 0 and stop == self.rows:
            return self
        block = _part(self.block, start, stop, self.time(stop - 1))
        return Span(block, self._ends, self._at, self._first + start)


def alike(block: Block) -> tuple[object, ...]:
    """What blocks must have in common to become one."""
    return (
        id(block.columns),
        *(
            (name, array.dtype, array.shape[1:])
            for name, array in chain(block.inputs.items(), block.outputs.items())
        ),
    )


def _joined(blocks: Sequence[Block]) -> Block:
    first = blocks[0]
    if len(blocks) == 1:
        return first
    return Block(
        first.model,
        first.version,
        first.columns,
        number=first.number,
        at=blocks[-1].at,
        request_rows=np.concatenate([block.request_rows for block in blocks]),
        latency_ns=np.concatenate([block.latency_ns for block in blocks]),
        ids=None,
        event_ids=None,
        loaded_ms=first.loaded_ms,
        inputs={
            name: np.concatenate([block.inputs[name] for block in blocks]) for name in first.inputs
        },
        outputs={
            name: np.concatenate([block.outputs[name] for block in blocks])
            for name in first.outputs
        },
    )


def _part(block: Block, start: int, stop: int, at: float) -> Block:
    """Some rows of a block; a request that is cut is there with the rows that are."""
    ends = np.cumsum(block.request_rows)
    kept = np.minimum(ends, stop) - np.maximum(ends - block.request_rows, start)
    there = np.flatnonzero(kept > 0)
    return Block(
        block.model,
        block.version,
        block.columns,
        number=block.number + start,
        at=at,
        request_rows=kept[there],
        latency_ns=block.latency_ns[there],
        ids=None,
        event_ids=None,
        loaded_ms=block.loaded_ms,
        inputs={name: array[start:stop] for name, array in block.inputs.items()},
        outputs={name: array[start:stop] for name, array in block.outputs.items()},
    )
