from collections.abc import Sequence
from typing import Any

class Group:
    shapes: Any
    def __init__(
        self, layout: Sequence[tuple[int, int, str]], levels: int = 1, shapes: Any = None
    ) -> None: ...
    @property
    def waiting(self) -> int: ...

class Ticket:
    group: Group
    inputs: Any
    sink: Any
    def __init__(
        self,
        group: Group,
        rows: int,
        inputs: Sequence[Any],
        sink: Any,
        deadline_ns: int = 0,
        level: int = 0,
    ) -> None: ...
    def release(self) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def enqueued_ns(self) -> int: ...
    @property
    def deadline_ns(self) -> int: ...
    @property
    def cancelled(self) -> bool: ...

def live_tickets() -> int: ...
