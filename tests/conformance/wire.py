"""One inference of a case over each protocol, through the unmodified ``tritonclient``."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from onnx import ValueInfoProto

from tests.conformance.cases import DATATYPES, Case

Array = npt.NDArray[Any]


class Wire(Protocol):
    """A protocol under test. ``infer`` raises ``InferenceServerException`` for an error answer."""

    name: str

    def infer(self, case: Case) -> dict[str, Array]:
        """Send the case's inputs, return its outputs by name."""

    def close(self) -> None:
        """Close the connection."""


class HttpBinary:
    name = "HTTP binary"

    def __init__(self, url: str) -> None:
        self._client = httpclient.InferenceServerClient(url, network_timeout=120.0)

    def infer(self, case: Case) -> dict[str, Array]:
        inputs = fill(httpclient.InferInput, case)
        outputs = [httpclient.InferRequestedOutput(name) for name in case.output_names]
        result = self._client.infer(case.name, inputs, outputs=outputs)
        return read(result, case)

    def close(self) -> None:
        self._client.close()


class Grpc:
    name = "gRPC"

    def __init__(self, url: str) -> None:
        self._client = grpcclient.InferenceServerClient(url)

    def infer(self, case: Case) -> dict[str, Array]:
        inputs = fill(grpcclient.InferInput, case)
        outputs = [grpcclient.InferRequestedOutput(name) for name in case.output_names]
        result = self._client.infer(case.name, inputs, outputs=outputs, client_timeout=120.0)
        return read(result, case)

    def close(self) -> None:
        self._client.close()


def fill(input_class: Any, case: Case) -> list[Any]:
    """The case's inputs as the client's input objects, with raw data."""
    declared = {value.name: value for value in case.model.graph.input}
    inputs = []
    for name, array in case.inputs.items():
        tensor = input_class(name, list(array.shape), datatype_of(declared[name]))
        inputs.append(tensor.set_data_from_numpy(as_strings(array)))
    return inputs


def datatype_of(value: ValueInfoProto) -> str:
    return DATATYPES[value.type.tensor_type.elem_type]


def as_strings(array: Array) -> Array:
    """Strings as ``object`` elements, which is how the client takes them."""
    return array.astype(object) if array.dtype.kind in "US" else array


def read(result: Any, case: Case) -> dict[str, Array]:
    """The outputs of the client's result, each declared with the graph's datatype."""
    outputs = {}
    for value in case.model.graph.output:
        answer = result.get_output(value.name)
        assert answer is not None, f"output '{value.name}' is missing from the answer"
        datatype = answer["datatype"] if isinstance(answer, dict) else answer.datatype
        assert datatype == datatype_of(value), (
            f"output '{value.name}' came as {datatype}, expected {datatype_of(value)}"
        )
        outputs[value.name] = result.as_numpy(value.name)
    return outputs


def same_bits(first: Array, second: Array) -> bool:
    """Whether two arrays of one dtype and shape are equal bit for bit; strings by their bytes."""
    if first.dtype == object or second.dtype == object:
        return [encoded(x) for x in first.flat] == [encoded(x) for x in second.flat]
    return np.ascontiguousarray(first).tobytes() == np.ascontiguousarray(second).tobytes()


def encoded(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()
