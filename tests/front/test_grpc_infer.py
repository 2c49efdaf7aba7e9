"""ModelInfer over a socket: real clients in, the dispatcher's contract behind."""

import logging
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from gateway.errors import InvalidRequest, ModelNotReady, QueueFull
from tests.front.grpc_server import HOST, running


@pytest.fixture(scope="module")
def server(implementation):
    with running(implementation) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture
def held(server):
    """Requests wait for the test to answer them."""
    server.on_loop(lambda: setattr(server.dispatcher, "held", True))
    yield server
    server.on_loop(server.dispatcher.answer)
    server.on_loop(lambda: setattr(server.dispatcher, "held", False))


def an_input(array, name="x"):
    kinds = {"f": "FP", "i": "INT", "u": "UINT", "b": "BOOL", "O": "BYTES"}
    bits = "" if array.dtype.kind in "bO" else 8 * array.dtype.itemsize
    tensor = triton.InferInput(name, array.shape, f"{kinds[array.dtype.kind]}{bits}")
    tensor.set_data_from_numpy(array)
    return tensor


@pytest.mark.parametrize(
    "array",
    [
        np.array([True, False]),
        np.arange(6, dtype="i1").reshape(2, 3),
        np.arange(6, dtype="u4").reshape(1, 2, 3),
        np.array([1.5, -2], "f2"),
        np.arange(10_000, dtype="f4"),
        np.array([[b"a", b""], [b"\x00", "é".encode()]], object),
        np.zeros((0, 3), "f8"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_a_tensor_goes_through_and_comes_back(client, array):
    answer = client.infer("echo", [an_input(array)], request_id="7")
    assert answer.get_response().id == "7"
    assert (answer.get_response().model_name, answer.get_response().model_version) == ("echo", "1")
    np.testing.assert_array_equal(answer.as_numpy("output0"), array)


def test_typed_contents_are_understood(stub):
    request = service_pb2.ModelInferRequest(model_name="negate")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2])
    tensor.contents.fp32_contents.extend([1.5, -2])
    (raw,) = stub.ModelInfer(request).raw_output_contents
    assert np.frombuffer(raw, "f4").tolist() == [-1.5, 2]


def test_the_calls_deadline_and_parameters_reach_the_dispatcher(server, client):
    array = np.ones(1, "f4")
    client.infer("negate", [an_input(array)], client_timeout=60, priority=2, parameters={"a": "b"})
    request = server.on_loop(lambda: server.dispatcher.requests[-1])
    assert 30e9 < request.deadline_ns - request.received_ns < 90e9
    assert request.parameters == {"priority": 2, "a": "b"}
    client.infer("negate", [an_input(array)])
    assert server.on_loop(lambda: server.dispatcher.requests[-1]).deadline_ns == 0


def test_classification_is_asked_for_by_its_parameter(server, client):
    outputs = [triton.InferRequestedOutput("negated", class_count=3)]
    client.infer("negate", [an_input(np.ones(1, "f4"))], outputs=outputs)
    (output,) = server.on_loop(lambda: server.dispatcher.requests[-1]).outputs
    assert (output.name, output.class_count) == ("negated", 3)


def test_a_call_that_its_client_cancels_is_taken_back(held, stub):
    request = service_pb2.ModelInferRequest(model_name="echo", id="left")
    call = stub.ModelInfer.future(request)
    held.wait_until(lambda: held.dispatcher.waiting)
    call.cancel()
    held.wait_until(lambda: "left" in held.dispatcher.cancelled)


def test_a_call_whose_deadline_passes_is_taken_back(held, stub):
    request = service_pb2.ModelInferRequest(model_name="echo", id="late")
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=0.2)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    held.wait_until(lambda: "late" in held.dispatcher.cancelled)


