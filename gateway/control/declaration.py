"""The declarative form of the models' traffic: what should be, to be brought about as a whole.

As TOML, or JSON of the same shape::

    [models.iris]
    stable = "2"                 # or "latest"
    [models.iris.labels]
    champion = "1"
    [models.iris.shadow]
    version = "3"
    [models.iris.canary]
    version = "3"
    steps = [{ percent = 5, hold_s = 300 }, { percent = 50 }]

A model that is named is declared whole: labels, a shadow or a canary that are not said are not to
be there. ``stable`` alone stays as it is where it is not said. Models that are not named are left
alone. A canary that has ended is not started again by the plan that it had, so that applying the
same declaration twice does nothing the second time.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.control.traffic import (
    Canary,
    CanaryPhase,
    CanaryPlan,
    ModelTraffic,
    ShadowPlan,
    as_table,
    check_labels,
)
from gateway.errors import ConfigError
from gateway.tables import Check, read_table, table, table_of, version


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What is declared about one model; ``stable`` is ``None`` where it stays as it is."""

    stable: str | None = None
    labels: Mapping[str, str]
    canary: CanaryPlan | None = None
    shadow: ShadowPlan | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between what is and what should be; ``None`` for what is not there."""

    model: str
    field: str
    before: Any
    after: Any

    def as_table(self) -> dict[str, Any]:
        """The change as JSON values."""
        return {"model": self.model, "field": self.field, "from": self.before, "to": self.after}


def read_declaration(source: str | Mapping[str, Any]) -> dict[str, Declared]:
    """What ``source``, TOML or its tables, declares, by model. Raises ``ConfigError``."""
    if isinstance(source, str):
        try:
            source = tomllib.loads(source)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"the declaration is not TOML: {error}") from error
    models = read_table(source, {"models": table_of(table)}, "").get("models", {})
    return {model: _read(values, f"models.{model}.") for model, values in models.items()}


def target(current: ModelTraffic, declared: Declared) -> ModelTraffic:
    """The traffic that is ``declared``; what is ``current`` where that is the same already."""
    after = replace(
        current,
        stable=current.stable if declared.stable is None else declared.stable,
        labels=declared.labels,
        shadow=declared.shadow,
        canary=_canary(current.canary, declared.canary),
    )
    return current if after == current else after


def difference(
    current: Mapping[str, ModelTraffic], declared: Mapping[str, Declared]
) -> list[Change]:
    """What would have to change, by model and field."""
    changes = []
    for model in sorted(declared):
        before = current.get(model, ModelTraffic())
        after = target(before, declared[model])
        for field in ("stable", "shadow", "canary"):
            old, new = getattr(before, field), getattr(after, field)
            if old != new:
                changes.append(Change(model, field, as_table(_told(old)), as_table(_told(new))))
        for label in sorted({*before.labels, *after.labels}):
            old, new = before.labels.get(label), after.labels.get(label)
            if old != new:
                changes.append(Change(model, f"labels.{label}", old, new))
    return changes


def _canary(current: Canary | None, plan: CanaryPlan | None) -> Canary | None:
    if plan is None:
        if current is None or current.phase.over:
            return current
        return replace(current, phase=CanaryPhase.ABORTED, reason="it is not declared any more")
    return current if current is not None and current.plan == plan else Canary(plan=plan)


def _told(value: Any) -> Any:
    """Of a canary what was asked for; that it is over leaves nothing of it."""
    if isinstance(value, Canary):
        return None if value.phase.over else value.plan
    return value


def _read(values: Mapping[str, Any], where: str) -> Declared:
    read = read_table(values, _FIELDS, where)
    labels = read.get("labels", {})
    check_labels(labels, f"{where}labels")
    canary, shadow = read.get("canary"), read.get("shadow")
    return Declared(
        stable=read.get("stable"),
        labels=labels,
        canary=None if canary is None else CanaryPlan.from_table(canary, f"{where}canary."),
        shadow=None if shadow is None else ShadowPlan.from_table(shadow, f"{where}shadow."),
    )


_FIELDS: Final[dict[str, Check]] = {
    "stable": version,
    "labels": table_of(version),
    "canary": table,
    "shadow": table,
}
