"""Which tensors of a model, and which of their columns, its predictions are published with."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gateway.errors import ConfigError
from gateway.serving.settings import StreamSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import BYTES, Array, DataType

#: What stands in place of text that is redacted.
REDACTED: Final = "[redacted]"

_COLUMN = re.compile(r"(?P<tensor>.+)\[(?P<column>\d+)\]")


@dataclass(frozen=True, slots=True)
class Column:
    """One tensor as it is published; its arrays have the rows first, whatever its batch axis.

    Attributes:
        index: its place in the signature.
        batch_axis: the axis of the rows, ``None`` where each request has the tensor as a whole.
        features: the names of what lies along its last axis, ``()`` where they have none.
        kept: which of those are published, ``None`` for all.
        redacted: which of those that are published are blanked; ``None`` for the whole tensor.
        shape: what the signature says of one row as it is published, ``-1`` where any size goes.
    """

    name: str
    datatype: DataType
    index: int
    batch_axis: int | None
    features: tuple[str, ...] = ()
    kept: tuple[int, ...] | None = None
    redacted: tuple[int, ...] | None = ()
    shape: tuple[int, ...] = ()

    def copy(self, array: Array, rows: int, chosen: Array | None) -> Array:
        """A copy of the published part of ``array``.

        Args:
            array: all rows of a batch, as the model was given them or gave them.
            rows: how many those are.
            chosen: which of them are wanted; ``None`` for all.
        """
        if self.batch_axis is None:
            array = np.broadcast_to(array, (rows, *array.shape))
        elif self.batch_axis:
            array = np.moveaxis(array, self.batch_axis, 0)
        if chosen is not None:
            array = array[chosen]
        made: Array = array.copy() if self.kept is None else array[..., list(self.kept)]
        if self.redacted != ():
            self._blank(made)
        return made

    def _blank(self, array: Array) -> None:
        blank: Any = 0
        if self.datatype is BYTES:
            blank = REDACTED
        elif array.dtype.kind == "f":
            blank = np.nan
        if self.redacted is None:
            array[...] = blank
        else:
            array[..., list(self.redacted)] = blank


@dataclass(frozen=True, slots=True)
class Columns:
    """What the predictions of one model version are published with."""

    inputs: tuple[Column, ...]
    outputs: tuple[Column, ...]


def columns_of(signature: Signature, settings: StreamSettings) -> Columns:
    """The columns of a model's predictions by its settings.

    Raises:
        ConfigError: a name in the settings is neither a tensor's nor a feature's.
    """
    selectors = _Selectors(signature)
    keep = selectors.read("keep", settings.keep) if settings.keep else None
    drop = selectors.read("drop", settings.drop)
    redact = selectors.read("redact", settings.redact)
    sides = [
        tuple(
            column
            for index, spec in enumerate(specs)
            if (column := _column(index, spec, keep, drop, redact)) is not None
        )
        for specs in (signature.inputs, signature.outputs)
    ]
    return Columns(*sides)


#: The columns named of a tensor by its name, ``None`` for the whole of it.
_Named = dict[str, set[int] | None]


class _Selectors:
    """Reads names of tensors (``pixels``), of features (``age``) and of columns (``x[3]``)."""

    def __init__(self, signature: Signature) -> None:
        self._specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
        self._features = {
            feature: (spec.name, place)
            for spec in self._specs.values()
            for place, feature in enumerate(spec.features)
        }

    def read(self, key: str, names: Iterable[str]) -> _Named:
        found: _Named = {}
        for name in names:
            tensor, column = self._find(key, name)
            if column is None:
                found[tensor] = None
            elif (columns := found.setdefault(tensor, set())) is not None:
                columns.add(column)
        return found

    def _find(self, key: str, name: str) -> tuple[str, int | None]:
        if name in self._specs:
            return name, None
        if name in self._features:
            return self._features[name]
        match = _COLUMN.fullmatch(name)
        if match and match["tensor"] in self._specs:
            spec, column = self._specs[match["tensor"]], int(match["column"])
            width = _width(spec)
            if width is None or column < width:
                return spec.name, column
        known = [*self._specs, *self._features]
        raise ConfigError(
            f"stream.{key}: {name!r} is neither a tensor nor a feature of the model, nor a column "
            f"such as 'x[0]'; known are {', '.join(known)}"
        )


def _width(spec: TensorSpec) -> int | None:
    """The size of the last axis, ``None`` where it may be any."""
    size = spec.shape[-1] if spec.shape else 0
    return None if size < 0 else size


def _column(
    index: int, spec: TensorSpec, keep: _Named | None, drop: _Named, redact: _Named
) -> Column | None:
    kept: Sequence[int] | None = None
    if keep is not None:
        if spec.name not in keep:
            return None
        kept = _sorted(keep[spec.name])
    if spec.name in drop:
        gone = drop[spec.name]
        if gone is None:
            return None
        kept = [c for c in (kept if kept is not None else _all(spec)) if c not in gone]
        if not kept:
            return None
    features = spec.features
    if kept is not None and features:
        features = tuple(features[c] for c in kept)
    blanked: Sequence[int] | None = ()
    if spec.name in redact:
        blanked = _sorted(redact[spec.name])
        if blanked is not None and kept is not None:
            blanked = [place for place, c in enumerate(kept) if c in blanked]
    return Column(
        spec.name,
        spec.datatype,
        index,
        spec.batch_axis,
        features,
        None if kept is None else tuple(kept),
        None if blanked is None else tuple(blanked),
        _row_shape(spec, kept),
    )


def _row_shape(spec: TensorSpec, kept: Sequence[int] | None) -> tuple[int, ...]:
    shape = [size for axis, size in enumerate(spec.shape) if axis != spec.batch_axis]
    if kept is not None and shape:
        shape[-1] = len(kept)
    return tuple(shape)


def _all(spec: TensorSpec) -> Sequence[int]:
    width = _width(spec)
    if width is None:
        raise ConfigError(
            f"stream.drop: columns of '{spec.name}' cannot be dropped, because the size of its "
            "last axis is not known; redact them, or drop the tensor"
        )
    return range(width)


def _sorted(columns: set[int] | None) -> list[int] | None:
    return None if columns is None else sorted(columns)
