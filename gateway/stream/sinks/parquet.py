"""Predictions as Parquet files, a row for each row, in Hive's partitions.

``DIRECTORY/model=iris/version=1/day=2026-01-31/part-….parquet``: DuckDB, pandas, Polars and Spark
read the directory as one table. A batch is a file for each partition it touches, written under a
name that they ignore and renamed once it is whole and on the disk; until then its predictions count
as buffered.

Columns are ``id``, ``row``, ``time`` and ``latency_ms``, and for each tensor ``in_NAME`` or
``out_NAME``: a plain column where a row has one element, one for each feature where its features
have names, else a list of its elements in row-major order (of fixed size where the signature fixes
it).
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import numpy as np

from gateway.monitoring_file import Part
from gateway.serving.samples import from_datatype
from gateway.stream.block import Block
from gateway.stream.columns import Column
from gateway.stream.sinks.encoding import Breather, present, text_of
from gateway.stream.sinks.json_lines import make_directory, sync_directory
from gateway.stream.sinks.sink import (
    MIB,
    Batch,
    Defaults,
    Parcel,
    SinkSettings,
    optional_module,
    read_settings,
)
from gateway.tables import boolean, choice
from gateway.types import BYTES, Array

#: A file is a batch, so a batch is large; it must fit into the buffer.
DEFAULTS: Final = Defaults(buffer_bytes=32 * MIB, batch=Batch(200_000, 16 * MIB, 60.0))

#: Rows that are turned into columns, or written, before the event loop is let in.
_STRIDE: Final = 8192


def make(part: Part) -> tuple[SinkSettings, "Parquet"]:
    """The sink that ``part`` describes. Raises ``ConfigError``."""
    fields = {
        "directory": part.path,
        "compression": choice("none", "snappy", "zstd", "gzip", "lz4"),
        "fsync": boolean,
    }
    settings, options = read_settings(part, "parquet", DEFAULTS, fields, ["directory"])
    optional_module("pyarrow.parquet", "parquet", part)
    make_directory(options["directory"], f"{part.where}directory")
    return settings, Parquet(
        options["directory"],
        compression=options.get("compression", "zstd"),
        fsync=options.get("fsync", True),
    )


#: Blocks that go into one file: of one partition, and with the same columns.
_Key = tuple[Any, ...]


class Parquet:
    """Writes files.

    Args:
        fsync: whether the disk must have a file before its predictions count as delivered.
    """

    wants_event_ids: Final = False

    def __init__(self, directory: Path, *, compression: str, fsync: bool) -> None:
        self._directory: Final = directory
        self._compression: Final = compression
        self._fsync: Final = fsync

    def encode(self, blocks: Sequence[Block]) -> list[Parcel]:
        """See ``Sink``."""
        groups: dict[_Key, list[Block]] = {}
        for block in blocks:
            groups.setdefault(_key(block), []).append(block)
        return [
            Parcel([(b, b.rows) for b in group], (self._partition(group[0]), _table(group)))
            for group in groups.values()
        ]

    def deliver(self, parcels: Sequence[Parcel], timeout_s: float) -> None:
        """See ``Sink``."""
        for parcel in parcels:
            directory, table = parcel.content
            self._write(directory, table)
            parcel.arrived = True

    def idle(self) -> None:
        """See ``Sink``."""

    def close(self) -> None:
        """See ``Sink``."""

    def _partition(self, block: Block) -> Path:
        model, version = (quote(name, safe="") for name in (block.model, block.version))
        return self._directory / f"model={model}/version={version}/day={_day(block)}"

    def _write(self, directory: Path, table: Any) -> None:
        from pyarrow import parquet

        directory.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        name = f"part-{stamp}-{uuid4().hex[:8]}.parquet"
        unfinished = directory / f"_{name}.tmp"
        try:
            # No GIL is held meanwhile.
            parquet.write_table(table, unfinished, compression=self._compression)
            if self._fsync:
                _sync_file(unfinished)
            unfinished.rename(directory / name)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        if self._fsync:
            sync_directory(directory)


def _sync_file(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _day(block: Block) -> str:
    return datetime.fromtimestamp(block.at, UTC).strftime("%Y-%m-%d")


def _key(block: Block) -> _Key:
    # The columns by identity: blocks of one load share them, and another load may have others.
    shapes = tuple(a.shape[1:] for a in (*block.inputs.values(), *block.outputs.values()))
    return block.model, block.version, _day(block), id(block.columns), tuple(block.inputs), shapes


def _table(blocks: Sequence[Block]) -> Any:
    """One table of ``blocks``, which have the same key."""
    import pyarrow as pa

    first = blocks[0]
    columns: dict[str, Any] = {
        "id": pa.array(_ids(blocks)),
        "row": pa.array(_numbers(blocks), pa.int32()),
        "time": pa.array(
            np.repeat([int(b.at * 1e6) for b in blocks], [b.rows for b in blocks]),
            pa.timestamp("us", "UTC"),
        ),
        "latency_ms": pa.array(
            np.repeat(
                np.concatenate([b.latency_ns for b in blocks]) / 1e6,
                np.concatenate([b.request_rows for b in blocks]),
            )
        ),
    }
    for prefix, side, shown in (
        ("in", [b.inputs for b in blocks], present(first)),
        ("out", [b.outputs for b in blocks], first.columns.outputs),
    ):
        shared = Counter(feature for column in shown for feature in column.features)
        for column in shown:
            array = _joined([arrays[column.name] for arrays in side])
            for name, values in _arrow_columns(column, array, shared):
                columns[f"{prefix}_{name}"] = values
    return pa.table(columns)


def _joined(arrays: list[Array]) -> Array:
    """``arrays``, one behind the other; the event loop is let in between."""
    joined = np.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), arrays[0].dtype)
    at = since = 0
    for array in arrays:
        joined[at : at + len(array)] = array
        at += len(array)
        if at - since >= _STRIDE:
            since = at
            time.sleep(0)
    return joined


def _ids(blocks: Sequence[Block]) -> list[str]:
    """The request's id for each row."""
    found: list[str] = []
    breather = Breather()
    for block in blocks:
        given = block.request_ids()
        if len(given) == block.rows:
            found += given
        else:
            for id, rows in zip(given, block.request_rows.tolist(), strict=True):
                found += [id] * rows
        breather.did(len(given))
    return found


