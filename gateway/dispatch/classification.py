"""The classification extension: the top k classes instead of the tensor."""

import numpy as np

from gateway.errors import InvalidTensor
from gateway.types import Array


def classify(scores: Array, count: int, labels: tuple[str, ...], batched: int) -> Array:
    """The ``count`` highest scores of each row as ``"value:index"`` or ``"value:index:label"``.

    Args:
        scores: numbers; where ``batched`` is not 0, one row of classes for each row of the first
            axis, else all of it is one row.
        count: how many classes; more than there are gives all of them.
        labels: class labels by index; an index without one is given bare.
        batched: the model's batch limit.

    Returns:
        An object array of ``bytes``: shape (rows, k), or (k,) without a batch axis.

    Raises:
        InvalidTensor: the output holds no numbers.
    """
    if scores.dtype == object:
        raise InvalidTensor("classification was asked of an output of strings, which have no rank")
    rows = scores.reshape(len(scores), -1) if batched else scores.reshape(1, -1)
    k = min(count, rows.shape[1])
    # Stable on the negated scores: of equals the lower index comes first.
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :k]
    top = np.empty((len(rows), k), dtype=object)
    for row, indices in enumerate(order):
        for place, index in enumerate(indices):
            label = f":{labels[index]}" if index < len(labels) else ""
            top[row, place] = f"{float(rows[row, index]):f}:{index}{label}".encode()
    return top if batched else top[0]
