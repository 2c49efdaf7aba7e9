"""The gRPC server as a whole: health, reflection, limits of a connection, drain and stop."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.front.grpc_server import HOST, running

Status = health_pb2.HealthCheckResponse

#: Options of a channel with a connection of its own.
LONE = [("grpc.use_local_subchannel_pool", 1)]

PING = 6
EMPTY_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


@pytest.fixture
def server(implementation):
    with running(implementation) as server:
        yield server


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.url) as channel:
        yield channel


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def set_ready(server, ready):
    server.on_loop(lambda: setattr(server.service, "ready", ready))


def test_health_is_asked_of_the_server_and_of_a_model(server, channel):
    health = health_pb2_grpc.HealthStub(channel)
    for ready, status in [(True, Status.SERVING), (False, Status.NOT_SERVING)]:
        set_ready(server, ready)
        for name in ["", "inference.GRPCInferenceService", "negate"]:
            assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == status
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_is_watched_through_a_change_to_the_drain(server, channel):
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="negate"), timeout=30)
    assert next(watch).status == Status.SERVING
    set_ready(server, False)
    assert next(watch).status == Status.NOT_SERVING
    set_ready(server, True)
    assert next(watch).status == Status.SERVING
    server.on_loop(server.front.stop_accepting)
    assert [answer.status for answer in watch] == [Status.NOT_SERVING]


def test_watching_an_unknown_name_says_so(channel):
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=30)
    assert next(watch).status == Status.SERVICE_UNKNOWN
    watch.cancel()


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_reflection_lists_the_services_and_describes_the_protocol(channel, version):
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="inference.GRPCInferenceService"
        ),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
    ]
    services, protocol, health = call(iter(requests), timeout=30)
    names = {service.name for service in services.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names
    # The file and all that it imports.
    assert len(protocol.file_descriptor_response.file_descriptor_proto) == 2
    assert len(health.file_descriptor_response.file_descriptor_proto) == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/grpc.health.v1.Health/Check", "HealthCheckRequest"),
        ("/grpc.health.v1.Health/Watch", "HealthCheckRequest"),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "ServerReflectionRequest",
        ),
    ],
)
def test_bytes_that_are_no_message_are_the_callers_fault(channel, path, message):
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(path)(iter([b"\xff"]), timeout=30))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()


def test_watching_without_a_question_is_the_callers_fault(channel):
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream("/grpc.health.v1.Health/Watch")(iter([]), timeout=30))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "got none" in caught.value.details()


def test_metadata_over_the_limit_costs_the_call_alone(implementation):
    with (
        running(implementation, max_metadata_bytes=4096) as server,
        grpc.insecure_channel(server.url) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(3):
            request = service_pb2.ServerLiveRequest()
            assert stub.ServerLive(request, timeout=30, metadata=[("note", "x" * 3000)]).live
            with pytest.raises(grpc.RpcError) as caught:
                stub.ServerLive(request, timeout=30, metadata=[("note", "x" * 4096)])
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_calls_over_the_limit_of_a_connection_wait_for_their_turn(implementation):
    with (
        running(implementation, max_concurrent_streams=1) as server,
        grpc.insecure_channel(server.url, LONE) as channel,
        grpc.insecure_channel(server.url, LONE) as other_channel,
    ):
        server.on_loop(lambda: setattr(server.dispatcher, "held", True))

        def send(channel, id):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = service_pb2.ModelInferRequest(model_name="echo", id=id)
            return stub.ModelInfer.future(request, timeout=30)

        def waiting():
            return [pending.request.id for pending in server.dispatcher.waiting]

        calls = [send(channel, "first")]
        server.wait_until(lambda: waiting() == ["first"])
        calls += [send(channel, "second"), send(other_channel, "elsewhere")]
        server.wait_until(lambda: waiting() == ["first", "elsewhere"])
        server.on_loop(lambda: server.dispatcher.answer("first"))
        server.wait_until(lambda: waiting() == ["elsewhere", "second"])
        server.on_loop(server.dispatcher.answer)
        assert [call.result().id for call in calls] == ["first", "second", "elsewhere"]


def test_a_silent_connection_is_pinged_and_closed_without_an_answer(implementation):
    options = {"keepalive_time_s": 0.1, "keepalive_timeout_s": 0.1}
    with (
        running(implementation, **options) as server,
        socket.create_connection((HOST, server.front.port), 30) as wire,
    ):
        wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EMPTY_SETTINGS)
        assert PING in frame_types(wire.makefile("rb"))


def frame_types(stream):
    """The types of the frames that come until the server closes the connection."""
    types = []
    while len(head := stream.read(9)) == 9:
        stream.read(int.from_bytes(head[:3]))
        types.append(head[3])
    return types


def test_closing_waits_for_what_is_in_flight(server, channel):
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    server.on_loop(lambda: setattr(server.dispatcher, "held", True))
    call = stub.ModelInfer.future(service_pb2.ModelInferRequest(model_name="echo", id="last"))
    server.wait_until(lambda: server.dispatcher.waiting)
    port = server.front.port
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(server.close, grace_s=60)
        server.wait_until(lambda: not is_listening(port))
        assert not closing.done()
        server.on_loop(server.dispatcher.answer)
        assert call.result(timeout=30).id == "last"
        closing.result(timeout=30)


def test_closing_cancels_what_outlasts_the_grace(server, channel):
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    server.on_loop(lambda: setattr(server.dispatcher, "held", True))
    call = stub.ModelInfer.future(service_pb2.ModelInferRequest(model_name="echo", id="stuck"))
    server.wait_until(lambda: server.dispatcher.waiting)
    server.close(grace_s=0.05)
    assert call.exception(timeout=30) is not None
    server.wait_until(lambda: server.dispatcher.cancelled == ["stuck"])


def test_a_draining_server_refuses_new_inference_and_still_tells_its_state(server, channel):
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    server.on_loop(server.front.stop_accepting)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(service_pb2.ModelInferRequest(model_name="echo"))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in caught.value.details()
    assert ("grpc-retry-pushback-ms", "1000") in caught.value.trailing_metadata()
    assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
    status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status
    assert status == Status.NOT_SERVING


# kserve and tritonclient register the same symbols in protobuf's default pool, so kserve's client
# gets a process of its own.
KSERVE = """
    import asyncio, sys
    import numpy as np
    from kserve import InferInput, InferRequest, InferenceGRPCClient

    async def main():
        client = InferenceGRPCClient(sys.argv[1])
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("negate")
        array = np.array([[1.5, -2]], np.float32)
        for binary in (True, False):
            tensor = InferInput("x", list(array.shape), "FP32")
            tensor.set_data_from_numpy(array, binary_data=binary)
            answer = await client.infer(InferRequest("negate", [tensor], request_id="7"))
            assert answer.id == "7"
            assert answer.outputs[0].as_numpy().tolist() == [[-1.5, 2]]
        await client.close()

    asyncio.run(main())
    """


def test_kserves_client_works(server):
    done = subprocess.run(
        [sys.executable, "-c", dedent(KSERVE), server.url],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
