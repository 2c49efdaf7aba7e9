"""An episode: from the moment at which a version has drifted to the one at which it is over."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

from gateway.monitor.alerts import AlertKey, AlertKind
from gateway.monitor.findings import Finding, WindowReport
from gateway.monitor.plain import plain

#: Most findings that an episode keeps as its evidence, the worst first; the rest is counted.
MAX_FINDINGS: Final = 50


class Phase(StrEnum):
    """Where an action of an episode is."""

    PENDING = "pending"
    """Not run yet, or to be tried again."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Given up."""
    CANCELLED = "cancelled"
    """The episode was over before it could be tried again."""

    @property
    def final(self) -> bool:
        """Whether nothing more will be done."""
        return self not in (Phase.PENDING, Phase.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """An action of an episode.

    Attributes:
        attempts: how often it was begun.
        next_at: Unix seconds before which it is not tried again.
        result: what the last attempt came to, in words.
    """

    action: str
    phase: Phase = Phase.PENDING
    attempts: int = 0
    next_at: float = 0.0
    result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A version that has drifted, what shows it, and what is done about it.

    Attributes:
        id: the idempotency key of its actions.
        began: Unix seconds.
        alerts: the alerts that were ``DRIFTED`` when it began.
        evidence: the window that made it begin and its findings, as JSON values.
        firings: its actions.
        acknowledged: who knows of it; ``""`` for nobody.
        ended: Unix seconds; ``None`` while it is open.
        ended_by: the version that took its place; ``""`` where the drift went away.
    """

    id: str
    model: str
    version: str
    began: float
    alerts: tuple[AlertKey, ...]
    evidence: dict[str, Any]
    firings: tuple[Firing, ...] = ()
    acknowledged: str = ""
    ended: float | None = None
    ended_by: str = ""

    @property
    def settled(self) -> bool:
        """Whether it is over and nothing of it is left to be done."""
        return self.ended is not None and all(each.phase.final for each in self.firings)

    def firing(self, action: str) -> Firing:
        """The firing of ``action``. Raises ``KeyError`` where there is none."""
        for each in self.firings:
            if each.action == action:
                return each
        raise KeyError(action)

    def with_firing(self, firing: Firing) -> Self:
        """The episode with ``firing`` in the place of the one of the same action."""
        firings = tuple(firing if f.action == firing.action else f for f in self.firings)
        return replace(self, firings=firings)

    def as_table(self) -> dict[str, Any]:
        """As JSON values."""
        table = asdict(self)
        table["alerts"] = [key.text for key in self.alerts]
        table["firings"] = [asdict(each) for each in self.firings]
        return table

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """What ``as_table`` has made.

        Raises:
            ValueError: it is something else.
        """
        try:
            values = dict(table)
            values["alerts"] = tuple(_key(text) for text in values["alerts"])
            values["firings"] = tuple(
                Firing(**{**each, "phase": Phase(each["phase"])}) for each in values["firings"]
            )
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no episode: {error!r}") from error


def evidence_of(report: WindowReport) -> dict[str, Any]:
    """A window and what was found in it, the worst first, as JSON values."""
    findings = sorted(report.findings, key=_badness)
    return {
        "window": report.number,
        "began": report.began,
        "ended": report.ended,
        "rows": report.rows,
        "findings": [plain(asdict(finding)) for finding in findings[:MAX_FINDINGS]],
        "findings_left_out": max(len(findings) - MAX_FINDINGS, 0),
    }


_BADNESS: Final = {"drifted": 0, "warning": 1, "ok": 2, "no data": 3}


def _badness(finding: Finding) -> tuple[int, str, str]:
    return _BADNESS[finding.level.value], finding.subject, finding.test


def _key(text: str) -> AlertKey:
    kind, _, name = text.partition(":")
    return AlertKey(AlertKind(kind), name)
