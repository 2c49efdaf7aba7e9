"""The bytes of one request in each protocol, and what is inside the answers."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc.service_pb2 as pb
import tritonclient.http

from loadtests.models import INPUT, OUTPUT, row

GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"

Answer = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Payload:
    """One request: where it goes, its headers, and its body as it goes onto the wire."""

    path: str
    headers: dict[str, str]
    body: bytes


def http_binary(model: str) -> Payload:
    """What tritonclient sends: a JSON header, then the raw tensor; the answer is binary, too."""
    data = row(model)
    tensor = tritonclient.http.InferInput(INPUT, data.shape, "FP32")
    tensor.set_data_from_numpy(data)
    body, header_size = tritonclient.http.InferenceServerClient.generate_request_body([tensor])
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(header_size),
    }
    return Payload(f"/v2/models/{model}/infer", headers, body)


def http_json(model: str) -> Payload:
    """The tensor as a JSON array, as curl and REST clients send it."""
    data = row(model)
    tensor: dict[str, Any] = {
        "name": INPUT, "shape": list(data.shape), "datatype": "FP32", "data": data.ravel().tolist()
    }  # fmt: skip
    body = json.dumps({"inputs": [tensor]}).encode()
    return Payload(f"/v2/models/{model}/infer", {"Content-Type": "application/json"}, body)


def grpc_raw(model: str) -> Payload:
    """A ``ModelInferRequest`` with raw contents, behind gRPC's five bytes of length prefix."""
    data = row(model)
    message = pb.ModelInferRequest(model_name=model, raw_input_contents=[data.tobytes()])
    message.inputs.add(name=INPUT, datatype="FP32", shape=data.shape)
    return grpc_call(message)


def grpc_call(message: pb.ModelInferRequest) -> Payload:
    """A ModelInfer with ``message``."""
    encoded = message.SerializeToString()
    body = b"\0" + len(encoded).to_bytes(4, "big") + encoded
    return Payload(GRPC_PATH, {"Content-Type": "application/grpc", "TE": "trailers"}, body)


def read_binary(body: bytes, header_size: int) -> Answer:
    """The output of a binary HTTP answer."""
    result = tritonclient.http.InferenceServerClient.parse_response_body(
        body, header_length=header_size
    )
    return np.asarray(result.as_numpy(OUTPUT))


def read_json(body: bytes) -> Answer:
    """The output of a JSON answer."""
    output = json.loads(body)["outputs"][0]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def read_grpc(message: bytes) -> Answer:
    """The output of a ``ModelInferResponse``."""
    response = pb.ModelInferResponse.FromString(message)
    shape = tuple(response.outputs[0].shape)
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(shape)
