"""Reads tables of settings as TOML and JSON give them: known keys, values of the right kind.

A *check* takes where a value stands and the value, and returns it as it is to be used. Every
error is a ``ConfigError`` that names the place, what is allowed and what was given.
"""

import difflib
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gateway.errors import ConfigError

Check: TypeAlias = Callable[[str, Any], Any]


def read_table(table: Mapping[str, Any], fields: Mapping[str, Check], where: str) -> dict[str, Any]:
    """The values of ``table``, each checked by its field; ``where`` goes before a key in errors."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(fields)}"
            raise ConfigError(f"{where}unknown key {key!r}; {hint}")
        values[key] = fields[key](f"{where}{key}", value)
    return values


def wrong(where: str, expected: str, value: Any) -> ConfigError:
    """The error about ``value``, which is not what was ``expected``."""
    return ConfigError(f"{where} must be {expected}, not {value!r}")


def integer(least: int) -> Check:
    """A whole number of at least ``least``."""

    def check(where: str, value: Any) -> int:
        # bool is an int in Python, but nobody writes `instances = true` and means 1.
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise wrong(where, f"an integer of at least {least}", value)
        return value

    return check


def number(where: str, value: Any) -> float:
    """A finite number of at least 0."""
    # TOML has `inf` and `nan`; JSON, in which settings are remembered and shown, has neither.
    finite = isinstance(value, int | float) and 0 <= value <= sys.float_info.max
    if not finite or isinstance(value, bool):
        raise wrong(where, "a finite number of at least 0", value)
    return float(value)


def share(where: str, value: Any) -> float:
    """A number from 0 to 1."""
    if number(where, value) > 1:
        raise wrong(where, "a number from 0 to 1", value)
    return float(value)


def percent(where: str, value: Any) -> float:
    """A number from 0 to 100."""
    if number(where, value) > 100:
        raise wrong(where, "a number from 0 to 100", value)
    return float(value)


def version(where: str, value: Any) -> str:
    """The name of a version, which may be written as a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(where, value)


def table(where: str, value: Any) -> dict[str, Any]:
    """A table, unread."""
    if not isinstance(value, dict):
        raise wrong(where, "a table", value)
    return value


def boolean(where: str, value: Any) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise wrong(where, "true or false", value)
    return value


def text(where: str, value: Any) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value:
        raise wrong(where, "text", value)
    return value


def choice(*words: str) -> Check:
    """One of a few words."""

    def check(where: str, value: Any) -> str:
        if value not in words:
            raise wrong(where, " or ".join(f'"{word}"' for word in words), value)
        return str(value)

    return check


def list_of(check: Check) -> Check:
    """A list whose items all pass ``check``."""

    def check_all(where: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise wrong(where, "a list", value)
        return tuple(check(f"{where}[{index}]", item) for index, item in enumerate(value))

    return check_all


def table_of(check: Check) -> Check:
    """A table of any keys, whose values all pass ``check``."""

    def check_all(where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong(where, "a table", value)
        return {name: check(f"{where}.{name}", item) for name, item in value.items()}

    return check_all
