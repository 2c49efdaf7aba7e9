"""HPACK's Huffman code, RFC 7541 5.2 and Appendix B, beside python-hyper's."""

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway._native import huffman
from gateway._native.huffman import HpackError

ORACLE = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
TEXTS = st.binary(max_size=200) | st.text("abcdefghijklmnopqrstuvwxyz0123456789-./:").map(
    str.encode
)


def from_bits(bits: str) -> bytes:
    assert len(bits) % 8 == 0
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.parametrize("symbol", range(256))
def test_appendix_b_every_octet_has_its_code(symbol):
    length = REQUEST_CODES_LENGTH[symbol]
    bits = f"{REQUEST_CODES[symbol]:0{length}b}".ljust((length + 7) // 8 * 8, "1")
    assert huffman.encode(bytes([symbol])) == from_bits(bits)
    assert huffman.decode(from_bits(bits)) == bytes([symbol])


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        (b"www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
        (b"no-cache", "a8eb10649cbf"),
        (b"custom-value", "25a849e95bb8e8b4bf"),
        (b"302", "6402"),
        (b"Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
        (b"", ""),
    ],
)
def test_appendix_c_strings_are_coded_as_in_the_examples(text, encoded):
    assert huffman.encode(text).hex() == encoded
    assert huffman.decode(bytes.fromhex(encoded)) == text


@settings(deadline=None)
@given(TEXTS)
@example(bytes(range(256)))
@example(b"\n" * 1000)
@example(b"0" * 1000)
def test_what_is_encoded_is_the_oracles_and_comes_back(text):
    encoded = huffman.encode(text)
    assert encoded == ORACLE.encode(text)
    assert huffman.decode(encoded) == text


@st.composite
def mutated(draw):
    """A Huffman string with an octet exchanged, or cut."""
    encoded = bytearray(huffman.encode(draw(TEXTS)))
    if encoded:
        encoded[draw(st.integers(0, len(encoded) - 1))] = draw(st.integers(0, 255))
    return bytes(encoded[: draw(st.integers(0, len(encoded)))])


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=100) | mutated())
def test_any_octets_are_decoded_or_refused_as_the_oracle_does(encoded):
    try:
        expected = decode_huffman(encoded)
    except HPACKDecodingError:
        with pytest.raises(HpackError) as caught:
            huffman.decode(encoded)
        assert 0 <= caught.value.offset <= len(encoded)
    else:
        assert huffman.decode(encoded) == expected


# The code of "0" is 00000, so one to eight of them leave room for each number of bits up to 7.
@pytest.mark.parametrize("zeros", range(1, 9))
def test_5_2_up_to_seven_ones_are_padding(zeros):
    ones = -5 * zeros % 8
    assert huffman.decode(from_bits("00000" * zeros + "1" * ones)) == b"0" * zeros


@pytest.mark.parametrize("octets", [1, 2, 3])
def test_5_2_padding_of_more_than_seven_ones_is_refused(octets):
    ones = 8 * octets
    with pytest.raises(HpackError, match=rf"at byte {octets}: .* found 1{{{ones}}} after"):
        huffman.decode(from_bits("1" * ones))
    with pytest.raises(HpackError, match=rf"at byte {octets + 1}: .* found 1{{{ones + 3}}} after"):
        huffman.decode(from_bits("00000111" + "1" * ones))


@pytest.mark.parametrize("padding", ["000", "001", "010", "011", "100", "101", "110"])
def test_5_2_padding_that_is_not_all_ones_is_refused(padding):
    with pytest.raises(HpackError, match=rf"at byte 1: .* all ones, found {padding} after"):
        huffman.decode(from_bits("00000" + padding))


def test_5_2_a_string_that_ends_within_a_code_is_refused():
    # The longest code, of "\n", without its last octet.
    whole = huffman.encode(b"\n")
    assert len(whole) == 4
    with pytest.raises(HpackError, match=r"at byte 3: .* found 1{24} after its last symbol"):
        huffman.decode(whole[:3])


@pytest.mark.parametrize("before", [b"", b"0", b"&", b"abc"])
def test_5_2_eos_in_a_string_is_refused(before):
    bits = "".join(f"{REQUEST_CODES[s]:0{REQUEST_CODES_LENGTH[s]}b}" for s in before) + "1" * 30
    end = (len(bits) - 1) // 8
    bits = bits.ljust((len(bits) + 7) // 8 * 8, "1")
    for after in ("", "00000111", "1" * 64):
        with pytest.raises(HpackError, match=rf"at byte {end}: .* found EOS"):
            huffman.decode(from_bits(bits + after))
