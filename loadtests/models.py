"""The reference models, made from a seed: little compute, much of it, and large inputs."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Layer widths of each model. tiny: a run costs microseconds, so the server's own cost is what is
#: seen. heavy: 100 MB of weights are read once a run, so batching is what is seen.
LAYERS = {"tiny": (30, 64, 32, 2), "heavy": (1024, 4096, 4096, 1000)}

#: 25 MB of weights, of which a load can do many; it is written in versions, and not measured alone.
MEDIUM, MEDIUM_WIDTHS = "medium", (1250, 2500, 1250)

#: The model whose row is 602 KB and of which a run looks at three numbers, so the cost of carrying
#: is what is seen.
IMAGE, IMAGE_SHAPE = "image", (3, 224, 224)

#: All of them, in the order in which they are measured.
NAMES = (*LAYERS, IMAGE)

INPUT, OUTPUT = "input", "output"


def mlp(name: str, widths: Sequence[int], seed: int = 0) -> onnx.ModelProto:
    """A multi-layer perceptron ``[batch, widths[0]] -> [batch, widths[-1]]`` with ReLU between."""
    rng = np.random.default_rng(seed)
    nodes, weights = [], []
    last = INPUT
    for layer, (given, made) in enumerate(itertools.pairwise(widths)):
        final = layer == len(widths) - 2
        matrix = rng.normal(0, given**-0.5, (given, made)).astype(np.float32)
        bias = rng.normal(0, 0.1, made).astype(np.float32)
        weights += [
            numpy_helper.from_array(matrix, f"w{layer}"),
            numpy_helper.from_array(bias, f"b{layer}"),
        ]
        summed = OUTPUT if final else f"sum{layer}"
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [summed]))
        last = f"relu{layer}"
        if not final:
            nodes.append(helper.make_node("Relu", [summed], [last]))
    return _model(name, nodes, [widths[0]], [widths[-1]], weights)


def corner(name: str) -> onnx.ModelProto:
    """The first pixel of each image: ``[batch, channels, height, width] -> [batch, channels]``."""
    bounds = {"starts": [0, 0], "ends": [1, 1], "axes": [2, 3]}
    nodes = [
        helper.make_node("Slice", [INPUT, *bounds], ["pixel"]),
        helper.make_node("Flatten", ["pixel"], [OUTPUT]),
    ]
    constants = [
        numpy_helper.from_array(np.array(values, np.int64), bound)
        for bound, values in bounds.items()
    ]
    return _model(name, nodes, IMAGE_SHAPE, IMAGE_SHAPE[:1], constants)


def _model(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    given: Sequence[int],
    made: Sequence[int],
    constants: Sequence[TensorProto],
) -> onnx.ModelProto:
    """``nodes`` as a model from rows of shape ``given`` to rows of shape ``made``."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *given])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", *made])],
        constants,
    )
    # IR 10 is read by every supported ONNX Runtime.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def build(repository: Path) -> None:
    """Write the models into ``repository`` in Triton's layout, unless they are there."""
    for name in NAMES:
        path = repository / name / "1" / "model.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part")
            onnx.save(corner(name) if name == IMAGE else mlp(name, LAYERS[name]), unfinished)
            unfinished.rename(path)


def build_versions(repository: Path, name: str, versions: Sequence[str], settings: str) -> None:
    """Write versions of a perceptron, each with weights of its own, and the model's settings."""
    for version in versions:
        path = repository / name / version / "model.onnx"
        path.parent.mkdir(parents=True)
        onnx.save(mlp(name, _widths(name), seed=int(version)), path)
    (repository / name / "model.toml").write_text(settings)


def _widths(name: str) -> tuple[int, ...]:
    return MEDIUM_WIDTHS if name == MEDIUM else LAYERS[name]


def row(name: str) -> npt.NDArray[np.float32]:
    """The one input row that every request carries: ``float32 [1, ...]``."""
    rng = np.random.default_rng(1)
    shape = IMAGE_SHAPE if name == IMAGE else _widths(name)[:1]
    return rng.normal(0, 1, (1, *shape)).astype(np.float32)
