"""RFC 9113, section 5.1: every frame in every state that a stream can be in."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code, Setting
from tests.http2.peer import Peer

UPDATE = frames.window_update
BODY = prefixed(calls.request())


def a_block(peer) -> bytes:
    return peer.block([(b"x-trailer", b"1")])


#: How to send each frame on a stream, HEADERS as trailers.
FRAMES = {
    "DATA": lambda peer, stream: frames.data(stream, b"more"),
    "DATA that ends": lambda peer, stream: frames.data(stream, b"", end=True),
    "HEADERS": lambda peer, stream: frames.headers(stream, a_block(peer), end=True),
    "PRIORITY": lambda peer, stream: frames.priority(stream),
    "RST_STREAM": lambda peer, stream: frames.rst_stream(stream),
    "WINDOW_UPDATE": lambda peer, stream: UPDATE(stream, 100),
    "CONTINUATION": lambda peer, stream: frames.continuation(stream, a_block(peer)),
}


# ---- idle ----


@pytest.mark.parametrize(
    "name", ["DATA", "DATA that ends", "RST_STREAM", "WINDOW_UPDATE", "CONTINUATION"]
)
@pytest.mark.parametrize("stream", [1, 2, 2**31 - 1])
def test_on_an_idle_stream_all_but_headers_and_priority_is_an_error(peer, name, stream):
    """5.1, idle: any other frame MUST be treated as a connection error of type PROTOCOL_ERROR."""
    peer.send(FRAMES[name](peer, stream))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_priority_leaves_a_stream_idle(peer):
    """5.1, idle: PRIORITY neither opens a stream nor closes those below it."""
    peer.send(frames.priority(5, on=3), frames.priority(2))
    assert peer.answer(peer.call()).values() == calls.RIGHT
    assert peer.answer(peer.call()).values() == calls.RIGHT
    assert peer.answer(peer.call()).values() == calls.RIGHT


# ---- open ----


@pytest.mark.parametrize("name", ["PRIORITY", "WINDOW_UPDATE"])
def test_on_an_open_stream_frames_come_in_any_order(peer, name):
    """5.1, open: either peer may send frames of any type."""
    stream = peer.start()
    peer.send(
        FRAMES[name](peer, stream),
        frames.data(stream, BODY[:9]),
        FRAMES[name](peer, stream),
        frames.data(stream, BODY[9:], end=True),
    )
    assert peer.answer(stream).values() == calls.RIGHT


def test_an_open_stream_that_is_reset_is_forgotten(peer, server):
    """5.1, open: RST_STREAM closes it; nothing is answered."""
    stream = peer.start()
    peer.send(frames.data(stream, BODY[:9]), frames.rst_stream(stream))
    peer.expect_ignored(stream)


# ---- half-closed (remote) ----


@pytest.fixture
def half_closed(held, peer) -> int:
    """A stream that the client has ended and the server has not answered."""
    stream = peer.call()
    held.wait_until(lambda: held.dispatcher.waiting)
    return stream


@pytest.mark.parametrize("name", ["DATA", "DATA that ends", "HEADERS"])
def test_on_a_half_closed_stream_nothing_more_can_be_said(peer, half_closed, name):
    """5.1, half-closed (remote): a stream error of type STREAM_CLOSED."""
    peer.send(FRAMES[name](peer, half_closed))
    peer.expect_stream_error(half_closed, Code.STREAM_CLOSED)


def test_a_call_whose_stream_breaks_the_rules_is_cancelled(peer, half_closed, held):
    """What the server resets it does not go on working for."""
    peer.send(frames.data(half_closed, b"more"))
    peer.expect_stream_error(half_closed, Code.STREAM_CLOSED)
    held.wait_until(lambda: not held.dispatcher.waiting)


def test_on_a_half_closed_stream_continuation_is_a_connection_error(peer, half_closed):
    """6.10: CONTINUATION without a block to continue is a PROTOCOL_ERROR; 5.1: STREAM_CLOSED."""
    peer.send(FRAMES["CONTINUATION"](peer, half_closed))
    peer.expect_connection_error(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)


@pytest.mark.parametrize("name", ["PRIORITY", "WINDOW_UPDATE"])
def test_a_half_closed_stream_can_be_given_windows_and_priority(peer, half_closed, held, name):
    """5.1, half-closed (remote): WINDOW_UPDATE, PRIORITY and RST_STREAM may come."""
    peer.send(FRAMES[name](peer, half_closed))
    peer.expect_ignored(half_closed)
    held.on_loop(held.dispatcher.answer)
    assert peer.answer(half_closed).values() == calls.RIGHT


def test_a_half_closed_stream_can_be_reset(peer, half_closed, held):
    """5.1, half-closed (remote): RST_STREAM closes it and cancels the call."""
    peer.send(FRAMES["RST_STREAM"](peer, half_closed))
    held.wait_until(lambda: not held.dispatcher.waiting)
    peer.expect_ignored(half_closed)


# ---- closed ----


def closed_by_its_end(peer) -> int:
    stream = peer.call()
    assert peer.answer(stream).ended
    return stream


def closed_by_the_clients_reset(peer) -> int:
    stream = peer.start()
    peer.send(frames.rst_stream(stream))
    peer.barrier()
    return stream


def closed_by_the_servers_reset(peer) -> int:
    stream = peer.start()
    peer.send(UPDATE(stream, 0))
    assert peer.answer(stream).reset == Code.PROTOCOL_ERROR
    # That it has been reset once is not what is asked next.
    peer.answers[stream].reset = None
    return stream


CLOSED = [closed_by_its_end, closed_by_the_clients_reset, closed_by_the_servers_reset]
by_name = pytest.mark.parametrize("close", CLOSED, ids=lambda close: close.__name__)


@by_name
@pytest.mark.parametrize("name", ["DATA", "DATA that ends", "HEADERS"])
def test_on_a_closed_stream_nothing_can_be_said(peer, close, name):
    """5.1, closed: minimally processed and discarded, or an error of type STREAM_CLOSED.

    HEADERS, whose stream has a number that is not above all others, may be a PROTOCOL_ERROR of
    the connection as well (5.1.1).
    """
    stream = close(peer)
    blocks = len(peer.answers[stream].blocks)
    peer.send(FRAMES[name](peer, stream), frames.ping(b"followed"))
    peer.until(lambda: b"followed" in peer.pongs or peer.goaways, "an error or none")
    if peer.goaways:
        also = [Code.PROTOCOL_ERROR] if name == "HEADERS" else []
        peer.expect_connection_error(Code.STREAM_CLOSED, *also)
        return
    assert peer.answers[stream].reset in (None, Code.STREAM_CLOSED)
    assert len(peer.answers[stream].blocks) == blocks
    peer.expect_alive()


@by_name
def test_on_a_closed_stream_continuation_is_a_connection_error(peer, close):
    """6.10: there is no block to continue, whatever has closed the stream."""
    stream = close(peer)
    peer.send(FRAMES["CONTINUATION"](peer, stream))
    peer.expect_connection_error(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)


@by_name
@pytest.mark.parametrize("name", ["PRIORITY", "WINDOW_UPDATE", "RST_STREAM"])
def test_on_a_closed_stream_what_may_have_crossed_its_end_is_ignored(peer, close, name):
    """5.1, closed: WINDOW_UPDATE and RST_STREAM may be in flight; PRIORITY may always come.

    After a reset of its own, a client has no such excuse but for PRIORITY; servers need not hold
    it against it.
    """
    stream = close(peer)
    peer.send(FRAMES[name](peer, stream), frames.ping(b"followed"))
    peer.until(lambda: b"followed" in peer.pongs or peer.goaways, "an error or none")
    if close is closed_by_the_clients_reset and name != "PRIORITY" and peer.goaways:
        peer.expect_connection_error(Code.STREAM_CLOSED)
        return
    assert not peer.goaways
    # 5.4.2: RST_STREAM MUST NOT be answered by RST_STREAM.
    assert peer.answers[stream].reset is None
    peer.expect_alive()


def test_data_that_crosses_the_servers_reset_counts_for_the_connections_window(peer):
    """5.1, closed: DATA frames count toward the connection's window, which is given back."""
    stream = peer.start()
    peer.send(UPDATE(stream, 0))
    peer.until(lambda: peer.answers[stream].reset is not None, "RST_STREAM")
    for _ in range(40):
        peer.until(lambda: peer.given >= 16_384, "the connection's window given back")
        peer.spend(stream, 16_384)
        peer.send(frames.data(stream, bytes(16_384)))
    peer.expect_alive()


