"""Small models, each with one property that loading must notice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Tensor = tuple[str, int, Sequence[int | str | None] | None]


def make(
    nodes: list[NodeProto],
    inputs: list[Tensor],
    outputs: list[Tensor],
    constants: dict[str, np.ndarray[Any, Any]] | None = None,
    opset: int = 18,
    ir_version: int = 10,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )


def save(model: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    onnx.save(model, path)
    return path


def linear() -> ModelProto:
    """``y = x W``: each row on its own."""
    weights = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    return make(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("y", TensorProto.FLOAT, ["batch", 3])],
        {"w": weights},
    )


def identity(
    element_type: int = TensorProto.FLOAT, shape: Sequence[int | str | None] = ("N", 2)
) -> ModelProto:
    return make(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", element_type, shape)],
        [("y", element_type, shape)],
    )


def softmax_over_batch() -> ModelProto:
    """Each row's result depends on its neighbours, and on nothing else when alone."""
    return make(
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
        [("x", TensorProto.FLOAT, ["N", 4])],
        [("y", TensorProto.FLOAT, ["N", 4])],
    )


def slightly_mixed(strength: float) -> ModelProto:
    """``y = x + strength * mean of the batch``."""
    return make(
        [
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "strength"], ["share"]),
            helper.make_node("Add", ["x", "share"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["N", 4])],
        [("y", TensorProto.FLOAT, ["N", 4])],
        {"axes": np.array([0], np.int64), "strength": np.array(strength, np.float32)},
    )


def fails_at(size: int) -> ModelProto:
    """Runs at every batch size but one: a table has no entry for it."""
    sizes = np.array([0 if n != size else 99 for n in range(64)], np.int64)
    return make(
        [
            helper.make_node("Shape", ["x"], ["shape"], start=0, end=1),
            helper.make_node("Gather", ["sizes", "shape"], ["index"]),
            helper.make_node("Gather", ["zeros", "index"], ["zero"]),
            helper.make_node("Add", ["x", "zero"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["N", 4])],
        [("y", TensorProto.FLOAT, ["N", 4])],
        {"sizes": sizes, "zeros": np.zeros(1, np.float32)},
    )


def fixed_reshape() -> ModelProto:
    """An exporter's classic: the batch size of the trace is frozen into a Reshape."""
    return make(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", TensorProto.FLOAT, ["N", 4])],
        [("y", TensorProto.FLOAT, ["N", 4])],
        {"shape": np.array([1, 4], np.int64)},
    )


def summed() -> ModelProto:
    """One number for the whole batch."""
    return make(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)],
        [("x", TensorProto.FLOAT, ["N", 4])],
        [("y", TensorProto.FLOAT, [1, 4])],
        {"axes": np.array([0], np.int64)},
    )


def recurrent() -> ModelProto:
    """A voice model's shape: rows on axis 0 and state on axis 1, a shared scalar, no names."""
    return make(
        [
            helper.make_node("Cast", ["sr"], ["rate"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["rate", "rate"], ["one"]),
            helper.make_node("ReduceSum", ["input", "last"], ["sum"], keepdims=1),
            helper.make_node("Mul", ["sum", "one"], ["output"]),
            helper.make_node("Add", ["state", "output"], ["stateN"]),
        ],
        [
            ("input", TensorProto.FLOAT, [None, None]),
            ("state", TensorProto.FLOAT, [2, None, 8]),
            ("sr", TensorProto.INT64, []),
        ],
        [("output", TensorProto.FLOAT, [None, 1]), ("stateN", TensorProto.FLOAT, [None] * 3)],
        {"last": np.array([1], np.int64)},
    )


def time_major() -> ModelProto:
    """``[time, batch, 4]``, summed over time: the batch is not the first dynamic axis."""
    return make(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        [("x", TensorProto.FLOAT, ["time", "lane", 4])],
        [("y", TensorProto.FLOAT, ["lane", 4])],
        {"axes": np.array([0], np.int64)},
    )


def random_output() -> ModelProto:
    return make(
        [
            helper.make_node("RandomNormalLike", ["x"], ["noise"]),
            helper.make_node("Add", ["x", "noise"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["N", 4])],
        [("y", TensorProto.FLOAT, ["N", 4])],
    )


def picky() -> ModelProto:
    """Refuses every made-up row: it wants an index that none has."""
    return make(
        [
            helper.make_node("Add", ["index", "offset"], ["moved"]),
            helper.make_node("Gather", ["table", "moved"], ["y"]),
        ],
        [("index", TensorProto.INT64, ["N", 1])],
        [("y", TensorProto.FLOAT, ["N", 1])],
        {
            "offset": np.array(-1000, np.int64),
            "table": np.arange(10, dtype=np.float32),
        },
    )
