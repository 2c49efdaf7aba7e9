"""Blocks made by hand, as a tap would make them."""

from collections.abc import Mapping, Sequence

import numpy as np

from gateway.stream.block import Block
from gateway.stream.columns import Column, Columns
from gateway.types import BYTES, DATATYPES_BY_ONNX, DataType

_BY_DTYPE = {d.numpy: d for d in DATATYPES_BY_ONNX.values() if d.name != "BF16"}


def block(
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray] | None = None,
    *,
    features: Mapping[str, Sequence[str]] | None = None,
    types: Mapping[str, DataType] | None = None,
    version: str = "1",
) -> Block:
    """A block of tensors whose rows are their first axis."""
    rows = len(next(iter(inputs.values())))

    def columns(arrays: Mapping[str, np.ndarray]) -> tuple[Column, ...]:
        return tuple(
            Column(
                name,
                (types or {}).get(name) or _BY_DTYPE.get(array.dtype, BYTES),
                index,
                0,
                tuple((features or {}).get(name, ())),
            )
            for index, (name, array) in enumerate(arrays.items())
        )

    return Block(
        "m",
        version,
        Columns(columns(inputs), columns(outputs or {})),
        number=0,
        at=0.0,
        request_rows=np.array([rows]),
        latency_ns=np.zeros(1, np.int64),
        ids=None,
        event_ids=None,
        inputs=dict(inputs),
        outputs=dict(outputs or {}),
    )