# ---- 5.1.1, stream identifiers ----


@pytest.mark.parametrize("stream", [2, 1002])
def test_a_client_has_the_odd_numbers(peer, stream):
    """5.1.1: an unexpected stream identifier is a connection error of type PROTOCOL_ERROR."""
    peer.open(stream)
    peer.send(frames.headers(stream, peer.block(calls.fields()), end=True))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_numbers_may_be_left_out(peer):
    """5.1.1: the first use of a number closes the idle ones below it."""
    for stream in (5, 7, 1001):
        peer.open(stream)
        peer.send(
            frames.headers(stream, peer.block(calls.fields())), frames.data(stream, BODY, end=True)
        )
        assert peer.answer(stream).values() == calls.RIGHT


@pytest.mark.parametrize("lower", [1, 3])
def test_numbers_only_grow(peer, lower):
    """5.1.1: a stream below one that was opened is closed; its use is an error."""
    stream = peer.open(5)
    peer.send(frames.headers(stream, peer.block(calls.fields())), frames.data(5, BODY, end=True))
    peer.answer(stream)
    peer.open(lower)
    peer.send(frames.headers(lower, peer.block(calls.fields())), frames.data(lower, BODY, end=True))
    peer.expect_connection_error(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED)


def test_the_highest_number_can_be_used(peer):
    """5.1.1: identifiers have 31 bits."""
    stream = peer.open(2**31 - 1)
    peer.send(
        frames.headers(stream, peer.block(calls.fields())), frames.data(stream, BODY, end=True)
    )
    assert peer.answer(stream).values() == calls.RIGHT


