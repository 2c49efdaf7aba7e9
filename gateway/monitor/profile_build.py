"""Runs a model over reference data, and makes the profile of what went in and came out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from gateway.errors import ConfigError
from gateway.monitor.profile import Profile
from gateway.monitor.profile_builder import ProfileBuilder, ProfileOptions
from gateway.monitor.profile_data import ReferenceData, read_data, tensor_of
from gateway.serving.loaded import LoadedModel
from gateway.serving.signature import TensorSpec
from gateway.stream.block import Block
from gateway.stream.columns import Column, Columns, columns_of
from gateway.types import Array

#: Rows of one run.
_ROWS: Final = 1024


def build_profile(
    loaded: LoadedModel,
    data: Path,
    options: ProfileOptions,
    *,
    columns: Sequence[str] = (),
    run: bool = False,
    most_rows: int | None = None,
) -> Profile:
    """The profile of a model version over a file of reference data.

    Args:
        columns: of the data that make up the model's one input, in its order.
        run: whether the outputs come from running the model; else those that the data has.

    Raises:
        ConfigError: the data cannot be read, or does not have what the model takes.
        GatewayError: the model failed on it.
    """
    reference = read_data(data, most_rows)
    blocks = ReferenceBlocks(loaded, reference, columns, run)
    labels = {spec.name: spec.labels for spec in loaded.signature.outputs if spec.labels}
    builder = ProfileBuilder(None, options, labels)
    for block in blocks:
        builder.add(block)
    return builder.profile(loaded.digest, reference.source())


class ReferenceBlocks:
    """Reference data as the blocks that the stream would have of it.

    What the model's stream settings drop or redact is dropped and redacted here too, so that a
    profile compares with the stream.
    """

    def __init__(
        self, loaded: LoadedModel, data: ReferenceData, columns: Sequence[str], run: bool
    ) -> None:
        self._loaded = loaded
        self._data = data
        self._run = run
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] = {}
        self._shared: dict[str, Array] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        signature = loaded.signature
        if columns and len(signature.inputs) > 1:
            raise ConfigError(
                "--columns is for a model with one input; name the columns as the inputs "
                f"{', '.join(spec.name for spec in signature.inputs)} or their features instead"
            )
        for spec in signature.inputs:
            self._take_input(spec, columns)
        if not run:
            for spec in signature.outputs:
                found = tensor_of(data, spec)
                if found is not None:
                    self._outputs[spec.name], self._names[spec.name] = found
        self._columns = self._named(columns_of(signature, loaded.settings.stream))

    def _take_input(self, spec: TensorSpec, columns: Sequence[str]) -> None:
        data, alone = self._data, len(self._loaded.signature.inputs) == 1
        found = tensor_of(data, spec, columns)
        width = spec.shape[len(spec.shape) - 1] if spec.shape else 1
        if found is None and alone and data.columns and width in (-1, len(data.columns)):
            found = tensor_of(data, spec, list(data.columns))
        if found is None and spec.optional:
            return
        if found is None:
            raise ConfigError(_missing(data, spec))
        array, self._names[spec.name] = found
        if spec.batch_axis is None and self._loaded.signature.max_batch_size:
            self._shared[spec.name] = array
        elif len(array) != data.rows:
            raise ConfigError(
                f"{data.path}: {spec.name} has {len(array)} rows, others have {data.rows}"
            )
        else:
            self._inputs[spec.name] = array

    def _named(self, columns: Columns) -> Columns:
        """``columns`` with the data's names where the settings have none."""

        def name(column: Column) -> Column:
            names = self._names.get(column.name, ())
            if column.features or not names:
                return column
            if column.kept is not None:
                names = tuple(names[at] for at in column.kept)
            return replace(column, features=names)

        return Columns(tuple(map(name, columns.inputs)), tuple(map(name, columns.outputs)))

    def __iter__(self) -> Iterator[Block]:
        signature = self._loaded.signature
        batch = min(signature.max_batch_size, _ROWS) if signature.max_batch_size else 1
        for start in range(0, self._data.rows, batch):
            rows = min(batch, self._data.rows - start)
            yield self._block(start, rows)

    def _block(self, start: int, rows: int) -> Block:
        signature = self._loaded.signature
        feeds = {
            spec.name: _laid(self._inputs[spec.name][start : start + rows], spec)
            for spec in signature.inputs
            if spec.name in self._inputs
        } | self._shared
        outputs = {
            spec.name: _laid(self._outputs[spec.name][start : start + rows], spec)
            for spec in signature.outputs
            if spec.name in self._outputs
        }
        if self._run:
            names = [spec.name for spec in signature.outputs]
            arrays = self._loaded.sessions[0].run(feeds, names)
            outputs = dict(zip(names, arrays, strict=True))
        return Block(
            self._loaded.name,
            self._loaded.version,
            self._columns,
            number=start,
            at=0.0,
            request_rows=np.array([rows]),
            latency_ns=np.zeros(1, np.int64),
            ids=None,
            event_ids=None,
            inputs=_published(self._columns.inputs, feeds, rows),
            outputs=_published(self._columns.outputs, outputs, rows),
        )


def _published(columns: Sequence[Column], arrays: dict[str, Array], rows: int) -> dict[str, Array]:
    return {
        column.name: column.copy(arrays[column.name], rows, None)
        for column in columns
        if column.name in arrays
    }


def _laid(rows: Array, spec: TensorSpec) -> Array:
    """Rows as the model takes them: the batch axis where it belongs, or one row without any."""
    if spec.batch_axis is None:
        return np.ascontiguousarray(rows[0])
    return np.ascontiguousarray(np.moveaxis(rows, 0, spec.batch_axis))


def _missing(data: ReferenceData, spec: TensorSpec) -> str:
    if data.arrays:
        return (
            f"{data.path} has no array '{spec.name}', which the model takes; it has "
            f"{', '.join(data.arrays)}"
        )
    wanted = ", ".join(spec.features) or f"{spec.name}, or {spec.name}[0], {spec.name}[1] ..."
    return (
        f"{data.path} has no columns for input '{spec.name}' of shape {list(spec.shape)}: expected "
        f"{wanted}; it has {', '.join(data.columns)}. Name the input's columns in order with "
        "--columns, or in model.toml: [inputs.NAME] features = [...]"
    )
