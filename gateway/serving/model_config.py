"""The settings of one model, from ``model.toml`` or Triton's ``config.pbtxt`` in its directory."""

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.serving.settings import ModelSettings, TensorSettings, VersionPolicy
from gateway.serving.triton_config import settings_of

TOML_NAME: Final = "model.toml"
TRITON_NAME: Final = "config.pbtxt"


def read_settings(folder: Path) -> ModelSettings:
    """The settings of the model in ``folder``; the defaults where it has no file of them.

    ``model.toml`` goes before ``config.pbtxt``, whose fields that are not honoured are named in
    ``ModelSettings.ignored``.

    Raises:
        ConfigError: a file does not parse, or a key or value in it is wrong.
        LoadError: ``config.pbtxt`` asks for another backend than ONNX Runtime.
    """
    toml, triton = folder / TOML_NAME, folder / TRITON_NAME
    try:
        if toml.is_file():
            return _from_toml(toml)
        if not triton.is_file():
            return ModelSettings()
        return settings_of(triton.read_text(), triton)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the settings of model {folder.name!r} cannot be read: {error}"
        ) from error


def _from_toml(path: Path) -> ModelSettings:
    try:
        table = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    values = _values(table, _FIELDS, f"{path}: ")
    if (warmup := values.get("warmup")) is not None:
        values["warmup"] = path.parent / warmup
    return ModelSettings(source=path, **values)


Check = Callable[[str, Any], Any]


def _values(table: Mapping[str, Any], fields: Mapping[str, Check], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(fields)}"
            raise ConfigError(f"{where}unknown key {key!r}; {hint}")
        values[key] = fields[key](f"{where}{key}", value)
    return values


def _wrong(where: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(f"{where} must be {expected}, not {value!r}")


def _integer(least: int) -> Check:
    def check(where: str, value: Any) -> int:
        # bool is an int in Python, but nobody writes `instances = true` and means 1.
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise _wrong(where, f"an integer of at least {least}", value)
        return value

    return check


def _number(where: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise _wrong(where, "a number of at least 0", value)
    return float(value)


def _boolean(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, "true or false", value)
    return value


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(where, "text", value)
    return value


def _list(check: Check) -> Check:
    def check_all(where: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        return tuple(check(f"{where}[{index}]", item) for index, item in enumerate(value))

    return check_all


def _tables(check: Check) -> Check:
    def check_all(where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong(where, "a table", value)
        return {name: check(f"{where}.{name}", item) for name, item in value.items()}

    return check_all


def _option(where: str, value: Any) -> str:
    """A provider's option: ONNX Runtime takes text alone, and spells booleans as 1 and 0."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float | str):
        return str(value)
    raise _wrong(where, "text, a number or a boolean", value)


def _tensor(where: str, value: Any) -> TensorSettings:
    if not isinstance(value, dict):
        raise _wrong(where, "a table", value)
    return TensorSettings(**_values(value, _TENSOR_FIELDS, f"{where}."))


def _version_policy(where: str, value: Any) -> VersionPolicy:
    expected = '"all", { latest = N } or { specific = ["1", "2"] }'
    if value == "all":
        return VersionPolicy(latest=None)
    if not isinstance(value, dict) or len(value) != 1:
        raise _wrong(where, expected, value)
    chosen = _values(value, _POLICY_FIELDS, f"{where}.")
    if "latest" in chosen:
        return VersionPolicy(latest=chosen["latest"])
    if not chosen["specific"]:
        raise _wrong(f"{where}.specific", "a list of at least one version", value["specific"])
    return VersionPolicy(latest=None, specific=chosen["specific"])


def _version(where: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(where, value)


_POLICY_FIELDS: Final[dict[str, Check]] = {"latest": _integer(1), "specific": _list(_version)}

_TENSOR_FIELDS: Final[dict[str, Check]] = {
    "batch_axis": _integer(-1),
    "labels": _list(_text),
    "shape": _list(_integer(-1)),
    "datatype": _text,
}

#: Every field of ``ModelSettings`` that a file may set, and what its value must be.
_FIELDS: Final[dict[str, Check]] = {
    "max_batch_size": _integer(0),
    "latency_objective_ms": _number,
    "max_queue_delay_us": _integer(0),
    "preferred_batch_size": _list(_integer(1)),
    "max_queue_size": _integer(1),
    "default_timeout_us": _integer(0),
    "priority_levels": _integer(0),
    "default_priority_level": _integer(0),
    "allow_slicing": _boolean,
    "instances": _integer(1),
    "gpus": _list(_integer(0)),
    "providers": _list(_text),
    "provider_options": _tables(_tables(_option)),
    "intra_op_threads": _integer(0),
    "inline": _boolean,
    "probe": _boolean,
    "warmup": _text,
    "version_policy": _version_policy,
    "model_filename": _text,
    "inputs": _tables(_tensor),
    "outputs": _tables(_tensor),
}
