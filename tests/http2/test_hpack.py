"""RFC 7541, from the receiver's side: every representation, the table, and what is an error."""

import pytest

from tests.http2 import blocks, calls, frames
from tests.http2.blocks import INDEXING, NEVER_INDEXED, NOT_INDEXED
from tests.http2.calls import prefixed
from tests.http2.frames import Code

BODY = prefixed(calls.request())

#: Indices of the static table (Appendix A).
POST, HTTP, PATH, AUTHORITY, CONTENT_TYPE = 3, 6, 4, 1, 31
#: The first entry of the dynamic table.
NEWEST = 62

#: Of a call, all but what the static table cannot say by itself.
SHORT = (
    blocks.indexed(POST)
    + blocks.indexed(HTTP)
    + blocks.literal(PATH, calls.UNARY.encode())
    + blocks.literal(AUTHORITY, b"gateway")
    + blocks.literal(b"te", b"trailers")
    + blocks.literal(CONTENT_TYPE, b"application/grpc")
)


def ask(peer, block: bytes) -> int:
    stream = peer.stream()
    peer.send(frames.headers(stream, block), frames.data(stream, BODY, end=True))
    return stream


def expect_right(peer, block: bytes) -> None:
    assert peer.answer(ask(peer, block)).values() == calls.RIGHT


# ---- 6, representations ----


@pytest.mark.parametrize("representation", [INDEXING, NOT_INDEXED, NEVER_INDEXED])
@pytest.mark.parametrize("by_index", [False, True])
def test_literals_are_understood_in_each_representation(peer, representation, by_index):
    """6.2.1 to 6.2.3, with a new name and with an indexed one."""
    fields = calls.fields()
    indices = {
        b":method": POST, b":scheme": HTTP, b":path": PATH, b":authority": AUTHORITY,
        b"content-type": CONTENT_TYPE,
    }  # fmt: skip
    if by_index:
        fields = [(indices.get(name, name), value) for name, value in fields]
    block = b"".join(blocks.literal(name, value, representation) for name, value in fields)
    for _ in range(3):
        expect_right(peer, block)


def test_what_was_indexed_is_referred_to(peer):
    """2.3.2 and 6.1: the newest entry of the dynamic table has index 62."""
    fields = calls.fields()
    expect_right(peer, b"".join(blocks.literal(*field, INDEXING) for field in fields))
    count = len(fields)
    expect_right(peer, b"".join(blocks.indexed(NEWEST + count - 1 - i) for i in range(count)))


def test_what_was_not_indexed_is_not_in_the_table(peer):
    """6.2.2 and 6.2.3: these literals do not alter the dynamic table."""
    expect_right(peer, SHORT + blocks.literal(b"x-secret", b"1", NEVER_INDEXED))
    ask(peer, SHORT + blocks.indexed(NEWEST))
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


def test_a_name_of_the_dynamic_table_can_be_used(peer):
    """6.2.1, with the index of an entry that has been added."""
    expect_right(peer, SHORT + blocks.literal(b"x-name", b"1", INDEXING))
    expect_right(peer, SHORT + blocks.literal(NEWEST, b"2", INDEXING))
    expect_right(peer, SHORT + blocks.indexed(NEWEST) + blocks.indexed(NEWEST + 1))


@pytest.mark.parametrize("index", [*range(1, 62)])
def test_an_entry_of_the_static_table_is_there(peer, index):
    """Appendix A: its regular fields can be named; 1 to 14 are pseudo-header fields."""
    if index < 15:
        peer.expect_refused_message(ask(peer, SHORT + blocks.indexed(index)))
    elif index in (28, 57):  # content-length and transfer-encoding have rules of their own
        peer.expect_refused_message(ask(peer, SHORT + blocks.literal(index, b"1")))
    else:
        expect_right(peer, SHORT + blocks.literal(index, b"1"))


# ---- 5, primitive types ----


def test_strings_may_be_huffman_coded(peer):
    """5.2: the peer's own encoder codes whatever gets shorter by it."""
    for huffman in (True, False, True):
        stream = peer.stream()
        block = peer.block(calls.fields(calls.UNARY, ("x-name", "a value")), huffman=huffman)
        peer.send(frames.headers(stream, block), frames.data(stream, BODY, end=True))
        assert peer.answer(stream).values() == calls.RIGHT


def test_an_integer_may_end_in_zeros(peer):
    """5.1: octets that add nothing are legal, as long as there are few of them."""
    fifteen = b"\x0f\x80\x80\x00"  # accept-charset, as the name of a literal
    expect_right(peer, SHORT + fifteen + blocks.string(b"utf-8"))


def test_a_string_may_be_empty(peer):
    """5.2: a length of 0, in either coding."""
    expect_right(peer, SHORT + blocks.literal(b"x-empty", b""))
    expect_right(peer, SHORT + b"\x00" + blocks.string(b"x-empty") + blocks.huffman_string(b""))


# ---- 4, the dynamic table's size ----


def test_the_table_forgets_its_oldest(peer):
    """4.1 and 4.4: an entry's size is its octets and 32; 4096 octets hold so many."""
    value = b"v" * (1024 - 32 - len(b"x-one"))
    for name in (b"x-one", b"x-two", b"x-thr", b"x-fou"):
        expect_right(peer, SHORT + blocks.literal(name, value, INDEXING))
    expect_right(peer, SHORT + blocks.indexed(NEWEST + 3))
    expect_right(peer, SHORT + blocks.literal(b"a", b"", INDEXING))
    ask(peer, SHORT + blocks.indexed(NEWEST + 4))
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


