"""What is done about a drift: the tables ``[actions.NAME]`` of the operator's file.

::

    [actions.retrain]
    type = "command"
    argv = ["python", "retrain.py"]
    models = ["price-*"]
    [actions.pipeline]
    type = "webhook"
    url = "https://ci.example.com/hooks/retrain"
    secret = { file = "retrain.secret" }
    body = '{"ref": "main", "inputs": {"model": "${model}", "episode": "${episode}"}}'

An action is run once for an episode: it is tried until it has succeeded, is refused for good, or
its attempts are used up, and the episode's id goes with each attempt, so that whoever is asked
twice (a process may die between a success and its record) can tell.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias

from gateway.monitor.command_action import CommandRun
from gateway.monitor.episode import Episode
from gateway.monitor.outcome import Outcome
from gateway.monitor.webhook_action import WebhookRun
from gateway.monitoring_file import Part
from gateway.tables import Check, integer, list_of, number, text, wrong


class Run(Protocol):
    """Does an action: what an integration with a pipeline is to implement."""

    async def attempt(self, episode: Episode, attempt: int) -> Outcome:
        """Do it for ``episode``, for the ``attempt``-th time, from 1.

        On the event loop; must bound its own time and never block the loop. An exception counts as
        a failure that may pass. Cancelled where the server stops: it ends what it has begun.
        """

    async def close(self) -> None:
        """Let go of what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action of the operator's.

    Attributes:
        models: patterns as of a shell.
        attempts: how often it is tried at most.
        backoff_s: seconds before it is tried again, doubled each time up to ``max_backoff_s``.
    """

    name: str
    run: Run
    models: tuple[str, ...] = ("*",)
    attempts: int = 5
    backoff_s: float = 10.0
    max_backoff_s: float = 600.0

    def watches(self, model: str) -> bool:
        """Whether it is for ``model``."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def delay_s(self, attempts: int, asked: float | None = None) -> float:
        """Seconds to wait after ``attempts`` failures; longer where that was ``asked`` for."""
        # Past 30 doublings every delay is at its most.
        doubled = self.backoff_s * 2.0 ** min(attempts - 1, 30)
        return min(max(doubled, asked or 0.0), self.max_backoff_s)


#: Reads the table of an action: what it runs, and the values of the keys of all actions.
Read: TypeAlias = Callable[[Part, dict[str, Check]], tuple[Run, dict[str, Any]]]


def read_action(part: Part, more: Mapping[str, Read] = MappingProxyType({})) -> Action:
    """The action of a table ``[actions.NAME]``.

    Args:
        more: further types of actions: those of integrations.

    Raises:
        ConfigError: a key or value is wrong.
    """
    kinds: dict[str, Read] = {"webhook": WebhookRun.read, "command": CommandRun.read, **more}
    run, common = kinds[part.type(kinds)](part, _COMMON)
    return Action(name=part.name, run=run, **common)


def _attempts(where: str, value: Any) -> int:
    if integer(1)(where, value) > 100:
        raise wrong(where, "an integer from 1 to 100", value)
    return int(value)


_COMMON: Final[dict[str, Check]] = {
    "models": list_of(text),
    "attempts": _attempts,
    "backoff_s": number,
    "max_backoff_s": number,
}
