"""The classification extension: the top k classes instead of the tensor."""

from math import prod

import numpy as np

from gateway.errors import InvalidTensor
from gateway.serving.signature import TensorSpec
from gateway.types import BF16, BYTES, Array


def classify(scores: Array, spec: TensorSpec, count: int) -> Array:
    """The ``count`` highest scores of each row as ``"value:index"`` or ``"value:index:label"``.

    Args:
        scores: numbers; with a batch axis, which must be the first, one row of classes for each
            of its rows, else all of it is one row.
        spec: what the model says of that output; an index without a label is given bare.
        count: how many classes; more than there are gives all of them.

    Returns:
        An object array of ``bytes``: shape (rows, k), or (k,) without a batch axis.

    Raises:
        InvalidTensor: the output holds no numbers, or is not batched on its first axis.
    """
    if spec.datatype is BYTES or spec.batch_axis not in (None, 0):
        raise InvalidTensor(
            f"classification ranks numbers, rows first; output '{spec.name}' is "
            f"{spec.datatype.name} {list(spec.shape)} batched on axis {spec.batch_axis}"
        )
    if spec.datatype is BF16:
        scores = (scores.astype(np.uint32) << 16).view(np.float32)
    batched = spec.batch_axis == 0
    height = len(scores) if batched else 1
    rows = scores.reshape(height, prod(scores.shape[1:]) if batched else scores.size)
    k = min(count, rows.shape[1])
    # Stable on the negated scores: of equals the lower index comes first.
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :k]
    top = np.empty((len(rows), k), dtype=object)
    for row, indices in enumerate(order):
        for place, index in enumerate(indices):
            label = f":{spec.labels[index]}" if index < len(spec.labels) else ""
            top[row, place] = f"{float(rows[row, index]):f}:{index}{label}".encode()
    return top if batched else top[0]
