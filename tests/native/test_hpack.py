"""HPACK, RFC 7541: what is decoded, refused and encoded, by section."""

import gc
import re
import sys
import tracemalloc

import pytest

from gateway._native import huffman
from gateway._native.hpack import Decoder, Encoder, Field, HpackError
from tests.native.header_blocks import contents, decode, literal


def assert_refused(block: bytes | str, offset: int, said: str, decoder: Decoder | None = None):
    with pytest.raises(HpackError, match=rf"at byte {offset}: expected .*{said}") as caught:
        decode(block, decoder)
    assert caught.value.offset == offset
    assert str(caught.value).endswith(caught.value.expected)


# Decoding: the tables


def test_2_3_a_field_of_a_table_is_the_same_object_every_time():
    decoder = Decoder()
    (inserted,) = decoder.decode(literal(b"a", b"b"))
    first, second = decoder.decode(b"\xbe\x82"), decoder.decode(b"\xbe\x82")
    assert first[0] is second[0] is inserted is decoder.table[0]
    assert first[1] is second[1] is Decoder().decode(b"\x82")[0]


def test_2_3_2_the_table_is_first_in_first_out_however_often_it_wraps():
    decoder = Decoder()
    model = []
    for number in range(1000):
        field = (b"n%d" % number, b"v" * (number % 7))
        decoder.decode(literal(*field))
        model.insert(0, field)
        while sum(len(name) + len(value) + 32 for name, value in model) > 4096:
            model.pop()
        assert decoder.table.size == sum(len(name) + len(value) + 32 for name, value in model)
        assert len(decoder.table) == len(model)
    assert contents(decoder.table) == model
    blocks = [Encoder().encode([]), *(b"\xff" + bytes([index]) for index in range(20))]
    assert [decode(block, decoder) for block in blocks] == [
        [],
        *([field] for field in model[65:85]),
    ]
    with pytest.raises(IndexError, match="asked for"):
        decoder.table[len(model)]


def test_4_3_a_smaller_table_evicts_at_once():
    decoder = Decoder()
    decoder.decode(literal(b"a", b"1") + literal(b"b", b"2"))
    generation = decoder.table.generation
    assert decode(b"\x3f\x21\xbe", decoder) == [(b"b", b"2")]  # to 64 octets
    assert decoder.table.generation == generation + 1
    assert_refused(b"\xbf", 0, "1..62, found 63", decoder)


def test_4_3_size_zero_then_the_old_one_empties_the_table():
    decoder = Decoder()
    decoder.decode(literal(b"a", b"1"))
    assert decode(b"\x20\x3f\xe1\x1f", decoder) == []
    assert (len(decoder.table), decoder.table.size, decoder.table.max_size) == (0, 0, 4096)


def test_4_4_an_entry_larger_than_the_table_empties_it_and_is_decoded_all_the_same():
    decoder = Decoder(100)
    decoder.decode(literal(b"a", b"1"))
    assert decode(literal(b"b", b"2" * 68), decoder) == [(b"b", b"2" * 68)]
    assert (len(decoder.table), decoder.table.size) == (0, 0)
    assert decode(literal(b"b", b"2" * 67), decoder) == [(b"b", b"2" * 67)]
    assert (len(decoder.table), decoder.table.size) == (1, 100)


def test_4_4_an_entry_may_take_its_name_from_one_that_it_evicts():
    decoder = Decoder(64)
    decoder.decode(literal(b"name", b"1" * 28))
    assert decode(b"\x7e\x012", decoder) == [(b"name", b"2")]
    assert contents(decoder.table) == [(b"name", b"2")]


# Decoding: what is refused


def test_2_3_3_an_index_past_the_tables_is_refused():
    assert_refused(b"\x82\xbe", 1, r"an index in 1\.\.61, found 62")
    assert_refused(b"\x7e\x01a", 0, r"an index in 1\.\.61, found 62")
    assert_refused(b"\x0f\x2f\x01a", 0, r"an index in 1\.\.61, found 62")
    assert_refused(literal(b"a", b"b") + b"\xbf", 5, r"an index in 1\.\.62, found 63")


def test_6_1_index_zero_is_refused():
    assert_refused(b"\x82\x80", 1, r"an index in 1\.\.61, found 0")


