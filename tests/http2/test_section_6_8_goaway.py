"""RFC 9113, section 6.8: GOAWAY from a client. The server's own is in ``test_drain.py``."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code, Type


def test_goaway_belongs_to_the_connection(peer):
    """6.8: on any other stream than 0x00 a connection error of type PROTOCOL_ERROR."""
    stream = peer.start()
    peer.send(frames.frame(Type.GOAWAY, 0, stream, bytes(8)))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("length", [0, 4, 7])
def test_goaway_has_at_least_8_octets(peer, length):
    """4.2: too small to contain mandatory frame data: FRAME_SIZE_ERROR."""
    peer.send(frames.frame(Type.GOAWAY, 0, 0, bytes(length)))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize("code", [Code.NO_ERROR, Code.INTERNAL_ERROR, 0xFA])
@pytest.mark.parametrize("debug", [b"", b"\xff\0 going"])
def test_calls_in_flight_are_answered_to_a_client_that_goes_away(held, peer, code, debug):
    """6.8: GOAWAY is about new streams; 7: unknown codes have no special meaning."""
    streams = [peer.call(), peer.start()]
    held.wait_until(lambda: held.dispatcher.waiting)
    peer.send(frames.goaway(0, code, debug))
    peer.send(frames.data(streams[1], prefixed(calls.request()), end=True))
    held.wait_until(lambda: len(held.dispatcher.waiting) == 2)
    held.on_loop(held.dispatcher.answer)
    for stream in streams:
        assert peer.answer(stream).values() == calls.RIGHT


def test_goaway_may_come_more_than_once(peer):
    """6.8: an endpoint may send several, with lower streams each time."""
    stream = peer.start()
    peer.send(frames.goaway(2**31 - 1), frames.goaway(0))
    peer.send(frames.data(stream, prefixed(calls.request()), end=True))
    assert peer.answer(stream).values() == calls.RIGHT
