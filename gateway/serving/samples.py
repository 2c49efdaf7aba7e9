"""Sample rows for the batch probe and the warm-up: made up, or taken from a user's file.

A *row* is a feed (arrays by input name) of batch size 1. Rows differ in their values, or a model
that mixes rows would not show it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from gateway.errors import LoadError
from gateway.serving.axes import Axes
from gateway.serving.signature import TensorSpec
from gateway.types import BF16, BOOL, BYTES, Array, DataType

Feeds: TypeAlias = dict[str, Array]

#: Names of scalar inputs that mean a sampling rate; audio models refuse nearly all other values.
RATE_NAMES: Final = frozenset({"sr", "sample_rate", "sampling_rate", "samplerate"})
SAMPLE_RATE: Final = 16000

_WORDS: Final = ("a", "red fox", "the quick brown dog", "42", "x1", "naïve", "on", "some words")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How values are made up.

    Attributes:
        style: ``"spread"`` (normal floats, ids below 8, words) or ``"tame"`` (floats in 0..1,
            ids 0 and 1, digits as text) for models that refuse the first.
        size: the size given to each dynamic dimension that is not the batch.
    """

    style: str
    size: int


#: Tried in order until the model accepts one. 576 is the window of common voice models (512
#: samples and 64 of context), 224 the image size that most vision models were made for.
RECIPES: Final = tuple(
    Recipe(style, size) for style in ("spread", "tame") for size in (8, 16, 1, 576, 224, 64, 2, 3)
)


def make_rows(
    inputs: Sequence[TensorSpec], axes: Axes, recipe: Recipe, count: int, seed: int = 0
) -> list[Feeds]:
    """``count`` made-up rows; the same arguments give the same rows.

    Inputs of one dynamic symbol get one size. Shared inputs have the same value in all rows.
    """
    rng = np.random.default_rng(seed)
    shared = {
        spec.name: _values(spec, None, recipe, rng) for spec in inputs if axes[spec.name] is None
    }
    return [
        {
            spec.name: shared[spec.name]
            if axes[spec.name] is None
            else _values(spec, axes[spec.name], recipe, rng)
            for spec in inputs
        }
        for _ in range(count)
    ]


def split_rows(
    arrays: Mapping[str, Array], inputs: Sequence[TensorSpec], axes: Axes, count: int
) -> list[Feeds]:
    """``count`` rows out of arrays that a user gave, each with its rows along its batch axis.

    Where there are fewer rows than asked for, the rest are variations: floats scaled a little,
    everything else as given.

    Raises:
        LoadError: an input is missing, or has another dtype or rank than the model's.
    """
    for spec in inputs:
        if spec.name not in arrays:
            raise LoadError(
                f"the warm-up file has no array {spec.name!r}: it must hold one for each input"
                f" ({', '.join(s.name for s in inputs)})"
            )
        _check(spec, arrays[spec.name])
    batched = [spec.name for spec in inputs if axes[spec.name] is not None]
    given = min((arrays[name].shape[axes[name] or 0] for name in batched), default=1)
    if given == 0:
        raise LoadError("the warm-up file holds no rows")
    rows: list[Feeds] = []
    for index in range(count):
        row: Feeds = {}
        for spec in inputs:
            axis = axes[spec.name]
            array = arrays[spec.name]
            if axis is not None:
                array = array.take([index % given], axis)
                if index >= given and array.dtype.kind == "f":
                    array = (array * (1 + 0.05 * (index // given))).astype(array.dtype)
            row[spec.name] = np.ascontiguousarray(array).reshape(array.shape)
        rows.append(row)
    return rows


def stack(rows: Sequence[Feeds], axes: Axes) -> Feeds:
    """One feed of ``len(rows)`` rows; shared inputs are those of the first row."""
    return {
        name: array
        if axes[name] is None
        else np.concatenate([row[name] for row in rows], axis=axes[name] or 0)
        for name, array in rows[0].items()
    }


def _check(spec: TensorSpec, array: Array) -> None:
    text = spec.datatype is BYTES and array.dtype.kind in "OUS"
    if array.dtype != spec.datatype.numpy and not text:
        raise LoadError(
            f"the warm-up file's array {spec.name!r} is {array.dtype}; the model's input is"
            f" {spec.datatype.name} (numpy {spec.datatype.numpy})"
        )
    if array.ndim != len(spec.shape):
        raise LoadError(
            f"the warm-up file's array {spec.name!r} has {array.ndim} dimensions; the model's"
            f" input has {len(spec.shape)}: {list(spec.shape)}"
        )


def _values(spec: TensorSpec, axis: int | None, recipe: Recipe, rng: np.random.Generator) -> Array:
    shape = tuple(
        1 if index == axis else recipe.size if size < 0 else size
        for index, size in enumerate(spec.shape)
    )
    name = spec.name.lower()
    if spec.datatype.numpy.kind in "iu" and spec.datatype is not BF16:
        if name in RATE_NAMES and int(np.prod(shape)) == 1:
            return np.full(shape, SAMPLE_RATE, spec.datatype.numpy)
        # A mask is mostly ones in real requests; with zeros a model may have nothing to look at.
        low, high = (1, 2) if "mask" in name else (0, 8 if recipe.style == "spread" else 2)
        return rng.integers(low, high, shape).astype(spec.datatype.numpy)
    if spec.datatype is BYTES:
        words = _WORDS if recipe.style == "spread" else tuple("0123456789")
        chosen = np.empty(shape, object)
        chosen[...] = np.array(words, object)[rng.integers(0, len(words), shape)]
        return chosen
    if spec.datatype is BOOL:
        return rng.integers(0, 2, shape).astype(np.bool_)
    floats = rng.standard_normal(shape) if recipe.style == "spread" else rng.random(shape)
    return to_datatype(floats, spec.datatype)


def to_datatype(values: Array, datatype: DataType) -> Array:
    """Floats in a tensor's own form; BF16 is the upper half of the FP32 bits, rounded to even."""
    if datatype is BF16:
        bits = np.ascontiguousarray(values, np.float32).reshape(values.shape).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return values.astype(datatype.numpy)


def from_datatype(values: Array, datatype: DataType) -> Array:
    """A tensor as an array that compares like its values: BF16 widened to FP32."""
    if datatype is BF16:
        bits = np.ascontiguousarray(values).reshape(values.shape).astype(np.uint32) << 16
        return bits.view(np.float32)
    return values
