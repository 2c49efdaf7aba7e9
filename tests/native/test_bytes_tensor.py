"""The binary form of BYTES tensors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.bytes_tensor import DecodeError, decode_bytes_tensor, encode_bytes_tensor

ELEMENTS = st.lists(st.binary(max_size=300), max_size=20)


@settings(deadline=None)
@given(ELEMENTS)
def test_elements_come_back(elements):
    assert decode_bytes_tensor(encode_bytes_tensor(elements), len(elements)) == elements


def test_each_element_is_a_little_endian_length_and_its_bytes():
    assert encode_bytes_tensor([b"ab", b""]) == b"\x02\0\0\0ab\0\0\0\0"


def test_an_array_is_written_in_row_major_order_and_text_as_utf8():
    array = np.array([["é", b"b"], ["c", np.str_("d")]], dtype=object)
    assert decode_bytes_tensor(encode_bytes_tensor(array), 4) == ["é".encode(), b"b", b"c", b"d"]
    assert decode_bytes_tensor(encode_bytes_tensor(array.T), 4) == ["é".encode(), b"c", b"b", b"d"]


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(wrap):
    assert decode_bytes_tensor(wrap(b"\x01\0\0\0a"), 1) == [b"a"]


@pytest.mark.parametrize("element", [1, None, 1.5, ["a"]])
def test_an_element_that_is_neither_bytes_nor_text_is_refused(element):
    with pytest.raises(TypeError, match=type(element).__name__):
        encode_bytes_tensor([b"a", element])


@settings(deadline=None)
@given(ELEMENTS, st.integers(0, 30), st.data())
def test_only_exactly_the_promised_elements_are_read(elements, count, draw):
    encoded = encode_bytes_tensor(elements)
    cut = draw.draw(st.integers(0, len(encoded)))
    whole = encode_bytes_tensor(elements[:count])
    if count <= len(elements) and encoded[:cut] == whole:
        assert decode_bytes_tensor(encoded[:cut], count) == elements[:count]
        return
    with pytest.raises(DecodeError) as caught:
        decode_bytes_tensor(encoded[:cut], count)
    assert 0 <= caught.value.offset <= cut


def test_errors_say_where_and_what():
    with pytest.raises(
        DecodeError, match=r"at byte 5: expected the 4-byte length of .* 1 of 2, found 2"
    ):
        decode_bytes_tensor(b"\x01\0\0\0a\x01\0", 2)
    with pytest.raises(DecodeError, match=r"at byte 4: expected 4294967295 bytes .* found 1"):
        decode_bytes_tensor(b"\xff\xff\xff\xffa", 1)
    with pytest.raises(DecodeError, match=r"at byte 5: expected the end after 1 .* found 3"):
        decode_bytes_tensor(b"\x01\0\0\0abcd", 1)
    with pytest.raises(ValueError, match="-1 elements"):
        decode_bytes_tensor(b"", -1)


def test_a_lying_count_costs_nothing():
    with pytest.raises(DecodeError):
        decode_bytes_tensor(b"", 2**60)
