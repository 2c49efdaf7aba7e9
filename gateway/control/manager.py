"""Loads and unloads model versions, and moves the route to what serves."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from gateway.control.memory_budget import MemoryBudget, estimate
from gateway.control.progress import LoadProgress
from gateway.control.repository import (
    Fingerprint,
    ModelSource,
    fingerprint,
    scan_repositories,
    version_key,
)
from gateway.control.routing import Routing, Swap
from gateway.control.validation import check_budgets
from gateway.errors import LoadError, ModelNotFound, ShuttingDown
from gateway.serving.lane import Lane
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.loader import load_model
from gateway.serving.memory import give_back_free_memory
from gateway.serving.registry import ModelVersion, Registry
from gateway.serving.settings import IN_PLACE, ModelSettings

log = logging.getLogger(__name__)

#: Seconds for which an unload waits for the model's last requests.
UNLOAD_WAIT_S: Final = 1.0

#: What a version was loaded from: its files and settings.
Mark: TypeAlias = tuple[Fingerprint, ModelSettings]


class Manager:
    """The control plane's hands: the only one that changes what is loaded.

    Every method is for the event loop's thread; files are read and models loaded on loader threads
    of its own. Two loads of one model follow one another. A version serves as soon as it is loaded,
    probed and warmed; only then does the route move to it, and what it replaces finishes the
    requests it has.
    """

    def __init__(
        self,
        repositories: Sequence[Path],
        registry: Registry,
        routing: Routing,
        *,
        inline_threshold_ns: int,
        load_threads: int = 1,
        strict_readiness: bool = True,
        budget: MemoryBudget | None = None,
    ) -> None:
        """Manage what the ``repositories`` hold; nothing is read before ``start``.

        Args:
            routing: told of every change; knows which versions the traffic needs.
            inline_threshold_ns: see ``Lane``.
            load_threads: models that are loaded at the same time.
            strict_readiness: ready only when every model that should be loaded serves.
            budget: what refuses loads that do not fit into memory; by what the machine has where
                ``None``.
        """
        self._repositories = tuple(repositories)
        self._registry = registry
        self._routing = routing
        self._inline_threshold_ns = inline_threshold_ns
        self._strict = strict_readiness
        #: What the versions take.
        self.budget: Final = budget or MemoryBudget()
        self._pool = ThreadPoolExecutor(load_threads, thread_name_prefix="loader")
        # Whoever waits for a thread waits here, so that what is told of a load counts from its own
        # beginning.
        self._free_threads = asyncio.Semaphore(load_threads)
        self._loads: set[Future[LoadedModel]] = set()
        self._sources: dict[str, ModelSource] = {}
        self._wanted: set[str] = set()
        self._fingerprints: dict[ModelVersion, Mark] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._progress = LoadProgress()
        self._retiring: dict[asyncio.Task[None], ModelVersion] = {}
        self._held: Counter[tuple[str, str]] = Counter()
        self._started = False
        self._closing = False
        #: Loads of versions by model, and by outcome: ``ok`` or ``failed``.
        self.loads: dict[str, dict[str, int]] = {}
        #: Awaited after each load of a version with what was loaded, ``None`` where it failed.
        self.noted: Callable[[ModelVersion, LoadedModel | None], Awaitable[None]] = _nobody_notes
        #: Awaited once the versions of a model are loaded, before those nobody needs are retired.
        self.settled: Callable[[str], Awaitable[None]] = _nobody_settles

    # -- what there is ------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the server should be sent requests."""
        if not self._started or self._closing:
            return False
        return not self._strict or all(self._routing.default(name) for name in self._wanted)

    @property
    def loading(self) -> bool:
        """Whether a loader thread is at work; one stays so when nobody waits for it any more."""
        return bool(self._loads)

    def versions(self, name: str = "") -> list[ModelVersion]:
        """The known versions, of one model where it is named, in their natural order."""
        known = self._registry.versions(name).values() if name else self._registry
        return sorted(known, key=lambda entry: (entry.name, version_key(entry.version)))

    def has_version(self, name: str, version: str) -> bool:
        """Whether the version is known, or was in its repository at the last look."""
        source = self._sources.get(name)
        found = source is not None and version in source.found
        return found or self._registry.get(name, version) is not None

    def routed(self, name: str) -> ModelVersion | None:
        """The version that answers a request which names none."""
        return self._routing.default(name)

    def wants(self, name: str) -> bool:
        """Whether the model is to be loaded by itself at a start."""
        return name in self._wanted

    def unloaded_models(self) -> dict[str, str]:
        """Models that the repositories hold and nobody loaded, with the reason."""
        known = set(self._registry.names())
        return {
            name: "not loaded" if source.versions else "; ".join(source.problems)
            for name, source in self._sources.items()
            if name not in known
        }

    # -- changes ------------------------------------------------------------------------------

    async def start(self, names: Sequence[str] | None = None) -> list[str]:
        """Load the named models, all that the repositories hold where ``None``.

        Returns:
            what failed, a sentence for each model; the others serve.
        """
        await self._scan()
        self._wanted = set(self._sources if names is None or "*" in names else names)
        for name, traffic in self._routing.decided().items():
            if traffic.loaded is False:
                self._wanted.discard(name)
            elif traffic.loaded and name in self._sources:
                self._wanted.add(name)
        wanted = sorted(self._wanted)
        log.info("loading %d models: %s", len(wanted), ", ".join(wanted) or "none were found")
        outcomes = await asyncio.gather(
            *(self._locked(name, self._load) for name in wanted), return_exceptions=True
        )
        self._started = True
        failures = []
        for outcome in outcomes:
            if isinstance(outcome, (LoadError, ModelNotFound)):
                failures.append(str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        return failures

    async def load(self, name: str) -> None:
        """Read the model's repository again, and load what is new or has changed there.

        Returns when the new versions serve. Where one fails, those that served before serve on.

        Raises:
            ModelNotFound: no repository holds the model.
            LoadError: the model, or a version of it, cannot be served.
            ShuttingDown: the server is on its way out.
        """
        if self._closing:
            raise ShuttingDown("the server is shutting down and loads no models")
        await self._scan()
        await self._locked(name, self._load)
        self._wanted.add(name)

    async def ensure(self, name: str, version: str, *, stable: bool = False) -> ModelVersion:
        """The version, serving: loaded now where it is not.

        The caller is ``holding`` it, or names it in the traffic, before it awaits anything else.

        Args:
            stable: it is to be the stable version: where the model swaps in place, those that it
                replaces go first. If nothing comes of it, the caller sees to ``restore``.

        Raises:
            ModelNotFound: no repository holds it.
            LoadError: it cannot be served.
            ShuttingDown: the server is on its way out.
        """
        entry = self._registry.get(name, version)
        if entry is not None and entry.state is State.READY:
            return entry
        if self._closing:
            raise ShuttingDown("the server is shutting down and loads no models")
        async with self._locks.setdefault(name, asyncio.Lock()):
            await self._scan()
            source = self._source(name)
            if version not in source.found:
                raise ModelNotFound(
                    f"unknown version '{version}' of model '{name}': its repository holds "
                    f"{list(source.found)}"
                )
            if not self._routing.policy(name):
                # Never loaded as a whole: this version may be one that does not serve unasked.
                self._routing.set_policy(name, frozenset(source.versions))
            needed = self._routing.needed(name, stable=version) if stable else None
            return await self._load_if_changed(source, version, needed)

    async def restore(self, name: str) -> None:
        """Load again what served before a swap in place, where nothing serves in its place."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            await self._scan()
            if (swap := self._routing.swap(name)) is not None:
                await self._make_room(name, self._replaced(name, self._routing.needed(name)))
                log.warning("model '%s': %s", name, await self._bring_back(name, swap))

    @contextmanager
    def holding(self, name: str, version: str) -> Iterator[None]:
        """Keep the version loaded for as long as the block runs, although nobody names it yet."""
        self._held[name, version] += 1
        try:
            yield
        finally:
            self._held[name, version] -= 1

    def release(self, name: str) -> None:
        """Retire the versions that neither the policy chooses nor the traffic needs any more."""
        needed = self._routing.needed(name)
        self._retire(
            entry
            for entry in self.versions(name)
            if entry.state is State.READY
            and entry.version not in needed
            and not self._held[name, entry.version]
        )

    async def unload(
        self, name: str, decide: Callable[[Callable[[], None]], Awaitable[None]] | None = None
    ) -> None:
        """Take every version of the model out of service, and of memory once it is idle.

        Waits for loads of the model that are under way; then new requests are refused. Returns when
        the versions are unloaded, or after ``UNLOAD_WAIT_S`` while their last requests still run.

        Args:
            decide: awaited before; it calls what it is given in the moment in which it is decided.

        Raises:
            ModelNotFound: nobody knows the model.
        """
        leaving: list[asyncio.Task[None]] = []

        def take_out() -> None:
            self._wanted.discard(name)
            self._routing.end_swap(name)
            ready = (entry for entry in self.versions(name) if entry.state is State.READY)
            leaving.extend(self._retire(ready))

        async with self._locks.setdefault(name, asyncio.Lock()):
            if not self.versions(name) and name not in self.unloaded_models():
                raise ModelNotFound(f"unknown model '{name}': there is nothing to unload")
            if decide is None:
                take_out()
            else:
                await decide(take_out)
            if leaving:
                await asyncio.wait(leaving, timeout=UNLOAD_WAIT_S)

    def refuse_readiness(self) -> None:
        """From now on the server is not ready, and nothing more is loaded."""
        self._closing = True

    async def close(self) -> None:
        """Retire every version and stop the loader threads; waits for all requests in flight."""
        self._closing = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._retire(entry for entry in self._registry if entry.state is State.READY)
        while self._retiring:
            await asyncio.wait(self._retiring)

    async def _locked(self, name: str, change: Callable[[str], Awaitable[None]]) -> None:
        async with self._locks.setdefault(name, asyncio.Lock()):
            await change(name)

    async def _load(self, name: str) -> None:
        source = self._source(name)
        for problem in source.problems:
            log.warning("model '%s': %s", name, problem)
        if ignored := source.settings.ignored:
            log.warning(
                "model '%s': not honoured in %s: %s",
                name,
                source.settings.source,
                ", ".join(ignored),
            )
        routing = self._routing
        chosen = frozenset(source.versions)
        needed = routing.needed(name, policy=chosen)
        # Until all of them serve, what was chosen before may still be the latest.
        routing.set_policy(name, routing.policy(name) | chosen)
        failures = []
        for version in self._wanted_versions(source, needed):
            try:
                await self._load_if_changed(source, version, needed)
            except LoadError as error:
                failures.append(str(error))
        await self.settled(name)
        if failures:
            raise LoadError("; ".join(failures))
        routing.set_policy(name, chosen)
        self.release(name)

    def _source(self, name: str) -> ModelSource:
        source = self._sources.get(name)
        if source is None:
            places = ", ".join(str(path) for path in self._repositories)
            raise ModelNotFound(f"unknown model '{name}': it is not in {places}")
        if not source.versions:
            reason = f"model '{name}' cannot be served: {'; '.join(source.problems)}"
            log.error("%s", reason)
            raise LoadError(reason)
        return source

    def _wanted_versions(self, source: ModelSource, needed: set[str]) -> list[str]:
        """The versions that the policy chooses or the traffic names, lowest first."""
        for version in sorted(needed - source.found.keys(), key=version_key):
            log.warning(
                "model '%s': its traffic names version '%s', which is not in its repository",
                source.name,
                version,
            )
        return [v for v in source.found if v in needed]

    async def _load_if_changed(
        self, source: ModelSource, version: str, needed: set[str] | None
    ) -> ModelVersion:
        """The version as it is in the repository now, serving; raises ``LoadError``.

        Args:
            needed: where the model swaps in place, what does not go before the version is loaded;
                ``None`` for everything.
        """
        path = source.found[version]
        mark = (await asyncio.to_thread(fingerprint, source, path), source.settings)
        old = self._registry.get(source.name, version)
        if old is not None and old.state is not State.READY:
            old = None
        if old is not None and self._fingerprints.get(old) == mark:
            return old
        if needed is not None and source.name in self._routing.in_place:
            leaving = self._replaced(source.name, needed - {version})
            if leaving:
                return await self._to_the_end(self._swap(source, version, mark, leaving))
        return await self._load_anew(source, version, mark)

    async def _load_anew(
        self, source: ModelSource, version: str, mark: Mark, *, again: bool = False
    ) -> ModelVersion:
        """The version, loaded; what serves under its name is retired then.

        Args:
            again: it has served a moment ago, and is not asked whether it fits.

        Raises:
            LoadError: it cannot be served; everything else is as before.
        """
        old = self._registry.get(source.name, version)
        if old is not None and old.state is not State.READY:
            old = None
        entry = ModelVersion(source.name, version)
        if old is None:
            self._registry.add(entry)
            self._routing.publish()
        try:
            loaded = await self._load_valid(entry, source, again)
        except BaseException as error:
            await self._failed(entry, error)
            raise
        if self._closing:
            entry.move(State.FAILED, "the server shut down while it was loading")
            self.budget.release(entry)
            raise ShuttingDown(f"{entry.label}: {entry.reason}")
        self._serve(entry, loaded)
        self._fingerprints[entry] = mark
        self._count_load(entry.name, "ok")
        if old is not None:
            self._retire([old])
        await self.noted(entry, loaded)
        return entry

    # -- swapping in place --------------------------------------------------------------------

    def _replaced(self, name: str, needed: set[str]) -> list[ModelVersion]:
        """What goes before a version of the model is loaded beside those that are ``needed``."""
        return [
            entry
            for entry in self.versions(name)
            if entry.state is State.READY
            and entry.version not in needed
            and not self._held[name, entry.version]
        ]

    async def _swap(
        self, source: ModelSource, version: str, mark: Mark, leaving: list[ModelVersion]
    ) -> ModelVersion:
        """Unload ``leaving``, then load the version; if that fails, what served serves again.

        Raises:
            LoadError: the version cannot be served; the message says what serves.
        """
        name, routing = source.name, self._routing
        path = source.found[version]
        needed = await asyncio.to_thread(estimate, path, source.settings.instances)
        # What cannot fit costs nobody the version that serves.
        await self._refuse_unfit(ModelVersion(name, version), needed, leaving)
        default = routing.default(name)
        before = self._fingerprints.get(default) if default else None
        if default is not None and default in leaving:
            routing.begin_swap(default)
        log.info("model '%s' is swapped in place: version '%s' comes next", name, version)
        await self._make_room(name, leaving)
        try:
            return await self._load_anew(source, version, mark)
        except LoadError as error:
            swap = routing.swap(name)
            if swap is None:
                raise
            failed = str(error)
        replaced = swap.entry.version == version and before is not None and before[0] != mark[0]
        raise LoadError(f"{failed}; {await self._bring_back(name, swap, replaced=replaced)}")

    async def _make_room(self, name: str, leaving: list[ModelVersion]) -> None:
        """Unload versions of the model; waits for their last requests."""
        self._retire(leaving)
        if going := [task for task, entry in self._retiring.items() if entry.name == name]:
            await asyncio.wait(going)

    async def _refuse_unfit(
        self, entry: ModelVersion, needed: int, leaving: list[ModelVersion]
    ) -> None:
        try:
            self.budget.check(entry, needed, leaving)
        except LoadError as error:
            known = self._registry.get(entry.name, entry.version)
            if known is None or known.state is not State.READY:
                self._registry.add(entry)
            await self._failed(entry, error)
            raise

    async def _bring_back(self, name: str, swap: Swap, *, replaced: bool = False) -> str:
        """Load what served before a swap in place; a sentence about how that went.

        Args:
            replaced: its files are not those that it was loaded from.
        """
        routing, version = self._routing, swap.entry.version
        source = self._sources.get(name)
        routing.set_policy(name, routing.policy(name) | {version})
        if source is None or version not in source.found or replaced:
            routing.end_swap(name)
            return f"what served before cannot serve again: the file of version '{version}' is gone"
        # With the settings that it served with.
        source = replace(source, settings=swap.loaded.settings)
        mark = (
            await asyncio.to_thread(fingerprint, source, source.found[version]),
            source.settings,
        )
        try:
            await self._load_anew(source, version, mark, again=True)
        except (LoadError, ShuttingDown) as error:
            routing.end_swap(name)
            return f"version '{version}', which served before, could not be loaded again: {error}"
        return f"version '{version}', which served before, is loaded again"

    async def _to_the_end(self, swap: Coroutine[Any, Any, ModelVersion]) -> ModelVersion:
        """Await a swap, which is not given up half-way where its caller is cancelled.

        But at the end of the server, when nothing is to come any more.
        """
        task = asyncio.get_running_loop().create_task(swap)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._closing:
                task.cancel()
            # The model's lock is kept until it is over; how it ended is in the log and the journal.
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()
            raise

    async def _failed(self, entry: ModelVersion, error: BaseException) -> None:
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
        self._count_load(entry.name, "failed")
        self._routing.publish()
        await self.noted(entry, None)
        if not isinstance(error, LoadError):
            raise LoadError(entry.reason) from error

    def _validate(self, entry: ModelVersion, loaded: LoadedModel) -> None:
        """Hold a loaded version to its budgets. Raises ``LoadError``."""
        default, swap = self._routing.default(entry.name), self._routing.swap(entry.name)
        serving = default.lane.loaded if default and default.lane else None
        if serving is None and swap is not None:
            serving = swap.loaded
        check_budgets(loaded, serving)

    def _count_load(self, name: str, outcome: str) -> None:
        counts = self.loads.setdefault(name, {})
        counts[outcome] = counts.get(outcome, 0) + 1

    async def _load_valid(
        self, entry: ModelVersion, source: ModelSource, again: bool
    ) -> LoadedModel:
        loaded = await self._load_version(entry, source, again)
        if not again:
            self._validate(entry, loaded)
        return loaded

    async def _load_version(
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
                # At the start everybody waits for it; later somebody is being served.
                stand_back=self._started,
            )
            self._loads.add(load)
            load.add_done_callback(self._loads.discard)
            with self._progress.track(entry):
                try:
                    loaded = await asyncio.wrap_future(load)
                except asyncio.CancelledError:
                    self._release_after(load, entry)
                    raise
        self.budget.settle(entry, loaded.memory_bytes)
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
        entry.move(State.READY)
        self._registry.add(entry)
        self._routing.publish()

    def _retire(self, versions: Iterable[ModelVersion]) -> list[asyncio.Task[None]]:
        """Announce that the versions drain, take them off the route, and see them out.

        Returns the tasks that end when a version is unloaded.
        """
        retired = list(versions)
        for entry in retired:
            entry.move(State.DRAINING)
            self._fingerprints.pop(entry, None)
        self._routing.publish()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._see_out(entry)) for entry in retired]
        for task in tasks:
            task.add_done_callback(self._retiring.pop)
        self._retiring.update(zip(tasks, retired, strict=True))
        return tasks

    async def _see_out(self, entry: ModelVersion) -> None:
        """Wait for the requests that a version has, and free its memory."""
        assert entry.lane is not None
        await entry.lane.drain()
        await entry.lane.close()
        entry.lane = None
        await asyncio.to_thread(give_back_free_memory)
        self.budget.release(entry)
        entry.move(State.UNLOADED)
        log.info("%s is unloaded", entry.label)

    async def _scan(self) -> None:
        """Read the repositories again, off the loop."""
        self._sources = await asyncio.to_thread(scan_repositories, self._repositories)
        self._routing.in_place = frozenset(
            name
            for name, source in self._sources.items()
            if source.settings.swap_policy == IN_PLACE
        )


async def _nobody_notes(entry: ModelVersion, loaded: LoadedModel | None) -> None:
    """Where nobody keeps a record."""


async def _nobody_settles(name: str) -> None:
    """Where nothing follows from a load."""


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
