"""Loads and unloads model versions, and moves the route to what serves."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from gateway.control.progress import LoadProgress
from gateway.control.repository import ModelSource, scan_repositories, version_key
from gateway.dispatch.route import RouteTable
from gateway.errors import LoadError, ModelNotFound, ShuttingDown
from gateway.serving.lane import Lane
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.loader import load_model
from gateway.serving.onnx.graph import files_beside
from gateway.serving.registry import ModelVersion, Registry

log = logging.getLogger(__name__)

#: Seconds for which an unload waits for the model's last requests.
UNLOAD_WAIT_S: Final = 1.0

#: What identifies the files of a version: name, size and modification time of each.
Fingerprint = tuple[tuple[str, int, int], ...]


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
        publish: Callable[[RouteTable], None],
        *,
        inline_threshold_ns: int,
        load_threads: int = 1,
        strict_readiness: bool = True,
    ) -> None:
        """Manage what the ``repositories`` hold; nothing is read before ``start``.

        Args:
            publish: called with each new route table.
            inline_threshold_ns: see ``Lane``.
            load_threads: models that are loaded at the same time.
            strict_readiness: ready only when every model that should be loaded serves.
        """
        self._repositories = tuple(repositories)
        self._registry = registry
        self._publish = publish
        self._inline_threshold_ns = inline_threshold_ns
        self._strict = strict_readiness
        self._pool = ThreadPoolExecutor(load_threads, thread_name_prefix="loader")
        # Whoever waits for a thread waits here, so that what is told of a load counts from its own
        # beginning.
        self._free_threads = asyncio.Semaphore(load_threads)
        self._loads: set[Future[LoadedModel]] = set()
        self._sources: dict[str, ModelSource] = {}
        self._wanted: set[str] = set()
        self._defaults: dict[str, ModelVersion] = {}
        self._fingerprints: dict[ModelVersion, tuple[Fingerprint, object]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._progress = LoadProgress()
        self._retiring: set[asyncio.Task[None]] = set()
        self._started = False
        self._closing = False

    # -- what there is ------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the server should be sent requests."""
        if not self._started or self._closing:
            return False
        return not self._strict or all(name in self._defaults for name in self._wanted)

    @property
    def loading(self) -> bool:
        """Whether a loader thread is at work; one stays so when nobody waits for it any more."""
        return bool(self._loads)

    def versions(self, name: str = "") -> list[ModelVersion]:
        """The known versions, of one model where it is named, in their natural order."""
        known = self._registry.versions(name).values() if name else self._registry
        return sorted(known, key=lambda entry: (entry.name, version_key(entry.version)))

    def routed(self, name: str) -> ModelVersion | None:
        """The version that answers a request which names none."""
        return self._defaults.get(name)

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

    async def unload(self, name: str) -> None:
        """Take every version of the model out of service, and of memory once it is idle.

        From the first moment new requests are refused. Returns when the versions are unloaded, or
        after ``UNLOAD_WAIT_S`` while their last requests still run.

        Raises:
            ModelNotFound: nobody knows the model.
        """
        await self._locked(name, self._unload)

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
        source = self._sources.get(name)
        if source is None:
            places = ", ".join(str(path) for path in self._repositories)
            raise ModelNotFound(f"unknown model '{name}': it is not in {places}")
        if not source.versions:
            reason = f"model '{name}' cannot be served: {'; '.join(source.problems)}"
            log.error("%s", reason)
            raise LoadError(reason)
        for problem in source.problems:
            log.warning("model '%s': %s", name, problem)
        if ignored := source.settings.ignored:
            log.warning(
                "model '%s': not honoured in %s: %s",
                name,
                source.settings.source,
                ", ".join(ignored),
            )
        serving = {v.version: v for v in self.versions(name) if v.state is State.READY}
        failures = []
        for version, path in source.versions.items():
            mark = (await asyncio.to_thread(_fingerprint, source, path), source.settings)
            old = serving.get(version)
            if old is not None and self._fingerprints.get(old) == mark:
                continue
            entry = ModelVersion(name, version)
            if old is None:
                self._registry.add(entry)
                self._route()
            try:
                loaded = await self._load_version(entry, path, source)
            except LoadError as error:
                entry.move(State.FAILED, str(error))
                log.error("failed to load: %s", error)
                failures.append(str(error))
                continue
            except Exception as error:
                # A model that surprises the loader costs itself, not the models beside it.
                reason = f"{entry.label}: the loader failed on it: {error!r}"
                entry.move(State.FAILED, reason)
                log.exception("failed to load: %s", reason)
                failures.append(reason)
                continue
            except BaseException as error:
                entry.move(State.FAILED, str(error) or type(error).__name__)
                raise
            if self._closing:
                entry.move(State.FAILED, "the server shut down while it was loading")
                raise ShuttingDown(f"{entry.label}: {entry.reason}")
            self._serve(entry, loaded)
            self._fingerprints[entry] = mark
            if old is not None:
                self._retire([old])
        if failures:
            raise LoadError("; ".join(failures))
        self._retire(old for version, old in serving.items() if version not in source.versions)

    async def _load_version(
        self, entry: ModelVersion, path: Path, source: ModelSource
    ) -> LoadedModel:
        loop = asyncio.get_running_loop()

        def report(state: State, phase: str) -> None:
            loop.call_soon_threadsafe(self._progress.phase, entry, state, phase)

        async with self._free_threads:
            entry.move(State.LOADING)
            started = time.monotonic()
            load = self._pool.submit(
                load_model, entry.name, entry.version, path, source.settings, progress=report
            )
            self._loads.add(load)
            load.add_done_callback(self._loads.discard)
            with self._progress.track(entry):
                loaded = await asyncio.wrap_future(load)
        _announce(entry, loaded, time.monotonic() - started)
        return loaded

    def _serve(self, entry: ModelVersion, loaded: LoadedModel) -> None:
        """Give a loaded version its lane, then announce it, then move the route."""
        entry.lane = Lane(
            loaded, asyncio.get_running_loop(), inline_threshold_ns=self._inline_threshold_ns
        )
        entry.move(State.READY)
        self._registry.add(entry)
        self._route()

    async def _unload(self, name: str) -> None:
        versions = self.versions(name)
        if not versions and name not in self.unloaded_models():
            raise ModelNotFound(f"unknown model '{name}': there is nothing to unload")
        self._wanted.discard(name)
        leaving = self._retire(entry for entry in versions if entry.state is State.READY)
        if leaving:
            await asyncio.wait(leaving, timeout=UNLOAD_WAIT_S)

    def _retire(self, versions: Iterable[ModelVersion]) -> list[asyncio.Task[None]]:
        """Announce that the versions drain, take them off the route, and see them out.

        Returns the tasks that end when a version is unloaded.
        """
        retired = list(versions)
        for entry in retired:
            entry.move(State.DRAINING)
            self._fingerprints.pop(entry, None)
        self._route()
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._see_out(entry)) for entry in retired]
        for task in tasks:
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        return tasks

    async def _see_out(self, entry: ModelVersion) -> None:
        """Wait for the requests that a version has, and free its memory."""
        assert entry.lane is not None
        await entry.lane.drain()
        await entry.lane.close()
        entry.lane = None
        entry.move(State.UNLOADED)
        log.info("%s is unloaded", entry.label)

    def _route(self) -> None:
        """Publish who serves: of each model the version with the highest number."""
        ready = [entry for entry in self.versions() if entry.state is State.READY]
        self._defaults = {entry.name: entry for entry in ready}
        self._publish(RouteTable(self._registry, self._defaults))

    async def _scan(self) -> None:
        """Read the repositories again, off the loop."""
        self._sources = await asyncio.to_thread(scan_repositories, self._repositories)


def _fingerprint(source: ModelSource, path: Path) -> Fingerprint:
    """The files of the version at ``path``: with those beside it, which may hold its weights.

    A bare model shares its directory with others; of what lies there it has its external data.
    """
    bare = not source.path.is_dir()
    files = [path, *files_beside(path)] if bare else sorted(path.parent.rglob("*"))
    marks = [(file, file.stat()) for file in files if file.is_file()]
    return tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in marks)


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
