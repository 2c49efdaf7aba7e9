"""Small ONNX models for the tests, each built by a function, and a repository of them."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
Shape = list[int | str | None]

#: Element types that an identity model is made for: protocol name -> ONNX type.
IDENTITY_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


def make_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]],
    weights: dict[str, npt.NDArray[np.generic]] | None = None,
) -> onnx.ModelProto:
    """A checked model of ``nodes``; inputs and outputs are name -> (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def mlp(sizes: tuple[int, ...] = (30, 64, 32, 2), seed: int = 0) -> onnx.ModelProto:
    """``x`` float32[N, sizes[0]] -> ``y`` float32[N, sizes[-1]]: dense layers with ReLU between."""
    random = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, npt.NDArray[np.generic]] = {}
    value = "x"
    for i, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        weights[f"w{i}"] = random.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)
        weights[f"b{i}"] = random.normal(0, 0.1, columns).astype(np.float32)
        last = i == len(sizes) - 2
        result = "y" if last else f"h{i}"
        gemm = result if last else f"g{i}"
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [gemm]))
        if not last:
            nodes.append(helper.make_node("Relu", [gemm], [result]))
        value = result
    return make_model(
        nodes,
        {"x": (TensorProto.FLOAT, ["N", sizes[0]])},
        {"y": (TensorProto.FLOAT, ["N", sizes[-1]])},
        weights,
    )


def identity(datatype: str) -> onnx.ModelProto:
    """``x`` [N, M] -> ``y`` [N, M], equal to it."""
    element = IDENTITY_TYPES[datatype]
    return make_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        {"x": (element, ["N", "M"])},
        {"y": (element, ["N", "M"])},
    )


def add_columns() -> onnx.ModelProto:
    """``a`` float32[N, 4] and ``b`` float32[N] -> ``y`` float32[N, 4]: b added to each column."""
    return make_model(
        [
            helper.make_node("Unsqueeze", ["b", "axis"], ["column"]),
            helper.make_node("Add", ["a", "column"], ["y"]),
        ],
        {"a": (TensorProto.FLOAT, ["N", 4]), "b": (TensorProto.FLOAT, ["N"])},
        {"y": (TensorProto.FLOAT, ["N", 4])},
        {"axis": np.array([1], np.int64)},
    )


def unbatched() -> onnx.ModelProto:
    """``x`` float32[3] -> ``y`` float32[3], its double: no axis is a batch."""
    return make_model(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        {"x": (TensorProto.FLOAT, [3])},
        {"y": (TensorProto.FLOAT, [3])},
    )


def column_mean() -> onnx.ModelProto:
    """``x`` float32[N, 4] -> ``y`` float32[N, 4]: a row's answer depends on its neighbours."""
    return make_model(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, ["N", 4])},
        {"y": (TensorProto.FLOAT, ["N", 4])},
    )


def loop(size: int = 64) -> onnx.ModelProto:
    """``n`` int64[1] -> ``y`` float32[1]: multiplies matrices ``n`` times, so n sets the time."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep"], ["keep_on"]),
            helper.make_node("MatMul", ["state", "matrix"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("keep_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [size, size]),
        ],
    )
    return make_model(
        [
            helper.make_node("Squeeze", ["n", "axis"], ["trips"]),
            helper.make_node("Loop", ["trips", "", "matrix"], ["product"], body=body),
            helper.make_node("ReduceSum", ["product"], ["sum"], keepdims=0),
            helper.make_node("Reshape", ["sum", "one"], ["y"]),
        ],
        {"n": (TensorProto.INT64, [1])},
        {"y": (TensorProto.FLOAT, [1])},
        {
            "matrix": np.eye(size, dtype=np.float32),
            "axis": np.array([0], np.int64),
            "one": np.array([1], np.int64),
        },
    )


def sequence_output() -> onnx.ModelProto:
    """``x`` float32[2, 2] -> a sequence of tensors, which the protocol cannot carry."""
    value = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("SplitToSequence", ["x"], ["y"], axis=0)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [value],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 9
    return model


#: The models of ``write_repository`` by name.
REPOSITORY: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": mlp,
    **{
        f"identity_{name.lower()}": lambda name=name: identity(name)  # type: ignore[misc]
        for name in IDENTITY_TYPES
    },
    "add_columns": add_columns,
    "unbatched": unbatched,
    "column_mean": column_mean,
    "loop": loop,
}


def add_model(
    repository: Path, name: str, model: onnx.ModelProto, version: str = "1", config: str = ""
) -> Path:
    """Put ``model`` into Triton's layout under ``repository``; return its version's directory.

    ``config`` becomes the model's ``model.toml`` where it is not empty.
    """
    directory = repository / name / version
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(model, directory / "model.onnx")
    if config:
        (repository / name / "model.toml").write_text(config)
    return directory


def write_repository(repository: Path, *names: str) -> Path:
    """Write the named models of ``REPOSITORY``, or all of them, into ``repository``."""
    for name in names or REPOSITORY:
        add_model(repository, name, REPOSITORY[name]())
    return repository
