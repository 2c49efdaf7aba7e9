"""RFC 9113, section 4: the frame format, frame sizes, field section compression."""

import pytest

from tests.http2 import blocks, calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code, Setting, Type

UNKNOWN = 0xFA


def largest(peer) -> int:
    return peer.settings.get(Setting.MAX_FRAME_SIZE, frames.DEFAULT_FRAME_SIZE)


# ---- 4.1, frame format ----


@pytest.mark.parametrize("payload", [b"", b"\0", bytes(16_384)], ids=len)
def test_frames_of_unknown_types_are_ignored(peer, payload):
    """4.1: implementations MUST ignore and discard frames of unknown types."""
    peer.send(frames.frame(UNKNOWN, 0xFF, 0, payload))
    peer.expect_ignored()


def test_frames_of_unknown_types_are_ignored_on_any_stream(peer):
    """5.5: extension frames are ignored on streams in whatever state."""
    stream = peer.start()
    peer.send(
        frames.frame(UNKNOWN, frames.END_STREAM, stream, b"on an open stream"),
        frames.frame(UNKNOWN, 0, 1001, b"on an idle one"),
        frames.frame(UNKNOWN, 0, 2, b"on one of the server's"),
        frames.data(stream, prefixed(calls.request()), end=True),
        frames.frame(UNKNOWN, 0, stream, b"on a half-closed or closed one"),
    )
    assert peer.answer(stream).values() == calls.RIGHT
    peer.expect_alive()


@pytest.mark.parametrize(
    "octets",
    [
        frames.frame(Type.PING, 0xFE, 0, bytes(8)),
        frames.frame(Type.WINDOW_UPDATE, 0xFF, 0, b"\0\0\0\1"),
        frames.frame(Type.PRIORITY, 0xFF, 3, frames.dependency(0)),
    ],
    ids=["PING", "WINDOW_UPDATE", "PRIORITY"],
)
def test_flags_that_mean_nothing_are_ignored(peer, octets):
    """4.1: flags without a meaning for a frame's type MUST be ignored on receipt."""
    peer.send(octets)
    peer.expect_ignored()


def test_flags_of_settings_that_mean_nothing_are_ignored(peer):
    """4.1, for SETTINGS, which are acknowledged all the same."""
    before = len(peer.log)
    peer.unacked.append({})
    peer.send(frames.frame(Type.SETTINGS, 0xFE, 0))
    peer.until(lambda: not peer.unacked, "the acknowledgement")
    assert len(peer.log) > before
    peer.expect_alive()


def test_flags_of_a_request_that_mean_nothing_are_ignored(peer):
    """HEADERS know 0x2d, DATA know 0x09, CONTINUATION knows 0x04, RST_STREAM none."""
    stream, block = peer.stream(), peer.block(calls.fields())
    peer.send(
        frames.frame(Type.HEADERS, 0xD2, stream, block[:10]),
        frames.frame(Type.CONTINUATION, 0xFF, stream, block[10:]),
        frames.frame(Type.DATA, 0xF6, stream, prefixed(calls.request())[:7]),
        frames.frame(Type.DATA, 0xF7, stream, prefixed(calls.request())[7:]),
    )
    assert peer.answer(stream).values() == calls.RIGHT
    left = peer.start()
    peer.send(frames.frame(Type.RST_STREAM, 0xFF, left, b"\0\0\0\x08"))
    peer.expect_ignored(left)


@pytest.mark.parametrize(
    "octets",
    [
        frames.frame(Type.PING, 0, 1 << 31, b"reserved"),
        frames.frame(Type.WINDOW_UPDATE, 0, 1 << 31, b"\x80\0\0\1"),
        frames.frame(Type.PRIORITY, 0, 1 << 31 | 3, frames.dependency(0)),
    ],
    ids=["PING", "WINDOW_UPDATE", "PRIORITY"],
)
def test_the_reserved_bit_is_ignored(peer, octets):
    """4.1: the reserved bit MUST be ignored when receiving."""
    peer.send(octets)
    peer.barrier()


def test_the_reserved_bit_of_a_requests_frames_is_ignored(peer):
    """4.1, for frames that a request takes, and for the stream that GOAWAY names (6.8)."""
    stream = peer.stream()
    peer.send(
        frames.headers(1 << 31 | stream, peer.block(calls.fields())),
        frames.frame(Type.GOAWAY, 0, 1 << 31, b"\x80\0\0\0" + bytes(4)),
        frames.data(1 << 31 | stream, prefixed(calls.request()), end=True),
    )
    assert peer.answer(stream).values() == calls.RIGHT


