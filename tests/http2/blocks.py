"""Header blocks octet by octet (RFC 7541, sections 5 and 6), without a table of their own."""

from tests.http2.calls import Fields

#: First octets of a literal: what becomes of the field, and the prefix of the name's index.
INDEXING, NOT_INDEXED, NEVER_INDEXED = (0x40, 6), (0x00, 4), (0x10, 4)


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """``value`` with a prefix of ``bits`` bits, the bits above them set as in ``first``."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    octets = bytearray([first | most])
    value -= most
    while value >= 128:
        octets.append(value % 128 + 128)
        value //= 128
    octets.append(value)
    return bytes(octets)


def string(octets: bytes) -> bytes:
    return integer(len(octets), 7) + octets


def huffman_string(coded: bytes) -> bytes:
    """A string literal of octets that are coded already, rightly or not."""
    return integer(len(coded), 7, 0x80) + coded


def indexed(index: int) -> bytes:
    return integer(index, 7, 0x80)


def literal(
    name: bytes | int, value: bytes, representation: tuple[int, int] = NOT_INDEXED
) -> bytes:
    """``name`` may be an index."""
    first, bits = representation
    if isinstance(name, int):
        return integer(name, bits, first) + string(value)
    return bytes([first]) + string(name) + string(value)


def size_update(size: int) -> bytes:
    return integer(size, 5, 0x20)


def plain(fields: Fields) -> bytes:
    """``fields`` in literals that no table takes part in."""
    return b"".join(literal(name, value) for name, value in fields)
