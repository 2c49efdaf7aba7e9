"""Loads versions on threads, has them serve, and sees them out."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeAlias

from gateway.control.memory_budget import MemoryBudget, estimate
from gateway.control.progress import LoadProgress
from gateway.control.repository import Fingerprint, ModelSource, fingerprint, version_key
from gateway.control.routing import Routing
from gateway.control.validation import check_budgets
from gateway.errors import ConfigError, LoadError, ShuttingDown
from gateway.serving.lane import BatchTap, Lane
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.loader import load_model
from gateway.serving.memory import FreeMemory
from gateway.serving.registry import ModelVersion, Registry
from gateway.serving.settings import ModelSettings

log = logging.getLogger(__name__)

#: What a version was loaded from: its files and settings.
Mark: TypeAlias = tuple[Fingerprint, ModelSettings]


class Taps(Protocol):
    """Who is shown the batches of every version."""

    def tap(self, loaded: LoadedModel) -> BatchTap:
        """What to show the batches of a version that is about to serve.

        Raises:
            ConfigError: its settings say something of that which does not fit it.
        """

    def untap(self, tap: Any) -> None:
        """The version that ``tap`` was given for shows it nothing more."""


class Loading:
    """The versions that are in memory, and their way into it and out of it.

    For the event loop's thread; models are loaded on loader threads of its own. Which versions are
    to be loaded is the caller's business, who also sees to it that two loads of one model follow
    one another.

    Attributes:
        budget: what the versions take.
        loads: loads of versions by model, and by outcome: ``ok`` or ``failed``.
        stand_back: whether loads leave the processor to requests, see ``load_model``: at the start
            everybody waits for them, later somebody is being served.
        closing: whether the server is on its way out, and nothing more is to serve.
        noted: awaited after each load of a version with what was loaded, ``None`` where it failed.
    """

    def __init__(
        self,
        registry: Registry,
        routing: Routing,
        *,
        inline_threshold_ns: int,
        threads: int,
        budget: MemoryBudget,
        taps: Taps | None,
    ) -> None:
        """Load into ``registry`` with ``threads`` threads; for the rest see ``Manager``."""
        self.budget: Final = budget
        self.loads: Final[dict[str, dict[str, int]]] = {}
        self.stand_back = False
        self.closing = False
        self.noted: Callable[[ModelVersion, LoadedModel | None], Awaitable[None]] = _nobody_notes
        self._registry = registry
        self._routing = routing
        self._inline_threshold_ns = inline_threshold_ns
        self._taps = taps
        self._tapped: dict[ModelVersion, BatchTap] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
        # Whoever waits for a thread waits here, so that what is told of a load counts from its own
        # beginning.
        self._free_threads = asyncio.Semaphore(threads)
        self._running: dict[Future[LoadedModel], ModelVersion] = {}
        # Those that another load ran beside, whose memory nobody can tell apart.
        self._beside_others: set[ModelVersion] = set()
        self._progress = LoadProgress()
        self._marks: dict[ModelVersion, Mark] = {}
        self._retiring: dict[asyncio.Task[None], ModelVersion] = {}
        self._held: Counter[tuple[str, str]] = Counter()
        self._free_memory = FreeMemory(asyncio.get_running_loop())

    # -- what there is ------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a loader thread is at work; one stays so when nobody waits for it any more."""
        return bool(self._running)

    def versions(self, name: str = "") -> list[ModelVersion]:
        """The known versions, of one model where it is named, in their natural order."""
        known = self._registry.versions(name).values() if name else self._registry
        return sorted(known, key=lambda entry: (entry.name, version_key(entry.version)))

    def serving(self, name: str, version: str) -> ModelVersion | None:
        """The version, if it is READY."""
        entry = self._registry.get(name, version)
        return entry if entry is not None and entry.state is State.READY else None

    def mark(self, entry: ModelVersion) -> Mark | None:
        """What ``entry`` was loaded from, if it serves."""
        return self._marks.get(entry)

    def beside(self, name: str, needed: set[str]) -> list[ModelVersion]:
        """The versions that serve, are not ``needed``, and that nobody is ``holding``."""
        return [
            entry
            for entry in self.versions(name)
            if entry.state is State.READY
            and entry.version not in needed
            and not self._held[name, entry.version]
        ]

    @contextmanager
    def holding(self, name: str, version: str) -> Iterator[None]:
        """Keep the version loaded for as long as the block runs, although nobody names it yet."""
        self._held[name, version] += 1
        try:
            yield
        finally:
            self._held[name, version] -= 1

    # -- in -----------------------------------------------------------------------------------

    async def load(
        self, source: ModelSource, version: str, mark: Mark, *, again: bool = False
    ) -> ModelVersion:
        """The version, loaded; what serves under its name is retired then.

        Args:
            mark: see ``mark_of``.
            again: it has served a moment ago, and is not asked whether it fits.

        Raises:
            LoadError: it cannot be served; everything else is as before.
        """
        old = self.serving(source.name, version)
        entry = ModelVersion(source.name, version)
        if old is None:
            self._registry.add(entry)
            self._routing.publish()
        try:
            loaded = await self._load_valid(entry, source, again)
        except BaseException as error:
            await self.failed(entry, error)
            raise
        if self.closing:
            entry.move(State.FAILED, "the server shut down while it was loading")
            self._untap(entry)
            self.budget.release(entry)
            raise ShuttingDown(f"{entry.label}: {entry.reason}")
        self._serve(entry, loaded)
        self._marks[entry] = mark
        self._count(entry.name, "ok")
        if old is not None:
            self.retire([old])
        await self.noted(entry, loaded)
        return entry

    async def refuse(self, entry: ModelVersion, error: LoadError) -> None:
        """Tell everybody that ``entry`` is not even tried; what serves under its name does."""
        if self.serving(entry.name, entry.version) is None:
            self._registry.add(entry)
        await self.failed(entry, error)

    async def failed(self, entry: ModelVersion, error: BaseException) -> None:
        """Tell everybody that ``entry`` is not to serve; raises a ``LoadError`` where it may."""
        # A load that nobody waits for any more releases it when its thread is done.
        if not isinstance(error, asyncio.CancelledError):
            self.budget.release(entry)
        if isinstance(error, LoadError):
            entry.move(State.FAILED, str(error))
            log.error("failed to load: %s", error)
        elif isinstance(error, Exception):
            # A model that surprises the loader costs itself, not the models beside it.
            reason = f"{entry.label}: the loader failed on it: {error!r}"
            entry.move(State.FAILED, reason)
            log.error("failed to load: %s", reason, exc_info=error)
        else:
            entry.move(State.FAILED, str(error) or type(error).__name__)
            return
        self._count(entry.name, "failed")
        self._routing.publish()
        await self.noted(entry, None)
        if not isinstance(error, LoadError):
            raise LoadError(entry.reason) from error

    async def _load_valid(
        self, entry: ModelVersion, source: ModelSource, again: bool
    ) -> LoadedModel:
        loaded = await self._load_on_thread(entry, source, again)
        if not again:
            self._validate(entry, loaded)
        if self._taps is not None:
            try:
                self._tapped[entry] = self._taps.tap(loaded)
            except ConfigError as error:
                raise LoadError(f"{entry.label}: {error}") from error
        return loaded

    def _validate(self, entry: ModelVersion, loaded: LoadedModel) -> None:
        """Hold a loaded version to its budgets. Raises ``LoadError``."""
        default, swap = self._routing.default(entry.name), self._routing.swap(entry.name)
        serving = default.lane.loaded if default and default.lane else None
        if serving is None and swap is not None:
            serving = swap.loaded
        check_budgets(loaded, serving)

    async def _load_on_thread(
        self, entry: ModelVersion, source: ModelSource, again: bool
    ) -> LoadedModel:
        loop = asyncio.get_running_loop()
        path = source.found[entry.version]
        needed = await asyncio.to_thread(estimate, path, source.settings.instances)

        def report(state: State, phase: str) -> None:
            loop.call_soon_threadsafe(self._progress.phase, entry, state, phase)

        async with self._free_threads:
            # Here, and not before the wait, so that the machine's figures are of this moment.
            (self.budget.hold if again else self.budget.reserve)(entry, needed)
            entry.move(State.LOADING)
            started = time.monotonic()
            load = self._pool.submit(
                load_model,
                entry.name,
                entry.version,
                path,
                source.settings,
                progress=report,
                stand_back=self.stand_back,
            )
            if self._running:
                self._beside_others.update((entry, *self._running.values()))
            self._running[load] = entry
            load.add_done_callback(self._running.pop)
            with self._progress.track(entry):
                try:
                    loaded = await asyncio.wrap_future(load)
                except asyncio.CancelledError:
                    self._release_after(load, entry)
                    raise
                finally:
                    alone = entry not in self._beside_others
                    self._beside_others.discard(entry)
        self.budget.settle(entry, loaded.memory_bytes if alone else 0)
        _announce(entry, loaded, time.monotonic() - started)
        return loaded

    def _release_after(self, load: Future[LoadedModel], entry: ModelVersion) -> None:
        """Count the memory of a load that was given up until its thread, which goes on, is done."""
        loop = asyncio.get_running_loop()

        def release(_: Future[LoadedModel]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.budget.release, entry)

        load.add_done_callback(release)

    def _serve(self, entry: ModelVersion, loaded: LoadedModel) -> None:
        """Give a loaded version its lane, then announce it, then move the route."""
        entry.lane = Lane(
            loaded, asyncio.get_running_loop(), inline_threshold_ns=self._inline_threshold_ns
        )
        if (tap := self._tapped.get(entry)) is not None:
            entry.lane.taps = (tap,)
        entry.move(State.READY)
        self._registry.add(entry)
        self._routing.publish()

    def _count(self, name: str, outcome: str) -> None:
        counts = self.loads.setdefault(name, {})
        counts[outcome] = counts.get(outcome, 0) + 1

    # -- out ----------------------------------------------------------------------------------

    def retire(self, versions: Iterable[ModelVersion]) -> list[asyncio.Task[None]]:
        """Announce that the versions drain, take them off the route, and see them out.

        Returns the tasks that end when a version is unloaded.
        """
        retired = list(versions)
        for entry in retired:
            entry.move(State.DRAINING)
            self._marks.pop(entry, None)
        self._routing.publish()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._see_out(entry)) for entry in retired]
        for task in tasks:
            task.add_done_callback(self._retiring.pop)
        self._retiring.update(zip(tasks, retired, strict=True))
        return tasks

    async def wait_until_gone(self, name: str) -> None:
        """Wait until the versions of the model that are being retired are unloaded."""
        if going := [task for task, entry in self._retiring.items() if entry.name == name]:
            await asyncio.wait(going)

    async def close(self) -> None:
        """Retire every version and stop the loader threads; waits for all requests in flight."""
        self.closing = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.retire(entry for entry in self._registry if entry.state is State.READY)
        while self._retiring:
            await asyncio.wait(self._retiring)
        self._free_memory.close()

    async def _see_out(self, entry: ModelVersion) -> None:
        """Wait for the requests that a version has, and free its memory."""
        assert entry.lane is not None
        await entry.lane.drain()
        await entry.lane.close()
        entry.lane = None
        self._untap(entry)
        self._free_memory.freed()
        self.budget.release(entry)
        entry.move(State.UNLOADED)
        log.info("%s is unloaded", entry.label)

    def _untap(self, entry: ModelVersion) -> None:
        tap = self._tapped.pop(entry, None)
        if tap is not None and self._taps is not None:
            self._taps.untap(tap)


async def mark_of(source: ModelSource, version: str) -> Mark:
    """What the version would be loaded from now."""
    files = await asyncio.to_thread(fingerprint, source, source.found[version])
    return files, source.settings


async def _nobody_notes(entry: ModelVersion, loaded: LoadedModel | None) -> None:
    """Where nobody keeps a record."""


def _announce(entry: ModelVersion, loaded: LoadedModel, seconds: float) -> None:
    session = loaded.sessions[0]
    batch = loaded.signature.max_batch_size
    log.info(
        "%s is loaded in %.1f s: %s, %s, %d instance%s",
        entry.label,
        seconds,
        f"batches of up to {batch} rows" if batch else "one request at a time",
        session.providers[0],
        len(loaded.sessions),
        "" if len(loaded.sessions) == 1 else "s",
    )