def test_frames_may_be_cut_anywhere(peer):
    """TCP keeps no boundaries."""
    stream = peer.stream()
    octets = (
        frames.headers(stream, peer.block(calls.fields()))
        + frames.data(stream, prefixed(calls.request()), pad=3, end=True)
        + frames.ping()
    )
    for octet in octets:
        peer.send(bytes([octet]))
    assert peer.answer(stream).values() == calls.RIGHT


# ---- 4.2, frame size ----


@pytest.mark.parametrize("size", [2**14 - 1, 2**14])
@pytest.mark.parametrize("pad", [None, 0, 255])
def test_data_of_the_least_maximum_size_is_taken(peer, size, pad):
    """4.2: all implementations MUST be capable of frames of up to 2^14 octets of payload."""
    values = [1.0] * 4000
    room = size - (0 if pad is None else 1 + pad)
    # An id of up to 127 octets takes 2 more than its length, a longer one takes 3.
    missing = room - len(prefixed(calls.request(values)))
    body = prefixed(calls.request(values, id="a" * (missing - (2 if missing < 130 else 3))))
    octets = frames.data(peer.start(), body, end=True, pad=pad)
    assert len(octets) == 9 + size
    peer.send(octets)
    assert peer.answer(1).values() == [-1.0] * 4000


def test_headers_of_the_least_maximum_size_are_taken(peer):
    """4.2, for HEADERS. A field that is indexed a second time takes one octet: few are needed."""
    stream, block = peer.stream(), peer.block(calls.fields(calls.UNARY, ("x-one", "a" * 1000)))
    again = peer.block([(b"x-one", b"a" * 1000)])
    assert len(again) == 1
    block += again * 3
    pad = 255
    # Its own length takes 3 octets.
    block += blocks.literal(b"x-two", b"b" * (2**14 - len(block) - pad - 1 - 7 - 3))
    octets = frames.headers(stream, block, pad=pad)
    assert len(octets) == 9 + 2**14
    peer.send(octets, frames.data(stream, prefixed(calls.request()), end=True))
    answer = peer.answer(stream)
    # Such a list of fields may be over the server's own limit, the frame may not.
    assert answer.succeeded or answer.http_status == 431 or answer.grpc_status is not None, answer
    peer.expect_alive()


def test_headers_over_the_least_maximum_size_are_taken(peer):
    """4.2: a frame of the size that SETTINGS_MAX_FRAME_SIZE allows, with fields that may be."""
    more = [("x-one", "a" * 9000), ("x-two", "b" * 9000)]
    stream, block = peer.stream(), peer.block(calls.fields(calls.UNARY, *more), huffman=False)
    assert 2**14 < len(block) < largest(peer)
    peer.send(frames.headers(stream, block))
    peer.send(frames.data(stream, prefixed(calls.request()), end=True))
    assert peer.answer(stream).values() == calls.RIGHT


def test_unknown_frames_of_the_maximum_size_are_ignored(peer):
    """4.1 and 4.2: whatever their size, within SETTINGS_MAX_FRAME_SIZE."""
    peer.send(frames.frame(UNKNOWN, 0xFF, 0, bytes(largest(peer))))
    peer.expect_ignored()
    stream = peer.start()
    peer.send(frames.frame(UNKNOWN, 0xFF, stream, bytes(largest(peer))))
    peer.send(frames.data(stream, prefixed(calls.request()), end=True))
    assert peer.answer(stream).values() == calls.RIGHT


@pytest.mark.parametrize(
    ("type", "stream"), [(Type.SETTINGS, 0), (Type.GOAWAY, 0), (Type.PING, 0), (Type.PRIORITY, 1)]
)
def test_frames_over_the_limit_of_their_type_are_connection_errors(peer, type, stream):
    """4.2: FRAME_SIZE_ERROR where a frame exceeds any limit that is defined for its type."""
    peer.send(frames.frame(type, 0, stream, bytes(16_386)))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


def test_a_block_in_one_frame_is_held_to_the_limit_of_blocks(peer):
    """10.5.1: what is announced as larger than any block may be is not waited for."""
    stream = peer.stream()
    peer.send(frames.head(100_000, Type.HEADERS, frames.END_HEADERS, stream))
    peer.expect_connection_error(Code.ENHANCE_YOUR_CALM)


