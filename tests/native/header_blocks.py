"""Header blocks by hand, and what a table holds, for the tests of HPACK."""

from gateway._native.hpack import Decoder, Table


def decode(block: str | bytes, decoder: Decoder | None = None) -> list[tuple[bytes, bytes]]:
    block = bytes.fromhex(block) if isinstance(block, str) else block
    return [tuple(field) for field in (decoder or Decoder()).decode(block)]


def contents(table: Table) -> list[tuple[bytes, bytes]]:
    return [tuple(field) for field in table]


def literal(name: bytes, value: bytes, pattern: int = 0x40) -> bytes:
    """A field with a literal name, both strings as they are and below 127 octets."""
    return bytes([pattern, len(name)]) + name + bytes([len(value)]) + value
