"""Decides which versions are loaded, from what the repositories hold and what the traffic needs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from gateway.control.in_place import InPlaceSwaps
from gateway.control.loading import Loading, Taps, mark_of
from gateway.control.memory_budget import MemoryBudget
from gateway.control.repository import ModelSource, scan_repositories, version_key
from gateway.control.routing import Routing
from gateway.control.stand_in import stand_ins
from gateway.control.traffic import LATEST
from gateway.errors import LoadError, ModelNotFound, ShuttingDown
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.registry import ModelVersion, Registry
from gateway.serving.settings import IN_PLACE

log = logging.getLogger(__name__)

#: Seconds for which an unload waits for the model's last requests.
UNLOAD_WAIT_S: Final = 1.0


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
        taps: Taps | None = None,
    ) -> None:
        """Manage what the ``repositories`` hold; nothing is read before ``start``.

        Args:
            routing: told of every change; knows which versions the traffic needs.
            inline_threshold_ns: see ``Lane``.
            load_threads: models that are loaded at the same time.
            strict_readiness: ready only when every model that should be loaded serves.
            budget: what refuses loads that do not fit into memory; by what the machine has where
                ``None``.
            taps: what every version's batches are shown to besides those who answer them.
        """
        self._repositories = tuple(repositories)
        self._registry = registry
        self._routing = routing
        self._strict = strict_readiness
        self._loading = Loading(
            registry,
            routing,
            inline_threshold_ns=inline_threshold_ns,
            threads=load_threads,
            budget=budget or MemoryBudget(),
            taps=taps,
        )
        self._swaps = InPlaceSwaps(self._loading, routing)
        self._sources: dict[str, ModelSource] = {}
        self._wanted: set[str] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._started = False
        #: Awaited once the versions of a model are loaded, before those nobody needs are retired.
        self.settled: Callable[[str], Awaitable[None]] = _nobody_settles

    # -- what there is ------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the server should be sent requests."""
        if not self._started or self._loading.closing:
            return False
        return not self._strict or all(self._routing.default(name) for name in self._wanted)

    @property
    def loading(self) -> bool:
        """Whether a loader thread is at work; one stays so when nobody waits for it any more."""
        return self._loading.busy

    @property
    def budget(self) -> MemoryBudget:
        """What the versions take."""
        return self._loading.budget

    @property
    def loads(self) -> dict[str, dict[str, int]]:
        """Loads of versions by model, and by outcome: ``ok`` or ``failed``."""
        return self._loading.loads

    def note_loads(
        self, noted: Callable[[ModelVersion, LoadedModel | None], Awaitable[None]]
    ) -> None:
        """Have ``noted`` awaited after each load of a version; see ``Loading.noted``."""
        self._loading.noted = noted

    def versions(self, name: str = "") -> list[ModelVersion]:
        """The known versions, of one model where it is named, in their natural order."""
        return self._loading.versions(name)

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
            *(self._load_whole(name) for name in wanted), return_exceptions=True
        )
        self._started = self._loading.stand_back = True
        failures = []
        for outcome in outcomes:
            if isinstance(outcome, (LoadError, ModelNotFound)):
                failures.append(str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        return failures

    async def load(self, name: str) -> None:
        """Read the model's repository again, and load what is new or has changed there.

        Returns when the new versions serve. Where one fails, those that served before serve on; if
        there are none, the next best version that can be loaded does, see ``stand_ins``.

        Raises:
            ModelNotFound: no repository holds the model.
            LoadError: the model, or a version of it, cannot be served; ``routed`` tells whether
                anything serves.
            ShuttingDown: the server is on its way out.
        """
        if self._loading.closing:
            raise ShuttingDown("the server is shutting down and loads no models")
        await self._scan()
        try:
            await self._load_whole(name)
        except LoadError:
            if self.routed(name) is not None:
                self._wanted.add(name)
            raise
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
        if self._loading.closing:
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
            await self._swaps.restore(name, self._sources.get(name))

    def holding(self, name: str, version: str) -> AbstractContextManager[None]:
        """Keep the version loaded for as long as the block runs, although nobody names it yet."""
        return self._loading.holding(name, version)

    def release(self, name: str) -> None:
        """Retire the versions that neither the policy chooses nor the traffic needs any more."""
        self._loading.retire(self._loading.beside(name, self._routing.needed(name)))

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
            leaving.extend(self._loading.retire(ready))

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
        self._loading.closing = True

    async def close(self) -> None:
        """Retire every version and stop the loader threads; waits for all requests in flight."""
        await self._loading.close()

    async def _load_whole(self, name: str) -> None:
        """Load the model's versions, and the version of another model that shadows it."""
        failures = []
        try:
            async with self._locks.setdefault(name, asyncio.Lock()):
                await self._load(name)
        except LoadError as error:
            failures.append(str(error))
        # Not within the lock: two models may shadow one another.
        try:
            await self._load_shadow(name)
        except (LoadError, ModelNotFound) as error:
            failures.append(f"model '{name}' is not shadowed: {error}")
        if failures:
            raise LoadError("; ".join(failures))

    async def _load_shadow(self, name: str) -> None:
        """Load the model's shadow where it is a version of one that is not loaded by itself."""
        plan = self._routing.traffic(name).shadow
        if plan is None or plan.model in ("", name) or plan.model in self._wanted:
            return
        if self._routing.traffic(plan.model).loaded is False:
            log.warning(
                "model '%s' is not shadowed: model '%s', of which version '%s' is its shadow, was "
                "unloaded",
                name,
                plan.model,
                plan.version,
            )
            return
        await self.ensure(plan.model, plan.version)

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
        failures += await self._find_stand_in(source)
        await self.settled(name)
        if failures:
            raise LoadError("; ".join(failures))
        routing.set_policy(name, chosen)
        self.release(name)

    async def _find_stand_in(self, source: ModelSource) -> list[str]:
        """Where what is to answer does not serve, have the next best version do so.

        Returns:
            what there is to tell about it: nothing where what is to answer does.
        """
        name, routing = source.name, self._routing
        stable = routing.traffic(name).stable
        if routing.meant(name) is not None or routing.swap(name) is not None:
            return []
        for version in stand_ins(source, routing.traffic(name)):
            try:
                await self._load_if_changed(source, version, None)
            except LoadError:
                # It is in the log and the journal, as every load that fails.
                continue
            routing.set_stand_in(name, version)
            place = "the latest one" if stable == LATEST else f"version '{stable}'"
            told = (
                f"version '{version}' of model '{name}' answers in the place of {place}, which "
                "cannot be served"
            )
            log.error("%s", told)
            return [told]
        if stable == LATEST or stable in source.found:
            return []
        return [
            f"version '{stable}' of model '{name}', which is to answer, is not in its repository"
        ]

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
        mark = await mark_of(source, version)
        old = self._loading.serving(source.name, version)
        if old is not None and self._loading.mark(old) == mark:
            return old
        if needed is not None and source.name in self._routing.in_place:
            leaving = self._loading.beside(source.name, needed - {version})
            if leaving:
                return await self._swaps.swap(source, version, mark, leaving)
        return await self._loading.load(source, version, mark)

    async def _scan(self) -> None:
        """Read the repositories again, off the loop."""
        self._sources = await asyncio.to_thread(scan_repositories, self._repositories)
        self._routing.in_place = frozenset(
            name
            for name, source in self._sources.items()
            if source.settings.swap_policy == IN_PLACE
        )


async def _nobody_settles(name: str) -> None:
    """Where nothing follows from a load."""
