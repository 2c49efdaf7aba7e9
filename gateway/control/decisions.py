"""How a change of traffic is made: what it needs is loaded, then it is committed, then it holds.

What is decided and its entry in the journal are committed in one transaction, and only then is the
route table replaced, in one assignment: a process that dies before the commit comes back with the
old decision, one that dies after it with the new one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from gateway.control.journal import Event
from gateway.control.manager import Manager
from gateway.control.routing import Routing, Swap
from gateway.control.state_store import StateStore
from gateway.control.traffic import LATEST, ModelTraffic, as_table
from gateway.errors import Conflict, GatewayError, ModelNotFound
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.registry import ModelVersion, Registry

log = logging.getLogger(__name__)

#: Who does what follows by itself, in the journal.
ITSELF: Final = "gateway"


class Decisions:
    """Makes changes, one after the other for each model. For the event loop's thread only."""

    def __init__(
        self,
        manager: Manager,
        routing: Routing,
        registry: Registry,
        store: StateStore,
        fault: Callable[[str], None] | None = None,
    ) -> None:
        """Make changes to ``routing``, of versions that ``manager`` loads.

        Args:
            fault: called with the name of each point at which a process might die; for tests.
        """
        self.manager: Final = manager
        self.routing: Final = routing
        self.registry: Final = registry
        self.store: Final = store
        self.fault: Final = fault or _no_fault
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._committed: dict[str, ModelTraffic] = {}
        self._stood_in: dict[str, str] = {}
        manager.note_loads(self._note_load)
        manager.settled = self._settle

    async def open(self) -> None:
        """Take up what was decided before."""
        await self.store.open()
        self._committed = await self.store.load()
        self.routing.decide(self._committed)

    async def close(self) -> None:
        """Finish what was begun."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.store.close()

    def known_models(self) -> set[str]:
        """Every model that is loaded, or that a repository holds."""
        return {*self.registry.names(), *self.manager.unloaded_models()}

    def turn(self, model: str) -> asyncio.Lock:
        """Whoever holds this is the only one to change the model's traffic."""
        return self._locks.setdefault(model, asyncio.Lock())

    @asynccontextmanager
    async def change(
        self, model: str, verb: str, version: str, by: str, reason: str
    ) -> AsyncIterator["Change"]:
        """Make a change within the block; an error that ends it is written to the journal."""
        change = Change(self, model, verb, version, by, reason)
        try:
            yield change
        except GatewayError as error:
            if model in self.known_models():
                await self._note_error(change, error)
            raise
        finally:
            change.leave()

    async def commit(
        self,
        model: str,
        after: ModelTraffic,
        event: Event,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Commit a decision, then route by it; once begun, it is not given up half-way.

        Args:
            then: what else is to be done once it is committed.

        Raises:
            StateUnavailable: it cannot be written; nothing has changed.
        """
        task = self.begin(self._commit(model, self.routing.traffic(model), after, event, then))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # The turn is kept until it is over, however often it is cancelled: the next verb builds
            # on what this one decided.
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            raise

    def begin(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        """Have ``work`` done, whoever waits for it; ``close`` waits."""

        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _commit(
        self,
        model: str,
        before: ModelTraffic,
        after: ModelTraffic,
        event: Event,
        then: Callable[[], None] | None,
    ) -> None:
        self.fault(f"{event.verb}: decided")
        await self.store.commit({model: after}, event)
        self.fault(f"{event.verb}: committed")
        self._committed[model] = after
        now = self.routing.traffic(model)
        if now is not before and after.stable == LATEST:
            # Meanwhile another version has become the latest one; ``_settle`` will remember it.
            after = replace(after, previous=now.previous)
        self.routing.decide({model: after})
        if then is not None:
            then()
        self.fault(f"{event.verb}: applied")
        self.manager.release(model)
        if before.shadow is not None and before.shadow.model:
            self.manager.release(before.shadow.model)

    async def _note_error(self, change: "Change", error: GatewayError) -> None:
        refused = isinstance(error, Conflict | ModelNotFound)
        event = change.event(outcome="refused" if refused else "failed", reason=str(error))
        # It may be the journal itself that failed; the caller is owed the first error.
        await self._note(event)

    async def _note_load(self, entry: ModelVersion, loaded: LoadedModel | None) -> None:
        self.fault("load: serves" if loaded else "load: failed")
        # Nothing is decided by a load: what it has loaded is to serve, written down or not.
        await self._note(
            Event(
                by=ITSELF,
                verb="load_version",
                model=entry.name,
                version=entry.version,
                outcome="ok" if loaded else "failed",
                reason=entry.reason,
                digest=loaded.digest if loaded else "",
                lineage=(loaded.lineage or None) if loaded else None,
                evidence=_load_evidence(loaded) if loaded else None,
            )
        )

    async def _note_stand_in(self, model: str) -> None:
        """Write down that a version answers in the place of another one, once."""
        version = self.routing.stand_in(model)
        if version == self._stood_in.get(model, ""):
            return
        self._stood_in[model] = version
        if version:
            stable = self.routing.traffic(model).stable
            reason = f"the stable version, '{stable}', cannot be served"
            await self._note(
                Event(by=ITSELF, verb="stand_in", model=model, version=version, reason=reason)
            )

    async def _note(self, event: Event) -> None:
        """Write to the journal what is so in any case."""
        try:
            await self.store.append(event)
        except GatewayError:
            log.exception("the journal has no entry of a %s of model '%s'", event.verb, event.model)

    async def _settle(self, model: str) -> None:
        """Remember what has followed from a load by itself: the latest version is another one.

        Where it cannot be written, it is written with whatever follows next.
        """
        await self._note_stand_in(model)
        async with self.turn(model):
            before, after = self._committed.get(model, ModelTraffic()), self.routing.traffic(model)
            if after == before:
                return
            default = self.routing.default(model)
            event = Event(
                by=ITSELF,
                verb="follow",
                model=model,
                version=default.version if default else "",
                before=as_table(before),
                after=as_table(after),
            )
            try:
                await self.store.commit({model: after}, event)
            except GatewayError:
                log.exception("it is not remembered what model '%s' follows", model)
            else:
                self._committed[model] = after


class Change:
    """One change on its way: what it holds, and what the journal will say of it."""

    def __init__(
        self, decisions: Decisions, model: str, verb: str, version: str, by: str, reason: str
    ) -> None:
        self.version = version
        self._decisions = decisions
        self._model = model
        self._verb = verb
        self._by = by
        self._reason = reason
        self._holds: list[tuple[tuple[str, str], AbstractContextManager[None]]] = []
        self._has_turn = False
        self._swap: Swap | None = None

    async def load_stable(self, version: str) -> None:
        """``load`` what this change makes the stable version.

        Where the model swaps in place, those that it replaces go first, and come back if the change
        ends in an error. ``LATEST`` is loaded only there: elsewhere it is already.
        """
        routing = self._decisions.routing
        in_place = self._model in routing.in_place
        if version == LATEST:
            version = routing.latest_chosen(self._model) if in_place else ""
        if not version:
            return
        before = routing.swap(self._model)
        try:
            await self.load(version, stable=True)
        finally:
            swap = routing.swap(self._model)
            self._swap = None if swap is before else swap

    async def load(self, version: str, model: str = "", *, stable: bool = False) -> ModelVersion:
        """See to it that ``version`` serves, and goes on to until this change is over.

        Before ``take_turn``, because it may take minutes, and because a load ends with a turn of
        its own. Raises as ``Manager.ensure`` does.
        """
        manager, of = self._decisions.manager, model or self._model
        hold = manager.holding(of, version)
        hold.__enter__()
        self._holds.append(((of, version), hold))
        self._decisions.fault(f"{self._verb}: loading")
        entry = await manager.ensure(of, version, stable=stable)
        self._decisions.fault(f"{self._verb}: loaded")
        return entry

    async def take_turn(self) -> None:
        """Wait for other changes of this model; until this one is over, there are none.

        Raises:
            Conflict: one of them was an unload of a version that was loaded for this one.
        """
        await self._decisions.turn(self._model).acquire()
        self._has_turn = True
        for (model, version), _ in self._holds:
            self.check_serves(version, model)

    def check_serves(self, version: str, model: str = "") -> None:
        """Raise ``Conflict`` unless ``version`` serves."""
        of = model or self._model
        entry = self._decisions.registry.get(of, version)
        if entry is None or entry.state is not State.READY:
            raise Conflict(
                f"version '{version}' of model '{of}' was unloaded meanwhile: try it again"
            )

    async def commit(
        self,
        after: ModelTraffic,
        evidence: dict[str, Any] | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Make ``after`` what is decided, on ``evidence``. See ``Decisions.commit``."""
        if self._holds and not self._decisions.manager.wants(self._model):
            # What was loaded for this change has to be there again after a restart.
            after = replace(after, loaded=True)
        before = self._decisions.routing.traffic(self._model)
        event = self.event(before=as_table(before), after=as_table(after), evidence=evidence)
        await self._decisions.commit(self._model, after, event, then)

    def event(self, **more: Any) -> Event:
        """What the journal says."""
        entry = self._decisions.registry.get(self._model, self.version)
        loaded = entry.lane.loaded if entry is not None and entry.lane else None
        values: Mapping[str, Any] = {
            "by": self._by,
            "verb": self._verb,
            "model": self._model,
            "version": self.version,
            "reason": self._reason,
            "digest": loaded.digest if loaded else "",
            "lineage": (loaded.lineage or None) if loaded else None,
        }
        return Event(**{**values, **more})

    def leave(self) -> None:
        """Let go of what was held."""
        if self._has_turn:
            self._decisions.turn(self._model).release()
        for _, hold in self._holds:
            hold.__exit__(None, None, None)
        manager, routing = self._decisions.manager, self._decisions.routing
        for (model, _), _ in self._holds:
            manager.release(model)
        if self._swap is not None and routing.swap(self._model) is self._swap:
            # What was loaded is not decided upon, and what it was to replace has gone.
            self._decisions.begin(manager.restore(self._model))


def _load_evidence(loaded: LoadedModel) -> dict[str, Any]:
    """What a version was found to be at its load."""
    return {
        "golden_requests": loaded.golden_requests,
        "memory_bytes": loaded.memory_bytes,
        "latency_us": {str(rows): ns / 1e3 for rows, ns in loaded.latency_ns.items()},
        "notes": list(loaded.notes),
    }


def _no_fault(point: str) -> None:
    """Where nothing is to fail."""
