"""Clients that take their time: what they hold is bounded, and given up by and by."""

import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from tests.http2 import blocks, calls, frames
from tests.http2.calls import prefixed
from tests.http2.connection import connect, heard_until_closed
from tests.http2.frames import MAX_WINDOW, Setting, Type
from tests.http2.neighbour import Memory, Neighbour
from tests.http2.peer import Peer

BODY = prefixed(calls.request())
BLOCK = blocks.plain(calls.fields())

#: What the server may take to notice that it has waited for long enough.
PATIENCE_S = 2.0


def large(_arrays):
    """A model that makes a million octets of nothing in particular."""
    return [("y", "FP32", np.zeros(250_000, "f4"))]


@pytest.fixture(autouse=True)
def neighbour(impatient) -> Iterator[Neighbour]:
    """Whatever happens, somebody else gets right answers, during and after it."""
    impatient.on_loop(lambda: impatient.dispatcher.models.update(large=large))
    with Neighbour(impatient.front.port) as neighbour:
        yield neighbour


def expect_given_up(peer: Peer, *streams: int) -> None:
    """Within ``PATIENCE_S`` each of ``streams`` is over, or the connection is."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if peer.closed or peer.goaways:
            peer.until_closed(PATIENCE_S)
            return
        if streams and all(peer.answers[stream].over for stream in streams):
            # The connection may stay, and serves who takes what it is given.
            peer.credit = True
            peer.change_settings({Setting.INITIAL_WINDOW_SIZE: frames.DEFAULT_WINDOW})
            peer.grant(0, 1 << 20)
            peer.expect_alive()
            return
        peer.listen(0.05)
    raise AssertionError(f"the server still waits after {PATIENCE_S} s")


# ---- half-open ----


@pytest.mark.parametrize(
    "octets",
    [b"", frames.PREFACE[:1], frames.PREFACE[:12], frames.PREFACE[:-1], frames.PREFACE,
     frames.PREFACE + frames.settings()[:5], b"GET / HT"],
    ids=["nothing", "P", "half a preface", "all but one", "no SETTINGS", "half SETTINGS", "GET"],
)  # fmt: skip
def test_half_open_connections(impatient, octets):
    """A connection that does not come to be one is closed."""
    connections = [connect(impatient.front.port) for _ in range(20)]
    for connection in connections:
        connection.sendall(octets)
    for connection in connections:
        heard_until_closed(connection, PATIENCE_S)
        connection.close()


@pytest.mark.parametrize("body", [b"", b"\0", BODY[:5], BODY[:-1]], ids=len)
def test_half_open_streams(impatient, body):
    """HEADERS and no body, or not all of it: the stream is given up, and its place with it."""
    with Peer(impatient.front.port) as peer:
        streams = [peer.start() for _ in range(10)]
        for stream in streams:
            peer.send(frames.data(stream, body) if body else b"")
        expect_given_up(peer, *streams)


def test_half_open_messages_of_a_stream(impatient):
    """ModelStreamInfer may be idle for as long as it likes, but not within a message."""
    with Peer(impatient.front.port) as peer:
        stream = peer.start(calls.fields(calls.STREAM))
        peer.send(frames.data(stream, BODY + BODY[:9]))
        expect_given_up(peer, stream)


def wait_for_a_timeout(server) -> None:
    """Until a connection that is half-open from now on has been closed."""
    with connect(server.front.port) as half_open:
        heard_until_closed(half_open, PATIENCE_S)


def test_an_idle_connection_is_not_half_open(impatient):
    """What waits between calls is not what has stopped in the midst of something."""
    with Peer(impatient.front.port) as idle:
        idle.expect_alive()
        wait_for_a_timeout(impatient)
        idle.expect_alive()


def test_an_idle_stream_of_requests_is_not_half_open(impatient):
    """The same between two messages of ModelStreamInfer."""
    with Peer(impatient.front.port) as peer:
        stream = peer.start(calls.fields(calls.STREAM))
        for _ in range(2):
            peer.send(frames.data(stream, BODY))
            wait_for_a_timeout(impatient)
        peer.send(frames.data(stream, BODY, end=True))
        answer = peer.answer(stream)
        assert answer.succeeded
        assert len(answer.messages) == 3


def test_a_slow_model_is_no_slow_client(serve):
    """Whoever waits for an answer has done all that was to be done."""
    server = serve(read_timeout_s=0.3)
    server.on_loop(lambda: setattr(server.dispatcher, "held", True))
    with Peer(server.front.port) as peer:
        stream = peer.call()
        wait_for_a_timeout(server)
        server.wait_until(lambda: server.dispatcher.waiting)
        server.on_loop(server.dispatcher.answer)
        assert peer.answer(stream).values() == calls.RIGHT


# ---- those who are no longer there ----


def test_a_silent_connection_is_asked_whether_it_lives(serve):
    """A PING that is answered keeps the connection; one that is not ends it."""
    server = serve(keepalive_time_s=0.2, keepalive_timeout_s=0.2, read_timeout_s=0.4)
    with connect(server.front.port) as gone, Peer(server.front.port) as silent:
        gone.sendall(frames.PREFACE + frames.settings() + frames.settings(ack=True))
        silent.until(lambda: sum(f.type == Type.PING for f in silent.log) == 2, "two PINGs")
        assert frames.head(8, Type.PING) in heard_until_closed(gone, PATIENCE_S)
        silent.expect_alive()


@pytest.mark.parametrize(
    "octets",
    [
        frames.headers(1, BLOCK)[:5],
        frames.headers(1, BLOCK)[:20],
        frames.headers(1, BLOCK, end_headers=False),
        frames.headers(1, BLOCK[:9], end_headers=False) + frames.continuation(1, BLOCK[9:])[:5],
        frames.head(16_384, 0xFA) + bytes(100),
        frames.ping()[:12],
    ],
    ids=["frame head", "HEADERS", "no CONTINUATION", "CONTINUATION", "unknown", "PING"],
)
def test_half_open_frames(impatient, octets):
    """A frame or a header block that has begun has to end."""
    with Peer(impatient.front.port) as peer:
        peer.open(1)
        peer.send(octets)
        expect_given_up(peer)


@pytest.mark.parametrize("how", ["octets of HEADERS", "CONTINUATION frames"])
def test_slow_drip_of_headers(impatient, how):
    """Something comes all the time, an octet of it, and it never comes to an end."""
    with Peer(impatient.front.port) as peer:
        stream = peer.stream()
        if how == "octets of HEADERS":
            drops = iter(frames.headers(stream, BLOCK + blocks.plain([(b"x", b"v" * 4000)])))
            octets = (bytes([octet]) for octet in drops)
        else:
            block = iter(BLOCK + blocks.plain([(b"x", b"v" * 4000)]))
            peer.send(frames.headers(stream, b"", end_headers=False))
            octets = (
                frames.continuation(stream, bytes([octet]), end_headers=False) for octet in block
            )
        deadline = time.monotonic() + PATIENCE_S
        while not (peer.closed or peer.goaways or peer.answers[stream].over):
            assert time.monotonic() < deadline, "the server still listens"
            peer.send(next(octets))
            peer.listen(0.02)


# ---- windows and sockets that nobody opens ----


@pytest.mark.parametrize("window", [0, 1, 1000])
def test_zero_window_stall(impatient, window):
    """Answers are ready, and the client never takes them: they are dropped, with the stream."""
    with Peer(impatient.front.port, {Setting.INITIAL_WINDOW_SIZE: window}) as peer:
        peer.credit = False
        streams = [peer.call(prefixed(calls.request(model="large"))) for _ in range(10)]
        expect_given_up(peer, *streams)


def test_zero_window_stall_of_the_connection(impatient):
    """The streams' windows are open, the connection's is used up and stays so."""
    with Peer(impatient.front.port, {Setting.INITIAL_WINDOW_SIZE: MAX_WINDOW}) as peer:
        peer.credit = False
        streams = [peer.call(prefixed(calls.request(model="large"))) for _ in range(10)]
        expect_given_up(peer, *streams)


def test_zero_window_stall_of_a_stream_of_answers(impatient):
    """ModelStreamInfer, with 40 MB of answers that nobody takes."""
    with Peer(impatient.front.port, {Setting.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.credit = False
        stream = peer.start(calls.fields(calls.STREAM))
        body = prefixed(calls.request(model="large")) * 40
        peer.upload(stream, body)
        expect_given_up(peer, stream)


def test_dribble(impatient):
    """A window of one octet at a time, on 20 streams with a large answer each."""
    memory = Memory()
    with Peer(impatient.front.port, {Setting.INITIAL_WINDOW_SIZE: 1}) as peer:
        peer.credit = False
        streams = [peer.call(prefixed(calls.request(model="large"))) for _ in range(20)]
        for _ in range(20_000 // len(streams)):
            if peer.closed or peer.goaways:
                break
            for stream in streams:
                if not peer.answers[stream].over:
                    peer.grant(stream, 1)
            peer.listen()
        expect_given_up(peer, *streams)
    assert memory.grown < 64 << 20


def test_slow_read(serve):
    """The windows are open, but nobody reads the socket: what waits for it is bounded.

    Of 400 MB that are asked for, the server makes no more than its streams at a time.
    """
    server = serve(max_concurrent_streams=32, read_timeout_s=0.3)
    server.on_loop(lambda: server.dispatcher.models.update(large=large))
    with (
        Neighbour(server.front.port),
        Peer(server.front.port, {Setting.INITIAL_WINDOW_SIZE: MAX_WINDOW}) as peer,
    ):
        peer.grant(0, MAX_WINDOW - frames.DEFAULT_WINDOW)
        memory = Memory()
        peer.socket.settimeout(PATIENCE_S)
        body = prefixed(calls.request(model="large"))
        with suppress(TimeoutError):  # where the server does not read either
            for _ in range(400):
                stream = peer.stream()
                peer.send(frames.headers(stream, BLOCK), frames.data(stream, body, end=True))
        server.wait_until(lambda: not server.dispatcher.waiting)
        assert memory.grown < 96 << 20
        # Whoever comes back too late finds the connection closed, however long it is made to read.
        for _ in range(2):
            wait_for_a_timeout(server)
        peer.credit = False
        peer.until_closed()
