"""The verbs by which the traffic of a model changes: each is checked, committed, then applied.

A verb first makes sure that what it asks for can be done: the versions that it names are loaded,
warmed and validated, which may take minutes and may fail, while everything goes on as before. Then
what is decided and its entry in the journal are committed in one transaction. Only then is the
route table replaced, in one assignment: a process that dies before the commit comes back with the
old decision, one that dies after it with the new one.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from gateway.control.canary import CanaryRun, verdict_of
from gateway.control.declaration import difference, read_declaration, target
from gateway.control.golden_recorder import GoldenRecorder
from gateway.control.journal import Event
from gateway.control.manager import Manager
from gateway.control.routing import Routing, Watchers
from gateway.control.shadowing import Shadowing
from gateway.control.state_store import StateStore
from gateway.control.traffic import (
    LATEST,
    Canary,
    CanaryPhase,
    CanaryPlan,
    ModelTraffic,
    ShadowPlan,
    as_table,
    check_labels,
)
from gateway.errors import Conflict, GatewayError, ModelNotFound, ModelNotReady
from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion, Registry

log = logging.getLogger(__name__)

#: Seconds between two looks at a canary.
LOOK_S: Final = 0.5

#: Who does what follows by itself.
ITSELF: Final = "gateway"


class Rollouts:
    """Decides about the traffic of models. For the event loop's thread only.

    Verbs about one model follow one another; a verb that loads a version does so before it takes
    its turn, so that a rollback never waits for a load. Every verb takes ``by``, who asks, and a
    ``reason``, both for the journal, and raises ``ModelNotFound``, ``Conflict`` where it is not
    possible as things stand, or what kept a version from loading; nothing has changed then.
    """

    def __init__(
        self,
        manager: Manager,
        routing: Routing,
        registry: Registry,
        store: StateStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        fault: Callable[[str], None] | None = None,
    ) -> None:
        """Decide about what ``manager`` loads; nothing is known before ``open``.

        Args:
            clock: monotonic seconds, for the steps of canaries.
            fault: called with the name of each point at which a process might die; for tests.
        """
        self._manager = manager
        self._routing = routing
        self._registry = registry
        self._store = store
        self._clock = clock
        self._fault = fault or _no_fault
        self._locks: dict[str, asyncio.Lock] = {}
        self._canaries: dict[str, CanaryRun] = {}
        self._shadows: dict[str, Shadowing] = {}
        self._recorders: dict[ModelVersion, GoldenRecorder] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._committed: dict[str, ModelTraffic] = {}
        self._watching: asyncio.Task[None] | None = None
        routing.watchers = self._watchers
        manager.noted = self._note_load
        manager.settled = self._settle

    # -- the process's own life ---------------------------------------------------------------

    async def open(self) -> None:
        """Take up what was decided before. Before anything is loaded."""
        await self._store.open()
        self._committed = await self._store.load()
        self._routing.decide(self._committed)
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """End what runs; what is decided stays."""
        if self._watching is not None:
            self._watching.cancel()
        for run in self._canaries.values():
            run.close()
        self._canaries.clear()
        await asyncio.gather(*(shadowing.close() for shadowing in self._shadows.values()))
        self._shadows.clear()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._store.close()

    # -- who serves ---------------------------------------------------------------------------

    async def promote(
        self, model: str, version: str, *, by: str, reason: str = ""
    ) -> dict[str, Any]:
        """Make ``version``, which may be a label, the stable one; returns the status.

        After the return no new request meets the version that was. A running canary ends: as
        promoted where it is of this version, else as aborted.
        """
        async with self._change(model, "promote", version, by, reason) as change:
            version = change.version = self.meant(model, version)
            await change.load(version)
            await change.take_turn()
            traffic = self._routing.traffic(model)
            if traffic.stable == version and traffic.running_canary is None:
                raise Conflict(f"version '{version}' of model '{model}' is stable already")
            after = traffic.with_stable(version, self._serving(model), self._routing.keep_previous)
            canary = traffic.running_canary
            if canary is not None:
                own = canary.plan.version == version
                phase = CanaryPhase.PROMOTED if own else CanaryPhase.ABORTED
                why = f"version '{version}' was promoted by {by}"
                after = replace(after, canary=replace(canary, phase=phase, reason=why))
            await change.commit(after)
        return self.status(model)

    async def rollback(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """End a running canary; where none runs, go back to the version that was stable before."""
        async with self._change(model, "rollback", "", by, reason) as change:
            await change.take_turn()
            traffic = self._routing.traffic(model)
            canary = traffic.running_canary
            if canary is not None:
                change.version = self._serving(model)
                ended = replace(
                    canary, phase=CanaryPhase.ABORTED, reason=reason or f"rolled back by {by}"
                )
                await change.commit(replace(traffic, canary=ended))
                return self.status(model)
            if not traffic.previous:
                raise Conflict(
                    f"model '{model}' has no previous version to go back to: nothing was promoted "
                    "over another version, or --keep-previous is 0"
                )
            version = change.version = traffic.previous[0]
            await change.load(version)
            serving = self._serving(model)
            await change.commit(
                traffic.with_stable(version, serving, max(self._routing.keep_previous, 1))
            )
        return self.status(model)

    async def follow_latest(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """Have the highest version that serves answer from now on, whichever that is."""
        async with self._change(model, "follow_latest", LATEST, by, reason) as change:
            await change.take_turn()
            traffic = self._routing.traffic(model)
            if traffic.stable == LATEST:
                raise Conflict(f"model '{model}' follows the latest version already")
            if traffic.running_canary is not None:
                raise Conflict(
                    f"model '{model}' has a canary, which is tried against version "
                    f"'{traffic.stable}': end it first"
                )
            await change.commit(replace(traffic, stable=LATEST))
        return self.status(model)

    async def set_label(
        self, model: str, label: str, version: str, *, by: str, reason: str = ""
    ) -> dict[str, Any]:
        """Have clients find ``version`` under ``label``."""
        async with self._change(model, "set_label", version, by, reason) as change:
            check_labels({label: version}, f"model '{model}'")
            if self._registry.get(model, label) is not None:
                raise Conflict(f"'{label}' is a version of model '{model}': choose another label")
            version = change.version = self.meant(model, version)
            await change.load(version)
            await change.take_turn()
            traffic = self._routing.traffic(model)
            await change.commit(replace(traffic, labels={**traffic.labels, label: version}))
        return self.status(model)

    async def remove_label(
        self, model: str, label: str, *, by: str, reason: str = ""
    ) -> dict[str, Any]:
        """Have ``label`` stand for nothing."""
        async with self._change(model, "remove_label", "", by, reason) as change:
            await change.take_turn()
            traffic = self._routing.traffic(model)
            if label not in traffic.labels:
                raise ModelNotFound(
                    f"model '{model}' has no label '{label}' that could be removed, it has "
                    f"{sorted(traffic.labels)}"
                )
            change.version = traffic.labels[label]
            labels = {name: v for name, v in traffic.labels.items() if name != label}
            await change.commit(replace(traffic, labels=labels))
        return self.status(model)

    # -- canary -------------------------------------------------------------------------------

    async def start_canary(
        self, model: str, plan: Mapping[str, Any], *, by: str, reason: str = ""
    ) -> dict[str, Any]:
        """Try a version on a growing part of the traffic; ``plan`` is a ``CanaryPlan``'s table."""
        read = CanaryPlan.from_table(plan)
        async with self._change(model, "start_canary", read.version, by, reason) as change:
            version = change.version = self.meant(model, read.version)
            read = replace(read, version=version)
            await change.load(version)
            await change.take_turn()
            traffic = self._routing.traffic(model)
            if traffic.running_canary is not None:
                raise Conflict(
                    f"model '{model}' has a canary already, of version "
                    f"'{traffic.running_canary.plan.version}': promote or abort it first"
                )
            serving = self._serving(model)
            if serving == version:
                raise Conflict(
                    f"version '{version}' of model '{model}' has all of the traffic already"
                )
            if not serving:
                raise Conflict(f"model '{model}' has no version that serves to compare with")
            await change.commit(replace(traffic, stable=serving, canary=Canary(plan=read)))
        return self.status(model)

    async def pause_canary(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """Hold the canary at its step; a gate that fails still ends it."""
        return await self._move_canary(
            model, "pause_canary", CanaryPhase.PAUSED, by, reason, not_in=(CanaryPhase.PAUSED,)
        )

    async def resume_canary(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """Let the canary's steps go on."""
        return await self._move_canary(
            model,
            "resume_canary",
            CanaryPhase.RUNNING,
            by,
            reason,
            not_in=(CanaryPhase.RUNNING, CanaryPhase.INCONCLUSIVE, CanaryPhase.PASSED),
        )

    async def abort_canary(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """End the canary: the stable version has all of the traffic again."""
        return await self._move_canary(model, "abort_canary", CanaryPhase.ABORTED, by, reason)

    async def _move_canary(
        self,
        model: str,
        verb: str,
        phase: CanaryPhase,
        by: str,
        reason: str,
        not_in: tuple[CanaryPhase, ...] = (),
    ) -> dict[str, Any]:
        async with self._change(model, verb, "", by, reason) as change:
            await change.take_turn()
            traffic = self._routing.traffic(model)
            canary = traffic.running_canary
            if canary is None:
                raise Conflict(f"model '{model}' has no canary")
            change.version = canary.plan.version
            if canary.phase in not_in:
                raise Conflict(f"the canary of model '{model}' is {canary.phase} already")
            moved = replace(canary, phase=phase, reason=reason or f"{verb} by {by}")
            await change.commit(replace(traffic, canary=moved))
        return self.status(model)

    def canary_verdict(self, model: str) -> dict[str, Any]:
        """How the model's canary stands, or its last one stood; see ``verdict_of``.

        Raises:
            ModelNotFound: nobody knows the model, or it has had no canary.
        """
        self._check_known(model)
        canary = self._routing.traffic(model).canary
        if canary is None:
            raise ModelNotFound(f"model '{model}' has had no canary")
        run = self._canaries.get(model)
        return verdict_of(model, canary, self._serving(model), run.report() if run else None)

    # -- shadow -------------------------------------------------------------------------------

    async def start_shadow(
        self, model: str, plan: Mapping[str, Any], *, by: str, reason: str = ""
    ) -> dict[str, Any]:
        """Send copies of the traffic to another version; ``plan`` is a ``ShadowPlan``'s table.

        A shadow that is there is replaced, and its report with it.
        """
        read = ShadowPlan.from_table(plan)
        async with self._change(model, "start_shadow", read.version, by, reason) as change:
            of = read.model or model
            read = replace(
                read, version=self.meant(of, read.version), model="" if of == model else of
            )
            change.version = read.version
            shadow = await change.load(read.version, of)
            await change.take_turn()
            primary = self._routing.default(model)
            if primary is None:
                raise Conflict(f"model '{model}' has no version that serves to be shadowed")
            if primary is shadow:
                raise Conflict(
                    f"version '{read.version}' of model '{model}' answers its traffic: "
                    "it cannot shadow itself"
                )
            Shadowing.check(primary, shadow)
            await change.commit(replace(self._routing.traffic(model), shadow=read))
        return self.status(model)

    async def stop_shadow(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """Send copies no more; the report goes with the shadow."""
        async with self._change(model, "stop_shadow", "", by, reason) as change:
            await change.take_turn()
            traffic = self._routing.traffic(model)
            if traffic.shadow is None:
                raise Conflict(f"model '{model}' has no shadow")
            change.version = traffic.shadow.version
            await change.commit(replace(traffic, shadow=None))
        return self.status(model)

    async def shadow_report(self, model: str) -> dict[str, Any]:
        """How alike the model's shadow and its primary are; see ``Shadowing.report``."""
        return await self._shadowing(model).report()

    async def shadow_worst(self, model: str) -> list[dict[str, Any]]:
        """The pairs that disagree most; see ``Shadowing.worst``."""
        return await self._shadowing(model).worst()

    def _shadowing(self, model: str) -> Shadowing:
        self._check_known(model)
        shadowing = self._shadows.get(model)
        if shadowing is None:
            if self._routing.traffic(model).shadow is not None:
                raise ModelNotReady(f"the shadow of model '{model}' is not loaded yet")
            raise ModelNotFound(f"model '{model}' has no shadow")
        return shadowing

    # -- loading ------------------------------------------------------------------------------

    async def load(self, model: str, *, by: str, reason: str = "") -> None:
        """Load the model as its repository holds it now; see ``Manager.load``."""
        async with self._change(model, "load", "", by, reason, known=False) as change:
            await self._manager.load(model)
            await change.take_turn()
            await change.commit(replace(self._routing.traffic(model), loaded=True))

    async def unload(self, model: str, *, by: str, reason: str = "") -> None:
        """Take the model out of service; see ``Manager.unload``. What is decided of it is kept."""
        async with self._change(model, "unload", "", by, reason, known=False) as change:
            await change.take_turn()
            self._manager.check_can_unload(model)
            traffic = self._routing.traffic(model)
            canary = traffic.running_canary
            if canary is not None:
                ended = replace(canary, phase=CanaryPhase.ABORTED, reason="the model was unloaded")
                traffic = replace(traffic, canary=ended)
            await change.commit(replace(traffic, loaded=False, previous=()))
        await self._manager.unload(model)

    # -- the declarative form -----------------------------------------------------------------

    async def diff(self, declaration: str | Mapping[str, Any]) -> list[dict[str, Any]]:
        """What ``apply`` would change; see ``declaration`` for the form, TOML or its tables."""
        declared = read_declaration(declaration)
        for model in declared:
            self._check_known(model)
        return [change.as_table() for change in difference(self._routing.decided(), declared)]

    async def apply(
        self, declaration: str | Mapping[str, Any], *, by: str, reason: str = ""
    ) -> dict[str, Any]:
        """Bring the models that are declared to what is declared, one after the other.

        A model changes at once or not at all: every version that is named is loaded first.
        """
        declared = read_declaration(declaration)
        changes = await self.diff(declaration)
        for model in sorted({change["model"] for change in changes}):
            async with self._change(model, "apply", "", by, reason) as change:
                wanted = target(self._routing.traffic(model), declared[model])
                for version in sorted(wanted.named_versions(model)):
                    await change.load(version)
                if wanted.shadow is not None and wanted.shadow.model not in ("", model):
                    await change.load(wanted.shadow.version, wanted.shadow.model)
                await change.take_turn()
                now = self._routing.traffic(model)
                wanted = target(now, declared[model])
                change.version = wanted.stable
                await change.commit(self._with_previous(model, now, wanted))
        return {"changes": changes}

    def _with_previous(self, model: str, before: ModelTraffic, after: ModelTraffic) -> ModelTraffic:
        """``after``, with what serves kept for a rollback where another version takes its place."""
        serving = self._serving(model)
        if after.running_canary is not None and after.stable == LATEST and serving:
            after = replace(after, stable=serving)
        if after.stable in (LATEST, serving):
            return replace(after, previous=before.previous)
        kept = before.with_stable(after.stable, serving, self._routing.keep_previous)
        return replace(after, previous=kept.previous)

    # -- what there is ------------------------------------------------------------------------

    def status(self, model: str) -> dict[str, Any]:
        """What is decided about the model and what is loaded of it, as JSON values."""
        self._check_known(model)
        serving = self._routing.default(model)
        return {
            "model": model,
            "serving": serving.version if serving else None,
            "traffic": as_table(self._routing.traffic(model)),
            "labels": self._routing.labels(model),
            "versions": [
                {
                    "version": entry.version,
                    "state": entry.state.value,
                    "reason": entry.reason,
                    "digest": entry.lane.loaded.digest if entry.lane else "",
                }
                for entry in self._manager.versions(model)
            ],
        }

    def meant(self, model: str, version: str) -> str:
        """The version that a version or label means."""
        if self._registry.get(model, version) is not None:
            return version
        return self._routing.labels(model).get(version, version)

    def statuses(self) -> list[dict[str, Any]]:
        """The status of every model."""
        return [self.status(name) for name in sorted(self._known())]

    async def history(
        self, model: str = "", *, limit: int = 100, before: int = 0
    ) -> list[dict[str, Any]]:
        """The journal's entries, the newest first; those before the number ``before``, if given."""
        entries = await self._store.history(model, limit=limit, before=before)
        return [entry.as_table() for entry in entries]

    async def verify_journal(self) -> dict[str, Any]:
        """Whether the journal is as it was written."""
        verification = await self._store.verify()
        return {
            "entries": verification.entries,
            "intact": verification.intact,
            "first_broken": verification.first_broken,
            "reason": verification.reason,
        }

    async def record_golden(
        self, model: str, count: int, *, version: str = "", timeout_s: float = 60.0
    ) -> list[dict[str, Any]]:
        """Golden documents of the next ``count`` requests that the version answers well.

        Fewer where fewer come within ``timeout_s`` seconds.
        """
        self._check_known(model)
        entry = self._routing.default(model)
        if version:
            entry = self._registry.get(model, self.meant(model, version))
        if entry is None or entry.state is not State.READY:
            raise ModelNotReady(f"model '{model}' has no such version that serves: '{version}'")
        if entry in self._recorders:
            raise Conflict(f"requests of {entry.label} are being recorded already")
        recorder = self._recorders[entry] = GoldenRecorder(count)
        self._routing.publish()
        try:
            return await recorder.wait(timeout_s)
        finally:
            del self._recorders[entry]
            self._routing.publish()

    # -- how a change is made -----------------------------------------------------------------

    @asynccontextmanager
    async def _change(
        self, model: str, verb: str, version: str, by: str, reason: str, *, known: bool = True
    ) -> AsyncIterator["_Change"]:
        if known:
            self._check_known(model)
        change = _Change(self, model, verb, version, by, reason)
        try:
            yield change
        except GatewayError as error:
            if known or model in self._known():
                refused = isinstance(error, Conflict | ModelNotFound)
                outcome = "refused" if refused else "failed"
                try:
                    await self._store.append(change.event(outcome=outcome, reason=str(error)))
                except GatewayError:
                    # It may be the journal itself that failed; the caller is owed the first error.
                    log.exception("the journal has no entry of a %s %s", outcome, verb)
            raise
        finally:
            change.leave()

    def _lock(self, model: str) -> asyncio.Lock:
        return self._locks.setdefault(model, asyncio.Lock())

    async def _commit(self, model: str, after: ModelTraffic, event: Event) -> None:
        """Commit a decision, then route by it; once begun, it is not given up half-way."""
        task = self._task(self._commit_whole(model, after, event))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # The turn is kept until it is over: the next verb builds on what this one decided.
            await asyncio.wait([task])
            raise

    async def _commit_whole(self, model: str, after: ModelTraffic, event: Event) -> None:
        self._fault(f"{event.verb}: decided")
        await self._store.commit({model: after}, event)
        self._fault(f"{event.verb}: committed")
        self._committed[model] = after
        self._routing.decide({model: after})
        self._fault(f"{event.verb}: applied")
        self._manager.release(model)
        if after.shadow is not None and after.shadow.model:
            self._manager.release(after.shadow.model)

    def _task(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _note_load(self, entry: ModelVersion, digest: str) -> None:
        failed = entry.state is State.FAILED
        self._fault("load: failed" if failed else "load: serves")
        await self._store.append(
            Event(
                by=ITSELF,
                verb="load_version",
                model=entry.name,
                version=entry.version,
                outcome="failed" if failed else "ok",
                reason=entry.reason,
                digest=digest,
            )
        )

    async def _settle(self, model: str) -> None:
        """Remember what has followed from a load by itself: the latest version is another one."""
        traffic = self._routing.traffic(model)
        if traffic == self._committed.get(model, ModelTraffic()):
            return
        serving = self._serving(model)
        event = Event(by=ITSELF, verb="follow", model=model, version=serving)
        await self._store.commit({model: traffic}, event)
        self._committed[model] = traffic

    # -- what follows by itself ---------------------------------------------------------------

    async def _watch(self) -> None:
        """Look at the canaries now and then, and do what follows."""
        while True:
            await asyncio.sleep(LOOK_S)
            for model in list(self._canaries):
                try:
                    await self.look(model)
                except Exception:
                    log.exception("the canary of model '%s' could not be moved", model)

    async def look(self, model: str) -> None:
        """Look at the model's canary, and do what follows from what it has seen."""
        run = self._canaries.get(model)
        async with self._lock(model):
            traffic = self._routing.traffic(model)
            canary = traffic.running_canary
            if run is None or canary is None or self._canaries.get(model) is not run:
                return
            after = run.look(canary, self._clock())
            if after is canary:
                return
            verb = {
                CanaryPhase.ROLLED_BACK: "canary_rollback",
                CanaryPhase.PROMOTED: "canary_promote",
            }.get(after.phase, "canary_step")
            changed = replace(traffic, canary=after)
            if after.phase is CanaryPhase.PROMOTED:
                changed = changed.with_stable(
                    after.plan.version, self._serving(model), self._routing.keep_previous
                )
            log.log(
                logging.WARNING if after.phase is CanaryPhase.ROLLED_BACK else logging.INFO,
                "the canary of model '%s', version '%s', is %s at %g %%%s",
                model,
                after.plan.version,
                after.phase,
                after.percent,
                f": {after.reason}" if after.reason else "",
            )
            event = Event(
                by=ITSELF,
                verb=verb,
                model=model,
                version=after.plan.version,
                reason=after.reason or f"step {after.step + 1}: {after.percent:g} %",
                before=as_table(traffic),
                after=as_table(changed),
            )
            await self._commit(model, changed, event)

    def _watchers(self) -> Watchers:
        """Bring canaries and shadows to what is decided and loaded, for a new route table."""
        for model in {*self._routing.decided(), *self._canaries, *self._shadows}:
            self._sync_canary(model)
            self._sync_shadow(model)
        return Watchers(
            {shadowing.primary: shadowing.mirror for shadowing in self._shadows.values()},
            {entry: recorder.record for entry, recorder in self._recorders.items()},
        )

    def _sync_canary(self, model: str) -> None:
        canary = self._routing.traffic(model).running_canary
        run = self._canaries.get(model)
        stable = self._routing.default(model)
        candidate = canary and self._ready(model, canary.plan.version)
        if run is not None and (
            canary is None
            or run.plan != canary.plan
            or run.stable is not stable
            or run.candidate is not candidate
        ):
            run.close()
            del self._canaries[model]
            run = None
        if run is None and canary is not None and stable and candidate:
            self._canaries[model] = CanaryRun(canary, stable, candidate, self._clock())

    def _sync_shadow(self, model: str) -> None:
        plan = self._routing.traffic(model).shadow
        shadowing = self._shadows.get(model)
        primary = self._routing.default(model)
        shadow = plan and self._ready(plan.model or model, plan.version)
        if shadowing is not None and (
            shadowing.plan != plan
            or shadowing.primary is not primary
            or shadowing.shadow is not shadow
        ):
            del self._shadows[model]
            self._task(shadowing.close())
            shadowing = None
        if shadowing is None and plan and primary and shadow and primary is not shadow:
            try:
                self._shadows[model] = Shadowing(plan, primary, shadow)
            except Conflict as error:
                log.warning("model '%s' is not shadowed: %s", model, error)

    # -- helpers ------------------------------------------------------------------------------

    def _known(self) -> set[str]:
        return {*self._registry.names(), *self._manager.unloaded_models()}

    def _check_known(self, model: str) -> None:
        if model not in self._known():
            known = ", ".join(sorted(self._known())) or "none"
            raise ModelNotFound(f"unknown model '{model}'; known are {known}")

    def _serving(self, model: str) -> str:
        default = self._routing.default(model)
        return default.version if default else ""

    def _ready(self, model: str, version: str) -> ModelVersion | None:
        entry = self._registry.get(model, version)
        return entry if entry is not None and entry.state is State.READY else None


class _Change:
    """One verb on its way: what it holds, and what the journal will say of it."""

    def __init__(
        self, rollouts: Rollouts, model: str, verb: str, version: str, by: str, reason: str
    ) -> None:
        self.version = version
        self._rollouts = rollouts
        self._model = model
        self._verb = verb
        self._by = by
        self._reason = reason
        self._holds: list[Any] = []
        self._has_turn = False

    async def load(self, version: str, model: str = "") -> ModelVersion:
        """See to it that ``version`` serves, and goes on to until this change is over."""
        manager = self._rollouts._manager
        hold = manager.holding(model or self._model, version)
        hold.__enter__()
        self._holds.append(hold)
        self._rollouts._fault(f"{self._verb}: loading")
        entry = await manager.ensure(model or self._model, version)
        self._rollouts._fault(f"{self._verb}: loaded")
        return entry

    async def take_turn(self) -> None:
        """Wait for other verbs about this model; nothing else changes its traffic from then on."""
        await self._rollouts._lock(self._model).acquire()
        self._has_turn = True

    async def commit(self, after: ModelTraffic) -> None:
        """Make ``after`` what is decided."""
        before = self._rollouts._routing.traffic(self._model)
        event = self.event(before=as_table(before), after=as_table(after))
        await self._rollouts._commit(self._model, after, event)

    def event(self, **more: Any) -> Event:
        """What the journal says."""
        entry = self._rollouts._registry.get(self._model, self.version)
        digest = entry.lane.loaded.digest if entry is not None and entry.lane else ""
        return Event(
            **{
                "by": self._by,
                "verb": self._verb,
                "model": self._model,
                "version": self.version,
                "reason": self._reason,
                "digest": digest,
                **more,
            }
        )

    def leave(self) -> None:
        """Let go of what was held."""
        if self._has_turn:
            self._rollouts._lock(self._model).release()
        for hold in self._holds:
            hold.__exit__(None, None, None)
        if self._holds:
            self._rollouts._manager.release(self._model)


def _no_fault(point: str) -> None:
    """Where nothing is to fail."""