def test_an_entry_larger_than_the_table_empties_it(peer):
    """4.4: this is no error."""
    expect_right(peer, SHORT + blocks.literal(b"x-small", b"1", INDEXING))
    block = blocks.size_update(64) + SHORT + blocks.literal(b"x-large", b"v" * 64, INDEXING)
    expect_right(peer, block)
    ask(peer, SHORT + blocks.indexed(NEWEST))
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


def test_a_name_may_be_of_the_entry_that_makes_room_for_it(peer):
    """4.4: the name of an entry that is evicted by its own successor is still used."""
    expect_right(peer, SHORT + blocks.literal(b"x-name", b"1", INDEXING))
    value = b"v" * (4096 - 32 - len(b"x-name"))
    expect_right(peer, SHORT + blocks.literal(NEWEST, value, INDEXING))
    expect_right(peer, SHORT + blocks.indexed(NEWEST))


@pytest.mark.parametrize("sizes", [[0], [4096], [0, 4096], [100, 200], [4096, 0]])
def test_the_tables_size_may_change_at_the_start_of_a_block(peer, sizes):
    """4.2 and 6.3: once, or twice where it went down and up again."""
    updates = b"".join(map(blocks.size_update, sizes))
    expect_right(peer, updates + SHORT)
    expect_right(peer, updates + SHORT + blocks.literal(b"x-name", b"1", INDEXING))


def test_a_smaller_size_evicts(peer):
    """4.3: entries are evicted until the table fits; a size of 0 empties it."""
    expect_right(peer, SHORT + blocks.literal(b"x-name", b"1", INDEXING))
    expect_right(peer, SHORT + blocks.indexed(NEWEST))
    ask(peer, blocks.size_update(0) + blocks.size_update(4096) + SHORT + blocks.indexed(NEWEST))
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


# ---- errors ----

#: What cannot be decoded, behind fields that can.
ERRORS = {
    "index 0": b"\x80",
    "an index that is not there": blocks.indexed(NEWEST),
    "an index far out": blocks.indexed(1 << 20),
    "a name that is not there": blocks.literal(NEWEST, b"1"),
    "a name that is not there, to be indexed": blocks.literal(NEWEST, b"1", INDEXING),
    "a name that is not there, never indexed": blocks.literal(NEWEST, b"1", NEVER_INDEXED),
    "an integer without its end": b"\xff\x80\x80",
    "an integer beyond 32 bits": b"\xff\xff\xff\xff\xff\x7f",
    "an integer beyond 64 bits": b"\xff" + b"\xff" * 10 + b"\x7f",
    "an integer of many zeros": b"\xff" + b"\x80" * 100 + b"\x00",
    "a literal without a name": b"\x00",
    "a literal without a value": b"\x00" + blocks.string(b"x-name"),
    "a name cut short": b"\x00\x0ax-name",
    "a value cut short": b"\x00" + blocks.string(b"x-name") + b"\x05valu",
    "a string length cut short": b"\x00\x7f",
    "a string of 4 GB": b"\x00" + blocks.integer(2**32 - 1, 7) + b"x",
    "a size update behind a field": blocks.size_update(100),
    "Huffman: padding of 8 bits": b"\x00\x01a" + blocks.huffman_string(b"\x1f\xff"),
    "Huffman: padding of 16 bits": b"\x00\x01a" + blocks.huffman_string(b"\x1f\xff\xff"),
    "Huffman: padding of zeros": b"\x00\x01a" + blocks.huffman_string(b"\x18"),
    "Huffman: nothing but padding": b"\x00\x01a" + blocks.huffman_string(b"\xff"),
    "Huffman: EOS": b"\x00\x01a" + blocks.huffman_string(b"\xff\xff\xff\xff"),
    "Huffman: EOS within": b"\x00\x01a" + blocks.huffman_string(b"\x1f\xff\xff\xff\xe3\xff"),
    "Huffman: in a name": b"\x00" + blocks.huffman_string(b"\x18") + blocks.string(b"1"),
    "Huffman: a code cut short": b"\x00\x01a" + blocks.huffman_string(b"\xfe"),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_decoded_is_a_connection_error(peer, name):
    """2.3.3, 5.1, 5.2, 6.1 and 6.3, and RFC 9113, 4.3: COMPRESSION_ERROR."""
    ask(peer, SHORT + ERRORS[name])
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


@pytest.mark.parametrize(
    "update",
    [blocks.size_update(1 << 24), blocks.size_update(2**32 - 1), b"\x3f\xff\xff\xff\xff\xff\x7f"],
    ids=["16 MB", "4 GB", "more than 32 bits"],
)
def test_a_table_over_the_servers_limit_is_an_error(peer, update):
    """6.3: a new size MUST be no larger than SETTINGS_HEADER_TABLE_SIZE."""
    ask(peer, update + SHORT)
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


def test_the_limit_of_the_table_is_what_the_servers_settings_say(peer):
    """4.2 and 6.3: the limit itself is fine, one octet more is an error."""
    limit = peer.settings.get(frames.Setting.HEADER_TABLE_SIZE, 4096)
    expect_right(peer, blocks.size_update(limit) + SHORT)
    ask(peer, blocks.size_update(limit + 1) + SHORT)
    peer.expect_connection_error(Code.COMPRESSION_ERROR)


@pytest.mark.parametrize("name", ["index 0", "a value cut short", "Huffman: EOS"])
def test_trailers_that_cannot_be_decoded_are_a_connection_error(peer, name):
    """RFC 9113, 4.3: trailers are field blocks like any other."""
    stream = peer.start()
    peer.send(frames.data(stream, BODY), frames.headers(stream, ERRORS[name], end=True))
    peer.expect_connection_error(Code.COMPRESSION_ERROR)
