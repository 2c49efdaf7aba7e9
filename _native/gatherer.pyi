from collections.abc import Sequence
from typing import Any

from gateway._native.queue import Batch

class Gatherer:
    rows: int
    requests: int
    def __init__(
        self, columns: Sequence[Any], row_bytes: Sequence[int], table: Any, max_rows: int
    ) -> None: ...
    def add(self, batch: Batch, arrays: list[Any], ended_ns: int) -> bool: ...
    def clear(self) -> None: ...