# ---- 5.1.2, stream concurrency ----


def test_streams_over_the_maximum_are_refused_and_others_go_on(serve):
    """5.1.2: a stream error; REFUSED_STREAM, unlike PROTOCOL_ERROR, says: try again."""
    server = serve(max_concurrent_streams=8)
    with Peer(server.front.port) as peer:
        assert peer.settings[Setting.MAX_CONCURRENT_STREAMS] == 8
        taken = [peer.start() for _ in range(8)]
        over = peer.start()
        peer.until(lambda: peer.answers[over].reset is not None, "RST_STREAM")
        assert peer.answers[over].reset == Code.REFUSED_STREAM
        for stream in taken:
            peer.send(frames.data(stream, BODY, end=True))
        for stream in taken:
            assert peer.answer(stream).values() == calls.RIGHT
        peer.expect_alive()


@pytest.mark.parametrize("leave", ["end", "reset"])
def test_a_stream_that_is_over_leaves_its_place(serve, leave):
    """5.1.2: only streams that are open or half-closed count."""
    server = serve(max_concurrent_streams=2)
    with Peer(server.front.port) as peer:
        for _ in range(20):
            streams = [peer.start() for _ in range(2)]
            for stream in streams:
                if leave == "end":
                    peer.send(frames.data(stream, BODY, end=True))
                    assert peer.answer(stream).values() == calls.RIGHT
                else:
                    peer.send(frames.rst_stream(stream))
        peer.expect_alive()
