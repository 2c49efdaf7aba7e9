"""The gateway's fronts behind one interface, so that one behaviour suite runs over them all.

Each adapter speaks its protocol in its plainest form. Requests are described by what goes on the
wire (names, datatypes, shapes, bytes), so a wrong one can be said as easily as a right one.
"""

import http.client
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import (
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

from tests.server import GRPC_IMPLEMENTATIONS, HOST, GatewayProcess, Gateways

Array = npt.NDArray[Any]

#: An error's name in gRPC for its HTTP status.
CODE_OF_STATUS = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True)
class Tensor:
    """One input on its way: ``raw`` are the bytes that go out, whether they fit the shape or not.

    ``elements`` are what a JSON request carries instead.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes
    elements: list[Any]

    @classmethod
    def of(cls, name: str, array: Array, **other: Any) -> "Tensor":
        """The tensor that rightly says what ``array`` is, except for what ``other`` replaces."""
        datatype = np_to_triton_dtype(array.dtype)
        if datatype == "BYTES":
            raw = serialize_byte_tensor(array).item() if array.size else b""
            elements = [x.decode() if isinstance(x, bytes) else x for x in array.flat]
        else:
            raw = array.tobytes()
            elements = array.ravel().tolist()
        told = {
            "name": name,
            "datatype": datatype,
            "shape": array.shape,
            "raw": raw,
            "elements": elements,
        }
        return cls(**{**told, **other})


@dataclass(frozen=True)
class Request:
    """One inference request; ``outputs`` are names, ``None`` for all of them."""

    model: str
    inputs: tuple[Tensor, ...]
    version: str = ""
    id: str = ""
    outputs: tuple[str, ...] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


class RefusedError(Exception):
    """An error answer. ``code`` is gRPC's name for it, ``None`` where the front tells no code."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Front(Protocol):
    """One way to ask for an inference. Not for use by two threads at a time."""

    name: str
    gateway: GatewayProcess
    #: Whether a request's bytes go out as they are (``Tensor.raw``) or as JSON elements.
    binary: bool

    def infer(self, request: Request, timeout_s: float = 30.0) -> dict[str, Array]:
        """The outputs by name. Raises ``RefusedError`` for an error answer."""

    def close(self) -> None:
        """Close the connection."""


class HttpFront(ABC):
    """What HTTP JSON and HTTP binary share: a kept-alive connection and the error body."""

    name = ""
    binary = False

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self._connection = http.client.HTTPConnection(HOST, gateway.http_port, timeout=30.0)

    def infer(self, request: Request, timeout_s: float = 30.0) -> dict[str, Array]:
        body, headers = self.encode(request)
        status, answer_headers, answer = self.post(infer_path(request), body, headers)
        if status != 200:
            assert answer_headers["content-type"].startswith("application/json"), answer_headers
            document = json.loads(answer)
            assert set(document) == {"error"}, document
            raise RefusedError(CODE_OF_STATUS[status], document["error"])
        return decode_http(answer, answer_headers)

    @abstractmethod
    def encode(self, request: Request) -> tuple[bytes, dict[str, str]]:
        """The body of ``request`` and its headers."""

    def post(
        self, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """One exchange: status, headers in lower case, body."""
        self._connection.request("POST", path, body, headers)
        response = self._connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, response.read()

    def close(self) -> None:
        self._connection.close()


class HttpJson(HttpFront):
    name = "HTTP JSON"
    binary = False

    def encode(self, request: Request) -> tuple[bytes, dict[str, str]]:
        document = describe(request)
        for entry, tensor in zip(document["inputs"], request.inputs, strict=True):
            entry["data"] = tensor.elements
        return json.dumps(document).encode(), {"Content-Type": "application/json"}


class HttpBinary(HttpFront):
    name = "HTTP binary"
    binary = True

    def encode(self, request: Request) -> tuple[bytes, dict[str, str]]:
        document = describe(request)
        for entry, tensor in zip(document["inputs"], request.inputs, strict=True):
            entry["parameters"] = {"binary_data_size": len(tensor.raw)}
        document.setdefault("parameters", {})["binary_data_output"] = True
        header = json.dumps(document).encode()
        return b"".join([header, *(tensor.raw for tensor in request.inputs)]), {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(header)),
        }


class GrpcUnary:
    name = "gRPC"
    binary = True

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self._channel = grpc.insecure_channel(gateway.grpc_url, CHANNEL_OPTIONS)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def infer(self, request: Request, timeout_s: float = 30.0) -> dict[str, Array]:
        try:
            answer = self.stub.ModelInfer(grpc_message(request), timeout=timeout_s)
        except grpc.RpcError as error:
            raise RefusedError(error.code().name, error.details()) from None
        return decode_grpc(answer)

    def close(self) -> None:
        self._channel.close()


