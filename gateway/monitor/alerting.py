"""From windows to what follows: alerts change, people are told, episodes begin, actions run."""

import asyncio
import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from gateway.alert_metrics import AlertSample, AlertsSample, EpisodeSample
from gateway.errors import GatewayError, ModelNotFound
from gateway.monitor.actions import Action
from gateway.monitor.alert_settings import AlertSettings
from gateway.monitor.alerts import AlertChange, AlertKey, VersionAlerts
from gateway.monitor.channels import Channel, LogChannel
from gateway.monitor.courier import Courier
from gateway.monitor.episode import Episode, Firing, evidence_of
from gateway.monitor.episode_book import EpisodeBook, Silence
from gateway.monitor.findings import Level, WindowReport
from gateway.monitor.firings import Firings
from gateway.monitor.messages import Message, of_action, of_beginning, of_changes, of_end
from gateway.monitor.plain import plain
from gateway.monitor.record import Record

log = logging.getLogger(__name__)

#: Windows that wait to be judged; the oldest goes when another one comes.
MAX_REPORTS: Final = 1000
#: Seconds that the last of them get when the server stops.
LAST_WINDOWS_S: Final = 2.0
#: Longest reason of an entry that the alerts make, in characters.
MAX_REASON: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the alerts are to know of the models.

    Attributes:
        models: the names there are.
        version: of a model, the version that answers requests which name none, ``""`` for none.
        settings: of a model and a version, the ``[alerts]`` that hold for it.
    """

    models: Callable[[], Iterable[str]]
    version: Callable[[str], str]
    settings: Callable[[str, str], AlertSettings]


class Alerting:
    """Judges windows one after the other. For the event loop's thread.

    An alert that changes, and an episode, are in the journal before anybody is told. An episode is
    of the version that serves, begins once that has drifted, and ends when another version serves
    or the drift goes away.
    """

    def __init__(
        self,
        record: Record,
        serving: Serving,
        *,
        channels: Iterable[Channel] = (),
        actions: Iterable[Action] = (),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        """Judge once started.

        Args:
            channels: the operator's; none of them makes it the log.
            clock, monotonic: Unix seconds, and those that cooldowns are counted by.
            new_id: makes the ids of episodes.
        """
        self._record: Final = record
        self._serving: Final = serving
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._new_id: Final = new_id
        self._book: Final = EpisodeBook(record, clock=clock)
        self._courier: Final = Courier(tuple(channels) or (LogChannel(name="log"),))
        self._firings: Final = Firings(self._book, actions, self._tell_of_action, clock=clock)
        self._versions: Final[dict[tuple[str, str], VersionAlerts]] = {}
        self._served: Final[dict[str, str]] = {}
        self._reports: Final[deque[WindowReport]] = deque()
        self._counts: Final = Counter({"judged": 0, "dropped": 0, "failed": 0})
        self._routed = False
        self._resumed = False
        self._behind = False
        self._awake: Final = asyncio.Event()
        self._idle: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- its life -----------------------------------------------------------------------------

    async def open(self) -> None:
        """Take up what was kept, and begin.

        Raises:
            ConfigError: what was kept cannot be read.
        """
        await self._book.open()
        self._courier.start()
        for episode in self._book:
            log.info(
                "taking up the episode '%s' of model '%s' version '%s'",
                episode.id,
                episode.model,
                episode.version,
            )
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Judge what was reported until now, then no more; what is owed is kept."""
        if self._task is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WINDOWS_S):
                    await self._idle.wait()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._firings.close()
        await self._courier.close()

    async def judged(self) -> None:
        """Return once every window that was reported is judged; actions may still run."""
        await self._idle.wait()

    async def settled(self) -> None:
        """Return once nothing waits: no window, no action, no message."""
        await self._idle.wait()
        await self._firings.finished()
        await self._courier.flushed()

    # -- what it is told ----------------------------------------------------------------------

    def report(self, report: WindowReport) -> None:
        """Judge a window, in its turn."""
        if len(self._reports) >= MAX_REPORTS:
            self._reports.popleft()
            self._counts["dropped"] += 1
        self._reports.append(report)
        self._wake()

    def routed(self) -> None:
        """Another version may serve now. Not to be called before the first models are loaded.

        The first call has the actions run that were owed when the process before this one ended:
        what they start may well ask this server something.
        """
        self._routed = True
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._awake.set()

    async def _run(self) -> None:
        while True:
            if self._routed or (self._behind and self._reports):
                self._routed = False
                # What could not be written is tried again before the next window is judged.
                self._behind = not await self._guarded(self._follow_routes)
            if self._reports:
                report = self._reports.popleft()
                await self._guarded(self._judge, report)
                self._counts["judged"] += 1
            elif not self._routed:
                self._awake.clear()
                self._idle.set()
                await self._awake.wait()

    async def _guarded(self, step: Callable[..., Any], *arguments: Any) -> bool:
        """Whether it went well. One failure is one window's: the next is judged all the same."""
        try:
            await step(*arguments)
        except GatewayError:
            self._counts["failed"] += 1
            log.exception("what follows from the alerts could not be written down")
        except Exception:
            self._counts["failed"] += 1
            log.exception("the alerts could not be judged")
        else:
            return True
        return False

    # -- what follows -------------------------------------------------------------------------

    async def _judge(self, report: WindowReport) -> None:
        model, version = report.model, report.version
        alerts = self._alerts(model, version)
        changes = [c for c in alerts.take(report, self._monotonic()) if c.to_be_told]
        try:
            if changes:
                await self._note_changes(report, alerts, changes)
        finally:
            # Whatever became of an entry: an episode is written by itself.
            await self._begin_or_end(report, alerts)

    async def _note_changes(
        self, report: WindowReport, alerts: VersionAlerts, changes: list[AlertChange]
    ) -> None:
        evidence = {
            "window": report.number,
            "began": report.began,
            "ended": report.ended,
            "rows": report.rows,
            "level": alerts.shown.value,
            "changes": [change.as_table() for change in changes],
        }
        message = of_changes(report, changes, alerts.shown, plain(evidence))
        reason = "; ".join(message.lines)
        await self._record.note(
            "alert",
            report.model,
            report.version,
            reason=reason if len(reason) <= MAX_REASON else f"{reason[: MAX_REASON - 3]}...",
            evidence=plain(evidence),
        )
        episode = self._book.open_of(report.model, report.version)
        if episode is None or not episode.acknowledged:
            self._tell(message, alerts.settings)

    async def _begin_or_end(self, report: WindowReport, alerts: VersionAlerts) -> None:
        model, version = report.model, report.version
        episode = self._book.open_of(model, version)
        drifted = alerts.level is Level.DRIFTED
        if episode is not None and not drifted:
            await self._end(episode, "the drift went away")
        elif (
            episode is None
            and drifted
            and self._serving.version(model) == version
            and self._book.silence_of(model) is None
        ):
            await self._begin(report, alerts)

    async def _begin(self, report: WindowReport, alerts: VersionAlerts) -> None:
        drifted = alerts.drifted()
        chosen = alerts.settings.actions
        firings = tuple(
            Firing(action=action.name)
            for action in self._firings.actions.values()
            if action.watches(report.model) and (chosen is None or action.name in chosen)
        )
        evidence = evidence_of(report)
        evidence["drifted"] = [
            {"alert": key.text, "finding": plain(asdict(alerts.findings[key]))}
            for key in drifted
            if key in alerts.findings
        ]
        episode = Episode(
            id=self._new_id(),
            model=report.model,
            version=report.version,
            began=self._clock(),
            alerts=tuple(drifted),
            evidence=evidence,
            firings=firings,
        )
        named = ", ".join(key.name for key in drifted)
        await self._book.begin(episode, f"version '{report.version}' has drifted: {named}")
        self._tell(of_beginning(episode), alerts.settings)
        self._firings.start(episode)

    async def _end(self, episode: Episode, reason: str, ended_by: str = "") -> None:
        ended = await self._book.end(episode.id, reason, ended_by=ended_by)
        self._firings.stop(episode.id)
        message = of_end(ended, reason, ended.ended or 0.0)
        self._tell(message, self._serving.settings(episode.model, episode.version))

    async def _follow_routes(self) -> None:
        for model in {*self._serving.models()}:
            serving = self._serving.version(model)
            if not serving:
                continue
            before = self._served.get(model)
            self._served[model] = serving
            if before is not None and before != serving:
                # What was found of it says nothing any more, unless somebody asks for it by name.
                self._versions.pop((model, before), None)
            episode = self._book.open_of(model)
            if episode is not None and episode.version != serving:
                self._versions.pop((model, episode.version), None)
                reason = f"version '{serving}' serves in its place"
                await self._end(episode, reason, ended_by=serving)
        if not self._resumed:
            self._resumed = True
            for episode in self._book:
                self._firings.start(episode)

    def _alerts(self, model: str, version: str) -> VersionAlerts:
        alerts = self._versions.get((model, version))
        settings = self._serving.settings(model, version)
        if alerts is None or alerts.settings != settings:
            self._check_names(model, settings)
            episode = self._book.open_of(model, version)
            # What has drifted is cleared by windows: by no restart, and by no change of settings.
            known: Iterable[AlertKey] = episode.alerts if episode is not None else ()
            if alerts is not None:
                known = alerts.drifted()
            alerts = self._versions[model, version] = VersionAlerts(settings, known)
        return alerts

    def _check_names(self, model: str, settings: AlertSettings) -> None:
        channels = [channel.name for channel in self._courier.channels]
        for kind, chosen, known in (
            ("channel", settings.channels, channels),
            ("action", settings.actions, list(self._firings.actions)),
        ):
            for name in chosen or ():
                if name not in known:
                    log.warning(
                        "the alerts of model '%s' name the %s '%s', which the file of --monitoring "
                        "does not have; it has %s",
                        model,
                        kind,
                        name,
                        ", ".join(known) or "none",
                    )

    def _tell(self, message: Message, settings: AlertSettings) -> None:
        if self._book.silence_of(message.model) is None:
            self._courier.tell(message, settings.channels)

    def _tell_of_action(self, episode: Episode, firing: Firing) -> None:
        message = of_action(episode, firing, self._clock())
        self._tell(message, self._serving.settings(episode.model, episode.version))

    # -- what is asked ------------------------------------------------------------------------

    def alerts(self, model: str) -> dict[str, Any]:
        """How the alerts of the model stand, as JSON values.

        Raises:
            ModelNotFound: nobody knows the model.
        """
        self._check_known(model)
        episode, silence = self._book.open_of(model), self._book.silence_of(model)
        return {
            "model": model,
            "serving": self._serving.version(model) or None,
            "versions": [
                _version_table(version, alerts)
                for (of, version), alerts in sorted(self._versions.items())
                if of == model
            ],
            "episode": episode and plain(episode.as_table()),
            "silence": silence and asdict(silence),
            "recent": [plain(e.as_table()) for e in self._book.recent if e.model == model],
        }

    def all_alerts(self) -> list[dict[str, Any]]:
        """The same of every model."""
        return [self.alerts(model) for model in sorted(self._serving.models())]

    async def acknowledge(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """Say that somebody knows of the model's episode: until it ends, no alert is told.

        Raises:
            ModelNotFound: nobody knows the model.
            Conflict: it has no open episode.
            StateUnavailable: it cannot be written.
        """
        self._check_known(model)
        await self._book.acknowledge(model, by=by, reason=reason)
        return self.alerts(model)

    async def silence(
        self, model: str, for_s: float, *, by: str, reason: str = ""
    ) -> dict[str, Any]:
        """For ``for_s`` seconds nobody is told anything of the model, and no episode begins.

        Raises ``ModelNotFound`` and ``StateUnavailable``.
        """
        self._check_known(model)
        until = self._clock() + for_s
        await self._book.silence(Silence(model=model, until=until, by=by, reason=reason))
        return self.alerts(model)

    async def end_silence(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """End it before its time. Raises as ``silence`` does, and ``Conflict`` for no silence."""
        self._check_known(model)
        await self._book.end_silence(model, by=by, reason=reason)
        return self.alerts(model)

    def _check_known(self, model: str) -> None:
        known = set(self._serving.models())
        if model not in known:
            raise ModelNotFound(
                f"unknown model '{model}'; known are {', '.join(sorted(known)) or 'none'}"
            )

    def sample(self) -> AlertsSample:
        """All of it, for the metrics."""
        owed = Counter(dict.fromkeys(self._firings.actions, 0))
        for episode in self._book:
            owed.update(f.action for f in episode.firings if not f.phase.final)
        alerts = []
        for (model, version), known in sorted(self._versions.items()):
            rows = [(key.kind.value, key.name, each.shown) for key, each in known.standings()]
            alerts += [
                AlertSample(model=model, version=version, kind=kind, alert=name, state=level.value)
                for kind, name, level in (*rows, ("version", "", known.shown))
            ]
        return AlertsSample(
            states=[level.value for level in Level],
            alerts=alerts,
            episodes=[
                EpisodeSample(
                    model=episode.model,
                    version=episode.version,
                    began=episode.began,
                    acknowledged=bool(episode.acknowledged),
                )
                for episode in self._book
                if episode.ended is None
            ],
            episodes_begun=self._book.begun,
            attempts=self._firings.counts,
            pending=owed,
            messages=self._courier.counts,
            silenced=[m for m in self._serving.models() if self._book.silence_of(m) is not None],
            reports=self._counts,
        )


def _version_table(version: str, alerts: VersionAlerts) -> dict[str, Any]:
    return {
        "version": version,
        "state": alerts.shown.value,
        "window": alerts.window,
        "alerts": [
            {
                "kind": key.kind.value,
                "alert": key.name,
                "state": standing.shown.value,
                "finding": plain(asdict(alerts.findings[key])) if key in alerts.findings else None,
            }
            for key, standing in alerts.standings()
        ],
    }
