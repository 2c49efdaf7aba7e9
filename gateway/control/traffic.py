"""What the traffic of a model should be: who serves, who is tried on a part of it, who shadows.

Plain immutable values: what an operator asks for, what is remembered over a restart, and what the
route tables are made of. Each reads itself from a table (TOML, or JSON as ``as_table`` gives it)
and names in its error the key that is wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

from gateway.errors import ConfigError
from gateway.tables import (
    Check,
    boolean,
    integer,
    list_of,
    number,
    percent,
    read_table,
    share,
    table,
    table_of,
    text,
    version,
    wrong,
)

#: As ``ModelTraffic.stable``: the highest version that serves, whichever that is.
LATEST: Final = "latest"

#: Labels that follow from the traffic itself; nobody else sets them.
BUILT_IN_LABELS: Final = ("stable", "canary", "previous", LATEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryStep:
    """One step of a canary.

    Attributes:
        percent: of the model's traffic that the candidate gets, above 0 and at most 100.
        hold_s: seconds that the step lasts at least.
        min_requests: answers of the candidate that it lasts at least.
    """

    percent: float
    hold_s: float = 300.0
    min_requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryGates:
    """What a candidate must hold, against the stable version in the same time.

    Each comparison is a difference of two proportions, with a confidence sequence: it may be
    looked at after every batch. A lower bound above the limit rolls back; an upper bound at or
    below the limit passes; anything between is inconclusive.

    Attributes:
        alpha: chance, over all gates and looks together, that a candidate which is no worse than
            the limits is rolled back.
        max_error_increase: limit for the share of failed requests, candidate minus stable.
        max_latency_ratio: a candidate's request is slow beyond this many times what
            ``latency_quantile`` of the stable version's requests stay below.
        latency_quantile: see above.
        max_slow_increase: limit for the share of slow requests, candidate minus stable.
        max_output_shift: limit for the largest difference of any class's share among the answers
            (classifiers), or of any tenth's (other outputs); 1 compares no outputs.
    """

    alpha: float = 0.05
    max_error_increase: float = 0.01
    max_latency_ratio: float = 1.2
    latency_quantile: float = 0.95
    max_slow_increase: float = 0.05
    max_output_shift: float = 0.1


DEFAULT_STEPS: Final = (
    CanaryStep(percent=5),
    CanaryStep(percent=20),
    CanaryStep(percent=50),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryPlan:
    """A version that is tried on a growing part of the traffic.

    Attributes:
        version: the candidate.
        steps: percentages ascending.
        sticky_header: HTTP header or gRPC metadata key, lower case, whose value decides who
            answers, so that one user meets one version; ``""`` for none.
        sticky_parameter: a request parameter that does the same; goes after the header.
        auto_promote: whether the candidate is promoted when all gates hold at the end.
    """

    version: str
    steps: tuple[CanaryStep, ...] = DEFAULT_STEPS
    sticky_header: str = ""
    sticky_parameter: str = ""
    auto_promote: bool = True
    gates: CanaryGates = CanaryGates()

    @classmethod
    def from_table(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """The plan in ``values``. Raises ``ConfigError``."""
        read = read_table(values, _CANARY, where)
        if "version" not in read:
            raise ConfigError(f"{where}version is missing: which version is the candidate?")
        plan = cls(**read)
        shares = [step.percent for step in plan.steps]
        if not shares or shares != sorted(set(shares)) or shares[0] <= 0:
            raise wrong(f"{where}steps", "one or more, of ascending percent above 0", shares)
        return plan


class CanaryPhase(StrEnum):
    """How a canary stands."""

    #: Its steps go on by themselves.
    RUNNING = "running"
    #: An operator holds it at its step; a failed gate still rolls back.
    PAUSED = "paused"
    #: The last step is over, and the evidence decides neither way: it waits for more of it, or
    #: for an operator.
    INCONCLUSIVE = "inconclusive"
    #: The last step is over and all gates hold; an operator promotes (``auto_promote`` is off).
    PASSED = "passed"
    #: It became the stable version.
    PROMOTED = "promoted"
    #: A gate failed, and the stable version has all traffic again.
    ROLLED_BACK = "rolled_back"
    #: An operator ended it.
    ABORTED = "aborted"

    @property
    def over(self) -> bool:
        """Whether the candidate has no part of the traffic any more."""
        return self in (CanaryPhase.PROMOTED, CanaryPhase.ROLLED_BACK, CanaryPhase.ABORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A canary as it stands; one that is over is kept to be asked about until the next one.

    ``step`` is the index into the plan's steps, ``against`` the version that was stable when it
    began; ``reason`` says why the phase is what it is.
    """

    plan: CanaryPlan
    phase: CanaryPhase = CanaryPhase.RUNNING
    step: int = 0
    against: str = ""
    reason: str = ""

    @property
    def percent(self) -> float:
        """Of the traffic that the candidate gets now."""
        return 0.0 if self.phase.over else self.plan.steps[self.step].percent

    @classmethod
    def from_table(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """The canary in ``values``, as ``as_table`` gave them. Raises ``ConfigError``."""
        read = read_table(values, _CANARY_STATE, where)
        plan = CanaryPlan.from_table(read.get("plan", {}), f"{where}plan.")
        if read.get("step", 0) >= len(plan.steps):
            raise wrong(
                f"{where}step", f"below {len(plan.steps)}, the number of steps", read["step"]
            )
        return cls(**{**read, "plan": plan})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPlan:
    """A version that gets copies of a model's traffic, and answers nobody.

    Attributes:
        version: the shadow.
        model: the model that it is a version of; ``""`` for the shadowed model itself.
        percent: of the traffic that is copied, above 0.
        relative_tolerance, absolute_tolerance: two values ``p`` (primary) and ``s`` agree when
            ``|p - s| <= absolute + relative * |p|``.
        min_agreement: least share of pairs that agree in every value.
        max_flips: largest share of pairs whose highest score is at another index.
        keep_worst: pairs that disagree most, whose inputs and outputs are kept for a look.
    """

    version: str
    model: str = ""
    percent: float = 100.0
    relative_tolerance: float = 1e-3
    absolute_tolerance: float = 1e-5
    min_agreement: float = 0.99
    max_flips: float = 0.01
    keep_worst: int = 10

    @classmethod
    def from_table(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """The plan in ``values``. Raises ``ConfigError``."""
        read = read_table(values, _SHADOW, where)
        if "version" not in read:
            raise ConfigError(f"{where}version is missing: which version is the shadow?")
        if read.get("percent") == 0:
            raise wrong(f"{where}percent", "above 0 and at most 100", read["percent"])
        return cls(**read)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraffic:
    """All that is decided about one model's traffic.

    Attributes:
        stable: the version that answers requests which name none, or ``LATEST``.
        previous: versions that were stable before, the last one first; they stay loaded.
        labels: versions by the labels that clients may address them by.
        loaded: whether somebody asked for the model to be loaded, or for it not to be; ``None``
            where the server's settings decide.
    """

    stable: str = LATEST
    previous: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    canary: Canary | None = None
    shadow: ShadowPlan | None = None
    loaded: bool | None = None

    @classmethod
    def from_table(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """The traffic in ``values``, as ``as_table`` gave them. Raises ``ConfigError``."""
        read = read_table(values, _TRAFFIC, where)
        if (canary := read.get("canary")) is not None:
            read["canary"] = Canary.from_table(canary, f"{where}canary.")
        if (shadow := read.get("shadow")) is not None:
            read["shadow"] = ShadowPlan.from_table(shadow, f"{where}shadow.")
        check_labels(read.get("labels", {}), f"{where}labels")
        return cls(**read)

    @property
    def running_canary(self) -> Canary | None:
        """The canary that has a part of the traffic, if one has."""
        return None if self.canary is None or self.canary.phase.over else self.canary

    def named_versions(self, model: str) -> set[str]:
        """The versions of ``model``, whose traffic this is, that must be loaded for it."""
        named = {self.stable, *self.previous, *self.labels.values()} - {LATEST}
        if (canary := self.running_canary) is not None:
            named.add(canary.plan.version)
        if self.shadow is not None and self.shadow.model in ("", model):
            named.add(self.shadow.version)
        return named

    def with_stable(self, chosen: str, serving: str, keep_previous: int) -> Self:
        """The traffic once ``chosen`` is stable; ``serving``, which was, joins ``previous``.

        ``serving`` is ``""`` where nothing was.
        """
        before = dict.fromkeys((serving, *self.previous))
        kept = tuple(v for v in before if v and v != chosen)[:keep_previous]
        return replace(self, stable=chosen, previous=kept)


def check_labels(labels: Mapping[str, str], where: str) -> None:
    """Raise ``ConfigError`` for a label that follows from the traffic itself."""
    for label in labels:
        if label in BUILT_IN_LABELS:
            raise ConfigError(
                f"{where}: '{label}' is always there and means what its name says "
                f"({', '.join(BUILT_IN_LABELS)}); choose another label"
            )


def as_table(value: Any) -> Any:
    """``value`` of this module as plain JSON values; ``from_table`` reads them."""
    if is_dataclass(value):
        return {f.name: as_table(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [as_table(item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _optional_table(where: str, value: Any) -> dict[str, Any] | None:
    return None if value is None else table(where, value)


def _optional_flag(where: str, value: Any) -> bool | None:
    return None if value is None else boolean(where, value)


def _phase(where: str, value: Any) -> CanaryPhase:
    try:
        return CanaryPhase(value)
    except ValueError:
        raise wrong(where, f"one of {', '.join(CanaryPhase)}", value) from None


def _any_text(where: str, value: Any) -> str:
    return value if value == "" else text(where, value)


def _lower_text(where: str, value: Any) -> str:
    return _any_text(where, value).lower()


def _positive_share(where: str, value: Any) -> float:
    if not 0 < share(where, value) < 1:
        raise wrong(where, "a number above 0 and below 1", value)
    return float(value)


def _step(where: str, value: Any) -> CanaryStep:
    read = read_table(table(where, value), _STEP, f"{where}.")
    if "percent" not in read:
        raise ConfigError(f"{where}.percent is missing: how much of the traffic?")
    return CanaryStep(**read)


def _gates(where: str, value: Any) -> CanaryGates:
    return CanaryGates(**read_table(table(where, value), _GATES, f"{where}."))


_STEP: Final[dict[str, Check]] = {
    "percent": percent,
    "hold_s": number,
    "min_requests": integer(0),
}
_GATES: Final[dict[str, Check]] = {
    "alpha": _positive_share,
    "max_error_increase": share,
    "max_latency_ratio": number,
    "latency_quantile": _positive_share,
    "max_slow_increase": share,
    "max_output_shift": share,
}
_CANARY: Final[dict[str, Check]] = {
    "version": version,
    "steps": list_of(_step),
    "sticky_header": _lower_text,
    "sticky_parameter": _any_text,
    "auto_promote": boolean,
    "gates": _gates,
}
_CANARY_STATE: Final[dict[str, Check]] = {
    "plan": table,
    "phase": _phase,
    "step": integer(0),
    "against": _any_text,
    "reason": _any_text,
}
_SHADOW: Final[dict[str, Check]] = {
    "version": version,
    "model": _any_text,
    "percent": percent,
    "relative_tolerance": number,
    "absolute_tolerance": number,
    "min_agreement": share,
    "max_flips": share,
    "keep_worst": integer(0),
}
_TRAFFIC: Final[dict[str, Check]] = {
    "stable": version,
    "previous": list_of(version),
    "labels": table_of(version),
    "canary": _optional_table,
    "shadow": _optional_table,
    "loaded": _optional_flag,
}
