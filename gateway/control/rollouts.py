"""The verbs by which the traffic of a model changes.

A verb first makes sure that what it asks for can be done: the versions that it names are loaded,
warmed and validated, which may take minutes and may fail, while everything goes on as before. Then
it is decided; ``decisions.py`` says how.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from gateway.control.canary import verdict_of
from gateway.control.decisions import Change, Decisions
from gateway.control.declaration import difference, read_declaration, target
from gateway.control.golden_recorder import GoldenRecorder
from gateway.control.manager import Manager
from gateway.control.routing import Routing
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
from gateway.control.trials import Trials
from gateway.errors import Conflict, LoadError, ModelNotFound, ModelNotReady
from gateway.rollout_metrics import CanarySample, ModelSample
from gateway.serving.lifecycle import State
from gateway.serving.registry import Registry


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
        self._decisions = Decisions(manager, routing, registry, store, fault)
        self._trials = Trials(self._decisions, clock)
        #: Look at a model's canary now; it is looked at now and then anyway.
        self.look = self._trials.look

    async def open(self) -> None:
        """Take up what was decided before. To be called before anything is loaded."""
        await self._decisions.open()
        self._trials.start()

    async def close(self) -> None:
        """End what is at work; what is decided stays."""
        await self._trials.close()
        await self._decisions.close()

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
            if version == LATEST:
                raise ModelNotFound(
                    f"'{LATEST}' stands for no version of model '{model}': none that its version "
                    "policy chooses serves"
                )
            stood_in = self._routing.stand_in(model)
            await change.load_stable(version)
            await change.take_turn()
            evidence = await self._trials.evidence(model, version)
            traffic = self._routing.traffic(model)
            # One that could not be loaded, and now could, has just come back to what was decided.
            if traffic.stable == version and traffic.running_canary is None and not stood_in:
                raise Conflict(f"version '{version}' of model '{model}' is stable already")
            serving = self._routing.serving(model)
            after = traffic.with_stable(version, serving, self._routing.keep_previous)
            canary = traffic.running_canary
            if canary is not None:
                own = canary.plan.version == version
                phase = CanaryPhase.PROMOTED if own else CanaryPhase.ABORTED
                why = f"version '{version}' was promoted by {by}"
                after = replace(after, canary=replace(canary, phase=phase, reason=why))
            await change.commit(after, evidence)
        return self.status(model)

    async def rollback(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """End a running canary; where none runs, go back to the version that was stable before."""
        async with self._change(model, "rollback", "", by, reason) as change:
            traffic = self._routing.traffic(model)
            goal = "" if traffic.running_canary else next(iter(traffic.previous), "")
            if goal:
                # Loaded already, unless the model swaps in place.
                change.version = goal
                await change.load_stable(goal)
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
            change.check_serves(version)
            serving = self._routing.serving(model)
            await change.commit(
                traffic.with_stable(version, serving, max(self._routing.keep_previous, 1))
            )
        return self.status(model)

    async def follow_latest(self, model: str, *, by: str, reason: str = "") -> dict[str, Any]:
        """Have the highest version that serves answer from now on, whichever that is."""
        async with self._change(model, "follow_latest", LATEST, by, reason) as change:
            self._check_may_follow(model)
            await change.load_stable(LATEST)
            await change.take_turn()
            self._check_may_follow(model)
            traffic = self._routing.traffic(model)
            await change.commit(self._following(model, traffic))
        return self.status(model)

    def _check_may_follow(self, model: str) -> None:
        traffic = self._routing.traffic(model)
        if traffic.stable == LATEST:
            raise Conflict(f"model '{model}' follows the latest version already")
        if traffic.running_canary is not None:
            raise Conflict(
                f"model '{model}' has a canary, which is tried against version "
                f"'{traffic.stable}': end it first"
            )

    async def set_label(
        self, model: str, label: str, version: str, *, by: str, reason: str = ""
    ) -> dict[str, Any]:
        """Have clients find ``version`` under ``label``."""
        async with self._change(model, "set_label", version, by, reason) as change:
            check_labels({label: version}, f"model '{model}'")
            if self._manager.has_version(model, label):
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
            await change.commit(
                replace(traffic, stable=serving, canary=Canary(plan=read, against=serving))
            )
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
        return verdict_of(model, canary, self._trials.canary_report(model))

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
        shadowing = self._trials.shadows.get(model)
        if shadowing is not None:
            return shadowing
        plan = self._routing.traffic(model).shadow
        if plan is None:
            raise ModelNotFound(f"model '{model}' has no shadow")
        if not plan.model and plan.version == self._serving(model):
            raise ModelNotReady(
                f"the shadow of model '{model}', version '{plan.version}', answers its traffic "
                "now: it is a shadow again once another version does"
            )
        raise ModelNotReady(f"the shadow of model '{model}' is not loaded yet")

    # -- loading ------------------------------------------------------------------------------

    async def load(self, model: str, *, by: str, reason: str = "") -> None:
        """Load the model as its repository holds it now; see ``Manager.load``.

        Where a version cannot be served and others can, those serve, now and after a restart.
        """
        async with self._decisions.change(model, "load", "", by, reason) as change:
            wanted = self._manager.wants(model)
            failed = None
            try:
                await self._manager.load(model)
            except LoadError as error:
                if wanted or not self._manager.wants(model):
                    raise
                failed = error
            await change.take_turn()
            evidence = {"failed": str(failed)} if failed else None
            await change.commit(replace(self._routing.traffic(model), loaded=True), evidence)
            if failed is not None:
                raise failed

    async def unload(self, model: str, *, by: str, reason: str = "") -> None:
        """Take the model out of service; see ``Manager.unload``. What is decided of it is kept."""

        async def decide(take_out: Callable[[], None]) -> None:
            async with self._decisions.change(model, "unload", "", by, reason) as change:
                await change.take_turn()
                traffic = self._routing.traffic(model)
                canary = traffic.running_canary
                if canary is not None:
                    ended = replace(
                        canary, phase=CanaryPhase.ABORTED, reason="the model was unloaded"
                    )
                    traffic = replace(traffic, canary=ended)
                await change.commit(replace(traffic, loaded=False, previous=()), then=take_out)

        await self._manager.unload(model, decide)

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
                before = self._routing.traffic(model)
                wanted = target(before, declared[model], self._routing.keep_previous)
                # Beside a canary, what serves stays instead of ``LATEST``: see ``_completed``.
                stays = wanted.running_canary is not None and wanted.stable == LATEST
                if wanted.stable != before.stable and not stays:
                    await change.load_stable(wanted.stable)
                for version in sorted(self._routing.used_by(model, wanted)):
                    await change.load(version)
                if wanted.shadow is not None and wanted.shadow.model not in ("", model):
                    await change.load(wanted.shadow.version, wanted.shadow.model)
                await change.take_turn()
                now = self._routing.traffic(model)
                wanted = target(now, declared[model], self._routing.keep_previous)
                change.version = wanted.stable
                await change.commit(self._completed(model, now, wanted))
        return {"changes": changes}

    def _completed(self, model: str, before: ModelTraffic, after: ModelTraffic) -> ModelTraffic:
        """``after`` over what serves, which is kept for a rollback where it is replaced."""
        serving = self._routing.serving(model)
        canary = after.running_canary
        if canary is not None and after.stable == LATEST and serving:
            after = replace(after, stable=serving)
        if canary is not None and canary.plan.version == after.stable:
            raise Conflict(
                f"version '{after.stable}' of model '{model}' has all of the traffic already: "
                "it cannot be its canary"
            )
        if canary is not None and canary is not before.canary:
            after = replace(after, canary=replace(canary, against=after.stable))
        after = replace(after, previous=before.previous)
        if after.stable == LATEST and before.stable != LATEST:
            return self._following(model, after)
        if after.stable in (LATEST, serving):
            return after
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
                    "memory_bytes": self._manager.budget.taken(entry),
                }
                for entry in self._manager.versions(model)
            ],
        }

    def meant(self, model: str, version: str) -> str:
        """The version that a version or label means."""
        if self._registry.get(model, version) is not None:
            return version
        return self._routing.labels(model).get(version, version)

    def known_models(self) -> set[str]:
        """Every model that is loaded, or that a repository holds."""
        return self._decisions.known_models()

    def statuses(self) -> list[dict[str, Any]]:
        """The status of every model."""
        return [self.status(name) for name in sorted(self._decisions.known_models())]

    def samples(self) -> list[ModelSample]:
        """Every model as it stands, for the metrics."""
        return [self._sample(name) for name in sorted(self._decisions.known_models())]

    def _sample(self, model: str) -> ModelSample:
        canary = self._routing.traffic(model).canary
        shadowing = self._trials.shadows.get(model)
        return ModelSample(
            model=model,
            serving=self._serving(model),
            loads=self._manager.loads.get(model, {}),
            canary=CanarySample(
                version=canary.plan.version, phase=str(canary.phase), percent=canary.percent
            )
            if canary
            else None,
            shadow=shadowing.sample() if shadowing else None,
        )

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
            "head": verification.head,
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
        if entry in self._trials.recorders:
            raise Conflict(f"requests of {entry.label} are being recorded already")
        recorder = self._trials.recorders[entry] = GoldenRecorder(count)
        self._routing.publish()
        try:
            return await recorder.wait(timeout_s)
        finally:
            del self._trials.recorders[entry]
            self._routing.publish()

    # -- helpers ------------------------------------------------------------------------------

    @asynccontextmanager
    async def _change(
        self, model: str, verb: str, version: str, by: str, reason: str
    ) -> AsyncIterator[Change]:
        self._check_known(model)
        async with self._decisions.change(model, verb, version, by, reason) as change:
            yield change

    def _check_known(self, model: str) -> None:
        known = self._decisions.known_models()
        if model not in known:
            raise ModelNotFound(
                f"unknown model '{model}'; known are {', '.join(sorted(known)) or 'none'}"
            )

    def _following(self, model: str, traffic: ModelTraffic) -> ModelTraffic:
        """The traffic once the latest version is stable, whichever that is."""
        serving, latest = self._routing.serving(model), self._routing.latest(model)
        if latest is not None:
            keep = self._routing.keep_previous
            traffic = traffic.with_stable(latest.version, serving, keep)
        elif serving:
            raise Conflict(
                f"no version of model '{model}' that its version policy chooses serves: version "
                f"'{serving}' would have no successor"
            )
        return replace(traffic, stable=LATEST)

    def _serving(self, model: str) -> str:
        default = self._routing.default(model)
        return default.version if default else ""