def test_data_over_the_maximum_size_is_an_error_of_its_stream_or_the_connection(peer):
    """4.2: FRAME_SIZE_ERROR for a frame over SETTINGS_MAX_FRAME_SIZE."""
    stream = peer.start()
    peer.send(frames.data(stream, bytes(largest(peer) + 1)))
    answer = peer.answers[stream]
    peer.until(lambda: answer.reset is not None or peer.goaways, "an error")
    if peer.goaways:
        peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    else:
        peer.expect_stream_error(stream, Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize(
    ("type", "flags", "stream"),
    [
        (Type.HEADERS, frames.END_HEADERS, 1),
        (Type.CONTINUATION, frames.END_HEADERS, 1),
        (Type.SETTINGS, 0, 0),
        (Type.PUSH_PROMISE, frames.END_HEADERS, 1),
        (UNKNOWN, 0, 0),
    ],
    ids=["HEADERS", "CONTINUATION", "SETTINGS", "PUSH_PROMISE", "unknown"],
)
def test_other_frames_over_the_maximum_size_are_connection_errors(peer, type, flags, stream):
    """4.2: what could alter the state of the entire connection MUST be a connection error."""
    if type == Type.CONTINUATION:
        peer.send(frames.headers(peer.stream(), b"", end_headers=False))
    elif type == Type.HEADERS:
        peer.stream()
    elif type == Type.PUSH_PROMISE:
        peer.start()
    # A multiple of 6, as SETTINGS have to be.
    peer.send(frames.frame(type, flags, stream, bytes((largest(peer) // 6 + 1) * 6)))
    # A server may find fault with CONTINUATION and PUSH_PROMISE for what they are.
    others = {Type.PUSH_PROMISE: [Code.PROTOCOL_ERROR]}.get(type, [])
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR, *others)


# ---- 4.3, field section compression and decompression ----


@pytest.mark.parametrize("type", [Type.HEADERS, Type.CONTINUATION])
def test_a_block_that_cannot_be_decoded_is_a_connection_error(peer, type):
    """4.3: a decoding error MUST be treated as a connection error of type COMPRESSION_ERROR."""
    stream = peer.stream()
    invalid = b"\xff\xff\xff\xff\xff\xff"
    if type == Type.HEADERS:
        peer.send(frames.headers(stream, invalid, end=True))
    else:
        peer.send(
            frames.headers(stream, b"\x83", end=True, end_headers=False),
            frames.continuation(stream, invalid),
        )
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


@pytest.mark.parametrize(
    "between",
    [
        frames.priority(1),
        frames.headers(3, b"\x83"),
        frames.headers(1, b"\x83"),
        frames.data(1, b""),
        frames.ping(),
        frames.settings(),
        frames.window_update(0, 1),
        frames.rst_stream(1),
        frames.goaway(),
        frames.frame(UNKNOWN, 0, 1, b""),
        frames.frame(UNKNOWN, 0, 0, b""),
    ],
    ids=[
        "PRIORITY", "HEADERS of another stream", "HEADERS again", "DATA", "PING", "SETTINGS",
        "WINDOW_UPDATE", "RST_STREAM", "GOAWAY", "unknown", "unknown of the connection",
    ],
)  # fmt: skip
def test_nothing_comes_between_the_frames_of_a_block(peer, between):
    """4.3 and 5.5: field blocks MUST be contiguous, with no frames of any type in between."""
    stream, block = peer.stream(), peer.block(calls.fields())
    peer.open(3)
    peer.send(
        frames.headers(stream, block[:5], end_headers=False),
        between,
        frames.continuation(stream, block[5:]),
    )
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_compression_state_outlives_a_malformed_request(peer):
    """4.3: a block MUST be decoded even where its message is then refused."""
    named = ("x-indexed", "of a request that was refused")
    wrong = peer.start(calls.fields(calls.UNARY, ("Upper-Case", "1"), named), end=True)
    peer.answer(wrong)
    stream = peer.start(calls.fields(calls.UNARY, named))
    peer.send(frames.data(stream, prefixed(calls.request()), end=True))
    assert peer.answer(stream).values() == calls.RIGHT


def test_compression_state_outlives_trailers_of_a_stream_that_the_server_reset(peer):
    """5.1: after RST_STREAM whatever comes is minimally processed: blocks are still decoded."""
    wrong = peer.start()
    named = ("x-indexed", "in trailers that crossed a reset")
    peer.send(
        frames.window_update(wrong, 0),
        frames.headers(wrong, peer.block([(n.encode(), v.encode()) for n, v in [named]]), end=True),
    )
    assert peer.answer(wrong).reset == Code.PROTOCOL_ERROR
    stream = peer.start(calls.fields(calls.UNARY, named))
    peer.send(frames.data(stream, prefixed(calls.request()), end=True))
    assert peer.answer(stream).values() == calls.RIGHT
