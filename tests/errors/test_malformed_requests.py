"""Bytes that do not parse are the caller's fault, and the message says where they broke."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tests.fronts import HttpBinary, Request, Tensor, decode_grpc, grpc_message, sample
from tests.repository import rows_of
from tests.server import GatewayProcess

X = sample("FP32", (2, 4))
PATH = "/v2/models/rows/infer"
INPUT = {"name": "x", "datatype": "FP32", "shape": [2, 4]}
ZEROS = [0.0] * 8


@pytest.fixture
def http(gateway: GatewayProcess) -> Iterator[HttpBinary]:
    front = HttpBinary(gateway)
    yield front
    front.infer(Request("rows", (Tensor.of("x", X),)))
    front.close()


def refused(http: HttpBinary, body: bytes, headers: dict[str, str] | None = None) -> str:
    """The message of the 400 that ``body`` gets."""
    status, answer_headers, answer = http.post(PATH, body, headers or {})
    assert status == 400, (status, answer)
    assert answer_headers["content-type"].startswith("application/json")
    document = json.loads(answer)
    assert list(document) == ["error"]
    return document["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b'{"inputs": [}',
        b'{"inputs": []} and more',
        b'{"inputs": [{"name": "x"',
        b"\xff\xfe{}",
        b'{"inputs": "\xc3\x28"}',
        b'{"id": "\\ud800", "inputs": []}',
        b'{"inputs": [NaN]}',
    ],
    ids=repr,
)
def test_body_that_is_no_json_object(http: HttpBinary, body: bytes) -> None:
    assert refused(http, body)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"inputs": None},
        {"inputs": {}},
        {"inputs": "x"},
        {"inputs": [7]},
        {"inputs": [[]]},
        {"inputs": [{}]},
        {"inputs": [{**INPUT, "name": 7, "data": ZEROS}]},
        {"inputs": [{**INPUT, "datatype": None, "data": ZEROS}]},
        {"inputs": [{**INPUT, "shape": "2,4", "data": ZEROS}]},
        {"inputs": [{**INPUT, "shape": [2, 4.5], "data": ZEROS}]},
        {"inputs": [{**INPUT, "shape": [2, True], "data": ZEROS}]},
        {"inputs": [{**INPUT, "shape": [2, 2**70], "data": ZEROS}]},
        {"inputs": [INPUT]},
        {"inputs": [{**INPUT, "data": None}]},
        {"inputs": [{**INPUT, "data": {}}]},
        {"inputs": [{**INPUT, "data": ["a"] * 8}]},
        {"inputs": [{**INPUT, "data": [None] * 8}]},
        {"inputs": [{**INPUT, "data": [[0.0] * 4, [0.0] * 3]}]},
        {"inputs": [{**INPUT, "data": ZEROS}], "outputs": "y"},
        {"inputs": [{**INPUT, "data": ZEROS}], "outputs": [{}]},
        {"inputs": [{**INPUT, "data": ZEROS}], "parameters": []},
        {"inputs": [{**INPUT, "data": ZEROS, "parameters": 7}]},
        {"inputs": [{**INPUT, "parameters": {"binary_data_size": -4}}]},
        {"inputs": [{**INPUT, "parameters": {"binary_data_size": "32"}}]},
        {"inputs": [{**INPUT, "parameters": {"shared_memory_region": "nowhere"}}]},
    ],
    ids=json.dumps,
)
def test_json_of_another_form_than_the_protocols(http: HttpBinary, document: Any) -> None:
    assert refused(http, json.dumps(document).encode())


@pytest.mark.parametrize("length", ["-1", "x", "", "1.5", "99999999999999999999", "1000", "3"])
def test_header_length_that_does_not_fit_the_body(http: HttpBinary, length: str) -> None:
    body = b'{"inputs": []}' + X.tobytes()
    assert refused(http, body, {"Inference-Header-Content-Length": length})


@pytest.mark.parametrize("size", [0, 31, 33, 64, 2**40])
def test_binary_data_size_that_does_not_fit_the_body(http: HttpBinary, size: int) -> None:
    header = json.dumps({"inputs": [{**INPUT, "parameters": {"binary_data_size": size}}]}).encode()
    message = refused(
        http, header + X.tobytes(), {"Inference-Header-Content-Length": str(len(header))}
    )
    assert "binary" in message


def test_binary_data_that_no_input_claims(http: HttpBinary) -> None:
    header = json.dumps({"inputs": [{**INPUT, "parameters": {"binary_data_size": 32}}]}).encode()
    body = header + X.tobytes() + b"left over"
    message = refused(http, body, {"Inference-Header-Content-Length": str(len(header))})
    assert "9" in message or str(32 + 9) in message


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_body_that_is_not(http: HttpBinary, encoding: str) -> None:
    assert encoding in refused(http, b'{"inputs": []}', {"Content-Encoding": encoding})


def test_content_encoding_that_is_unknown(http: HttpBinary) -> None:
    status, _, answer = http.post(PATH, b"{}", {"Content-Encoding": "zebra"})
    assert status in (400, 415)
    assert "zebra" in json.loads(answer)["error"]


@pytest.mark.parametrize("depth", [101, 5_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["[", "{"])
@pytest.mark.parametrize("place", ["data", "parameters"])
def test_json_nested_too_deep(
    http: HttpBinary, depth: int, opening: str, closing: str, place: str
) -> None:
    nested = opening * depth + "1" + closing * depth
    body = json.dumps({"inputs": [{**INPUT, place: "NESTED"}]}).replace('"NESTED"', nested)
    assert "100" in refused(http, body.encode())


@pytest.fixture
def channel(grpc_gateway: GatewayProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(grpc_gateway.grpc_url) as channel:
        yield channel
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        right = grpc_message(Request("rows", (Tensor.of("x", X),)))
        assert call(right.SerializeToString(), timeout=10)


WHOLE = grpc_message(Request("rows", (Tensor.of("x", X),))).SerializeToString()


NO_PROTOBUF = pytest.mark.parametrize(
    "message",
    [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", WHOLE[:-1], WHOLE[:20], WHOLE + b"\x3a\x05a", b"\x00"],
    ids=["no tag", "length over the end", "cut at the end", "cut", "raw over the end", "field 0"],
)


@NO_PROTOBUF
def test_message_that_is_no_protobuf(channel: grpc.Channel, message: bytes) -> None:
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, caught.value
    assert caught.value.details()


@NO_PROTOBUF
def test_stream_survives_a_message_that_is_no_protobuf(
    channel: grpc.Channel, message: bytes
) -> None:
    call = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )
    refusal, answer = call(iter([message, WHOLE]), timeout=10)
    if not refusal.error_message:
        refusal, answer = answer, refusal
    assert refusal.error_message
    np.testing.assert_array_equal(decode_grpc(answer.infer_response)["y"], rows_of(X))


def test_raw_and_typed_contents_mixed(channel: grpc.Channel) -> None:
    request = grpc_message(Request("rows", (Tensor.of("x", X),)))
    request.inputs[0].contents.fp32_contents.extend(ZEROS)
    assert_invalid(channel, request, "raw_input_contents")


@pytest.mark.parametrize("count", [0, 2])
def test_other_number_of_raw_contents_than_inputs(channel: grpc.Channel, count: int) -> None:
    request = grpc_message(Request("rows", (Tensor.of("x", X),)))
    request.raw_input_contents[:] = [X.tobytes()] * count
    assert_invalid(channel, request, "x" if count == 0 else "2")


def test_typed_contents_in_the_field_of_another_type(channel: grpc.Channel) -> None:
    request = grpc_message(Request("rows", (Tensor.of("x", X),)))
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp64_contents.extend(ZEROS)
    assert_invalid(channel, request, "x", "fp32_contents")


def assert_invalid(channel: grpc.Channel, request: Any, *words: str) -> None:
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        call(request.SerializeToString(), timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, caught.value
    for word in words:
        assert word in caught.value.details()
