"""RFC 9113, section 5.4: connection errors, stream errors, and connections that just end."""

import socket
import struct

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code

BODY = prefixed(calls.request())


def test_a_connection_error_names_the_last_stream_and_closes(peer):
    """5.4.1: GOAWAY with the highest stream that was processed, then the close."""
    answered, unanswered = peer.call(), peer.start()
    peer.answer(answered)
    peer.send(frames.window_update(0, 0))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)
    assert peer.goaways == [(unanswered, Code.PROTOCOL_ERROR)]


def test_a_connection_error_before_any_stream_names_none(peer):
    """6.8: 0, where no stream was processed."""
    peer.send(frames.window_update(0, 0))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)
    assert peer.goaways == [(0, Code.PROTOCOL_ERROR)]


def test_nothing_after_the_error_is_processed(held, peer):
    """5.4.1: after GOAWAY for an error the connection is closed."""
    peer.send(frames.window_update(0, 0))
    peer.call()
    peer.expect_connection_error(Code.PROTOCOL_ERROR)
    assert not held.on_loop(lambda: list(held.dispatcher.waiting))


def test_a_connection_error_cancels_the_calls_in_flight(held, peer):
    """5.4.1: it is over for all streams."""
    for _ in range(3):
        peer.call()
    held.wait_until(lambda: len(held.dispatcher.waiting) == 3)
    peer.send(frames.ping(b"short"))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    held.wait_until(lambda: not held.dispatcher.waiting)


def test_a_stream_error_is_no_other_streams_affair(peer):
    """5.4.2: a stream error does not affect processing of other streams."""
    before, wrong, after = peer.start(), peer.start(), peer.start()
    peer.send(frames.window_update(wrong, 0))
    for stream in (before, after):
        peer.send(frames.data(stream, BODY, end=True))
    for stream in (before, after):
        assert peer.answer(stream).values() == calls.RIGHT
    peer.expect_stream_error(wrong, Code.PROTOCOL_ERROR)


def test_stream_errors_may_come_more_than_once(peer):
    """5.4.2: each is its stream's own, as long as they are few."""
    for _ in range(5):
        stream = peer.start()
        peer.send(frames.window_update(stream, 0))
        peer.expect_stream_error(stream, Code.PROTOCOL_ERROR)


def test_a_reset_is_not_answered_by_a_reset(peer):
    """5.4.2: an endpoint MUST NOT send RST_STREAM in response to RST_STREAM."""
    stream = peer.start()
    peer.send(frames.rst_stream(stream), frames.rst_stream(stream))
    peer.send(frames.ping(b"followed"))
    peer.until(lambda: b"followed" in peer.pongs or peer.goaways, "the answer to PING")
    assert peer.answers[stream].reset is None


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
def test_a_connection_that_ends_cancels_the_calls_in_flight(held, peer, how):
    """5.4.3: streams that were open when a connection is closed do not go on."""
    peer.call()
    held.wait_until(lambda: held.dispatcher.waiting)
    if how == "half-close":
        peer.socket.shutdown(socket.SHUT_WR)
    elif how == "reset":
        linger = struct.pack("ii", 1, 0)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.close()
    else:
        peer.close()
    held.wait_until(lambda: not held.dispatcher.waiting)
