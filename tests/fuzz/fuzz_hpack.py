"""HPACK: what a connection's blocks say to the oracle they say here, and it can be written again.

The input is read as one block, and as several, each behind its size, a byte.
"""

import contextlib
from collections.abc import Iterator

from gateway._native import huffman
from gateway._native.hpack import Decoder, Encoder, HpackError
from tests.native.hpack_oracle import (
    assert_same_table,
    decode_both,
    oracle_decoder,
    plain,
)

LONGEST_LIST = 2**40


def one_input(data: bytes) -> None:
    decode_both(Decoder(max_list_size=LONGEST_LIST), oracle_decoder(), data)
    several(data)
    assert huffman.decode(huffman.encode(data)) == data
    with contextlib.suppress(HpackError):
        # There is one way to write a text, 5.2: the code is no shorter, and its padding is ones.
        assert huffman.encode(huffman.decode(data)) == data


def several(data: bytes) -> None:
    """Read blocks with one decoder, and write them again with one encoder."""
    decoder, oracle = Decoder(max_list_size=LONGEST_LIST), oracle_decoder()
    few = Decoder(max_list_size=data[0] if data else 0)
    encoder, reader, oracle_reader = (
        Encoder(),
        Decoder(max_list_size=LONGEST_LIST),
        oracle_decoder(),
    )
    for index, block in enumerate(blocks(data)):
        fields = decode_both(decoder, oracle, block)
        if fields is None:
            return
        kept = plain(few.decode(block))
        assert kept == fields[: len(kept)]
        assert few.too_large == (len(kept) < len(fields))
        encoder.resize(decoder.table.max_size)
        indexing = "index" if index % 2 == 0 else "plain"
        again = encoder.encode(
            [(name, value, "never" if never else indexing) for name, value, never in fields]
        )
        assert plain(reader.decode(again)) == fields
        assert plain(oracle_reader.decode(again, raw=True)) == fields
        assert_same_table(encoder.table, oracle_reader.header_table)


def blocks(data: bytes) -> Iterator[bytes]:
    while data:
        size = data[0]
        yield data[1 : 1 + size]
        data = data[1 + size :]


def seeds() -> Iterator[tuple[str, bytes]]:
    yield "static", b"\x82\x86\x84"
    yield "literal", b"\x40\x0acustom-key\x0dcustom-header"
    yield "never-indexed", b"\x10\x08password\x06secret"
    yield "huffman", b"\x41" + string(b"www.example.com")
    yield "table-size", b"\x20\x3f\xe1\x1f\x82"
    yield "three-table-sizes", b"\x20\x21\x22\x82"
    yield "long-integer", b"\x3f\xff\xff\xff\xff\x07\x82"
    yield "too-long-an-integer", b"\xff\x80\x80\x80\x80\x80\x00"
    yield "string-cut-short", b"\x40\x05abc"
    yield "eos", b"\x00\x01a\x84\xff\xff\xff\xff"
    yield "huffman-text", huffman.encode(bytes(range(256)))
    encoder = Encoder()
    request = [
        (b":method", b"POST", "index"),
        (b":scheme", b"http", "index"),
        (b":path", b"/inference.GRPCInferenceService/ModelInfer", "index"),
        (b"content-type", b"application/grpc", "index"),
        (b"te", b"trailers", "index"),
        (b"grpc-timeout", b"1S"),
        (b"authorization", b"secret", "never"),
    ]
    yield "requests", b"".join(sized(encoder.encode(request)) for _ in range(3))
    encoder.resize(100)
    resized = [sized(encoder.encode(request))]
    encoder.resize(0)
    encoder.resize(4096)
    resized += [sized(encoder.encode(request)), sized(encoder.encode(request))]
    yield "resized", sized(b"\x3f\xe1\x1f") + b"".join(resized)
    large = [(b"n%d" % at, bytes([at]) * 40, "index") for at in range(5)]
    encoder = Encoder()
    evicting = [encoder.encode(large[at % 3 :]) for at in range(6)]
    encoder.resize(200)
    yield "evicting", b"".join(map(sized, [*evicting, *(encoder.encode(large) for _ in range(3))]))


def sized(block: bytes) -> bytes:
    assert len(block) < 256
    return bytes([len(block)]) + block


def string(text: bytes) -> bytes:
    """A string literal in Huffman's code."""
    coded = huffman.encode(text)
    return bytes([0x80 | len(coded)]) + coded
