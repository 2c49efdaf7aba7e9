"""gRPC over HTTP/2, compression: Message-Encoding and the Compressed-Flag."""

import gzip
import zlib

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed

LIMIT = 1 << 20

GZIPPED = prefixed(gzip.compress(calls.request()), compressed=1)


def encoded(encoding: str, *more: tuple[str, str]) -> calls.Fields:
    return calls.fields(calls.UNARY, ("grpc-encoding", encoding), *more)


def test_a_message_may_be_compressed(peer):
    """Compressed-Flag 1, and the encoding in grpc-encoding."""
    assert peer.answer(peer.call(GZIPPED, encoded("gzip"))).values() == calls.RIGHT


def test_a_compressed_message_may_be_cut_anywhere(peer):
    """What is decompressed is the message, not what a frame brings of it."""
    stream = peer.start(encoded("gzip"))
    for octet in GZIPPED:
        peer.send(frames.data(stream, bytes([octet])))
    peer.send(frames.data(stream, end=True))
    assert peer.answer(stream).values() == calls.RIGHT


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_message_need_not_be_compressed(peer, encoding):
    """Compressed-Flag 0 says that this message is not, whatever the encoding."""
    answer = peer.answer(peer.call(prefixed(calls.request()), encoded(encoding)))
    assert answer.values() == calls.RIGHT


def test_messages_of_a_stream_may_be_compressed_or_not(peer):
    """The Compressed-Flag is each message's own."""
    fields = calls.fields(calls.STREAM, ("grpc-encoding", "gzip"))
    stream = peer.start(fields)
    body = GZIPPED + prefixed(calls.request()) + GZIPPED
    peer.send(frames.data(stream, body, end=True))
    answer = peer.answer(stream)
    assert answer.succeeded
    values = [calls.values_of(calls.streamed(message)[1]) for message in answer.messages]
    assert values == [calls.RIGHT] * 3


@pytest.mark.parametrize("accepted", [None, "identity", "identity,gzip", "gzip", "deflate, gzip"])
def test_an_answer_is_encoded_as_its_client_accepts(peer, accepted):
    """Message-Accept-Encoding; without it nothing but identity."""
    more = [] if accepted is None else [("grpc-accept-encoding", accepted)]
    stream = peer.start(calls.fields(calls.UNARY, *more))
    peer.upload(stream, prefixed(calls.request([1.0] * 10_000)))
    answer = peer.answer(stream)
    ((compressed, message),) = calls.messages_in(answer.data)
    if compressed:
        assert "gzip" in (accepted or "")
        assert answer.field("grpc-encoding") == "gzip"
        message = gzip.decompress(message)
    else:
        assert answer.field("grpc-encoding") in (None, "identity", "gzip")
    assert calls.values_of(message) == [-1.0] * 10_000


@pytest.mark.parametrize("fields", [calls.fields(), encoded("identity")], ids=["none", "identity"])
def test_a_compressed_message_names_its_encoding(peer, fields):
    """Compressed-Flag 1 without an encoding that compresses is an INTERNAL error."""
    answer = peer.answer(peer.call(GZIPPED, fields))
    assert answer.grpc_status == calls.INTERNAL
    peer.expect_alive()


@pytest.mark.parametrize("flag", [2, 3, 0x80, 0xFF])
def test_other_flags_are_errors(peer, flag):
    """Compressed-Flag: 0 or 1."""
    answer = peer.answer(peer.call(prefixed(calls.request(), compressed=flag)))
    assert answer.grpc_status in (calls.INTERNAL, calls.UNIMPLEMENTED)
    peer.expect_alive()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip2"])
def test_an_unknown_encoding_is_unimplemented_and_the_known_ones_told(peer, encoding):
    """UNIMPLEMENTED, with grpc-accept-encoding in the answer."""
    answer = peer.answer(peer.call(prefixed(b"whatever", compressed=1), encoded(encoding)))
    assert answer.grpc_status == calls.UNIMPLEMENTED
    known = {name.strip() for name in answer.field("grpc-accept-encoding").split(",")}
    assert {"identity", "gzip"} <= known
    peer.expect_alive()


@pytest.mark.parametrize(
    "octets",
    [
        b"\x1f\x8b",
        gzip.compress(calls.request())[:-9],
        gzip.compress(calls.request())[:-8] + bytes(8),
        b"\xff" * 100,
        zlib.compress(calls.request()),
        calls.request(),
    ],
    ids=["its magic", "cut short", "a wrong sum", "noise", "zlib", "plain"],
)
def test_what_cannot_be_decompressed_is_an_error_of_its_call(peer, octets):
    answer = peer.answer(peer.call(prefixed(octets, compressed=1), encoded("gzip")))
    assert answer.grpc_status in (calls.INTERNAL, calls.INVALID_ARGUMENT)
    peer.expect_alive()


@pytest.mark.parametrize("size", [LIMIT + 1, 64 << 20])
def test_the_limit_is_one_of_what_was_compressed(peer, size):
    """A small message that decompresses to a large one is over the limit, and never built."""
    body = prefixed(gzip.compress(bytes(size)), compressed=1)
    stream = peer.start(encoded("gzip"))
    peer.upload(stream, body)
    answer = peer.answer(stream)
    assert answer.grpc_status == calls.RESOURCE_EXHAUSTED
    assert "--max-request-bytes" in answer.grpc_message
    peer.expect_alive()
