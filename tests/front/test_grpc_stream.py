"""ModelStreamInfer over a socket: many requests in flight over one call."""

from queue import Queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.front.grpc_server import running


@pytest.fixture
def server(implementation):
    with running(implementation) as server:
        server.on_loop(lambda: setattr(server.dispatcher, "held", True))
        yield server


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


class Stream:
    """A call whose requests the test sends one by one; ``None`` ends its side."""

    def __init__(self, stub, **options):
        self._requests = Queue()
        self.call = stub.ModelStreamInfer(iter(self._requests.get, None), timeout=30, **options)

    def send(self, id, model="negate", raw=b"\0\0\x80?", parameters=()):
        request = service_pb2.ModelInferRequest(model_name=model, id=id)
        request.inputs.add(name="x", datatype="FP32", shape=[1])
        request.raw_input_contents.append(raw)
        for key in parameters:
            request.parameters[key].bool_param = True
        self._requests.put(request)

    def end(self):
        self._requests.put(None)


def waiting_ids(server):
    return [pending.request.id for pending in server.dispatcher.waiting]


def test_answers_come_as_they_are_made_and_carry_their_ids(server, stub):
    stream = Stream(stub)
    for id in "abc":
        stream.send(id)
    server.wait_until(lambda: waiting_ids(server) == ["a", "b", "c"])
    server.on_loop(lambda: server.dispatcher.answer("c", "a"))
    assert [next(stream.call).infer_response.id for _ in range(2)] == ["c", "a"]
    stream.end()
    server.on_loop(lambda: server.dispatcher.answer("b"))
    (last,) = stream.call
    assert last.infer_response.id == "b"
    assert np.frombuffer(last.infer_response.raw_output_contents[0], "f4").tolist() == [-1]
    assert stream.call.code() == grpc.StatusCode.OK


def test_an_error_is_one_answer_among_others(server, stub):
    stream = Stream(stub)
    stream.send("good")
    stream.send("unknown", model="nobody")
    stream.send("failing", model="fail")
    stream.send("short", raw=b"12")
    stream.end()
    server.wait_until(lambda: len(server.dispatcher.waiting) == 2)
    server.on_loop(lambda: server.dispatcher.answer("failing", "good"))
    told = {answer.infer_response.id: answer.error_message for answer in stream.call}
    assert told == {
        "good": "",
        "unknown": 'unknown model "nobody"',
        "failing": "the model divided by zero",
        "short": 'input "x" has 2 bytes, not 4',
    }
    assert stream.call.code() == grpc.StatusCode.OK


@pytest.mark.parametrize("model", ["nobody", "fail"])
def test_an_error_ends_the_stream_where_the_client_asked_for_that(server, stub, model):
    stream = Stream(stub, metadata=[("triton_grpc_error", "true")])
    stream.send("waits")
    server.wait_until(lambda: waiting_ids(server) == ["waits"])
    stream.send("bad", model=model)
    if model == "fail":
        server.wait_until(lambda: "bad" in waiting_ids(server))
        server.on_loop(lambda: server.dispatcher.answer("bad"))
    with pytest.raises(grpc.RpcError):
        list(stream.call)
    expected = {"nobody": grpc.StatusCode.NOT_FOUND, "fail": grpc.StatusCode.INTERNAL}
    assert stream.call.code() == expected[model]
    server.wait_until(lambda: server.dispatcher.cancelled == ["waits"])
    stream.end()


def test_bytes_that_are_no_request_are_an_answer_too(server):
    with grpc.insecure_channel(server.url) as channel:
        method = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        (answer,) = method(iter([b"\xff"]), timeout=30)
    assert "no ModelInferRequest" in answer.error_message


def test_a_client_that_leaves_takes_its_requests_along(server, stub):
    stream = Stream(stub)
    for id in "ab":
        stream.send(id)
    server.wait_until(lambda: waiting_ids(server) == ["a", "b"])
    stream.call.cancel()
    server.wait_until(lambda: server.dispatcher.cancelled == ["a", "b"])
    stream.end()


def test_the_last_answer_is_marked_where_the_client_asked_for_that(server, stub):
    server.on_loop(lambda: setattr(server.dispatcher, "held", False))
    stream = Stream(stub)
    stream.send("plain")
    plain = next(stream.call)
    assert "triton_final_response" not in plain.infer_response.parameters
    stream.send("marked", parameters=["triton_enable_empty_final_response"])
    stream.end()
    (marked,) = stream.call
    assert marked.infer_response.parameters["triton_final_response"].bool_param is True


def test_a_draining_server_answers_what_it_has_read_and_ends_the_stream(server, stub):
    stream = Stream(stub)
    stream.send("a")
    server.wait_until(lambda: waiting_ids(server) == ["a"])
    server.on_loop(server.front.stop_accepting)
    server.on_loop(lambda: server.dispatcher.answer("a"))
    assert next(stream.call).infer_response.id == "a"
    with pytest.raises(grpc.RpcError):
        next(stream.call)
    assert stream.call.code() == grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in stream.call.details()
    stream.end()


def test_an_idle_stream_does_not_hold_up_the_shutdown(server, stub):
    server.on_loop(lambda: setattr(server.dispatcher, "held", False))
    stream = Stream(stub)
    stream.send("answered")
    next(stream.call)
    server.close(grace_s=60)
    with pytest.raises(grpc.RpcError):
        next(stream.call)
    assert stream.call.code() == grpc.StatusCode.UNAVAILABLE
    stream.end()


def test_tritonclients_stream_works(server):
    server.on_loop(lambda: setattr(server.dispatcher, "held", False))
    answers = Queue()
    array = np.array([3], "f4")
    tensor = triton.InferInput("x", array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    with triton.InferenceServerClient(server.url) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        client.async_stream_infer("negate", [tensor], request_id="1")
        assert answers.get(timeout=20).as_numpy("negated").tolist() == [-3]
        client.async_stream_infer("nobody", [tensor])
        error = answers.get(timeout=20)
        assert isinstance(error, InferenceServerException)
        assert "unknown model" in error.message()
        client.stop_stream()


def test_many_requests_flow_through_one_stream(server, stub):
    server.on_loop(lambda: setattr(server.dispatcher, "held", False))
    stream = Stream(stub)
    for number in range(3000):
        stream.send(str(number))
    stream.end()
    assert {answer.infer_response.id for answer in stream.call} == {str(n) for n in range(3000)}
