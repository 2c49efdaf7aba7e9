"""From the tensors of a block to named features: what a monitor counts and compares."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from gateway.evidence.output_bins import as_numbers
from gateway.stream.block import Block
from gateway.stream.columns import Column
from gateway.types import BF16, Array

#: A tensor with more values a row has no feature for each of them.
MOST_COLUMNS: Final = 512
#: Values of a row of a wide tensor that the multivariate tests look at; of more, each is the mean
#: of a run of neighbours.
MOST_SUBJECT: Final = 2048
#: How far the sum of a row of probabilities may be from 1: that of float16 is, by so much.
_SUM_TOLERANCE: Final = 5e-3


class Side(StrEnum):
    """Of which end of the model a feature is."""

    INPUT = "input"
    OUTPUT = "output"


class Part(StrEnum):
    """What of a tensor a feature is.

    ``VALUE`` is one of its columns; ``MEAN`` and ``STD`` are of all values of a row; ``CLASS`` is
    the index of a row's highest score.
    """

    VALUE = "value"
    MEAN = "mean"
    STD = "std"
    CLASS = "class"


class UnlikeBlock(ValueError):
    """A block's tensors are not those that the layout was made for."""


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """How one tensor becomes features.

    Attributes:
        width: values of a row; -1 where blocks may differ in it.
        wide: whether it is one subject: its features are the mean and the standard deviation of
            each row, and its flattened rows go to the multivariate tests.
        names: of its features, one for each column where it is not wide; of a wide one those of
            the mean and of the standard deviation.
        scores: whether each row is one vector of probabilities; then the predicted class is a
            feature too.
        class_name: of that feature, ``""`` where there is none.
        labels: of the classes by index, ``()`` where nobody has said.
    """

    side: Side
    tensor: str
    width: int
    text: bool
    wide: bool
    names: tuple[str, ...]
    scores: bool = False
    class_name: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features of one block that come as one array: ``values`` is ``[rows, features]``.

    Numbers are of a type that the native sketches read; texts are objects.
    """

    side: Side
    tensor: str
    part: Part
    names: tuple[str, ...]
    values: Array


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tensors of a model's blocks become features, and which those are."""

    tensors: tuple[TensorLayout, ...]

    def names(self) -> Iterator[tuple[str, Side, str, Part]]:
        """Name, side, tensor and part of each feature, in the order of ``tables``."""
        for layout in self.tensors:
            parts = (Part.MEAN, Part.STD) if layout.wide else (Part.VALUE,) * len(layout.names)
            for name, part in zip(layout.names, parts, strict=True):
                yield name, layout.side, layout.tensor, part
            if layout.scores:
                yield layout.class_name, layout.side, layout.tensor, Part.CLASS

    def tables(self, block: Block) -> list[FeatureTable]:
        """The features of a block, all of them, in the order of ``names``.

        Raises:
            UnlikeBlock: a tensor is missing, or of another width or kind.
        """
        found: list[FeatureTable] = []
        for layout in self.tensors:
            array = _array(block, layout)
            if layout.wide:
                values = _moments(array)
                found += [
                    FeatureTable(layout.side, layout.tensor, part, (name,), values[:, place, None])
                    for place, (part, name) in enumerate(
                        zip((Part.MEAN, Part.STD), layout.names, strict=True)
                    )
                ]
            else:
                found.append(
                    FeatureTable(layout.side, layout.tensor, Part.VALUE, layout.names, array)
                )
            if layout.scores:
                classes = predicted(array)[:, None]
                found.append(
                    FeatureTable(
                        layout.side, layout.tensor, Part.CLASS, (layout.class_name,), classes
                    )
                )
        return found

    def subjects(self, block: Block) -> dict[str, Array]:
        """The flattened rows of each wide tensor, float32, at most ``MOST_SUBJECT`` values a row.

        A tensor whose width varies has none.
        """
        return {
            layout.tensor: pooled(_array(block, layout))
            for layout in self.tensors
            if layout.wide and layout.width >= 0
        }


def layout_of(block: Block, labels: Mapping[str, Sequence[str]] | None = None) -> Layout:
    """The layout for blocks like this one, which is best a large one.

    A tensor of one value a row is one feature under the tensor's name; one of up to
    ``MOST_COLUMNS`` along one axis is a feature for each, named by the model's settings or
    ``name[i]``; another one is one subject. Text that is that wide is left out.

    Args:
        labels: names of the classes of an output: its rows are scores, whatever they sum to.
            Without, rows between 0 and 1 that sum to 1 are.
    """
    found: list[TensorLayout] = []
    taken: set[str] = set()
    sides = (
        (Side.INPUT, block.columns.inputs, block.inputs),
        (Side.OUTPUT, block.columns.outputs, block.outputs),
    )
    for side, columns, arrays in sides:
        for column in columns:
            array = arrays.get(column.name)
            if array is None:
                continue
            its_labels = tuple((labels or {}).get(column.name, ()))
            layout = _layout(side, column, array, its_labels, taken)
            if layout is not None:
                found.append(layout)
    return Layout(tuple(found))


