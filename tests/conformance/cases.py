"""The ``onnx`` package's own backend tests as cases to run: models, inputs, expected outputs."""

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

Array = npt.NDArray[Any]

#: The protocol's name for each element type that the protocol can carry.
DATATYPES = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.STRING: "BYTES",
}

RANDOM_OPERATORS = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


@dataclass(frozen=True)
class Case:
    """One backend test.

    Attributes:
        name: the test's name, which is also the name its model is served under.
        model: the model as the test has it, its own IR and opset versions included.
        inputs: by the graph's input name; BF16 as ``ml_dtypes.bfloat16``, strings as ``object``.
        expected: the outputs that the test demands, in the graph's order.
        rtol, atol: the test's own tolerances.
        inexpressible: why the protocol cannot carry its tensors, ``""`` where it can.
    """

    name: str
    model: ModelProto
    inputs: dict[str, Any]
    expected: list[Any]
    rtol: float
    atol: float
    inexpressible: str

    @property
    def output_names(self) -> list[str]:
        return [value.name for value in self.model.graph.output]

    @property
    def draws_random_numbers(self) -> bool:
        """Whether an operator of the model may answer differently each time."""
        return any(
            node.op_type in RANDOM_OPERATORS
            or (node.op_type == "Dropout" and len(node.input) == 3)
            or (
                node.op_type == "Dropout" and any(a.name == "training_mode" for a in node.attribute)
            )
            for node in nodes_of(self.model.graph)
        )

    def assert_expected(self, outputs: list[Array]) -> None:
        """Hold ``outputs`` against what the test demands, as the test's own runner does."""
        expected = [as_array(value) for value in self.expected]
        Runner.assert_similar_outputs(expected, outputs, self.rtol, self.atol)

    def assert_shapes(self, outputs: list[Array]) -> None:
        """The same for dtypes and shapes alone."""
        for value, output in zip(self.expected, outputs, strict=True):
            wanted = as_array(value)
            assert (output.dtype, output.shape) == (wanted.dtype, wanted.shape)


def nodes_of(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node of ``graph`` and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)
            for subgraph in attribute.graphs:
                yield from nodes_of(subgraph)


def as_array(value: Any) -> Any:
    """A test's value as an array; what is no tensor (a sequence, nothing) stays what it is."""
    if isinstance(value, TensorProto):
        return onnx.numpy_helper.to_array(value)
    if value is None or isinstance(value, (list, tuple, dict)):
        return value
    return np.asarray(value)


@functools.cache
def node_cases() -> tuple[Case, ...]:
    """Every node test of the installed ``onnx`` package. Takes several seconds the first time."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        tests = collect_testcases(None)
    return tuple(node_case(test) for test in tests)


def node_case(test: Any) -> Case:
    (inputs, expected), *others = test.data_sets
    assert not others, f"{test.name} has more than one data set"
    names = [value.name for value in test.model.graph.input]
    return Case(
        name=test.name,
        model=test.model,
        inputs=dict(zip(names, map(as_array, inputs), strict=True)),
        expected=list(expected),
        rtol=test.rtol,
        atol=test.atol,
        inexpressible=why_inexpressible(test.model),
    )


def topology_cases() -> Iterator[Case]:
    """The real network topologies that ``onnx`` carries with weights left out."""
    root = Path(onnx.__file__).parents[1]
    for test in sorted(load_model_tests(kind="real"), key=lambda test: test.name):
        model = onnx.load(root / test.url)
        prefix = (root / test.url).with_suffix("")
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        outputs = range(len(model.graph.output))
        yield Case(
            name=test.name,
            model=model,
            inputs={value.name: Runner.generate_dummy_data(value) for value in inputs},
            expected=[onnx.load_tensor(f"{prefix}_output_{i}.pb") for i in outputs],
            rtol=test.rtol,
            atol=test.atol,
            inexpressible=why_inexpressible(model),
        )


def why_inexpressible(model: ModelProto) -> str:
    """Why the Open Inference Protocol cannot carry the model's inputs or outputs, or ``""``."""
    for side, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            if kind != "tensor_type":
                return f"{side} '{value.name}' is {describe(value.type)}"
            if value.type.tensor_type.elem_type not in DATATYPES:
                return f"{side} '{value.name}' has elements of {describe(value.type)}"
    return ""


def describe(type_proto: TypeProto) -> str:
    """``sequence``, ``optional``, ``map``, ``sparse tensor``, or the element type's ONNX name."""
    kind = type_proto.WhichOneof("value")
    if kind == "tensor_type":
        return TensorProto.DataType.Name(type_proto.tensor_type.elem_type)
    return {
        "sequence_type": "a sequence",
        "optional_type": "an optional",
        "map_type": "a map",
        "sparse_tensor_type": "a sparse tensor",
        None: "of no type",
    }[kind]


def traits(case: Case) -> set[str]:
    """What about a case could go wrong on the wire: its types, ranks, sizes, counts, operators."""
    found = {f"{len(case.inputs)} inputs", f"{len(case.expected)} outputs"}
    for side, arrays in (("in", case.inputs.values()), ("out", map(as_array, case.expected))):
        for array in arrays:
            found |= {f"{side} {array.dtype}", f"{side} rank {array.ndim}"}
            if array.size == 0:
                found.add(f"{side} empty")
            if array.dtype == ml_dtypes.bfloat16 or array.dtype.kind == "f":
                finite = np.isfinite(array.astype(np.float64))
                found.add(f"{side} finite {bool(finite.all())}")
    return found


def spread(cases: list[Case], count: int) -> list[Case]:
    """A subset of ``count`` cases that shows every trait, then as many operators as fit."""
    chosen: dict[str, Case] = {}
    shown: set[str] = set()
    for case in cases:
        if not traits(case) <= shown:
            shown |= traits(case)
            chosen[case.name] = case
    operators: set[str] = set()
    first_of_operator = []
    for case in cases:
        operator = case.model.graph.node[0].op_type if case.model.graph.node else ""
        if operator not in operators:
            operators.add(operator)
            first_of_operator.append(case)
    wanted = max(count - len(chosen), 0)
    step = max(len(first_of_operator) / wanted, 1.0) if wanted else 1.0
    for i in range(min(wanted, len(first_of_operator))):
        case = first_of_operator[int(i * step)]
        chosen.setdefault(case.name, case)
    return list(chosen.values())
