"""A repository of small models, each made to show one behaviour of a server."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 10

#: Element types of the ``types`` model, by the protocol's name.
ELEMENT_TYPES = {
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


def value(name: str, datatype: str, shape: Sequence[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[datatype], list(shape))


def constant(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def model(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    constants: Sequence[TensorProto] = (),
) -> ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(constants))
    built = helper.make_model(
        graph, opset_imports=[helper.make_operatorsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(built)
    return built


def rows() -> ModelProto:
    """``y = [2x, sum of the row]``: five numbers that only this row can have given."""
    return model(
        [
            helper.make_node("Mul", ["x", "two"], ["twice"]),
            helper.make_node("ReduceSum", ["x", "last"], ["sum"], keepdims=1),
            helper.make_node("Concat", ["twice", "sum"], ["y"], axis=-1),
        ],
        [value("x", "FP32", ["n", 4])],
        [value("y", "FP32", ["n", 5])],
        [constant("two", np.array(2, np.float32)), constant("last", np.array([-1], np.int64))],
    )


def rows_of(x: np.ndarray) -> np.ndarray:
    """What ``rows`` answers to ``x``."""
    return np.concatenate([2 * x, x.sum(-1, keepdims=True)], axis=-1)


def sum_and_difference() -> ModelProto:
    """Two inputs, two outputs: ``SUM = A + B``, ``DIFFERENCE = A - B``."""
    return model(
        [
            helper.make_node("Add", ["A", "B"], ["SUM"]),
            helper.make_node("Sub", ["A", "B"], ["DIFFERENCE"]),
        ],
        [value("A", "INT32", ["n", 16]), value("B", "INT32", ["n", 16])],
        [value("SUM", "INT32", ["n", 16]), value("DIFFERENCE", "INT32", ["n", 16])],
    )


def types() -> ModelProto:
    """One input and one output of each element type, given back as they came."""
    return model(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in ELEMENT_TYPES],
        [value(f"in_{name}", name, ["n", 3]) for name in ELEMENT_TYPES],
        [value(f"out_{name}", name, ["n", 3]) for name in ELEMENT_TYPES],
    )


def echo(datatype: str) -> ModelProto:
    """Gives its one input back."""
    return model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", datatype, ["n", "m"])],
        [value("y", datatype, ["n", "m"])],
    )


def lookup() -> ModelProto:
    """Row ``index`` of a table of ten: ONNX Runtime fails where the index is not in the table."""
    table = np.arange(10, dtype=np.float32) * 1.5
    return model(
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        [value("index", "INT64", ["n", 1])],
        [value("y", "FP32", ["n", 1])],
        [constant("table", table)],
    )


def scores() -> ModelProto:
    """Gives its scores of four classes back, to be asked for as a classification."""
    return model(
        [helper.make_node("Identity", ["scores"], ["chances"])],
        [value("scores", "FP32", ["n", 4])],
        [value("chances", "FP32", ["n", 4])],
    )


def slow() -> ModelProto:
    """Multiplies matrices ``steps`` times (some 0.1 ms each), then answers ``steps``.

    It has no batch axis, so it is served one request at a time, and at most ``STEPS_AT_MOST``
    steps are made, whatever number is sent.
    """
    size = 128
    state = value("state", "FP32", [size, size])
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state_in", "factor"], ["state_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            value("state_in", "FP32", [size, size]),
        ],
        [helper.make_tensor_value_info("go_out", TensorProto.BOOL, []), rename(state, "state_out")],
    )
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(size, size)))
    return model(
        [
            helper.make_node("Min", ["steps", "most"], ["bounded"]),
            helper.make_node("Squeeze", ["bounded"], ["count"]),
            helper.make_node("Loop", ["count", "", "start"], ["state"], body=body),
            helper.make_node("ReduceSum", ["state"], ["total"], keepdims=0),
            helper.make_node("Mul", ["total", "zero"], ["nothing"]),
            helper.make_node("Cast", ["steps"], ["steps_float"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["steps_float", "nothing"], ["y"]),
        ],
        [value("steps", "INT64", [1])],
        [value("y", "FP32", [1])],
        [
            constant("most", np.array([STEPS_AT_MOST], np.int64)),
            constant("start", np.eye(size, dtype=np.float32)),
            constant("factor", rotation.astype(np.float32)),
            constant("zero", np.array(0, np.float32)),
        ],
    )


STEPS_AT_MOST = 20_000


def rename(declared: ValueInfoProto, name: str) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(declared)
    copy.name = name
    return copy


class ModelDirectory:
    """A model repository under construction."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self, name: str, build: Callable[[], ModelProto], settings: str = "", version: str = "1"
    ) -> None:
        """Put a model into the repository, with its ``model.toml`` where ``settings`` has text."""
        place = self.path / name / version
        place.mkdir(parents=True)
        onnx.save(build(), place / "model.onnx")
        if settings:
            (self.path / name / "model.toml").write_text(settings)

    def add_broken(self, name: str, version: str = "1") -> None:
        """A version whose file is no ONNX model."""
        place = self.path / name / version
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(b"this is not a model")


def build_repository(path: Path) -> Path:
    """Every model that the behaviour suite asks for."""
    models = ModelDirectory(path)
    models.add("rows", rows)
    models.add("sliced", rows, "max_batch_size = 8\n")
    models.add("strict", rows, "max_batch_size = 4\nallow_slicing = false\n")
    models.add("sum_and_difference", sum_and_difference)
    models.add("types", types)
    models.add("strings", lambda: echo("BYTES"))
    models.add("lookup", lookup)
    models.add("scores", scores, '[outputs.chances]\nlabels = ["ant", "bee", "cat", "dog"]\n')
    models.add("slow", slow, "inline = false\n")
    models.add("crowded", slow, "inline = false\nmax_queue_size = 1\n")
    models.add("unloadable", rows)
    models.add("echo", lambda: echo("FP32"))
    return path


def add_broken_versions(path: Path) -> Path:
    """One model of which nothing can be loaded, and one of whose versions the second cannot."""
    models = ModelDirectory(path)
    models.add("versions", rows, 'version_policy = "all"\n')
    models.add_broken("versions", "2")
    models.add_broken("broken")
    return path
