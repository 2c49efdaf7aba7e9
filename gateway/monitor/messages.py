"""What is told about a model's alerts, and the forms in which webhooks are told it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from gateway.monitor.alerts import AlertChange
from gateway.monitor.episode import Episode, Firing, Phase
from gateway.monitor.findings import Level, WindowReport
from gateway.monitor.plain import plain


class Topic(StrEnum):
    """What a message is about."""

    ALERT = "alert"
    EPISODE_BEGAN = "episode_began"
    ACTION = "action"
    EPISODE_ENDED = "episode_ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something that people are told.

    Attributes:
        at: Unix seconds.
        level: of the model version.
        title: one line.
        lines: the particulars, a line each.
        evidence: what it rests on, as JSON values.
    """

    topic: Topic
    model: str
    version: str
    at: float
    level: Level
    title: str
    lines: tuple[str, ...] = ()
    episode: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def as_table(self) -> dict[str, Any]:
        """As JSON values: the form ``json``."""
        return {
            "topic": self.topic.value,
            "model": self.model,
            "version": self.version,
            "at": self.at,
            "level": self.level.value,
            "title": self.title,
            "lines": list(self.lines),
            "episode": self.episode,
            "evidence": plain(self.evidence),
        }

    def as_slack(self) -> dict[str, Any]:
        """The form ``slack``: an incoming webhook of Slack, Mattermost, Rocket.Chat and others."""
        fields = [
            {"title": "Model", "value": _escaped(self.model), "short": True},
            {"title": "Version", "value": _escaped(self.version), "short": True},
        ]
        if self.episode:
            fields.append({"title": "Episode", "value": _escaped(self.episode), "short": False})
        shown = [*self.lines[:MAX_SLACK_LINES]]
        if len(self.lines) > len(shown):
            shown.append(f"and {len(self.lines) - len(shown)} more")
        return {
            "text": _escaped(self.title),
            "attachments": [
                {
                    "fallback": _escaped(self.title),
                    "color": _COLOURS[self.level],
                    "text": _escaped("\n".join(shown)),
                    "fields": fields,
                    "ts": int(self.at),
                }
            ],
        }


#: Slack cuts long messages; who wants all of it takes the form ``json``.
MAX_SLACK_LINES: Final = 20

_COLOURS: Final = {
    Level.OK: "good",
    Level.WARNING: "warning",
    Level.DRIFTED: "danger",
    Level.NO_DATA: "#888888",
}


def _escaped(text: str) -> str:
    """``text`` as Slack's mark-up has it: three characters, and no others, are escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def of_changes(
    report: WindowReport, changes: Iterable[AlertChange], level: Level, evidence: dict[str, Any]
) -> Message:
    """Alerts that show something else since the window of ``report``."""
    lines = tuple(str(change) for change in changes)
    return Message(
        topic=Topic.ALERT,
        model=report.model,
        version=report.version,
        at=report.ended,
        level=level,
        title=f"model '{report.model}' version '{report.version}': {level.value}, "
        + (lines[0] if len(lines) == 1 else f"{len(lines)} alerts changed"),
        lines=lines,
        evidence=evidence,
    )


def of_beginning(episode: Episode) -> Message:
    """An episode has begun."""
    names = ", ".join(key.name for key in episode.alerts)
    actions = ", ".join(firing.action for firing in episode.firings)
    return Message(
        topic=Topic.EPISODE_BEGAN,
        model=episode.model,
        version=episode.version,
        at=episode.began,
        level=Level.DRIFTED,
        title=f"model '{episode.model}' version '{episode.version}' has drifted",
        lines=(f"alerts: {names}", f"actions: {actions or 'none'}"),
        episode=episode.id,
        evidence=episode.evidence,
    )


def of_action(episode: Episode, firing: Firing, at: float) -> Message:
    """An action of an episode has come to its end."""
    well = firing.phase is Phase.SUCCEEDED
    return Message(
        topic=Topic.ACTION,
        model=episode.model,
        version=episode.version,
        at=at,
        level=Level.OK if well else Level.DRIFTED,
        title=f"action '{firing.action}' for model '{episode.model}' version "
        f"'{episode.version}' {firing.phase.value}",
        lines=(f"attempts: {firing.attempts}", firing.result),
        episode=episode.id,
    )


def of_end(episode: Episode, reason: str, at: float) -> Message:
    """An episode is over."""
    return Message(
        topic=Topic.EPISODE_ENDED,
        model=episode.model,
        version=episode.version,
        at=at,
        level=Level.OK,
        title=f"the drift of model '{episode.model}' version '{episode.version}' is over: {reason}",
        episode=episode.id,
        evidence={"ended_by": episode.ended_by, "lasted_s": round(at - episode.began, 3)},
    )
