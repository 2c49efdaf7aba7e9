from collections.abc import Sequence
from typing import Any

from gateway._native.ticket import Group

MOST_TENSORS: int

class InferTemplate:
    target: Any
    lane: Any
    group: Group
    rows: int
    level: int
    timeout_ns: int
    default_timeout_ns: int
    copies: Group | None
    def __init__(
        self,
        target: Any,
        lane: Any,
        group: Group,
        rows: int,
        level: int,
        timeout_ns: int,
        default_timeout_ns: int,
        *,
        model: str,
        version: str,
        sizes: Sequence[int],
        raw_of_input: Sequence[int],
        outputs: Sequence[tuple[int, str, str]],
    ) -> None: ...
