"""RFC 9113, section 6.7: PING."""

import pytest

from tests.http2 import frames
from tests.http2.frames import Code, Type


@pytest.mark.parametrize("opaque", [b"\0" * 8, b"\xff" * 8, b"opaque!!"])
def test_a_ping_is_answered_with_its_own_octets(peer, opaque):
    """6.7: an acknowledgement with an identical payload MUST be sent."""
    peer.send(frames.ping(opaque))
    peer.until(lambda: peer.pongs, "the answer to PING")
    assert peer.pongs == [opaque]


def test_pings_are_answered_one_by_one_and_in_order(peer):
    """6.7: each has an answer of its own."""
    sent = [bytes([number] * 8) for number in range(5)]
    peer.send(*map(frames.ping, sent))
    peer.until(lambda: len(peer.pongs) == 5, "the answers to PING")
    assert peer.pongs == sent


def test_an_acknowledgement_is_not_answered(peer):
    """6.7: an endpoint MUST NOT respond to PING frames containing this flag."""
    peer.send(frames.ping(b"unasked!", ack=True))
    peer.expect_ignored()
    assert b"unasked!" not in peer.pongs


@pytest.mark.parametrize("ack", [False, True])
def test_ping_belongs_to_the_connection(peer, ack):
    """6.7: on any other stream than 0x00 a connection error of type PROTOCOL_ERROR."""
    stream = peer.start()
    peer.send(frames.frame(Type.PING, frames.ACK if ack else 0, stream, bytes(8)))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("ack", [False, True])
@pytest.mark.parametrize("length", [0, 7, 9, 16])
def test_ping_has_8_octets(peer, length, ack):
    """6.7: any other length is a connection error of type FRAME_SIZE_ERROR."""
    peer.send(frames.frame(Type.PING, frames.ACK if ack else 0, 0, bytes(length)))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