def _numbers(blocks: Sequence[Block]) -> Array:
    """The number of each row within its request."""
    rows = np.concatenate([block.request_rows for block in blocks])
    numbers: Array = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    return numbers


def _arrow_columns(column: Column, array: Array, shared: Counter[str]) -> Iterator[tuple[str, Any]]:
    """The columns of one tensor by their names; ``shared`` counts the features' names."""
    import pyarrow as pa

    flat = _elements(column, array)
    width = prod(array.shape[1:])
    if column.features and len(column.features) == width:
        for place, feature in enumerate(column.features):
            name = feature if shared[feature] == 1 else f"{column.name}_{feature}"
            yield name, _values(flat[place::width])
    elif -1 in column.shape or column.shape != array.shape[1:]:
        # What has no fixed size has none in any file, or files of one table would not agree.
        offsets = np.arange(len(array) + 1, dtype=np.int32) * width
        yield column.name, pa.ListArray.from_arrays(pa.array(offsets), _values(flat))
        if len(column.shape) > 1:
            shape = np.tile(np.array(array.shape[1:], np.int32), len(array))
            offsets = np.arange(len(array) + 1, dtype=np.int32) * len(column.shape)
            made = pa.ListArray.from_arrays(pa.array(offsets), pa.array(shape))
            yield f"{column.name}_shape", made
    elif width == 1:
        yield column.name, _values(flat)
    else:
        yield column.name, pa.FixedSizeListArray.from_arrays(_values(flat), width)


def _elements(column: Column, array: Array) -> Array:
    """The elements of ``array`` in row-major order, as a type that every reader knows."""
    if column.datatype is BYTES:
        return np.array([text_of(element) for element in array.flat], object)
    values = from_datatype(array, column.datatype).reshape(-1)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _values(array: Array) -> Any:
    import pyarrow as pa

    if array.dtype.hasobject:
        return pa.array(array, pa.string())
    return pa.array(np.ascontiguousarray(array))
