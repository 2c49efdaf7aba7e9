"""The settings of one model, from ``model.toml`` or Triton's ``config.pbtxt`` in its directory."""

import tomllib
from pathlib import Path
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.serving.settings import (
    AVAILABILITY,
    IN_PLACE,
    LabelSettings,
    ModelSettings,
    StreamSettings,
    TensorSettings,
    ValidationSettings,
    VersionPolicy,
)
from gateway.serving.triton_config import settings_of
from gateway.setting_types import Size
from gateway.tables import (
    Check,
    boolean,
    choice,
    integer,
    list_of,
    number,
    read_table,
    share,
    table,
    table_of,
    text,
    version,
    wrong,
)

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
        document = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    values = read_table(document, _FIELDS, f"{path}: ")
    if (warmup := values.get("warmup")) is not None:
        values["warmup"] = path.parent / warmup
    return ModelSettings(source=path, **values)


def _option(where: str, value: Any) -> str:
    """A provider's option: ONNX Runtime takes text alone, and spells booleans as 1 and 0."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float | str):
        return str(value)
    raise wrong(where, "text, a number or a boolean", value)


def _tensor(where: str, value: Any) -> TensorSettings:
    if not isinstance(value, dict):
        raise wrong(where, "a table", value)
    return TensorSettings(**read_table(value, _TENSOR_FIELDS, f"{where}."))


def _validation(where: str, value: Any) -> ValidationSettings:
    chosen = ValidationSettings(**read_table(table(where, value), _VALIDATION_FIELDS, f"{where}."))
    if chosen.require_golden and not chosen.golden:
        raise ConfigError(
            f"{where}: require_golden asks for golden requests and golden = false ignores them;"
            " remove one of the two"
        )
    return chosen


def _stream(where: str, value: Any) -> StreamSettings:
    return StreamSettings(**read_table(table(where, value), _STREAM_FIELDS, f"{where}."))


def _labels(where: str, value: Any) -> LabelSettings:
    return LabelSettings(**read_table(table(where, value), _LABEL_FIELDS, f"{where}."))


def _hours(where: str, value: Any) -> float:
    if not 0 < number(where, value) <= _MOST_HOURS:
        raise wrong(where, f"hours above 0 and at most {_MOST_HOURS}", value)
    return float(value)


def _size(where: str, value: Any) -> int:
    return _ANY_SIZE.parse(value, where)


def _version_policy(where: str, value: Any) -> VersionPolicy:
    expected = '"all", { latest = N } or { specific = ["1", "2"] }'
    if value == "all":
        return VersionPolicy(latest=None)
    if not isinstance(value, dict) or len(value) != 1:
        raise wrong(where, expected, value)
    chosen = read_table(value, _POLICY_FIELDS, f"{where}.")
    if "latest" in chosen:
        return VersionPolicy(latest=chosen["latest"])
    if not chosen["specific"]:
        raise wrong(f"{where}.specific", "a list of at least one version", value["specific"])
    return VersionPolicy(latest=None, specific=chosen["specific"])


_POLICY_FIELDS: Final[dict[str, Check]] = {"latest": integer(1), "specific": list_of(version)}

_TENSOR_FIELDS: Final[dict[str, Check]] = {
    "batch_axis": integer(-1),
    "labels": list_of(text),
    "features": list_of(text),
    "shape": list_of(integer(-1)),
    "datatype": text,
}

_ANY_SIZE: Final = Size(0, 1 << 50)

_STREAM_FIELDS: Final[dict[str, Check]] = {
    "sample": share,
    "keep": list_of(text),
    "drop": list_of(text),
    "redact": list_of(text),
}

#: Ten years.
_MOST_HOURS: Final = 87_600

_LABEL_FIELDS: Final[dict[str, Check]] = {
    "hold_rows": integer(1),
    "hold_hours": _hours,
    "wait_hours": _hours,
    "outputs": list_of(text),
}

_VALIDATION_FIELDS: Final[dict[str, Check]] = {
    "golden": boolean,
    "require_golden": boolean,
    "max_latency_ratio": number,
    "max_memory_bytes": _size,
    "require_same_signature": boolean,
}

#: Every field of ``ModelSettings`` that a file may set, and what its value must be.
_FIELDS: Final[dict[str, Check]] = {
    "max_batch_size": integer(0),
    "latency_objective_ms": number,
    "max_queue_delay_us": integer(0),
    "preferred_batch_size": list_of(integer(1)),
    "max_queue_size": integer(1),
    "default_timeout_us": integer(0),
    "priority_levels": integer(0),
    "default_priority_level": integer(0),
    "allow_slicing": boolean,
    "instances": integer(1),
    "gpus": list_of(integer(0)),
    "providers": list_of(text),
    "provider_options": table_of(table_of(_option)),
    "intra_op_threads": integer(0),
    "inline": boolean,
    "probe": boolean,
    "warmup": text,
    "validation": _validation,
    "stream": _stream,
    "labels": _labels,
    "version_policy": _version_policy,
    "swap_policy": choice(AVAILABILITY, IN_PLACE),
    "model_filename": text,
    "inputs": table_of(_tensor),
    "outputs": table_of(_tensor),
}
