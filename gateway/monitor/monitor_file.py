"""Reads ``monitor.toml``, which lies beside a model and says how its predictions are watched."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.monitor.alert_settings import AlertSettings, read_alerts
from gateway.monitor.measures import DEFAULT_TESTS, MEASURES, Limits
from gateway.monitor.p_values import CORRECTIONS
from gateway.tables import (
    Check,
    choice,
    integer,
    list_of,
    number,
    read_table,
    share,
    table,
    table_of,
    text,
    wrong,
)

NAME: Final = "monitor.toml"

#: Most parts that a sliding window is made of.
MAX_PARTS: Final = 100
#: Most rows and seconds of a window.
MAX_ROWS: Final = 100_000_000
MAX_SECONDS: Final = 366 * 86_400


@dataclass(frozen=True, slots=True)
class ReferenceSettings:
    """What the windows are compared with.

    Attributes:
        profile: the file of the reference profile, ``None`` for ``profile.json`` beside the
            version's model file, or else beside ``monitor.toml``.
        live: the first so many predictions become the profile; 0 for a file.
    """

    profile: Path | None = None
    live: int = 0


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """How long a window is. Either ``rows`` or ``seconds`` is not 0.

    Attributes:
        rows, seconds: its length.
        step: how far the next one begins behind it, in the same unit; the whole length for windows
            that do not overlap.
        min_rows: least predictions of a window by time that are judged.
        sample: most rows that are kept of it for the tests that need values.
    """

    rows: int = 0
    seconds: float = 0.0
    step: float = 0.0
    min_rows: int = 100
    sample: int = 2000

    @property
    def parts(self) -> int:
        """How many steps make a window."""
        length = self.rows or self.seconds
        return round(length / self.step) if self.step else 1


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """What is different for the features that ``pattern`` fits. ``None``: it is as for all.

    Attributes:
        tests: their names.
        limits: by the test's name.
    """

    pattern: str
    tests: tuple[str, ...] | None = None
    limits: Mapping[str, Limits] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """All that ``monitor.toml`` says.

    Attributes:
        watch, ignore: patterns of the features and outputs, as in a shell.
        tests: those of every feature that they are for.
        limits: by the test's name, where they are not its own.
        correction: of p-values and chances, for the number of features.
        significance: the chance that any feature's figure is taken for drift, in a window and of
            a test, while nothing has changed; 1 leaves it to the limits alone.
        features: what is different for some, the last that fits first.
        keep: reports that are kept of each version.
        alerts: what follows from what is found.
        monitors: the settings of further monitors, by their table's name.
    """

    watch: tuple[str, ...] = ("*",)
    ignore: tuple[str, ...] = ()
    reference: ReferenceSettings = ReferenceSettings()
    window: WindowSettings = WindowSettings(rows=5000)
    tests: tuple[str, ...] = DEFAULT_TESTS
    limits: Mapping[str, Limits] = field(default_factory=dict)
    correction: str = "holm"
    significance: float = 0.01
    features: tuple[FeatureSettings, ...] = ()
    keep: int = 200
    alerts: AlertSettings = field(default_factory=AlertSettings)
    monitors: Mapping[str, Any] = field(default_factory=dict)

    def watches(self, feature: str) -> bool:
        """Whether the feature or output is watched."""
        return any(fnmatchcase(feature, p) for p in self.watch) and not any(
            fnmatchcase(feature, p) for p in self.ignore
        )

    def tests_of(self, feature: str) -> dict[str, Limits]:
        """The limits of each test of the feature, by the test's name."""
        own = [f for f in self.features if fnmatchcase(feature, f.pattern)]
        names = next((f.tests for f in reversed(own) if f.tests is not None), self.tests)
        limits = dict(self.limits)
        for settings in own:
            limits.update(settings.limits)
        return {name: limits.get(name, MEASURES[name].limits) for name in names}


