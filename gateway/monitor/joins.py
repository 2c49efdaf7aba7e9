"""From single predictions that have got their truth to batches of them, in columns."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.monitor.chunks import Chunk, ChunkData, OpenChunk
from gateway.monitor.label_store import decode_value
from gateway.monitor.labels import Joined, kind_of, truth_array
from gateway.types import Array


@dataclass(frozen=True, slots=True)
class Join:
    """A prediction that is held, and its truth.

    Attributes:
        chunk, index: where its outputs are.
        value, earlier: the truth, and what was said before it, as ``encode_value`` writes them.
        time: when it became known, Unix seconds.
    """

    chunk: Chunk | OpenChunk
    index: int
    value: str
    time: float
    earlier: str | None


def joined_batches(
    model: str, joins: Iterable[Join], data: Callable[[Chunk | OpenChunk], ChunkData]
) -> Iterator[Joined]:
    """``joins`` of one model as batches of one version, one kind of truth and one form each."""
    by_chunk: dict[Any, list[Join]] = {}
    for join in joins:
        kinds = (_kind(join.value), join.earlier and _kind(join.earlier))
        by_chunk.setdefault((join.chunk.number, kinds), []).append(join)
    parts: dict[Any, list[Joined]] = {}
    for (_, kinds), found in by_chunk.items():
        part = _part(model, found, data(found[0].chunk))
        form = [(name, a.dtype.str, a.shape[1:]) for name, a in part.outputs.items()]
        parts.setdefault((part.version, kinds, str(form)), []).append(part)
    for same in parts.values():
        yield same[0] if len(same) == 1 else _together(same)


def _kind(value: str) -> int:
    return kind_of(decode_value(value))


def _part(model: str, joins: list[Join], data: ChunkData) -> Joined:
    places = np.array([join.index for join in joins])
    requests = np.searchsorted(np.cumsum(data.rows), places, "right")
    earlier = None
    if joins[0].earlier is not None:
        earlier = truth_array([decode_value(join.earlier or "") for join in joins])
    return Joined(
        model=model,
        version=joins[0].chunk.version,
        outputs={name: array[places] for name, array in data.outputs.items()},
        truth=truth_array([decode_value(join.value) for join in joins]),
        predicted_at=data.at[requests],
        labelled_at=np.array([join.time for join in joins], np.float64),
        earlier=earlier,
    )


def _together(parts: list[Joined]) -> Joined:
    def joined(name: str) -> Array:
        return np.concatenate([getattr(part, name) for part in parts])

    return Joined(
        model=parts[0].model,
        version=parts[0].version,
        outputs={
            name: np.concatenate([part.outputs[name] for part in parts])
            for name in parts[0].outputs
        },
        truth=joined("truth"),
        predicted_at=joined("predicted_at"),
        labelled_at=joined("labelled_at"),
        earlier=None if parts[0].earlier is None else joined("earlier"),
    )
