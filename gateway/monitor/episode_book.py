"""The episodes and the silences: changed only together with what the store keeps of them."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from gateway.errors import ConfigError, Conflict
from gateway.monitor.episode import Episode, Firing, Phase
from gateway.monitor.record import Record

#: Kinds of documents.
EPISODES: Final = "episode"
SILENCES: Final = "silence"
#: Episodes that are over and still shown; the journal has all of them.
RECENT: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A model of which nobody is told anything, and for which nothing is done, until a time.

    ``until`` is Unix seconds.
    """

    model: str
    until: float
    by: str
    reason: str = ""


class EpisodeBook:
    """For the event loop's thread. A change is written first and holds then.

    Every change raises ``StateUnavailable`` where it cannot be written.

    Attributes:
        recent: episodes that are over, the newest first.
        begun: how many began in this process, by model.
    """

    def __init__(self, record: Record, *, clock: Callable[[], float] = time.time) -> None:
        """Nothing is known before ``open``; ``clock`` gives Unix seconds."""
        self.recent: Final[deque[Episode]] = deque(maxlen=RECENT)
        self.begun: Final[Counter[str]] = Counter()
        self._record: Final = record
        self._clock: Final = clock
        self._episodes: Final[dict[str, Episode]] = {}
        self._silences: Final[dict[str, Silence]] = {}
        # Episodes are changed by their actions, by windows and by people.
        self._lock: Final = asyncio.Lock()

    async def open(self) -> None:
        """Take up what was kept.

        Raises:
            ConfigError: it cannot be read.
        """
        for id, table in (await self._record.kept(EPISODES)).items():
            try:
                self._episodes[id] = Episode.from_table(table)
            except ValueError as error:
                raise ConfigError(f"the state directory's episode '{id}': {error}") from error
        for model, table in (await self._record.kept(SILENCES)).items():
            try:
                self._silences[model] = Silence(**table)
            except TypeError as error:
                raise ConfigError(f"the state directory's silence of '{model}': {error}") from error

    def __getitem__(self, id: str) -> Episode:
        """An episode that is open, or not long over. Raises ``KeyError``."""
        if (episode := self._episodes.get(id)) is not None:
            return episode
        for episode in self.recent:
            if episode.id == id:
                return episode
        raise KeyError(id)

    def __iter__(self) -> Iterator[Episode]:
        """Those that are open, or over with an action still at work."""
        return iter(tuple(self._episodes.values()))

    def open_of(self, model: str, version: str | None = None) -> Episode | None:
        """The model's open episode; that of ``version`` where given."""
        for episode in self._episodes.values():
            if (
                episode.model == model
                and episode.ended is None
                and version
                in (
                    None,
                    episode.version,
                )
            ):
                return episode
        return None

    def silence_of(self, model: str) -> Silence | None:
        """The silence of the model that is in force."""
        silence = self._silences.get(model)
        return silence if silence is not None and silence.until > self._clock() else None

    async def begin(self, episode: Episode, reason: str) -> None:
        """Begin an episode: from here on its actions are owed."""
        async with self._lock:
            await self._keep(
                episode,
                verb="episode_begin",
                reason=reason,
                evidence={
                    "episode": episode.id,
                    "alerts": [key.text for key in episode.alerts],
                    "actions": [firing.action for firing in episode.firings],
                    **episode.evidence,
                },
            )
            self.begun[episode.model] += 1

    async def end(self, id: str, reason: str, *, ended_by: str = "") -> Episode:
        """End an episode: by a version that takes its place, or because the drift went away."""
        async with self._lock:
            before = self._episodes[id]
            now = self._clock()
            firings = tuple(
                replace(each, phase=Phase.CANCELLED, result="the episode was over before it")
                if each.phase is Phase.PENDING
                else each
                for each in before.firings
            )
            after = replace(before, ended=now, ended_by=ended_by, firings=firings)
            await self._keep(
                after,
                verb="episode_end",
                reason=reason,
                evidence={
                    "episode": id,
                    "ended_by": ended_by,
                    "lasted_s": round(now - before.began, 3),
                    "actions": {each.action: each.phase.value for each in firings},
                },
            )
            return after

    async def mark(self, id: str, firing: Firing, **entry: Any) -> Episode:
        """Write where an action is; with an ``entry`` of the journal where one is given."""
        async with self._lock:
            after = self._episodes[id].with_firing(firing)
            await self._keep(after, **entry)
            return after

    async def acknowledge(self, model: str, *, by: str, reason: str) -> None:
        """Write that somebody knows of the model's episode.

        Raises:
            Conflict: there is none.
        """
        async with self._lock:
            episode = self.open_of(model)
            if episode is None:
                raise Conflict(f"model '{model}' has no open episode that could be acknowledged")
            await self._keep(
                replace(episode, acknowledged=by),
                verb="acknowledge",
                by=by,
                reason=reason,
                evidence={"episode": episode.id},
            )

    async def silence(self, silence: Silence) -> None:
        """Begin a silence, in the place of the one there is."""
        async with self._lock:
            await self._record.keep(
                SILENCES,
                {silence.model: asdict(silence)},
                "silence",
                silence.model,
                by=silence.by,
                reason=silence.reason,
                evidence={"until": silence.until},
            )
            self._silences[silence.model] = silence

    async def end_silence(self, model: str, *, by: str, reason: str) -> None:
        """End a silence before its time.

        Raises:
            Conflict: there is none.
        """
        async with self._lock:
            if self.silence_of(model) is None:
                raise Conflict(f"model '{model}' is not silenced")
            await self._record.keep(
                SILENCES, {model: None}, "end_silence", model, by=by, reason=reason
            )
            del self._silences[model]

    async def _keep(self, episode: Episode, verb: str = "", **particulars: Any) -> None:
        """Write an episode; one that is settled is kept no more."""
        document = None if episode.settled else episode.as_table()
        await self._record.keep(
            EPISODES, {episode.id: document}, verb, episode.model, episode.version, **particulars
        )
        if episode.settled:
            self._episodes.pop(episode.id, None)
            self.recent.appendleft(episode)
        else:
            self._episodes[episode.id] = episode
