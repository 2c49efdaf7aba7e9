"""What a model version takes and gives."""

from dataclasses import dataclass

from gateway.types import DataType


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        shape: the full shape, the batch axis included; ``-1`` where any size goes.
        symbols: for each axis the graph's name of a dynamic dimension, ``""`` where it has none.
        batch_axis: the axis that holds the rows; ``None`` where the tensor has none: an input is
            then shared by the whole batch (only requests that agree on its value run together).
        labels: class labels by index, for the classification extension and the metadata.
        features: what each index of the last axis is called, ``()`` where nobody has said.
        optional: an input that the model has a default for; a request may leave it out.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    symbols: tuple[str, ...] = ()
    batch_axis: int | None = None
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of a model version, and how many rows may run together.

    Attributes:
        max_batch_size: most rows in one run; 0 where the model is served one request at a time,
            and then no spec has a batch axis.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int
