"""Whatever is sent to the gRPC port, the server neither crashes nor hangs nor forgets its work."""

import socket
from collections.abc import Iterator

import grpc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tests.fronts import Request, Tensor, decode_grpc, grpc_message
from tests.hostile.mutations import mutated
from tests.hostile.raw import exchange
from tests.hostile.victim import RIGHT, Victim
from tests.server import HOST, GatewayProcess

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MESSAGE = grpc_message(RIGHT).SerializeToString()
CALLERS_FAULTS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    # Bytes that happen to say a timeout of a few microseconds.
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
examples = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def channel(gateway: GatewayProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(gateway.grpc_url) as channel:
        yield channel


def infer(channel: grpc.Channel, message: bytes) -> None:
    """Send ``message``; the answer is one, or an error that is the caller's."""
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    try:
        answer = service_pb2.ModelInferResponse.FromString(call(message, timeout=20))
    except grpc.RpcError as error:
        if error.code() not in CALLERS_FAULTS:
            raise
    else:
        decode_grpc(answer)


@examples
@given(message=st.binary(max_size=512))
@example(message=b"")
def test_random_bytes_as_a_message(victim: Victim, channel: grpc.Channel, message: bytes) -> None:
    infer(channel, message)
    victim.assert_well()


@settings(max_examples=200, deadline=None)
@given(message=mutated(MESSAGE))
def test_message_made_wrong(victim: Victim, channel: grpc.Channel, message: bytes) -> None:
    infer(channel, message)
    victim.assert_well()


@examples
@given(
    message=mutated(
        grpc_message(
            Request(
                "strings",
                (
                    Tensor(
                        "x", "BYTES", (2, 2), b"\x03\0\0\0abc\0\0\0\0\x01\0\0\0z\x02\0\0\0hi", []
                    ),
                ),
            )
        ).SerializeToString()
    )
)
def test_strings_made_wrong(victim: Victim, channel: grpc.Channel, message: bytes) -> None:
    infer(channel, message)
    victim.assert_well()


@examples
@given(messages=st.lists(mutated(MESSAGE) | st.just(MESSAGE), max_size=6))
def test_stream_of_wrong_messages(
    victim: Victim, channel: grpc.Channel, messages: list[bytes]
) -> None:
    call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    try:
        answers = list(call(iter(messages), timeout=20))
    except grpc.RpcError as error:
        if error.code() not in CALLERS_FAULTS:
            raise
    else:
        assert len(answers) == len(messages)
    victim.assert_well()


@examples
@given(
    method=st.sampled_from(
        ["ModelMetadata", "ModelStatistics", "RepositoryModelLoad", "SystemSharedMemoryRegister",
         "LogSettings", "TraceSetting", "RepositoryIndex", "ModelConfig", "ModelReady"]
    ),
    message=st.binary(max_size=64),
)  # fmt: skip
def test_random_bytes_to_the_other_calls(
    victim: Victim, channel: grpc.Channel, method: str, message: bytes
) -> None:
    try:
        channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(message, timeout=20)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
    victim.assert_well()


@examples
@given(data=st.binary(max_size=2048), preface=st.booleans())
@example(data=b"", preface=True)
@example(data=b"\xff" * 100, preface=True)
@example(data=b"\0\0\0\x04\0\0\0\0\0" * 3000, preface=True)
@example(data=b"GET / HTTP/1.1\r\n\r\n", preface=False)
def test_random_bytes_to_the_port(victim: Victim, data: bytes, preface: bool) -> None:
    exchange(victim.gateway.grpc_port, (PREFACE if preface else b"") + data)
    victim.assert_well()


def test_connections_that_say_nothing_more(victim: Victim) -> None:
    before = victim.descriptors()
    idle = [socket.create_connection((HOST, victim.gateway.grpc_port)) for _ in range(100)]
    for connection in idle:
        connection.sendall(PREFACE[:10])
    victim.assert_well()
    for connection in idle:
        connection.close()
    victim.wait_for_descriptors(before)


def test_calls_that_are_cancelled_at_once(victim: Victim, channel: grpc.Channel) -> None:
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    for _ in range(10):
        for pending in [call.future(MESSAGE, timeout=20) for _ in range(50)]:
            pending.cancel()
        victim.assert_well()
