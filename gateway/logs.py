"""Logging: one line a record on stderr, JSON or for people, times in UTC.

Everything is logged through the standard library's ``logging`` under ``gateway.*``; what belongs
to a record besides its message goes in as ``extra={"model": …}`` and comes out as fields of the
JSON object, or as ``key=value`` after the message.
"""

import json
import logging
import sys
import time
from typing import Any, Final, TextIO

from gateway.errors import InvalidRequest, Unsupported

_STANDARD_ATTRIBUTES: Final = frozenset(
    vars(logging.makeLogRecord({})) | {"message": "", "asctime": ""}
)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {k: v for k, v in vars(record).items() if k not in _STANDARD_ATTRIBUTES}


def _utc(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


class JsonFormatter(logging.Formatter):
    """A JSON object with ``time``, ``level``, ``logger``, ``message`` and the record's extras."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; an exception's traceback is the field ``traceback``."""
        line = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class HumanFormatter(logging.Formatter):
    """``time LEVEL message key=value …``, in UTC; the level is coloured on a terminal."""

    _COLOURS: Final = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}

    def __init__(self, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, with the traceback of an exception below it."""
        level = f"{record.levelname:<7}"
        if self._colour and (code := self._COLOURS.get(record.levelname)):
            level = f"\x1b[{code}m{level}\x1b[0m"
        fields = "".join(f" {key}={value}" for key, value in _extras(record).items())
        line = f"{_utc(record)} {level} {record.getMessage()}{fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class Logging:
    """The process's logging, and the switches of it that the logging extension turns at run time.

    The switches have Triton's names: ``log_info``, ``log_warning``, ``log_error``,
    ``log_verbose_level`` (above 0: debug records too), ``log_format`` (``human`` or ``json``).
    ``log_file`` is always empty: the log goes to stderr.
    """

    def __init__(self, level: str, format: str, stream: TextIO | None = None) -> None:
        """Route the root logger to ``stream`` (stderr), replacing its handlers.

        Args:
            level: the least level that is logged: ``debug``, ``info``, ``warning`` or ``error``.
            format: ``human``, ``json``, or ``auto``: human on a terminal, JSON elsewhere.
        """
        self._stream = stream or sys.stderr
        if format == "auto":
            format = "human" if self._stream.isatty() else "json"
        number = logging.getLevelNamesMapping()[level.upper()]
        self._switches: dict[str, bool | int | str] = {
            "log_file": "",
            "log_info": number <= logging.INFO,
            "log_warning": number <= logging.WARNING,
            "log_error": True,
            "log_verbose_level": int(number <= logging.DEBUG),
            "log_format": format,
        }
        self._handler = logging.StreamHandler(self._stream)
        self._handler.addFilter(self._passes)
        logging.getLogger().handlers[:] = [self._handler]
        self._apply()

    def settings(self) -> dict[str, bool | int | str]:
        """The switches as they stand."""
        return dict(self._switches)

    def update(self, changes: dict[str, Any]) -> dict[str, bool | int | str]:
        """Turn some switches, all or none of them, and return how all stand.

        Raises:
            InvalidRequest: an unknown switch, or a value of a wrong type or range.
            Unsupported: a log file is asked for.
        """
        for name, value in changes.items():
            self._check(name, value)
        self._switches.update(changes)
        self._apply()
        return self.settings()

    def _check(self, name: str, value: Any) -> None:
        if name not in self._switches:
            raise InvalidRequest(
                f'there is no log setting "{name}"; known are {", ".join(self._switches)}'
            )
        if name == "log_file":
            if value != "":
                raise Unsupported("this server logs to stderr only; log_file must stay empty")
        elif name == "log_format":
            if value not in ("human", "json"):
                raise InvalidRequest(f'log_format must be "human" or "json"; got {value!r}')
        elif name == "log_verbose_level":
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidRequest(f"log_verbose_level must be 0 or more; got {value!r}")
        elif not isinstance(value, bool):
            raise InvalidRequest(f"{name} must be true or false; got {value!r}")

    def _apply(self) -> None:
        switches = self._switches
        levels = {
            logging.DEBUG: switches["log_verbose_level"],
            logging.INFO: switches["log_info"],
            logging.WARNING: switches["log_warning"],
        }
        on = [level for level, switch in levels.items() if switch]
        # The root's level keeps a record from being made at all; the filter does the rest.
        logging.getLogger().setLevel(min(on, default=logging.ERROR))
        human = switches["log_format"] == "human"
        self._handler.setFormatter(
            HumanFormatter(self._stream.isatty()) if human else JsonFormatter()
        )

    def _passes(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return bool(self._switches["log_error"])
        if record.levelno >= logging.WARNING:
            return bool(self._switches["log_warning"])
        if record.levelno >= logging.INFO:
            return bool(self._switches["log_info"])
        return bool(self._switches["log_verbose_level"])