@pytest.mark.parametrize(
    ("model", "inputs", "code", "said"),
    [
        ("nobody", [], "NOT_FOUND", 'unknown model "nobody"'),
        ("fail", [], "INTERNAL", "divided by zero"),
        ("echo", [("FLOAT", b"")], "INVALID_ARGUMENT", 'unknown datatype "FLOAT"'),
        ("echo", [("FP32", b"12")], "INVALID_ARGUMENT", "has 2 bytes, not 4"),
    ],
)
def test_an_error_has_its_code_and_its_message(stub, model, inputs, code, said):
    request = service_pb2.ModelInferRequest(model_name=model)
    for datatype, raw in inputs:
        request.inputs.add(name="x", datatype=datatype, shape=[1])
        request.raw_input_contents.append(raw)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode[code]
    assert said in caught.value.details()


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("error", "pushback"),
    [
        (QueueFull("the queue is full"), ["1000"]),
        (ModelNotReady("the model is loading"), []),
        (InvalidRequest("no"), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_says_when_to_come_back_where_that_is_known(server, stub, error, pushback):
    server.on_loop(lambda: server.dispatcher.models.update(refuses=lambda _: raise_(error)))
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(service_pb2.ModelInferRequest(model_name="refuses"))
    assert str(error) in caught.value.details()
    metadata = caught.value.trailing_metadata()
    assert [value for key, value in metadata if key == "grpc-retry-pushback-ms"] == pushback


def raw_call(server, data: bytes) -> bytes:
    with grpc.insecure_channel(server.url) as channel:
        return channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(data)


def test_bytes_that_are_no_message_are_the_callers_fault(server):
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(server, b"\x0a\xff\x01")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "at byte 1" in caught.value.details()


def test_a_message_over_the_limit_names_the_option(server):
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(server, bytes((1 << 20) + 1))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--max-request-bytes" in caught.value.details()


def test_a_message_far_over_the_limit_is_refused_unread(server):
    with pytest.raises(grpc.RpcError) as caught:
        raw_call(server, bytes(3 << 20))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_fault_of_ours_is_told_by_its_class_and_logged(server, client, caplog):
    server.on_loop(
        lambda: server.dispatcher.models.update(
            broken=lambda _: [("y", "BYTES", np.array([1, 2], object))]
        )
    )
    with caplog.at_level(logging.ERROR), pytest.raises(InferenceServerException, match="TypeError"):
        client.infer("broken", [])
    assert any("bytes or str" in record.exc_text for record in caplog.records if record.exc_text)


def test_gzip_is_understood(client):
    array = np.zeros(1000, "f4")
    answer = client.infer("echo", [an_input(array)], compression_algorithm="gzip")
    assert answer.as_numpy("output0").shape == (1000,)


def test_tensors_travel_through_shared_memory(client, tmp_path):
    object_ = Path("/dev/shm") / f"onnx-gateway-{tmp_path.name}"
    object_.write_bytes(np.arange(4, dtype="f4").tobytes() + bytes(16))
    try:
        client.register_system_shared_memory("region", f"/{object_.name}", 32)
        tensor = triton.InferInput("x", [4], "FP32")
        tensor.set_shared_memory("region", 16)
        output = triton.InferRequestedOutput("negated")
        output.set_shared_memory("region", 16, offset=16)
        answer = client.infer("negate", [tensor], outputs=[output])
        assert list(answer.get_response().raw_output_contents) == [b""]
        assert np.frombuffer(object_.read_bytes()[16:], "f4").tolist() == [0, -1, -2, -3]
        client.unregister_system_shared_memory("region")
        with pytest.raises(InferenceServerException, match="unknown shared memory region"):
            client.infer("negate", [tensor], outputs=[output])
    finally:
        object_.unlink()


def access_lines(caplog):
    return [record for record in caplog.records if record.name == "gateway.access"]


def test_the_access_log_has_a_line_for_each_call(implementation, caplog):
    with running(implementation, access_log=True) as server, caplog.at_level(logging.INFO):
        with triton.InferenceServerClient(server.url) as client:
            client.infer("echo", [an_input(np.ones(2, "f4"))])
            with pytest.raises(InferenceServerException):
                client.infer("nobody", [])
            server.on_loop(lambda: setattr(server.dispatcher, "held", True))
            with pytest.raises(InferenceServerException):
                client.infer("echo", [], client_timeout=0.2)
            client.is_server_live()
        # The line of a call whose client leaves follows its leaving.
        server.wait_until(lambda: len(access_lines(caplog)) == 4)
    lines = access_lines(caplog)
    assert {(line.message, line.code) for line in lines} == {
        ("ModelInfer", "OK"),
        ("ModelInfer", "NOT_FOUND"),
        ("ModelInfer", "CANCELLED"),
        ("ServerLive", "OK"),
    }
    assert lines[0].received_bytes > 0 < lines[0].sent_bytes
    assert HOST in lines[0].client
    assert all(line.duration_us > 0 for line in lines)
