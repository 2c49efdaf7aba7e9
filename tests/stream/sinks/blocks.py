"""Blocks as a tap makes them, without a model behind them."""

import numpy as np

from gateway.serving.settings import StreamSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.stream.block import Block
from gateway.stream.columns import columns_of
from gateway.types import FP32

SIGNATURE = Signature(
    (TensorSpec("x", FP32, (-1, 4), batch_axis=0),),
    (TensorSpec("y", FP32, (-1, 1), batch_axis=0),),
    32,
)
COLUMNS = columns_of(SIGNATURE, StreamSettings())


def block(*rows: int, number: int = 0, model: str = "rows", at: float = 1_700_000_000.0) -> Block:
    """A block of requests of so many rows each; its values count from ``number``."""
    count = sum(rows)
    x = (4 * number + np.arange(4 * count, dtype=np.float32)).reshape(count, 4)
    return Block(
        model,
        "1",
        COLUMNS,
        number=number,
        at=at,
        request_rows=np.array(rows, np.int64),
        latency_ns=np.full(len(rows), 1_500_000, np.int64),
        ids=[f"r{number}-{place}" for place in range(len(rows))],
        event_ids=[""] * len(rows),
        inputs={"x": x},
        outputs={"y": x.sum(1, keepdims=True)},
    )
