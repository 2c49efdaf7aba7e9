"""RFC 9113, section 6.10: CONTINUATION. What may not come in between is section 4.3's."""

import pytest

from tests.http2 import blocks, calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code

BODY = prefixed(calls.request())


@pytest.mark.parametrize("size", [20, 33, 50])
def test_a_block_may_be_cut_anywhere(peer, size):
    """6.10: any number of CONTINUATION frames, though servers may lose patience with very many."""
    stream, block = peer.stream(), peer.block(calls.fields())
    parts = [block[i : i + size] for i in range(0, len(block), size)]
    peer.send(frames.headers(stream, parts[0], end_headers=False))
    for part in parts[1:]:
        peer.send(frames.continuation(stream, part, end_headers=False))
    peer.send(frames.continuation(stream), frames.data(stream, BODY, end=True))
    assert peer.answer(stream).values() == calls.RIGHT


def test_a_block_may_be_cut_at_any_octet(peer):
    """6.10 and 4.3: a fragment need not end where a field does."""
    block = blocks.plain(calls.fields())
    for cut in range(len(block) + 1):
        stream = peer.stream()
        peer.send(
            frames.headers(stream, block[:cut], end_headers=False),
            frames.continuation(stream, block[cut:]),
            frames.data(stream, BODY, end=True),
        )
        assert peer.answer(stream).values() == calls.RIGHT


def test_trailers_may_be_continued(peer):
    """6.10: CONTINUATION follows HEADERS of whatever use."""
    stream = peer.start()
    block = peer.block([(b"x-one", b"1"), (b"x-two", b"2")])
    peer.send(
        frames.data(stream, BODY),
        frames.headers(stream, b"", end=True, end_headers=False),
        frames.continuation(stream, block[:5], end_headers=False),
        frames.continuation(stream, block[5:]),
    )
    assert peer.answer(stream).values() == calls.RIGHT


def test_a_block_cannot_go_on_without_a_stream(peer):
    """6.10: on stream 0x00 a connection error of type PROTOCOL_ERROR."""
    stream, block = peer.stream(), peer.block(calls.fields())
    peer.send(
        frames.headers(stream, block[:5], end_headers=False), frames.continuation(0, block[5:])
    )
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_a_block_cannot_go_on_on_another_stream(peer):
    """6.2: a frame on a different stream is a connection error of type PROTOCOL_ERROR."""
    stream, block = peer.stream(), peer.block(calls.fields())
    peer.send(
        frames.headers(stream, block[:5], end_headers=False), frames.continuation(3, block[5:])
    )
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("last", ["HEADERS", "CONTINUATION", "DATA", "nothing"])
def test_there_has_to_be_a_block_to_continue(peer, last):
    """6.10: it MUST be preceded by HEADERS or CONTINUATION without END_HEADERS."""
    stream, block = peer.stream(), peer.block(calls.fields())
    if last == "HEADERS":
        peer.send(frames.headers(stream, block))
    elif last == "CONTINUATION":
        peer.send(
            frames.headers(stream, block[:5], end_headers=False),
            frames.continuation(stream, block[5:]),
        )
    elif last == "DATA":
        peer.send(frames.headers(stream, block), frames.data(stream, BODY))
    peer.send(frames.continuation(stream, peer.block([(b"x-late", b"1")])))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)
