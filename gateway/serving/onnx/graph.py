"""What an ``.onnx`` file says about itself: its tensors, opsets, metadata and external data."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import onnx
from onnx import helper

from gateway.errors import LoadError
from gateway.serving.onnx.session import WIDENED
from gateway.serving.onnx.skim import skim
from gateway.serving.signature import TensorSpec
from gateway.types import BF16, BYTES, DATATYPES_BY_ONNX

#: From this version of the format on, an initializer that is listed among the graph's inputs too
#: is a default on purpose; before it, every initializer had to be listed.
DEFAULTS_SINCE_IR: Final = 4


@dataclass(frozen=True, slots=True)
class Graph:
    """The interface of one model file.

    Attributes:
        path: the file.
        model: what to open a session on: the file, or the bytes of the model that was made of it
            where the graph had to be changed (ZipMap, or BF16 beside text).
        inputs, outputs: as the file declares them; no batch axis is decided yet.
        unshaped: outputs of which the file does not even tell the rank; their ``shape`` is a
            placeholder.
        opsets: opset version by domain, ``""`` the standard one.
        metadata: producer, description and the file's own key/values, all text.
        external: files that hold the model's external data, without repetition.
        size_bytes: size of the file and its external data.
    """

    path: Path
    model: Path | bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    unshaped: frozenset[str]
    opsets: dict[str, int]
    metadata: dict[str, str] = field(default_factory=dict)
    external: tuple[Path, ...] = ()
    size_bytes: int = 0


def read_graph(path: Path, shapes: dict[str, tuple[int, ...]] | None = None) -> Graph:
    """Read the interface of a model file; weights are not read.

    Args:
        path: the ``.onnx`` file.
        shapes: shapes from the settings for inputs of which the file does not tell the rank.

    Raises:
        LoadError: the file is damaged, external data is missing or lies outside the model's
            directory, or an input or output has a type or rank that cannot be served.
    """
    model = skim(path)
    external = external_files(model, path.parent)
    classes = _zipmap_classes(model.graph)
    defaults = {tensor.name for tensor in model.graph.initializer}
    inputs = [
        _spec("input", value, shapes or {}, optional=value.name in defaults)
        for value in model.graph.input
        if value.name not in defaults or model.ir_version >= DEFAULTS_SINCE_IR
    ]
    outputs = [
        _probabilities(value.name, classes[value.name])
        if value.name in classes
        else _spec("output", value, {})
        for value in model.graph.output
    ]
    if not outputs:
        raise LoadError(f"{path.name} has no outputs: there is nothing to serve")
    # See WIDENED: text in and BF16 out is what ONNX Runtime's Python API cannot do in one run.
    widened = any(i.datatype is BYTES for i in inputs) and any(o.datatype is BF16 for o in outputs)
    return Graph(
        path=path,
        model=_adapted(path, widened) if classes or widened else path,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        unshaped=frozenset(
            value.name
            for value in model.graph.output
            if value.name not in classes and not value.type.tensor_type.HasField("shape")
        ),
        opsets={opset.domain: opset.version for opset in model.opset_import},
        metadata=_metadata(model, classes),
        external=external,
        size_bytes=sum(file.stat().st_size for file in (path, *external)),
    )


def files_beside(path: Path) -> tuple[Path, ...]:
    """The files that hold the external data of the model in ``path``; none where it cannot be read.

    Raises nothing: what is wrong with the model is told when it is loaded.
    """
    try:
        return external_files(skim(path), path.parent)
    except LoadError:
        return ()


def external_files(model: onnx.ModelProto, folder: Path) -> tuple[Path, ...]:
    """The files that hold the model's external data, sorted.

    Raises:
        LoadError: one is missing, or lies outside ``folder``.
    """
    root = folder.resolve()
    found: set[Path] = set()
    for tensor in _tensors(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        file = (root / location).resolve()
        if not location or not file.is_relative_to(root):
            raise LoadError(
                f"the external data of tensor {tensor.name!r} lies at {location!r}, outside the"
                " model's directory: move it beside the model"
            )
        if not file.is_file():
            raise LoadError(
                f"the external data of tensor {tensor.name!r} is missing: {location!r} must lie"
                f" beside {folder.name}'s model file"
            )
        found.add(file)
    return tuple(sorted(found))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.TENSORS:
                yield from attribute.tensors
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for subgraph in attribute.graphs:
                    yield from _tensors(subgraph)


def _spec(
    kind: str,
    value: onnx.ValueInfoProto,
    shapes: dict[str, tuple[int, ...]],
    *,
    optional: bool = False,
) -> TensorSpec:
    given = _refusal(value.type)
    if given:
        raise LoadError(
            f"{kind} {value.name!r} is {given}, which the Open Inference Protocol cannot express:"
            " it carries dense tensors of BOOL, INT8-64, UINT8-64, FP16, BF16, FP32, FP64 and BYTES"
        )
    tensor = value.type.tensor_type
    datatype = DATATYPES_BY_ONNX[tensor.elem_type]
    if not tensor.HasField("shape"):
        if kind == "input" and value.name not in shapes:
            raise LoadError(
                f"input {value.name!r} has no shape in the graph, not even a rank: give it in"
                f' model.toml as [inputs."{value.name}"] shape = [-1, ...]'
            )
        shape = shapes.get(value.name, (-1,))
        return TensorSpec(value.name, datatype, shape, ("",) * len(shape), optional=optional)
    dims = tensor.shape.dim
    return TensorSpec(
        name=value.name,
        datatype=datatype,
        # Some exporters write -1 for "any size" where the format wants no value at all.
        shape=tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else -1 for d in dims
        ),
        symbols=tuple(d.dim_param for d in dims),
        optional=optional,
    )


def _refusal(kind: onnx.TypeProto) -> str:
    """Words for a type that cannot be served, ``""`` for one that can."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        if kind.tensor_type.elem_type in DATATYPES_BY_ONNX:
            return ""
        return f"a tensor of {onnx.TensorProto.DataType.Name(kind.tensor_type.elem_type)}"
    if which == "sparse_tensor_type":
        return "a sparse tensor"
    if which == "sequence_type":
        return f"a sequence (of {_refusal(kind.sequence_type.elem_type) or 'tensors'})"
    if which == "optional_type":
        return f"an optional (of {_refusal(kind.optional_type.elem_type) or 'a tensor'})"
    if which == "map_type":
        return "a map"
    return "of no declared type" if which is None else f"an {which}"