@pytest.mark.parametrize("block", ["ff", "ff80", "ff80808080", "7f", "0f", "1f", "3f"])
def test_5_1_an_integer_cut_short_is_refused(block):
    assert_refused(block, len(block) // 2, "octet, found the block's end")


def test_5_1_an_integer_above_2_31_less_1_is_refused():
    largest = bytes.fromhex("ff80ffffff07")  # 127 + 2**31 - 128
    assert_refused(largest, 0, "found 2147483647")
    assert_refused("ff81ffffff07", 0, r"up to 2\*\*31 - 1, found 2147483648")
    assert_refused("ffffffffff7f", 0, rf"up to 2\*\*31 - 1, found {127 + 2**35 - 1}")


def test_5_1_an_integer_of_more_than_five_octets_after_its_prefix_is_refused():
    # 127 + 0, in as many octets as one likes.
    assert_refused("ff8080808000", 0, "found 127")
    assert_refused("ff808080808000", 0, "at most 5 octets after its prefix, found more")
    assert_refused("ff" + "80" * 10000, 0, "at most 5 octets after its prefix, found more")


@pytest.mark.parametrize(
    ("block", "offset"), [("40", 1), ("400161", 3), ("41", 1), ("00", 1), ("04", 1), ("100161", 3)]
)
def test_5_2_a_missing_string_is_refused(block, offset):
    assert_refused(block, offset, "a string, found the block's end")


@pytest.mark.parametrize(
    ("block", "offset", "left", "length"),
    [
        ("400261", 1, 1, 2),
        ("40016105626262", 3, 3, 5),
        ("40016185626262", 3, 3, 5),
        ("047f8001616161", 1, 3, 255),
        ("04ff80ffffff07616161", 1, 3, 2147483647),
    ],
)
def test_5_2_a_string_longer_than_the_block_is_refused(block, offset, left, length):
    assert_refused(block, offset, rf"at most the {left} octets left .* a length of {length}")


def test_5_2_huffman_errors_count_from_the_blocks_start():
    assert_refused(b"\x82\x04\x83\x00\xff\xff", 6, "7 bits of padding .* found 1{14} after")
    assert_refused(b"\x82\x04\x82\x00\x00", 5, "found 0 after")
    assert_refused(b"\x82\x04\x84\xff\xff\xff\xff", 6, "found EOS")
    assert_refused(b"\x82\x40\x84\xff\xff\xff\xff\x00", 6, "found EOS")


def test_6_3_a_table_size_above_the_announced_one_is_refused():
    assert_refused("3fe21f", 0, "a table size of at most 4096, found an update to 4097")
    assert_refused("203fe21f", 1, "a table size of at most 4096, found an update to 4097")
    assert_refused("2b", 0, "at most 10, found an update to 11", Decoder(10))


@pytest.mark.parametrize("field", [b"\x82", literal(b"a", b"b"), literal(b"a", b"b", 0x10)])
def test_4_2_an_update_of_the_tables_size_after_a_field_is_refused(field):
    assert_refused(field + b"\x20", len(field), "only at a block's start")
    # Even where the field itself was left out of the list.
    assert_refused(field + b"\x20", len(field), "only at a block's start", Decoder(4096, 0))


def test_4_2_more_than_two_updates_of_the_tables_size_are_refused():
    assert decode("20212282"[2:]) == [(b":method", b"GET")]
    assert_refused("20212282", 2, "after two updates .* found another update")


def test_an_error_leaves_nothing_behind():
    name = b"x-" + b"n" * 60
    blocks = [
        literal(name, b"v" * 60) + broken
        for broken in (
            b"\x80",
            b"\xff",
            b"\x40\x02a",
            b"\x40\x05abcde\x7f",
            b"\x04\x84\xff\xff\xff\xff",
            b"\x40\x82\x00\x00",
            b"\xff" * 9,
            b"\x20",
        )
    ]

    def blocks_after(rounds: int) -> int:
        errors = 0
        for _ in range(rounds):
            for block in blocks:
                try:
                    Decoder().decode(block)
                except HpackError:
                    errors += 1
        assert errors == rounds * len(blocks)
        gc.collect()
        return sys.getallocatedblocks()

    warm = blocks_after(20)
    assert blocks_after(200) - warm < 100


# Decoding: limits


def test_rfc_9113_6_5_2_a_list_above_the_limit_is_cut_and_the_table_still_follows():
    decoder = Decoder(max_list_size=3 * 34)
    fields = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4")]
    block = b"".join(literal(*field) for field in fields)
    assert decode(block, decoder) == fields[:3]
    assert decoder.too_large is True
    assert contents(decoder.table) == fields[::-1]
    assert decode(b"\xbe\xbf\xc0", decoder) == [fields[3], fields[2], fields[1]]
    assert decoder.too_large is False


def test_rfc_9113_6_5_2_nothing_follows_the_first_field_past_the_limit():
    decoder = Decoder(max_list_size=100)
    fields = [(b"a", b"1"), (b"b", b"2" * 99), (b"c", b"3")]
    assert decode(b"".join(literal(*field) for field in fields), decoder) == fields[:1]
    assert decoder.too_large


def test_7_3_an_entry_referenced_without_end_is_never_copied():
    value = b"v" * 4000
    decoder = Decoder(max_list_size=2**40)
    decoder.decode(b"\x40\x01a\x7f\xa1\x1e" + value)
    bomb = b"\xbe" * 60_000
    tracemalloc.start()
    try:
        fields = decoder.decode(bomb)
        _, whole = tracemalloc.get_traced_memory()
        del fields
        tracemalloc.reset_peak()
        decoder = Decoder()
        decoder.decode(b"\x40\x01a\x7f\xa1\x1e" + value)
        fields = decoder.decode(bomb)
        _, cut = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.too_large
    assert len(fields) == 65536 // 4033
    assert whole < 60_000 * 8 * 3
    assert cut < 20_000


def test_7_3_a_decoder_that_has_seen_nothing_takes_little():
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        decoders = [Decoder() for _ in range(1000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(decoders) < 300


@pytest.mark.parametrize("wrong", [{"max_table_size": -1}, {"max_list_size": -1}])
def test_a_negative_size_is_no_setting(wrong):
    with pytest.raises(ValueError, match="must not be negative, not -1"):
        Decoder(**wrong)


def test_a_block_is_bytes():
    with pytest.raises(TypeError, match="bytes"):
        Decoder().decode("82")


# Fields


def test_a_field_unpacks_as_name_and_value():
    name, value = Field(b"a", b"b")
    assert (name, value) == (b"a", b"b")
    assert repr(Field(b"a", b"b")) == "Field(b'a', b'b')"
    for wrong in ("a", None):
        with pytest.raises(TypeError):
            Field(b"a", wrong)


# Encoding


def test_6_1_what_a_table_holds_as_a_whole_is_an_index_whether_asked_or_not():
    encoder = Encoder()
    first = encoder.encode([(b":method", b"POST", "index"), (b"te", b"trailers", "index")])
    assert first[0] == 0x83
    assert contents(encoder.table) == [(b"te", b"trailers")]
    for field in (
        (b"te", b"trailers"),
        (b"te", b"trailers", "plain"),
        (b"te", b"trailers", "index"),
    ):
        assert encoder.encode([field, (b":method", b"POST")]) == b"\xbe\x83"
    assert encoder.encode([Field(b"te", b"trailers")]) == b"\xbe"


def test_6_2_2_a_plain_field_leaves_the_table_alone():
    encoder = Encoder()
    assert encoder.encode([(b"~", b"\xff")]) == b"\x00\x01~\x01\xff"
    assert encoder.encode([(b"~", b"\xff", "plain")]) == b"\x00\x01~\x01\xff"
    assert encoder.encode([Field(b"~", b"\xff")]) == b"\x00\x01~\x01\xff"
    assert (len(encoder.table), encoder.table.generation) == (0, 0)


def test_6_2_3_a_field_never_indexed_is_a_literal_wherever_else_it_stands():
    encoder = Encoder()
    encoder.encode([(b"~", b"\xff", "index")])
    block = encoder.encode([(b"~", b"\xff", "never"), (b":method", b"GET", "never")])
    assert block == b"\x1f\x2f\x01\xff" + b"\x12" + b"\x03GET"
    assert [field.never_indexed for field in Decoder().decode(b"\x10\x01~\x01\xff")] == [True]
    # One that came with that wish goes on with it, 6.2.3.
    assert encoder.encode(Decoder().decode(b"\x10\x01~\x01\xff")) == b"\x1f\x2f\x01\xff"


def test_6_2_names_that_a_table_holds_are_sent_by_index_the_static_one_first():
    encoder = Encoder()
    assert encoder.encode([(b":status", b"~", "index")]) == b"\x48\x01~"
    assert encoder.encode([(b":status", b"}"), (b"n", b"~", "index")])[:3] == b"\x08\x01}"
    assert encoder.encode([(b"n", b"}", "index")]) == b"\x7e\x01}"
    # Now the newest field of that name stands first, and the older one still has an index.
    assert encoder.encode([(b"n", b"^")]) == b"\x0f\x2f\x01^"
    assert encoder.encode([(b"n", b"~")]) == b"\xbf"


def test_5_2_strings_are_huffman_coded_where_that_is_shorter():
    # 0 and 00 would save nothing, ~ would take two octets for one.
    for value in (b"0", b"00", b"~"):
        assert Encoder().encode([(b"age", value)]) == b"\x0f\x06" + bytes([len(value)]) + value
    coded = huffman.encode(b"000")
    assert Encoder().encode([(b"age", b"000")]) == b"\x0f\x06" + bytes([0x80 | len(coded)]) + coded


def test_4_4_a_field_larger_than_the_table_does_not_cost_it_the_others():
    encoder = Encoder()
    encoder.encode([(b"te", b"trailers", "index")])
    generation = encoder.table.generation
    assert encoder.encode([(b"age", b"\xff" * 4062, "index")])[:2] == b"\x0f\x06"
    assert encoder.table.generation == generation
    assert encoder.encode([(b"age", b"\xff" * 4061, "index")])[:1] == b"\x55"
    assert contents(encoder.table) == [(b"age", b"\xff" * 4061)]
    assert encoder.table.size == 4096


def test_what_has_left_the_table_is_a_literal_again():
    encoder = Encoder()
    old = encoder.encode([(b"n", b"~", "index")])
    for number in range(200):
        encoder.encode([(b"name-%d" % number, b"~", "index")])
    assert encoder.encode([(b"n", b"~", "index")]) == old


def test_the_generation_tells_how_long_a_block_of_indexes_holds():
    encoder, decoder = Encoder(), Decoder()
    fields = [(b":status", b"200"), (b"content-type", b"application/grpc")]
    decode(encoder.encode([(*field, "index") for field in fields]), decoder)
    generation, block = encoder.table.generation, encoder.encode(fields)
    decode(encoder.encode([(b"grpc-status", b"0")]), decoder)
    assert encoder.table.generation == generation
    assert decode(block, decoder) == fields
    decode(encoder.encode([(b"grpc-status", b"0", "index")]), decoder)
    assert encoder.table.generation == generation + 1
    assert decode(block, decoder) != fields


def test_4_2_a_new_size_of_the_table_is_signalled_once_at_the_next_block():
    encoder = Encoder()
    assert encoder.settled is True
    encoder.resize(100)
    assert encoder.settled is False
    assert encoder.table.max_size == 100
    assert encoder.encode([(b":method", b"GET")]) == b"\x3f\x45\x82"
    assert encoder.settled is True
    assert encoder.encode([(b":method", b"GET")]) == b"\x82"


@pytest.mark.parametrize(
    ("sizes", "updates"),
    [
        ([0], [0]),
        ([0, 4096], [0, 4096]),
        ([30, 10, 20], [10, 20]),
        ([30, 20, 10], [10]),
        ([10, 20, 30, 4096, 100_000], [10, 4096]),
        ([4096], []),
        ([100_000], []),
        ([2**31, 20], [20]),
    ],
)
def test_4_2_the_smallest_size_and_the_last_are_signalled(sizes, updates):
    encoder, decoder = Encoder(), Decoder()
    decode(encoder.encode([(b"te", b"trailers", "index")]), decoder)
    for size in sizes:
        encoder.resize(size)
    assert encoder.settled is (not updates)
    block = encoder.encode([])
    assert len(re.findall(rb"[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]", block)) == len(updates)
    assert decode(block, decoder) == []
    assert decoder.table.max_size == encoder.table.max_size == (updates or [4096])[-1]
    assert contents(decoder.table) == contents(encoder.table)
    assert len(decoder.table) == (not updates)


def test_4_2_a_table_smaller_than_the_protocols_is_signalled_from_the_start():
    encoder = Encoder(10)
    assert encoder.settled is False
    encoder.resize(4096)
    assert encoder.encode([]) == b"\x2a"
    encoder = Encoder(8192)
    assert encoder.encode([]) == b""
    encoder.resize(100_000)
    assert encoder.encode([]) == b"\x3f\xe1\x3f"
    for wrong in (lambda: Encoder(-1), lambda: encoder.resize(-1)):
        with pytest.raises(ValueError, match="must not be negative, not -1"):
            wrong()


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (
            ("a", b"b"),
            TypeError,
            r"a tuple \(name, value\[, indexing\]\) of bytes, found \('a', b'b'\)",
        ),
        ((b"a", "b"), TypeError, "bytes"),
        ((b"a",), TypeError, "tuple"),
        ((b"a", b"b", "plain", 1), TypeError, "tuple"),
        ((b"a", bytearray(b"b")), TypeError, "bytes"),
        (b"ab", TypeError, "found b'ab'"),
        (None, TypeError, "found None"),
        (Field.__new__(Field), TypeError, "found Field"),
        ((b"a", b"b", "always"), ValueError, r"\['index', 'never', 'plain'\], not 'always'"),
        ((b"a", b"b", True), ValueError, "not True"),
    ],
)
def test_a_field_that_is_none_changes_nothing(wrong, error, said):
    encoder = Encoder()
    encoder.resize(100)
    with pytest.raises(error, match=said):
        encoder.encode([(b"te", b"trailers", "index"), wrong])
    assert len(encoder.table) == 0
    assert not encoder.settled


def test_fields_may_come_from_any_iterable():
    assert Encoder().encode(iter([(b":method", b"GET")])) == b"\x82"
    assert Encoder().encode([]) == b""
