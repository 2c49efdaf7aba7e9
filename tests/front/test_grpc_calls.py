"""What a handler sees of its call, and what becomes of what it sends, on every gRPC front.

Health's two methods, one unary and one streaming, stand in for a handler of each kind.
"""

import asyncio
from contextlib import contextmanager
from queue import Queue

import grpc
import pytest

from gateway.errors import NotFound, QueueFull
from gateway.front.grpc_calls import error_metadata
from gateway.front.grpc_health import Health
from tests.front.grpc_server import HOST, running

SENT = (("note", "hello"), ("proof-bin", b"\0\xff\x01"))


@pytest.fixture
def serve(implementation, monkeypatch):
    """Runs a front on which ``handler`` serves the unary or the streaming method."""

    @contextmanager
    def with_handler(kind, handler):
        name = {"unary": "check", "stream": "watch"}[kind]
        monkeypatch.setattr(Health, name, handler)
        with running(implementation) as server, grpc.insecure_channel(server.url) as channel:
            method = channel.unary_unary if kind == "unary" else channel.stream_stream
            yield server, method(f"/grpc.health.v1.Health/{name.capitalize()}")

    return with_handler


@pytest.fixture
def open_side():
    """Makes a client's side of a stream that is not ended after its messages."""
    queues = []

    def side(*messages):
        queue = Queue()
        for message in messages:
            queue.put(message)
        queues.append(queue)
        return iter(queue.get, None)

    yield side
    for queue in queues:
        queue.put(None)


def test_a_handler_sees_what_its_client_sent(serve):
    seen = []

    async def handler(self, data, call):
        seen.append((data, dict(call.metadata), call.time_remaining(), call.peer))
        return b"answer"

    with serve("unary", handler) as (_, method):
        assert method(b"question", metadata=SENT, timeout=30) == b"answer"
        method(b"")
    (data, metadata, remaining_s, peer), (_, _, endless, _) = seen
    assert data == b"question"
    assert (metadata["note"], metadata["proof-bin"]) == ("hello", b"\0\xff\x01")
    assert 20 < remaining_s <= 31  # the client may round up
    assert HOST in peer
    assert endless is None


def test_a_handler_reads_to_the_clients_end_and_writes_as_it_likes(serve):
    async def handler(self, call):
        await call.write(b"welcome")
        while (message := await call.read()) is not None:
            await call.write(message)
            await call.write(b"")
        await call.write(b"goodbye")

    messages = [b"one", b"", bytes(200_000)]
    with serve("stream", handler) as (_, method):
        answers = list(method(iter(messages), timeout=30))
        assert list(method(iter([]), timeout=30)) == [b"welcome", b"goodbye"]
    echoed = [answer for message in messages for answer in (message, b"")]
    assert answers == [b"welcome", *echoed, b"goodbye"]


def test_a_handler_may_end_a_stream_before_its_client_does(serve, open_side):
    async def handler(self, call):
        await call.write(await call.read())

    with serve("stream", handler) as (_, method):
        call = method(open_side(b"first"), timeout=30)
        assert list(call) == [b"first"]
        assert call.code() == grpc.StatusCode.OK


@pytest.mark.parametrize("error", [None, NotFound("nothing here"), QueueFull("full")], ids=repr)
def test_trailing_metadata_ends_a_unary_call(serve, error):
    async def handler(self, data, call):
        call.set_trailing_metadata(SENT)
        if error:
            raise error
        return b""

    with serve("unary", handler) as (_, method):
        call = method.future(b"", timeout=30)
        assert call.exception(timeout=30) is None or error
        assert_ends(call, error)


@pytest.mark.parametrize("error", [None, NotFound("nothing here"), QueueFull("full")], ids=repr)
def test_trailing_metadata_ends_a_stream(serve, error):
    async def handler(self, call):
        await call.write(b"first")
        call.set_trailing_metadata(SENT)
        if error:
            raise error

    with serve("stream", handler) as (_, method):
        call = method(iter([]), timeout=30)
        assert next(call) == b"first"
        if error is None:
            assert list(call) == []
        else:
            with pytest.raises(grpc.RpcError):
                next(call)
        assert_ends(call, error)


def assert_ends(call, error):
    codes = {NotFound: "NOT_FOUND", QueueFull: "UNAVAILABLE", type(None): "OK"}
    assert call.code().name == codes[type(error)]
    assert call.details() == str(error or "")
    sent = (*SENT, *(error_metadata(error) if error else ()))
    assert set(sent) <= {tuple(pair) for pair in call.trailing_metadata()}


@pytest.mark.parametrize("leave", ["cancel", "deadline"])
@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_a_handler_is_cancelled_when_its_client_leaves(serve, kind, leave):
    told = []

    async def handler(self, *arguments):
        told.append("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    with serve(kind, handler) as (server, method):
        timeout_s = 0.2 if leave == "deadline" else 30
        if kind == "unary":
            call = method.future(b"", timeout=timeout_s)
        else:
            call = method(iter([]), timeout=timeout_s)
        server.wait_until(lambda: told)
        if leave == "cancel":
            call.cancel()
        server.wait_until(lambda: told == ["started", "cancelled"])


def test_a_handler_does_not_wait_for_messages_of_a_client_that_has_left(serve, open_side):
    """It is cancelled, or told that no more comes and cancelled then."""
    told = []

    async def handler(self, call):
        told.append(await call.read())
        try:
            told.append(await call.read())
        except asyncio.CancelledError:
            told.append(None)
            raise

    with serve("stream", handler) as (server, method):
        call = method(open_side(b"first"), timeout=30)
        server.wait_until(lambda: told == [b"first"])
        call.cancel()
        server.wait_until(lambda: told == [b"first", None])
