"""RFC 9113, section 6.4: RST_STREAM. What it does in each state is section 5.1's."""

import pytest

from tests.http2 import frames
from tests.http2.frames import Code, Type


def test_rst_stream_belongs_to_a_stream(peer):
    """6.4: on stream 0x00 a connection error of type PROTOCOL_ERROR."""
    peer.send(frames.rst_stream(0))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("length", [0, 3, 5, 8])
def test_rst_stream_has_4_octets(peer, length):
    """6.4: any other length is a connection error of type FRAME_SIZE_ERROR."""
    stream = peer.start()
    peer.send(frames.frame(Type.RST_STREAM, 0, stream, bytes(length)))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize("code", [*Code, 0xFF, 2**32 - 1])
def test_a_reset_cancels_whatever_its_code(held, peer, code):
    """7: unknown error codes MUST NOT trigger any special behaviour."""
    stream = peer.call()
    held.wait_until(lambda: held.dispatcher.waiting)
    peer.send(frames.rst_stream(stream, code))
    held.wait_until(lambda: not held.dispatcher.waiting)
    peer.expect_ignored(stream)