class GrpcStream(GrpcUnary):
    """One stream per request; errors come in-band, without a code."""

    name = "gRPC stream"
    metadata: tuple[tuple[str, str], ...] = ()

    def infer(self, request: Request, timeout_s: float = 30.0) -> dict[str, Array]:
        call = self.stub.ModelStreamInfer(
            iter([grpc_message(request)]), timeout=timeout_s, metadata=self.metadata
        )
        try:
            answers = list(call)
        except grpc.RpcError as error:
            raise RefusedError(error.code().name, error.details()) from None
        assert len(answers) == 1, f"{len(answers)} answers to one request"
        if answers[0].error_message:
            raise RefusedError(None, answers[0].error_message)
        return decode_grpc(answers[0].infer_response)


class GrpcStreamWithStatus(GrpcStream):
    """A stream whose client asked for errors as gRPC statuses."""

    name = "gRPC stream, triton_grpc_error"
    metadata = (("triton_grpc_error", "true"),)


FrontClass = type[HttpFront] | type[GrpcUnary]

#: Every front that the behaviour suite runs over; an adapter added here is tested like the others.
FRONTS: tuple[FrontClass, ...] = (
    HttpJson,
    HttpBinary,
    GrpcUnary,
    GrpcStream,
    GrpcStreamWithStatus,
)


@dataclass(frozen=True)
class Way:
    """A front, and the gRPC implementation of the gateway that it is tested on."""

    front: FrontClass
    grpc_impl: str

    @property
    def name(self) -> str:
        if issubclass(self.front, HttpFront):
            return self.front.name
        return f"{self.front.name} on {self.grpc_impl}"

    def connect(self, gateways: Gateways) -> Front:
        return self.front(gateways[self.grpc_impl])


#: HTTP's fronts once, gRPC's on each implementation.
WAYS: tuple[Way, ...] = (
    *(Way(front, GRPC_IMPLEMENTATIONS[0]) for front in FRONTS if issubclass(front, HttpFront)),
    *(
        Way(front, implementation)
        for implementation in GRPC_IMPLEMENTATIONS
        for front in FRONTS
        if issubclass(front, GrpcUnary)
    ),
)

CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Channels with equal options share a connection unless told otherwise.
    ("grpc.use_local_subchannel_pool", 1),
]


def infer_path(request: Request) -> str:
    version = f"/versions/{request.version}" if request.version else ""
    return f"/v2/models/{request.model}{version}/infer"


def describe(request: Request) -> dict[str, Any]:
    """The JSON form of a request, its tensors' data left out."""
    document: dict[str, Any] = {
        "inputs": [
            {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
            for tensor in request.inputs
        ]
    }
    if request.id:
        document["id"] = request.id
    if request.parameters:
        document["parameters"] = dict(request.parameters)
    if request.outputs is not None:
        document["outputs"] = [{"name": name} for name in request.outputs]
    return document


def grpc_message(request: Request) -> Any:
    message = service_pb2.ModelInferRequest(
        model_name=request.model, model_version=request.version, id=request.id
    )
    for tensor in request.inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_input_contents.append(tensor.raw)
    for name in request.outputs or ():
        message.outputs.add(name=name)
    for name, parameter in request.parameters.items():
        set_parameter(message.parameters[name], parameter)
    return message


def set_parameter(message: Any, parameter: bool | int | float | str) -> None:
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    setattr(message, kinds[type(parameter)], parameter)


def decode_http(body: bytes, headers: dict[str, str]) -> dict[str, Array]:
    header_size = int(headers.get("inference-header-content-length", len(body)))
    outputs = {}
    offset = header_size
    for output in json.loads(body[:header_size])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            dtype = triton_to_np_dtype(output["datatype"])
            array = np.array(output["data"], dtype=dtype).reshape(output["shape"])
        else:
            array = from_raw(body[offset : offset + size], output["datatype"], output["shape"])
            offset += size
        outputs[output["name"]] = array
    assert offset == len(body), f"{len(body) - offset} bytes that belong to no output"
    return outputs


def decode_grpc(answer: Any) -> dict[str, Array]:
    return {
        output.name: from_raw(raw, output.datatype, tuple(output.shape))
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def from_raw(raw: bytes, datatype: str, shape: Any) -> Array:
    if datatype == "BYTES":
        return deserialize_bytes_tensor(raw).reshape(shape)
    return np.frombuffer(raw, triton_to_np_dtype(datatype)).reshape(shape)


def sample(datatype: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """An array of ``shape`` whose values use the datatype's range.

    Floats are few-digit multiples of 1/64, whose sums are exact in whatever order they are made.
    """
    rng = np.random.default_rng(seed)
    if datatype == "BYTES":
        words = [
            bytes(rng.integers(97, 123, rng.integers(0, 9)).astype(np.uint8))
            for _ in range(int(np.prod(shape)))
        ]
        array = np.empty(shape, object)
        array.ravel()[:] = words
        return array
    if datatype == "BOOL":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        return (rng.integers(-255, 256, shape) / 64).astype(triton_to_np_dtype(datatype))
    limits = np.iinfo(triton_to_np_dtype(datatype))
    return rng.integers(limits.min, limits.max, shape, limits.dtype, endpoint=True)
