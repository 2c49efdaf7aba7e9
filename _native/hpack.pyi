from collections.abc import Iterable
from typing import Literal, TypeAlias

from gateway._native.hpack_table import Field as Field
from gateway._native.hpack_table import Table as Table
from gateway._native.huffman import HpackError as HpackError

Indexing: TypeAlias = Literal["index", "plain", "never"]

class Decoder:
    table: Table
    too_large: bool
    def __init__(self, max_table_size: int = 4096, max_list_size: int = 65536) -> None: ...
    def decode(self, block: bytes) -> list[Field]: ...

class Encoder:
    table: Table
    settled: bool
    def __init__(self, max_table_size: int = 4096) -> None: ...
    def encode(
        self, fields: Iterable[Field | tuple[bytes, bytes] | tuple[bytes, bytes, Indexing]]
    ) -> bytes: ...
    def resize(self, size: int) -> None: ...
