"""RFC 9113, section 6.6: PUSH_PROMISE, which a client never sends."""

from tests.http2 import calls, frames
from tests.http2.frames import Code


def test_a_client_cannot_push(peer):
    """8.4: a server MUST treat PUSH_PROMISE as a connection error of type PROTOCOL_ERROR."""
    stream = peer.start()
    peer.send(frames.push_promise(stream, 2, peer.block(calls.fields())))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_push_promise_belongs_to_a_stream(peer):
    """6.6: on stream 0x00 a connection error of type PROTOCOL_ERROR."""
    peer.send(frames.push_promise(0, 2, peer.block(calls.fields())))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)
