"""The traffic of models as a file declares it, and what would have to change to get there.

::

    [models.iris]
    stable = "2"                    # or "latest"
    labels = { champion = "1" }

    [models.iris.shadow]            # the keys of ShadowPlan
    version = "3"
    percent = 100

    [models.iris.canary]            # the keys of CanaryPlan
    version = "4"
    steps = [{ percent = 5, hold_s = 300 }, { percent = 50 }]

A model that is named is declared whole: it has no other labels, no other shadow and no other
canary than what is written. Only its stable version stays as it is where none is written. Of
models that are not named, nothing changes.

A canary is declared to be tried once. Where the same plan has been started, however it has ended,
there is nothing to do; another plan, even by one number, is another canary. Once it is promoted,
the stable version that is declared beside it may be either the one before or the candidate; and
where ``latest`` is declared beside it, the version that it was tried against stays stable, because
the latest version may be the candidate itself.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.control.traffic import (
    LATEST,
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
    """What is declared of one model; ``stable`` is ``None`` where it may be as it is."""

    stable: str | None
    labels: Mapping[str, str]
    canary: CanaryPlan | None
    shadow: ShadowPlan | None


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that would be different: where in the traffic's table, and its JSON values.

    ``None`` stands for nothing. Where there is something before and after, the smallest part that
    differs is told, as ``canary.plan.gates.alpha``.
    """

    model: str
    field: str
    before: Any
    after: Any

    def as_table(self) -> dict[str, Any]:
        """The change as a JSON object, with the keys ``from`` and ``to``."""
        return {
            "model": self.model,
            "field": self.field,
            "from": self.before,
            "to": self.after,
        }


def read_declaration(source: str | Mapping[str, Any]) -> dict[str, Declared]:
    """What TOML, or the tables that it stands for, declares of each model that it names.

    Raises:
        ConfigError: it is not TOML, names no model, or a key or value in it is wrong.
    """
    values = _parse(source) if isinstance(source, str) else source
    models = read_table(values, {"models": table}, "").get("models")
    if not models:
        raise ConfigError("nothing is declared: expected a table [models.NAME] for each model")
    return {
        model: _declared(model, table(f"models.{model}", declared), f"models.{model}.")
        for model, declared in models.items()
    }


def target(current: ModelTraffic, declared: Declared, keep_previous: int) -> ModelTraffic:
    """The traffic as it is declared, coming from ``current``, which it equals if nothing is to do.

    Args:
        keep_previous: versions that stay loaded once another one is stable.
    """
    stable = _stable(current, declared)
    moved = current
    if stable == LATEST:
        moved = replace(current, stable=LATEST)
    elif stable != current.stable:
        serving = "" if current.stable == LATEST else current.stable
        moved = current.with_stable(stable, serving, keep_previous)
    return replace(
        moved,
        labels=declared.labels,
        canary=_canary(current.canary, declared.canary, stable),
        shadow=declared.shadow,
    )


def difference(
    current: Mapping[str, ModelTraffic], declared: Mapping[str, Declared]
) -> list[Change]:
    """What ``target`` changes, by model's name, then in the order of ``ModelTraffic``.

    Of ``previous``, which follows from ``stable``, nothing is told.
    """
    changes = []
    for model in sorted(declared):
        before = current.get(model, ModelTraffic())
        after = target(before, declared[model], keep_previous=0)
        for part in ("stable", "labels", "canary", "shadow"):
            old, new = as_table(getattr(before, part)), as_table(getattr(after, part))
            changes += [Change(model, *found) for found in _differing(part, old, new)]
    return changes


def _differing(where: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys((*old, *new)):
            yield from _differing(f"{where}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield where, old, new


def _stable(current: ModelTraffic, declared: Declared) -> str:
    """The stable version that follows from what is declared."""
    if declared.stable is None:
        return current.stable
    canary = current.canary
    if canary is not None and canary.plan == declared.canary:
        promoted = canary.phase is CanaryPhase.PROMOTED and current.stable == canary.plan.version
        if promoted or declared.stable == LATEST:
            return current.stable
    return declared.stable


def _canary(current: Canary | None, declared: CanaryPlan | None, stable: str) -> Canary | None:
    """The canary that follows; one that is not declared and runs is over by it."""
    if declared is not None:
        same = current is not None and current.plan == declared
        return current if same else Canary(plan=declared)
    if current is None or current.phase.over:
        return current
    if current.plan.version == stable:
        return replace(current, phase=CanaryPhase.PROMOTED, reason="it was declared stable")
    return replace(current, phase=CanaryPhase.ABORTED, reason="it was declared no more")


def _parse(source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(source)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"what is declared is not valid TOML: {error}") from error


def _declared(model: str, values: dict[str, Any], where: str) -> Declared:
    read = read_table(values, _FIELDS, where)
    stable: str | None = read.get("stable")
    labels: dict[str, str] = read.get("labels", {})
    canary = shadow = None
    check_labels(labels, f"{where}labels")
    if "canary" in read:
        canary = CanaryPlan.from_table(read["canary"], f"{where}canary.")
        if canary.version == stable:
            raise ConfigError(
                f"{where}canary.version is '{stable}', which is declared stable: it would be "
                "tried against itself; leave the canary out, or declare another stable version"
            )
    if "shadow" in read:
        shadow = ShadowPlan.from_table(read["shadow"], f"{where}shadow.")
        if shadow.model == model:
            shadow = replace(shadow, model="")
        if shadow.version == stable and not shadow.model:
            raise ConfigError(
                f"{where}shadow.version is '{stable}', which is declared stable: it would shadow "
                "itself; leave the shadow out, or declare another version"
            )
    return Declared(stable=stable, labels=labels, canary=canary, shadow=shadow)


_FIELDS: Final[dict[str, Check]] = {
    "stable": version,
    "labels": table_of(version),
    "canary": table,
    "shadow": table,
}
