"""HPACK beside python-hyper's ``hpack``: random connections, both ways, and hostile blocks.

The oracle's own encoder sends more than two updates of the table's size if it is resized that often
between two blocks, and none at all if the last resize changes nothing, so it is resized at most
twice, to another size each time.
"""

import hpack
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.hpack import Decoder, Encoder, HpackError
from tests.native.header_blocks import contents
from tests.native.hpack_oracle import assert_same_table, decode_both, oracle_decoder, plain

HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

# Few enough names and values that fields come again, and sizes that evict often.
NAMES = st.sampled_from([b":method", b":status", b"content-type", b"te", b"x", b"y-name", b""])
VALUES = st.sampled_from([b"GET", b"200", b"application/grpc", b"trailers", b"", b"v" * 150])
ANY = st.binary(max_size=40)
PAIRS = st.tuples(NAMES | ANY, VALUES | ANY)
SIZES = st.sampled_from([0, 31, 32, 33, 64, 100, 256, 1000, 4095, 4096]) | st.integers(0, 4096)
INDEXINGS = st.sampled_from(["index", "plain", "never"])

oracle_blocks = st.tuples(
    st.lists(SIZES, max_size=2),
    st.lists(st.tuples(PAIRS, st.booleans()), max_size=12),
    st.booleans(),
)


@settings(deadline=None)
@given(st.lists(oracle_blocks, max_size=8))
def test_what_the_oracle_encodes_is_decoded(blocks):
    oracle, decoder = hpack.Encoder(), Decoder(max_list_size=2**40)
    for sizes, fields, huffman in blocks:
        for size in sizes:
            if size != oracle.header_table_size:
                oracle.header_table_size = size
        sent = [(*pair, sensitive) for pair, sensitive in fields]
        decoded = decoder.decode(oracle.encode(sent, huffman=huffman))
        assert [tuple(field) for field in decoded] == [pair for pair, _ in fields]
        assert_same_table(decoder.table, oracle.header_table)


our_blocks = st.tuples(
    st.lists(SIZES | st.integers(4096, 2**32 - 1), max_size=4),
    st.lists(st.tuples(PAIRS, INDEXINGS), max_size=12),
)


@settings(deadline=None)
@given(st.lists(our_blocks, max_size=8), st.sampled_from([4096, 4096, 0, 100, 10_000]))
def test_what_is_encoded_the_oracle_decodes(blocks, most):
    encoder, oracle, decoder = Encoder(most), oracle_decoder(), Decoder(2**31 - 1, 2**40)
    oracle.max_allowed_table_size = 2**32
    offered = 4096
    for sizes, fields in blocks:
        for offered in sizes:
            encoder.resize(offered)
        assert encoder.table.max_size == min(offered, most)
        block = encoder.encode([(*pair, indexing) for pair, indexing in fields])
        expected = [(*pair, indexing == "never") for pair, indexing in fields]
        assert plain(oracle.decode(block, raw=True)) == expected
        assert_same_table(encoder.table, oracle.header_table)
        assert plain(decoder.decode(block)) == expected
        assert contents(decoder.table) == contents(encoder.table)
        assert encoder.settled


def integer(value: int, prefix: int, pattern: int) -> bytes:
    encoded = encode_integer(value, prefix)
    encoded[0] |= pattern
    return bytes(encoded)


def string(text: bytes, huffman: bool) -> bytes:
    text = HUFFMAN.encode(text) if huffman else text
    return integer(len(text), 7, 0x80 if huffman else 0) + text


PATTERNS = st.sampled_from([(0x40, 6), (0x00, 4), (0x10, 4)])
# Most of them mean something; those that do not come with their reasons in the tests by section.
INDEXES = st.integers(1, 70) | st.integers(0, 2**40)
STRINGS = st.builds(string, VALUES | ANY, st.booleans())
UPDATES = st.builds(integer, SIZES | st.integers(4090, 2**33), st.just(5), st.just(0x20))
PIECES = (
    st.builds(integer, st.integers(1, 70), st.just(7), st.just(0x80))
    | st.builds(integer, INDEXES, st.just(7), st.just(0x80))
    | st.builds(lambda p, name, value: bytes([p[0]]) + name + value, PATTERNS, STRINGS, STRINGS)
    | st.builds(lambda p, i, v: integer(i, p[1], p[0]) + v, PATTERNS, st.integers(1, 64), STRINGS)
)
BLOCKS = st.builds(
    lambda updates, pieces: b"".join(updates + pieces),
    st.lists(UPDATES, max_size=1) | st.lists(UPDATES, max_size=3),
    st.lists(PIECES, max_size=10) | st.lists(PIECES | UPDATES | ANY, max_size=10),
)


@st.composite
def hostile_blocks(draw):
    """A block in which some octets may have been exchanged, left out or put in, or its end lost."""
    block = bytearray(draw(BLOCKS))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(block)))
        block[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(block if draw(st.booleans()) else block[: draw(st.integers(0, len(block)))])


@settings(deadline=None, max_examples=500)
@given(st.lists(hostile_blocks(), min_size=1, max_size=5))
def test_hostile_blocks_are_decoded_or_refused_as_the_oracle_does(blocks):
    decoder, oracle = Decoder(max_list_size=2**40), oracle_decoder()
    for block in blocks:
        if decode_both(decoder, oracle, block) is None:
            return


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=100))
def test_random_octets_are_decoded_or_refused_as_the_oracle_does(block):
    decode_both(Decoder(max_list_size=2**40), oracle_decoder(), block)


@settings(deadline=None)
@given(st.lists(BLOCKS, max_size=5), st.integers(0, 2000))
def test_a_cut_list_is_the_start_of_the_whole_one(blocks, most):
    whole, cut = Decoder(max_list_size=2**40), Decoder(max_list_size=most)
    for block in blocks:
        try:
            fields = plain(whole.decode(block))
        except HpackError:
            return
        kept = plain(cut.decode(block))
        sizes = [len(name) + len(value) + 32 for name, value, _ in fields]
        fitting = sum(sum(sizes[: end + 1]) <= most for end in range(len(sizes)))
        assert kept == fields[:fitting]
        assert cut.too_large == (fitting < len(fields))
        assert contents(cut.table) == contents(whole.table)
