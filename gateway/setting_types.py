"""The types a setting may have: each reads its value from text or from TOML.

Text comes from flags and environment variables, native values from TOML. Every ``parse`` raises a
``ConfigError`` that starts with the value's source and says what is allowed and what was given.
"""

import argparse
import os
import re
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.errors import ConfigError


class SettingType(Protocol):
    """How values of one type are read and shown."""

    def parse(self, value: Any, source: str) -> Any:
        """The checked value of what ``source`` (a flag, a variable, ``file: key``) gave."""

    def show(self, value: Any) -> str:
        """The value as ``--help`` shows a default; ``""`` where there is nothing to show."""

    def argparse_options(self) -> dict[str, Any]:
        """How ``argparse`` takes the flag: its action and metavar."""


def _refuse(source: str, expected: str, value: Any) -> ConfigError:
    given = f'"{value}"' if isinstance(value, str) else repr(value)
    return ConfigError(f"{source}: expected {expected}; got {given}")


class Text:
    """Any text but the empty one."""

    def parse(self, value: Any, source: str) -> str:
        """See ``SettingType.parse``."""
        if not isinstance(value, str) or not value.strip():
            raise _refuse(source, "text", value)
        return value

    def show(self, value: str) -> str:
        """See ``SettingType.show``."""
        return value

    def argparse_options(self) -> dict[str, Any]:
        """See ``SettingType.argparse_options``."""
        return {"metavar": "TEXT"}


class FilePath(Text):
    """The path of one file; ``~`` is the home directory."""

    def parse(self, value: Any, source: str) -> str:
        """See ``SettingType.parse``."""
        return os.path.expanduser(super().parse(value, source))

    def argparse_options(self) -> dict[str, Any]:
        """See ``SettingType.argparse_options``."""
        return {"metavar": "PATH"}


class Choice:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words: Final = words

    def parse(self, value: Any, source: str) -> str:
        """See ``SettingType.parse``."""
        if not isinstance(value, str) or value.lower() not in self.words:
            raise _refuse(source, " or ".join(f'"{word}"' for word in self.words), value)
        return value.lower()

    def show(self, value: str) -> str:
        """See ``SettingType.show``."""
        return value

    def argparse_options(self) -> dict[str, Any]:
        """See ``SettingType.argparse_options``."""
        return {"metavar": "|".join(self.words)}


class Boolean:
    """Yes or no: ``--name`` and ``--no-name``, ``1``/``0``/``true``/``false`` … in variables."""

    _WORDS: Final = {
        "1": True, "true": True, "yes": True, "on": True,
        "0": False, "false": False, "no": False, "off": False,
    }  # fmt: skip

    def parse(self, value: Any, source: str) -> bool:
        """See ``SettingType.parse``."""
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in self._WORDS:
            return self._WORDS[value.lower()]
        raise _refuse(source, "true or false", value)

    def show(self, value: bool) -> str:
        """See ``SettingType.show``."""
        return "on" if value else "off"

    def argparse_options(self) -> dict[str, Any]:
        """See ``SettingType.argparse_options``."""
        return {"action": argparse.BooleanOptionalAction}


class Number:
    """A whole or a decimal number within bounds, both included."""

    def __init__(self, kind: type[int] | type[float], least: float, most: float) -> None:
        self.kind: Final = kind
        self.least: Final = least
        self.most: Final = most

    def parse(self, value: Any, source: str) -> int | float:
        """See ``SettingType.parse``."""
        word = "a whole number" if self.kind is int else "a number"
        expected = f"{word} from {self.least:g} to {self.most:.12g}"
        native = int if self.kind is int else (int, float)
        try:
            if isinstance(value, bool) or not isinstance(value, (str, native)):
                raise ValueError
            number = self.kind(value)
        except ValueError:
            raise _refuse(source, expected, value) from None
        if not self.least <= number <= self.most:
            raise _refuse(source, expected, value)
        return number

    def show(self, value: float) -> str:
        """See ``SettingType.show``."""
        return f"{value:g}"

    def argparse_options(self) -> dict[str, Any]:
        """See ``SettingType.argparse_options``."""
        return {"metavar": "N"}


class Port:
    """A TCP port, 0 for off, or ``any`` for a free one."""

    #: The value of ``any``.
    ANY: Final = -1

    def parse(self, value: Any, source: str) -> int:
        """See ``SettingType.parse``."""
        expected = 'a port from 1 to 65535, 0 to turn it off or "any" for a free one'
        if isinstance(value, str) and value.lower() == "any":
            return self.ANY
        try:
            port = Number(int, 0, 65_535).parse(value, source)
        except ConfigError:
            raise _refuse(source, expected, value) from None
        return int(port)

    def show(self, value: int) -> str:
        """See ``SettingType.show``."""
        return "any" if value == self.ANY else str(value)

    def argparse_options(self) -> dict[str, Any]:
        """See ``SettingType.argparse_options``."""
        return {"metavar": "PORT"}


class Size:
    """A number of bytes within bounds: a whole number, or one with a suffix as ``64MiB``."""

    _UNITS: Final = {
        "": 1, "b": 1,
        "k": 1 << 10, "kib": 1 << 10, "kb": 10**3,
        "m": 1 << 20, "mib": 1 << 20, "mb": 10**6,
        "g": 1 << 30, "gib": 1 << 30, "gb": 10**9,
    }  # fmt: skip

    def __init__(self, least: int, most: int) -> None:
        self.least: Final = least
        self.most: Final = most

    def parse(self, value: Any, source: str) -> int:
        """See ``SettingType.parse``."""
        expected = f'a size such as "64MiB", from {self.show(self.least)} to {self.show(self.most)}'
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise _refuse(source, expected, value)
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value).lower())
        if match is None or match[2] not in self._UNITS:
            raise _refuse(source, expected, value)
        size = int(float(match[1]) * self._UNITS[match[2]])
        if not self.least <= size <= self.most:
            raise _refuse(source, expected, value)
        return size

    def show(self, value: int) -> str:
        """See ``SettingType.show``."""
        for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= unit and value % unit == 0:
                return f"{value // unit}{name}"
        return f"{value} bytes"

    def argparse_options(self) -> dict[str, Any]:
        """See ``SettingType.argparse_options``."""
        return {"metavar": "SIZE"}


class Names:
    """Several names: a repeated flag, ``a,b`` in a variable, a list in TOML."""

    _separator = ","
    _expected = "names"
    _metavar = "NAME"

    def parse(self, value: Any, source: str) -> tuple[Any, ...]:
        """See ``SettingType.parse``."""
        entries = value.split(self._separator) if isinstance(value, str) else value
        if not isinstance(entries, (list, tuple)) or not all(isinstance(e, str) for e in entries):
            raise _refuse(source, f"a list of {self._expected}", value)
        return tuple(entry.strip() for entry in entries if entry.strip())

    def show(self, value: tuple[Any, ...]) -> str:
        """See ``SettingType.show``."""
        return self._separator.join(str(entry) for entry in value)

    def argparse_options(self) -> dict[str, Any]:
        """See ``SettingType.argparse_options``."""
        return {"metavar": self._metavar, "action": "append"}


class Paths(Names):
    """Several paths: arguments, ``a:b`` in a variable, a list in TOML."""

    _separator = os.pathsep
    _expected = "paths"
    _metavar = "PATH"

    def parse(self, value: Any, source: str) -> tuple[Path, ...]:
        """See ``SettingType.parse``; ``~`` is the home directory."""
        return tuple(Path(entry).expanduser() for entry in super().parse(value, source))