def together(blocks: Sequence[Block]) -> Block:
    """The rows of several blocks of one version as one block, so that a look at it costs once.

    All have the tensors of the first, in its shapes.

    Raises:
        UnlikeBlock: one has not.
    """
    first = blocks[0]
    if len(blocks) == 1:
        return first

    def joined(sides: list[dict[str, Array]]) -> dict[str, Array]:
        if any(
            side.keys() != sides[0].keys()
            or any(side[name].shape[1:] != array.shape[1:] for name, array in sides[0].items())
            for side in sides
        ):
            raise UnlikeBlock("blocks of other tensors or shapes cannot be looked at together")
        return {name: np.concatenate([side[name] for side in sides]) for name in sides[0]}

    return Block(
        first.model,
        first.version,
        first.columns,
        number=first.number,
        at=first.at,
        request_rows=np.concatenate([block.request_rows for block in blocks]),
        latency_ns=np.concatenate([block.latency_ns for block in blocks]),
        ids=None,
        event_ids=None,
        inputs=joined([block.inputs for block in blocks]),
        outputs=joined([block.outputs for block in blocks]),
    )


def _layout(
    side: Side, column: Column, array: Array, labels: tuple[str, ...], taken: set[str]
) -> TensorLayout | None:
    text = array.dtype.hasobject or array.dtype.kind in "US"
    width = int(np.prod(array.shape[1:], dtype=np.int64))
    # Axes of size 1 are none: a model that takes no batches has one for its only row.
    flat = max(array.shape[1:], default=1) == width
    wide = not flat or width > MOST_COLUMNS
    if width == 0 or (wide and text):
        return None
    if wide:
        names = [f"{column.name}.mean", f"{column.name}.std"]
    elif width == 1:
        names = list(column.features) if len(column.features) == 1 else [column.name]
    elif len(column.features) == width:
        names = list(column.features)
    else:
        names = [f"{column.name}[{index}]" for index in range(width)]
    names = [_free(name, column.name, taken) for name in names]
    scores = side is Side.OUTPUT and not wide and width > 1 and array.dtype.kind in "fu"
    if scores and len(labels) != width:
        scores = are_probabilities(numbers_of(array.reshape(len(array), -1), column))
    class_name = _free(f"{column.name}.class", column.name, taken) if scores else ""
    return TensorLayout(
        side,
        column.name,
        width,
        text,
        wide,
        tuple(names),
        scores,
        class_name,
        labels if scores and len(labels) == width else (),
    )


def _free(name: str, tensor: str, taken: set[str]) -> str:
    """``name``, made longer where another tensor has a feature of that name."""
    while name in taken:
        name = f"{tensor}.{name}"
    taken.add(name)
    return name


def _array(block: Block, layout: TensorLayout) -> Array:
    """The tensor of ``layout`` as ``[rows, width]``."""
    side = layout.side
    arrays = block.inputs if side is Side.INPUT else block.outputs
    columns = block.columns.inputs if side is Side.INPUT else block.columns.outputs
    column = next((c for c in columns if c.name == layout.tensor), None)
    array = arrays.get(layout.tensor)
    if array is None or column is None:
        raise UnlikeBlock(f"the block has no {side} '{layout.tensor}'; the profile was made of one")
    array = array.reshape(len(array), -1)
    if layout.width not in (-1, array.shape[1]):
        raise UnlikeBlock(
            f"{side} '{layout.tensor}' has {array.shape[1]} values a row; the profile was made of "
            f"{layout.width}"
        )
    text = array.dtype.hasobject or array.dtype.kind in "US"
    if text != layout.text:
        raise UnlikeBlock(
            f"{side} '{layout.tensor}' is {'text' if text else 'numbers'}; the profile was made of "
            f"{'text' if layout.text else 'numbers'}"
        )
    if text:
        return array if array.dtype.hasobject else array.astype(object)
    return numbers_of(array, column)


def numbers_of(array: Array, column: Column) -> Array:
    """``array`` as numbers of a type that the native sketches read."""
    if column.datatype is BF16:
        return as_numbers(array, BF16)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def are_probabilities(array: Array) -> bool:
    """Whether each row lies between 0 and 1 and sums to 1, but for those that are not a number."""
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind != "f":
        return False
    array = array[~np.isnan(array).any(axis=1)]
    if not len(array):
        return False
    inside = (array >= -_SUM_TOLERANCE) & (array <= 1 + _SUM_TOLERANCE)
    sums = array.sum(axis=1, dtype=np.float64)
    return bool(inside.all() and (np.abs(sums - 1) <= _SUM_TOLERANCE).all())


def predicted(scores: Array) -> Array:
    """The index of each row's highest score as a float; NaN where a score is not a number."""
    classes: Array = scores.argmax(axis=1).astype(np.float64)
    if scores.dtype.kind == "f":
        classes[np.isnan(scores).any(axis=1)] = np.nan
    return classes


def _moments(array: Array) -> Array:
    """Mean and standard deviation of each row, ``[rows, 2]``."""
    numbers = array.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([numbers.mean(axis=1), numbers.std(axis=1)], axis=1)


def pooled(array: Array) -> Array:
    """Rows of at most ``MOST_SUBJECT`` values, float32: means of runs of equal length."""
    rows, width = array.shape
    if width <= MOST_SUBJECT:
        return array.astype(np.float32)
    run = -(-width // MOST_SUBJECT)
    starts = np.arange(0, width, run)
    sums = np.add.reduceat(array.astype(np.float32), starts, axis=1)
    lengths = np.diff(np.append(starts, width)).astype(np.float32)
    assert sums.shape == (rows, len(lengths))
    means: Array = sums / lengths
    return means
