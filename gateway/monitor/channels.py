"""Where messages about alerts go: the tables ``[channels.NAME]`` of the operator's file.

::

    [channels.log]
    type = "log"
    [channels.oncall]
    type = "webhook"
    url = { env = "ONCALL_URL" }
    form = "slack"              # or "json", with the whole evidence
    models = ["price-*"]
    topics = ["episode_began", "episode_ended"]
    least = "warning"           # of alerts: "warning" or "drifted"
    subjects = false            # whether single features are told of by themselves
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol

from gateway.monitor.alert_settings import rank
from gateway.monitor.alerts import AlertKind
from gateway.monitor.findings import Level
from gateway.monitor.http_post import Answer
from gateway.monitor.messages import Message, Topic
from gateway.monitor.post import Post, post_fields, read_post
from gateway.monitoring_file import Part
from gateway.tables import Check, boolean, choice, list_of, text

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which messages a channel takes.

    Attributes:
        models: patterns as of a shell.
        least: an alert is told where the version's level or one of its changes reached it, or
            fell from it.
        subjects: whether an alert of a single feature or output is told by itself; else it is a
            part of the evidence.
    """

    models: tuple[str, ...] = ("*",)
    topics: tuple[Topic, ...] = tuple(Topic)
    least: Level = Level.WARNING
    subjects: bool = False

    def takes(self, message: Message) -> bool:
        """Whether ``message`` is wanted."""
        if message.topic not in self.topics:
            return False
        if message.topic is Topic.ALERT and not self._wants(message):
            return False
        return any(fnmatchcase(message.model, pattern) for pattern in self.models)

    def _wants(self, message: Message) -> bool:
        if rank(_highest(message)) < rank(self.least):
            return False
        # Thirty features change now and then; what that means for the model is for its rules.
        single = f"{AlertKind.SUBJECT.value}:"
        changes: Sequence[Mapping[str, Any]] = message.evidence.get("changes", ())
        return self.subjects or any(not c["alert"].startswith(single) for c in changes)


class Channel(Protocol):
    """Tells people."""

    @property
    def name(self) -> str:
        """The operator's name for it."""

    @property
    def wanted(self) -> Wanted:
        """Which messages it takes."""

    async def send(self, message: Message, id: str) -> Answer:
        """Tell ``message`` once; ``id`` is the same whenever it is told again. Never raises."""

    def close(self) -> None:
        """Wait for nobody any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChannel:
    """Writes a line to the server's log."""

    name: str
    wanted: Wanted = field(default_factory=Wanted)

    async def send(self, message: Message, id: str) -> Answer:
        """See ``Channel.send``."""
        level = logging.INFO if message.level in (Level.OK, Level.NO_DATA) else logging.WARNING
        particulars = "; ".join(message.lines) if len(message.lines) > 1 else ""
        log.log(level, "%s%s", message.title, f" ({particulars})" if particulars else "")
        return Answer(status=200, text="")

    def close(self) -> None:
        """See ``Channel.close``."""


class WebhookChannel:
    """Posts a message as JSON."""

    def __init__(self, *, name: str, wanted: Wanted, form: str, post: Post) -> None:
        """Post in ``form``, ``"slack"`` or ``"json"``."""
        self.name: Final = name
        self.wanted: Final = wanted
        self._slack: Final = form == "slack"
        self._post: Final = post

    async def send(self, message: Message, id: str) -> Answer:
        """See ``Channel.send``."""
        document = message.as_slack() if self._slack else message.as_table()
        return await self._post.send(json.dumps(document, allow_nan=False).encode(), id)

    def close(self) -> None:
        """See ``Channel.close``."""
        self._post.close()


def read_channel(part: Part) -> Channel:
    """The channel of a table ``[channels.NAME]``.

    Raises:
        ConfigError: a key or value is wrong.
    """
    if part.type(("log", "webhook")) == "log":
        return LogChannel(name=part.name, wanted=_wanted(part.read(_COMMON)))
    values = part.read({**_COMMON, **post_fields(part), "form": choice("slack", "json")}, ("url",))
    return WebhookChannel(
        name=part.name,
        wanted=_wanted(values),
        form=values.get("form", "json"),
        post=read_post(part, values),
    )


def _topics(where: str, value: Any) -> tuple[Topic, ...]:
    words = list_of(choice(*Topic))(where, value)
    return tuple(Topic(word) for word in words)


def _wanted(values: Mapping[str, Any]) -> Wanted:
    given = {key: values[key] for key in ("models", "topics", "subjects") if key in values}
    return Wanted(**given, least=Level(values.get("least", Level.WARNING.value)))


def _highest(message: Message) -> Level:
    """The highest level that a message of alerts speaks of: of before, of after, or now."""
    levels: Sequence[Mapping[str, Any]] = message.evidence.get("changes", ())
    spoken = [Level(change[key]) for change in levels for key in ("before", "after")]
    return max(message.level, *spoken, key=rank) if spoken else message.level


_COMMON: Final[dict[str, Check]] = {
    "models": list_of(text),
    "topics": _topics,
    "least": choice(Level.WARNING, Level.DRIFTED),
    "subjects": boolean,
}
