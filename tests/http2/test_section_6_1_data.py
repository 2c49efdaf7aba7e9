"""RFC 9113, section 6.1: DATA."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code, Type

BODY = prefixed(calls.request())


def test_data_belongs_to_a_stream(peer):
    """6.1: on stream 0x00 a connection error of type PROTOCOL_ERROR."""
    peer.send(frames.data(0, b"nobody's"))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("pad", [0, 1, 100, 255])
def test_padding_is_removed(peer, pad):
    """6.1: any length of padding, of no payload as well."""
    stream = peer.start()
    peer.send(
        frames.data(stream, BODY[:3], pad=pad),
        frames.data(stream, b"", pad=pad),
        frames.data(stream, BODY[3:], pad=pad, end=True),
    )
    assert peer.answer(stream).values() == calls.RIGHT


@pytest.mark.parametrize(
    "payload",
    [b"\x05", b"\x05abcd", b"\xff" + bytes(254), b"\x01"],
    ids=["nothing but its length", "one more than there is", "255 of 254", "one of none"],
)
@pytest.mark.parametrize("end", [0, frames.END_STREAM], ids=["goes on", "ends"])
def test_padding_as_long_as_the_payload_is_an_error(peer, payload, end):
    """6.1: padding of the payload's length or more is a connection error of PROTOCOL_ERROR."""
    stream = peer.start()
    peer.send(frames.frame(Type.DATA, frames.PADDED | end, stream, payload))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_padded_data_has_a_pad_length(peer):
    """4.2: too small for mandatory frame data is a FRAME_SIZE_ERROR; by 6.1 a PROTOCOL_ERROR."""
    stream = peer.start()
    peer.send(frames.frame(Type.DATA, frames.PADDED, stream))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


def test_padding_that_is_not_zero_may_be_an_error(peer):
    """6.1: a receiver need not verify padding; it may treat it as a PROTOCOL_ERROR."""
    stream = peer.start()
    payload = b"\x03" + BODY + b"pad"
    peer.send(frames.frame(Type.DATA, frames.PADDED | frames.END_STREAM, stream, payload))
    peer.until(lambda: peer.answers[stream].over or peer.goaways, "an answer or an error")
    if peer.goaways:
        peer.expect_connection_error(Code.PROTOCOL_ERROR)
    else:
        assert peer.answer(stream).values() == calls.RIGHT


def test_padding_counts_for_flow_control(peer):
    """6.1: the entire payload counts, Pad Length and Padding too; so it is given back as well."""
    values = [float(i) for i in range(1000)]
    stream, body = peer.start(), prefixed(calls.request(values))
    for i in range(len(body)):  # a megabyte, nearly all of it padding
        peer.until(lambda: min(peer.given, peer.given_to[stream]) >= 257, "WINDOW_UPDATE")
        peer.send(frames.data(stream, body[i : i + 1], pad=255, end=i + 1 == len(body)))
        peer.spend(stream, 257)
    assert peer.answer(stream).values() == [-value for value in values]


def test_empty_data_may_end_a_stream(peer):
    """6.1: END_STREAM needs no payload."""
    stream = peer.start()
    peer.send(frames.data(stream, BODY), frames.data(stream), frames.data(stream, end=True))
    assert peer.answer(stream).values() == calls.RIGHT
