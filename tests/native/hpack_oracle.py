"""HPACK as python-hyper's ``hpack`` reads it, for the property tests and in fuzzing.

Where the two differ: a block with more than two updates of the table's size is refused here, and
taken there, and so are long integers by releases of the oracle before 4.2.
"""

import contextlib

import hpack

from gateway._native.hpack import Decoder, HpackError
from tests.native.header_blocks import contents

#: What we say of blocks that the oracle may take.
STRICTER = ("after two updates", "an integer of at most 5 octets", "an integer up to 2**31 - 1")


def plain(fields):
    """The fields of either side as ``(name, value, never indexed)``."""
    return [
        (*field, field.never_indexed if hasattr(field, "never_indexed") else not field.indexable)
        for field in fields
    ]


def assert_same_table(table, oracle):
    assert contents(table) == list(oracle.dynamic_entries)
    assert table.size == oracle._current_size
    assert table.max_size == oracle.maxsize


def oracle_decoder() -> hpack.Decoder:
    return hpack.Decoder(max_header_list_size=2**40)


def decode_both(decoder: Decoder, oracle: hpack.Decoder, block: bytes):
    """The fields of ``block``, as ``plain`` has them, if both decode it; None if both refuse it."""
    expected = decoded = None
    with contextlib.suppress(hpack.HPACKDecodingError):
        expected = plain(oracle.decode(block, raw=True))
    try:
        decoded = plain(decoder.decode(block))
    except HpackError as error:
        refusal = error
    if decoded is None:
        assert 0 <= refusal.offset <= len(block)
        assert expected is None or any(rule in refusal.expected for rule in STRICTER)
        return None
    assert decoded == expected
    assert_same_table(decoder.table, oracle.header_table)
    return decoded
