"""The alerts of a model version: what its windows say, made steady. Pure: time is passed in.

An alert has a *level*, which goes up when enough of the last windows reached it and down when
enough windows in a row stayed below it. A window with too little data says nothing of the level;
many of them in a row cover it: the alert then *shows* ``NO_DATA`` until there is data again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from gateway.monitor.alert_settings import AlertSettings, Hysteresis, rank
from gateway.monitor.findings import Finding, Level, WindowReport
from gateway.monitor.plain import plain


class AlertKind(StrEnum):
    """What an alert is about."""

    SUBJECT = "subject"
    """A feature or an output; whatever was measured of it."""
    TEST = "test"
    """One measure of the model as a whole, e.g. its accuracy."""
    RULE = "rule"
    """A rule of the model's ``[alerts]``."""


class AlertKey(NamedTuple):
    """Which alert of a model version."""

    kind: AlertKind
    name: str

    @property
    def text(self) -> str:
        """``kind:name``."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an alert stands.

    Attributes:
        level: ``OK``, ``WARNING`` or ``DRIFTED``.
        recent: levels of the last windows that had data, the newest last; as many as are needed.
        silent: windows without enough data since the last one that had it.
        cover_after: how many of those cover the level; 0 before the first window with data.
        lowered: when the level last went down; monotonic seconds.
    """

    level: Level = Level.OK
    recent: tuple[Level, ...] = ()
    silent: int = 0
    cover_after: int = 0
    lowered: float | None = None

    @property
    def shown(self) -> Level:
        """The level, or ``NO_DATA`` where windows without data cover it."""
        return Level.NO_DATA if self.silent >= self.cover_after else self.level

    def step(self, seen: Level, now: float, hysteresis: Hysteresis) -> Self:
        """The standing after a window in which ``seen`` was found, at ``now`` seconds."""
        if seen is Level.NO_DATA:
            return replace(self, silent=self.silent + 1)
        kept = max(hysteresis.raise_windows, hysteresis.clear_windows)
        after = replace(
            self,
            recent=(*self.recent, seen)[-kept:],
            silent=0,
            cover_after=hysteresis.silent_windows,
        )
        raised = _raised(after.recent, hysteresis)
        if rank(raised) > rank(self.level):
            cooled = self.lowered is None or now - self.lowered >= hysteresis.cooldown_s
            return replace(after, level=raised) if cooled else after
        calm = after.recent[-hysteresis.clear_windows :]
        # What enough windows still say is not cleared by others.
        lowest = max(*calm, raised, key=rank)
        if len(calm) == hysteresis.clear_windows and rank(lowest) < rank(self.level):
            return replace(after, level=lowest, lowered=now)
        return after


def _raised(recent: tuple[Level, ...], hysteresis: Hysteresis) -> Level:
    """The highest level that enough of the last windows reached."""
    window = recent[-hysteresis.raise_windows :]
    for level in (Level.DRIFTED, Level.WARNING):
        if sum(rank(each) >= rank(level) for each in window) >= hysteresis.raise_count:
            return level
    return Level.OK


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert that shows something else than before, and the finding that tipped it.

    ``to_be_told`` is false for the first window with data, where all is well.
    """

    key: AlertKey
    before: Level
    after: Level
    finding: Finding

    @property
    def to_be_told(self) -> bool:
        """See above."""
        return (self.before, self.after) != (Level.NO_DATA, Level.OK)

    def as_table(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "alert": self.key.text,
            "before": self.before.value,
            "after": self.after.value,
            "finding": plain(asdict(self.finding)),
        }

    def __str__(self) -> str:
        return f"{self.key.name} {self.before.value} -> {self.after.value}{told(self.finding)}"


def told(finding: Finding) -> str:
    """A finding's figure in words, in brackets; ``""`` where it has none."""
    if finding.value is None:
        return f" ({finding.detail})" if finding.detail else ""
    text = f"{finding.test} {finding.value:.4g}"
    if finding.p_value is not None:
        text += f", p {finding.p_value:.2g}"
    if finding.threshold:
        text += f", limit {finding.threshold:g}"
    return f" ({text}{'; ' if finding.detail else ''}{finding.detail})"


class VersionAlerts:
    """All alerts of one model version, in the order in which they came up.

    Attributes:
        findings: the last finding of each, the worst of its window.
        window: the number of the last window, ``None`` before the first.
    """

    def __init__(self, settings: AlertSettings, drifted: Iterable[AlertKey] = ()) -> None:
        """Begin with nothing known.

        Args:
            drifted: alerts that were ``DRIFTED`` when the process before this one ended.
        """
        self.settings: Final = settings
        self.findings: Final[dict[AlertKey, Finding]] = {}
        self.window: int | None = None
        self._rules: Final = {rule.name: rule for rule in settings.in_force}
        # A rule that is no more would never be cleared.
        self._standings: Final[dict[AlertKey, Standing]] = {
            key: Standing(level=Level.DRIFTED)
            for key in drifted
            if key.kind is not AlertKind.RULE or key.name in self._rules
        }

    def take(self, report: WindowReport, now: float) -> list[AlertChange]:
        """Step every alert that the report says something of; what shows something else now.

        Args:
            now: monotonic seconds.
        """
        self.window = report.number
        changes = []
        for key, seen, finding in self._seen(report):
            before = self._standings.get(key, Standing())
            after = before.step(seen, now, self._hysteresis(key))
            self._standings[key] = after
            self.findings[key] = finding
            if after.shown is not before.shown:
                changes.append(AlertChange(key, before.shown, after.shown, finding))
        return changes

    def standings(self) -> Iterator[tuple[AlertKey, Standing]]:
        """Every alert and how it stands."""
        yield from self._standings.items()

    @property
    def level(self) -> Level:
        """Of the version: the worst of its rules and of what is found of the model as a whole.

        A level that is covered counts: silence is no recovery.
        """
        return max(
            (standing.level for key, standing in self.standings() if _decides(key)),
            key=rank,
            default=Level.OK,
        )

    @property
    def shown(self) -> Level:
        """The same of what the alerts show; ``NO_DATA`` where all of them do."""
        return max(
            (standing.shown for key, standing in self.standings() if _decides(key)),
            key=rank,
            default=Level.NO_DATA,
        )

    def drifted(self) -> list[AlertKey]:
        """The alerts whose level is ``DRIFTED``."""
        return [key for key, standing in self.standings() if standing.level is Level.DRIFTED]

    def _hysteresis(self, key: AlertKey) -> Hysteresis:
        rule = self._rules.get(key.name) if key.kind is AlertKind.RULE else None
        return self.settings.hysteresis if rule is None else rule.hysteresis

    def _seen(self, report: WindowReport) -> Iterator[tuple[AlertKey, Level, Finding]]:
        worst: dict[AlertKey, Finding] = {}
        for finding in report.findings:
            key = AlertKey(AlertKind.SUBJECT, finding.subject)
            if not finding.subject:
                key = AlertKey(AlertKind.TEST, finding.test)
            known = worst.get(key)
            if known is None or rank(finding.level) > rank(known.level):
                worst[key] = finding
        for key, finding in worst.items():
            yield key, finding.level, finding
        for name, rule in self._rules.items():
            if (judged := rule.judge(report)) is not None:
                yield AlertKey(AlertKind.RULE, name), *judged


def _decides(key: AlertKey) -> bool:
    return key.kind is not AlertKind.SUBJECT
