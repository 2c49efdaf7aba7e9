"""What an attempt of an action came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an attempt of an action came to.

    Attributes:
        ok: whether it is done.
        again: where it is not, whether it makes sense to try again.
        text: in words, bounded.
        details: an exit status, an answer, an output: bounded, as JSON values.
        wait_s: what the other side asked to wait; ``None`` where it did not.
    """

    ok: bool
    again: bool = True
    text: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    wait_s: float | None = None
