"""The operator's file: where predictions go, who is alerted, what is set off (``--monitoring``).

::

    [sinks.archive]                 # read by gateway/stream/sinks
    type = "parquet"
    directory = "predictions"

    [channels.oncall]               # whom alerts are told to
    type = "webhook"
    url = { env = "ONCALL_URL" }

    [actions.retrain]               # what an alert sets off
    type = "command"

Here the file is taken apart into its named tables; what a table may hold is known where it is used,
which reads it with ``Part.read``. Text that must not be seen, a *secret*, is given as it is, as
``{ env = "NAME" }`` or as ``{ file = "path" }``, and never shown again. A relative path means the
same wherever the server is started from: it begins at the file's directory.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.config import variable
from gateway.errors import ConfigError
from gateway.tables import Check, choice, read_table, table, text, wrong

#: The kinds of named tables, each a field of ``MonitoringFile``.
KINDS: Final = ("sinks", "channels", "actions")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Secret:
    """Text that is shown as ``***``; ``reveal`` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def reveal(self) -> str:
        """The text itself, for the one place that sends it."""
        return self._text

    def __repr__(self) -> str:
        return "***"


class Part:
    """One named table of the file, as ``[sinks.archive]``, and the checks that its values need.

    Attributes:
        name: the last part of its title.
        where: the file and the table, before a key in errors.
        secrets: those that were read from it so far.
    """

    def __init__(self, name: str, where: str, values: Mapping[str, Any], base: Path) -> None:
        self.name: Final = name
        self.where: Final = where
        self.secrets: Final[list[Secret]] = []
        self._values: Final = values
        self._base: Final = base

    def type(self, known: Iterable[str]) -> str:
        """Its key ``type``, one of the ``known``. Raises ``ConfigError``."""
        known = tuple(known)
        if "type" not in self._values:
            raise ConfigError(
                f"{self.where}type is missing: expected one of {', '.join(sorted(known))}"
            )
        name: str = choice(*known)(f"{self.where}type", self._values["type"])
        return name

    def read(self, fields: Mapping[str, Check], required: Iterable[str] = ()) -> dict[str, Any]:
        """Its values, each checked by its field; ``type`` is left out.

        Raises:
            ConfigError: a key is unknown, a value is wrong, or a ``required`` key is missing.
        """
        values = {key: value for key, value in self._values.items() if key != "type"}
        read = read_table(values, fields, self.where)
        for key in required:
            if key not in read:
                raise ConfigError(f"{self.where}{key} is missing, which this type needs")
        return read

    def secret(self, where: str, value: Any) -> Secret:
        """A check: text, ``{ env = "NAME" }`` or ``{ file = "path" }``."""
        expected = 'text, { env = "NAME" } or { file = "path" }'
        if isinstance(value, Mapping):
            given = read_table(value, {"env": text, "file": text}, f"{where}.")
            if len(given) != 1:
                # Not the value itself: one of the two may be the secret, in the wrong place.
                raise ConfigError(f"{where} must be {expected}, with one of the two keys")
            found = self._from_elsewhere(where, **given)
        elif isinstance(value, str) and value:
            found = value
        else:
            raise ConfigError(f"{where} must be {expected}, not {type(value).__name__}")
        made = Secret(found)
        self.secrets.append(made)
        return made

    def path(self, where: str, value: Any) -> Path:
        """A check: the path of a file or directory; ``~`` is the home directory."""
        return self._base / Path(text(where, value)).expanduser()

    def scrub(self, message: str) -> str:
        """``message`` with every secret of this table blanked."""
        for secret in self.secrets:
            message = message.replace(secret.reveal(), repr(secret))
        return message

    def _from_elsewhere(self, where: str, env: str = "", file: str = "") -> str:
        if env:
            found = variable(env)
            if not found:
                raise ConfigError(f"{where}: the environment variable {env} is not set")
            return found
        path = self.path(f"{where}.file", file)
        try:
            found = path.read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"{where}: cannot read {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{where}: {path} is not UTF-8 text") from None
        if not found:
            raise ConfigError(f"{where}: {path} is empty")
        return found


@dataclass(frozen=True, slots=True)
class MonitoringFile:
    """The named tables of the operator's file, by kind, in the order in which they stand there.

    Attributes:
        path: of the file, ``""`` where there is none.
    """

    path: str = ""
    sinks: tuple[Part, ...] = field(default=())
    channels: tuple[Part, ...] = field(default=())
    actions: tuple[Part, ...] = field(default=())


def read_monitoring_file(path: str) -> MonitoringFile:
    """The tables of the file ``path``; none where that is empty.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has what is no named table.
    """
    if not path:
        return MonitoringFile()
    try:
        tables = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the monitoring file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the monitoring file {path} is not TOML: {error}") from None
    known = read_table(tables, dict.fromkeys(KINDS, table), f"{path}: ")
    parts = {kind: _parts(path, kind, named) for kind, named in known.items()}
    return MonitoringFile(path, **parts)


def _parts(path: str, kind: str, named: Mapping[str, Any]) -> tuple[Part, ...]:
    parts = []
    for name, values in named.items():
        where = f"{path}: {kind}.{name}"
        if _NAME.fullmatch(name) is None:
            raise wrong(
                f"{path}: the name after {kind}.",
                "1 to 64 letters, digits, '_', '-' and '.', a letter or digit first",
                name,
            )
        parts.append(Part(name, f"{where}.", table(where, values), Path(path).parent))
    return tuple(parts)
