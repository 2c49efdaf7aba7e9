"""RFC 9113, section 6.2: HEADERS."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code, Type

BODY = prefixed(calls.request())


def test_headers_belong_to_a_stream(peer):
    """6.2: on stream 0x00 a connection error of type PROTOCOL_ERROR."""
    peer.send(frames.headers(0, peer.block(calls.fields())))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("pad", [None, 0, 1, 255])
@pytest.mark.parametrize("priority", [b"", frames.dependency(0), frames.dependency(99)])
def test_padding_and_priority_are_removed(peer, pad, priority):
    """6.2: both are optional, and the block begins behind them."""
    stream, block = peer.stream(), peer.block(calls.fields())
    peer.send(
        frames.headers(stream, block, pad=pad, priority=priority),
        frames.data(stream, BODY, end=True),
    )
    assert peer.answer(stream).values() == calls.RIGHT


def test_a_padded_block_may_go_on(peer):
    """6.2 and 6.10: padding is the HEADERS frame's, not the block's."""
    stream, block = peer.stream(), peer.block(calls.fields())
    peer.send(
        frames.headers(stream, block[:7], pad=9, priority=b"\0\0\0\0\1", end_headers=False),
        frames.continuation(stream, block[7:]),
        frames.data(stream, BODY, end=True),
    )
    assert peer.answer(stream).values() == calls.RIGHT


@pytest.mark.parametrize(
    ("flags", "payload"),
    [
        (frames.PADDED, b"\x02\x83"),
        (frames.PADDED, b"\x01"),
        (frames.PADDED, b"\xff" + b"\x83" * 254),
        (frames.PADDED | frames.PRIORITIZED, b"\x05" + frames.dependency(0) + b"\x83"),
    ],
    ids=["one too many", "of nothing", "255 of 254", "with a priority"],
)
def test_padding_over_what_is_left_is_an_error(peer, flags, payload):
    """6.2: padding beyond the room for the field block fragment is a PROTOCOL_ERROR."""
    stream = peer.stream()
    flags |= frames.END_HEADERS | frames.END_STREAM
    peer.send(frames.frame(Type.HEADERS, flags, stream, payload))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("flags", "payload"),
    [
        (frames.PADDED, b""),
        (frames.PRIORITIZED, b""),
        (frames.PRIORITIZED, b"\0\0\0\0"),
        (frames.PADDED | frames.PRIORITIZED, b"\0\0\0\0\0"),
    ],
    ids=["no pad length", "no priority", "4 octets of priority", "4 and a pad length"],
)
def test_fields_that_the_flags_announce_are_there(peer, flags, payload):
    """4.2: a frame too small for its mandatory data is a FRAME_SIZE_ERROR (or by 6.2, padding)."""
    stream = peer.stream()
    peer.send(frames.frame(Type.HEADERS, flags | frames.END_HEADERS, stream, payload))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


def test_a_stream_that_depends_on_itself_is_refused_or_its_priority_ignored(peer):
    """RFC 7540, 5.3.1: a stream error of type PROTOCOL_ERROR. RFC 9113 has no such rule."""
    stream, block = peer.stream(), peer.block(calls.fields())
    peer.send(
        frames.headers(stream, block, priority=frames.dependency(stream)),
        frames.data(stream, BODY, end=True),
    )
    answer = peer.answer(stream)
    if answer.ended:
        assert answer.values() == calls.RIGHT
    else:
        peer.expect_stream_error(stream, Code.PROTOCOL_ERROR)


def test_a_request_may_end_with_its_headers(peer):
    """6.2: END_STREAM on HEADERS; a gRPC call without a message fails, the stream does not."""
    answer = peer.answer(peer.start(end=True))
    assert answer.ended
    assert answer.grpc_status not in (None, calls.OK)
    peer.expect_alive()


def test_a_request_that_ends_with_its_headers_may_have_continuations(peer):
    """6.2: END_STREAM on HEADERS holds though CONTINUATION follows."""
    stream, block = peer.stream(), peer.block(calls.fields())
    peer.send(
        frames.headers(stream, block[:4], end=True, end_headers=False),
        frames.continuation(stream, block[4:]),
    )
    answer = peer.answer(stream)
    assert answer.ended
    assert answer.grpc_status not in (None, calls.OK)
    peer.expect_alive()
