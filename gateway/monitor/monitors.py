"""The monitors' thread: takes what is published, and has every version's monitor look at it."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from gateway.drift_metrics import DriftSample
from gateway.errors import ModelNotFound, NotFound
from gateway.monitor.findings import WindowReport
from gateway.monitor.kinds import MonitorKind, ReportListener
from gateway.monitor.monitor_file import NAME as FILE_NAME
from gateway.monitor.monitor_file import MonitorSettings
from gateway.monitor.monitored import Key, Monitored
from gateway.monitor.tables import version_sample, version_table
from gateway.monitor.version_monitor import VersionMonitor
from gateway.stream.block import Block
from gateway.stream.stream import PredictionStream
from gateway.stream.subscription import Subscription

log = logging.getLogger(__name__)

#: The subscriber's name in the metrics.
NAME: Final = "monitors"
#: Memory of the predictions that wait for the thread.
MAX_BYTES: Final = 16 << 20
#: Seconds that predictions are gathered before the thread is woken: one wake-up for all.
GATHER_S: Final = 0.1
#: Seconds between two looks at the files and the clock.
LOOK_S: Final = 1.0
#: Rows that are counted at once; so many are copied together.
MAX_ROWS: Final = 16_384


class Monitors:
    """Watches the predictions of every model that has a ``monitor.toml``.

    Everything but the thread's own work is for the event loop's thread. The thread holds the
    interpreter for a few calls every ``GATHER_S``; what counts runs without it. It must not stand
    back behind others: whoever does so with the interpreter in hand has all of them wait.
    """

    def __init__(
        self,
        stream: PredictionStream,
        *,
        kinds: Sequence[MonitorKind] = (),
        listeners: Sequence[ReportListener] = (),
        keep: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Watch once started.

        Args:
            kinds: of monitors besides those of single features.
            listeners: are told of every window.
            keep: the directory that collected references are kept in; ``None`` for none.
            clock: Unix seconds, for windows by time.
        """
        self._stream: Final = stream
        self._listeners: Final = tuple(listeners)
        self._clock: Final = clock
        self._monitored: Final = Monitored(kinds, self._hand_on, keep)
        self._subscription: Final = Subscription(NAME, max_bytes=MAX_BYTES, notify=self._notify)
        self._awake: Final = threading.Event()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Final = threading.Thread(target=self._run, name="monitors", daemon=True)
        self._looked = 0.0

    # -- the event loop's side ----------------------------------------------------------------

    def start(self) -> None:
        """Begin, on the running loop; before the first model is loaded, so that none is missed."""
        self._loop = asyncio.get_running_loop()
        self._stream.subscribe(self._subscription)
        self._thread.start()

    async def close(self) -> None:
        """Look at what was published until now, and end."""
        if self._loop is None:
            return
        self._stopping = True
        self._awake.set()
        await asyncio.to_thread(self._thread.join)
        # What the thread has handed on comes before this.
        await asyncio.sleep(0)
        self._stream.unsubscribe(self._subscription)
        self._loop = None

    def _notify(self) -> None:
        assert self._loop is not None
        self._loop.call_later(GATHER_S, self._awake.set)

    def _report(self, report: WindowReport) -> None:
        for listener in self._listeners:
            listener.report(report)

    # -- what is asked ------------------------------------------------------------------------

    def drift(self, model: str, windows: int = 1) -> dict[str, Any]:
        """What was found of each version of a model, as JSON values; the last ``windows`` reports.

        Raises:
            ModelNotFound: nothing of the model is loaded, nor was watched.
            NotFound: it is not watched.
        """
        monitored, sources = self._monitored, self._stream.sources
        versions, problems = monitored.versions, monitored.problems
        # What the thread has not looked at yet.
        new = {key for key in sources if key not in monitored.sources}
        keys = sorted(key for key in {*versions, *problems, *new} if key[0] == model)
        if not keys and all(name != model for name, _ in sources):
            raise ModelNotFound(f"nothing is known of the drift of model '{model}': is it loaded?")
        if not keys:
            raise NotFound(
                f"model '{model}' is not monitored: put a {FILE_NAME} beside its model.toml"
            )
        return {
            "model": model,
            "versions": [
                version_table(
                    key[1],
                    versions.get(key),
                    problem=problems.get(key, ""),
                    loaded=key in sources,
                    windows=windows,
                )
                for key in keys
            ],
        }

    def settings(self, model: str, version: str) -> MonitorSettings | None:
        """What the ``monitor.toml`` of a version says; ``None`` where it is not watched."""
        watched = self._monitored.versions.get((model, version))
        return None if watched is None else watched.settings

    def samples(self) -> list[DriftSample]:
        """The versions that are watched, for the metrics."""
        monitored = self._monitored
        return [
            version_sample(monitored.versions[key], problem=key in monitored.problems)
            for key in sorted(monitored.versions)
            if key in self._stream.sources
        ]

    def _watch_without(self, models: frozenset[str]) -> None:
        self._subscription.without = models
        self._stream.reconnect()

    # -- the thread's -------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._awake.wait(LOOK_S)
            self._awake.clear()
            last = self._stopping
            try:
                self._turn()
            except Exception:
                log.exception("the monitors have failed; they try again")
            if last:
                return

    def _turn(self) -> None:
        sources = self._stream.sources
        now = time.monotonic()
        if now - self._looked >= LOOK_S or self._is_new(sources):
            self._looked = now
            self._monitored.follow(sources)
            self._hand_on_unwatched()
        while blocks := self._subscription.take(MAX_ROWS):
            if self._is_new(self._stream.sources):
                # A version that began meanwhile; its predictions are among these.
                self._monitored.follow(self._stream.sources)
            self._look_at(blocks)
        for version in self._monitored.loaded():
            self._guarded(version, partial(version.tick, self._clock()))

    def _hand_on(self, report: WindowReport) -> None:
        self._call_on_loop(self._report, report)

    def _hand_on_unwatched(self) -> None:
        if self._monitored.unwatched != self._subscription.without:
            self._call_on_loop(self._watch_without, self._monitored.unwatched)

    def _call_on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    def _is_new(self, sources: object) -> bool:
        return sources is not self._monitored.sources

    def _look_at(self, blocks: list[Block]) -> None:
        blocks.sort(key=_key)
        for key, group in groupby(blocks, _key):
            own = list(group)
            version = self._monitored.versions.get(key)
            if version is None:
                if key in self._monitored.problems:
                    self._subscription.lost(own, "no_reference")
                else:
                    self._subscription.delivered(own)
                continue
            before = version.lost_rows
            self._guarded(version, partial(version.take, own))
            # Of blocks that are unlike the profile, the rows are lost; the account is of blocks.
            if version.broken:
                self._subscription.lost(own, "monitor_failed")
            elif version.lost_rows - before == sum(block.rows for block in own):
                self._subscription.lost(own, "unlike_reference")
            else:
                self._subscription.delivered(own)

    def _guarded(self, version: VersionMonitor, step: Callable[[], None]) -> None:
        """One version's failure is its own."""
        if version.broken:
            return
        try:
            step()
        except Exception as error:
            version.broken = str(error) or type(error).__name__
            log.exception(
                "the monitor of model '%s' version '%s' has failed; until its monitor.toml changes "
                "or the version is loaded again, nothing is looked at",
                version.source.model,
                version.source.version,
            )


def _key(block: Block) -> Key:
    return block.model, block.version