def read_monitor_file(path: Path, kinds: Mapping[str, Check]) -> MonitorSettings:
    """The settings in the file.

    Args:
        kinds: what reads the tables of further monitors, by the table's name.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    values = read_table(document, {**_FIELDS, **kinds}, f"{path}: ")
    monitors = {name: values.pop(name) for name in kinds if name in values}
    reference = values.get("reference")
    if reference is not None and reference.profile is not None:
        profile = path.parent / reference.profile
        values["reference"] = ReferenceSettings(profile=profile, live=reference.live)
    limits = values.pop("limits", {})
    return MonitorSettings(**values, limits=limits, monitors=monitors)


def seconds(where: str, value: Any) -> float:
    """A time: seconds, or text such as ``"15m"``, ``"1h"`` or ``"1d"``."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)", value)
        if match:
            value = float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]
    given = isinstance(value, int | float) and not isinstance(value, bool)
    if not given or not 0 < value <= MAX_SECONDS:
        raise wrong(where, 'seconds above 0, or text such as "15m", "1h" or "1d"', value)
    return float(value)


def limits(where: str, value: Any) -> Limits:
    """``drifted`` and ``warning`` of a test; a number alone is ``drifted``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Limits(None, number(where, value))
    if not isinstance(value, dict) or not value:
        raise wrong(where, "a number or { warning = ..., drifted = ... }", value)
    values = read_table(value, {"warning": number, "drifted": number}, f"{where}.")
    return Limits(values.get("warning"), values.get("drifted"))


def _limits_by_test(where: str, value: Any) -> dict[str, Limits]:
    return read_table(table(where, value), dict.fromkeys(MEASURES, limits), f"{where}.")


def _reference(where: str, value: Any) -> ReferenceSettings:
    values = read_table(table(where, value), {"profile": text, "live": integer(1)}, f"{where}.")
    if len(values) != 1:
        raise wrong(where, '{ profile = "FILE" } or { live = N }', value)
    if "live" in values:
        return ReferenceSettings(live=values["live"])
    return ReferenceSettings(profile=Path(values["profile"]))


def _rows(where: str, value: Any) -> int:
    if integer(1)(where, value) > MAX_ROWS:
        raise wrong(where, f"an integer from 1 to {MAX_ROWS}", value)
    return int(value)


def _window(where: str, value: Any) -> WindowSettings:
    given = table(where, value)
    by_rows = "rows" in given
    if by_rows == ("seconds" in given):
        raise wrong(where, "a table with either rows or seconds", value)
    fields: dict[str, Check] = {
        "rows": _rows,
        "seconds": seconds,
        "step": _rows if by_rows else seconds,
        "min_rows": integer(1),
        "sample": _sample,
    }
    window = WindowSettings(**read_table(given, fields, f"{where}."))
    length = window.rows or window.seconds
    if window.step and abs(window.parts * window.step - length) > 1e-9 * length:
        raise wrong(f"{where}.step", f"a part of {length:g}, such as {length / 4:g}", given["step"])
    if window.parts > MAX_PARTS:
        raise wrong(
            f"{where}.step",
            f"at least {length / MAX_PARTS:g}: {MAX_PARTS} steps make a window at most",
            given["step"],
        )
    return window


def _sample(where: str, value: Any) -> int:
    if not 100 <= integer(1)(where, value) <= 100_000:
        raise wrong(where, "an integer from 100 to 100000", value)
    return int(value)


def _feature(where: str, value: Any) -> dict[str, Any]:
    fields: dict[str, Check] = {"tests": _TESTS, "limits": _limits_by_test}
    return read_table(table(where, value), fields, f"{where}.")


def _features(where: str, value: Any) -> tuple[FeatureSettings, ...]:
    read = table_of(_feature)(where, value)
    return tuple(FeatureSettings(pattern, **values) for pattern, values in read.items())


_TESTS: Final = list_of(choice(*MEASURES))

_FIELDS: Final[dict[str, Check]] = {
    "watch": list_of(text),
    "ignore": list_of(text),
    "reference": _reference,
    "window": _window,
    "tests": _TESTS,
    "limits": _limits_by_test,
    "correction": choice(*CORRECTIONS),
    "significance": share,
    "features": _features,
    "keep": integer(1),
    "alerts": read_alerts,
}
