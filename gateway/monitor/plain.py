"""What monitors find, as JSON values: for the journal, webhooks and answers."""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any


def plain(value: Any) -> Any:
    """``value`` as JSON has it: a number that is not finite as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, StrEnum):
        return value.value
    return value