def _zipmap_classes(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """The class labels of each graph output that a ZipMap makes."""
    results = {value.name for value in graph.output}
    classes: dict[str, tuple[str, ...]] = {}
    for node in graph.node:
        if node.op_type != "ZipMap" or node.domain != "ai.onnx.ml" or node.output[0] not in results:
            continue
        labels: tuple[str, ...] = ()
        for attribute in node.attribute:
            if attribute.name == "classlabels_int64s" and attribute.ints:
                labels = tuple(str(label) for label in attribute.ints)
            elif attribute.name == "classlabels_strings" and attribute.strings:
                labels = tuple(label.decode() for label in attribute.strings)
        classes[node.output[0]] = labels
    return classes


def _probabilities(name: str, labels: tuple[str, ...]) -> TensorSpec:
    """The output that is left where a ZipMap was: one probability for each class."""
    return TensorSpec(name, DATATYPES_BY_ONNX[1], (-1, len(labels)), ("", ""), labels=labels)


def _adapted(path: Path, widen: bool) -> bytes:
    """The model with changes to its outputs that leave their values alone, as bytes.

    Each ZipMap that makes an output gives way to its input, the tensor; with ``widen`` each BF16
    output is given in FP32 under a name that ends with ``WIDENED``.
    """
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    classes = _zipmap_classes(graph)
    for node in graph.node:
        if node.op_type == "ZipMap" and node.output[0] in classes:
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
    for value in graph.output:
        tensor = value.type.tensor_type
        if value.name in classes:
            shape = [None, len(classes[value.name])]
            value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))
        elif widen and tensor.elem_type == onnx.TensorProto.BFLOAT16:
            wide = value.name + WIDENED
            graph.node.append(
                helper.make_node("Cast", [value.name], [wide], to=onnx.TensorProto.FLOAT)
            )
            value.name, tensor.elem_type = wide, onnx.TensorProto.FLOAT
    if not any(opset.domain == "" for opset in model.opset_import):
        # A pure ai.onnx.ml graph need not import the standard operators, of which Identity is one.
        model.opset_import.append(helper.make_opsetid("", 13))
    return model.SerializeToString()


def _metadata(model: onnx.ModelProto, classes: dict[str, tuple[str, ...]]) -> dict[str, str]:
    described = {
        "producer_name": model.producer_name,
        "producer_version": model.producer_version,
        "domain": model.domain,
        "model_version": str(model.model_version) if model.model_version else "",
        "description": model.doc_string,
        "graph": model.graph.name,
        **{f"classes.{name}": json.dumps(labels) for name, labels in classes.items()},
        **{entry.key: entry.value for entry in model.metadata_props},
    }
    return {key: value for key, value in described.items() if value}
