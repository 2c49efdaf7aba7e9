"""The canaries and shadows that are at work: as decided, over what is loaded."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from gateway.control.canary import CanaryRun
from gateway.control.decisions import ITSELF, Decisions
from gateway.control.golden_recorder import GoldenRecorder
from gateway.control.journal import Event
from gateway.control.routing import Watchers
from gateway.control.shadowing import Shadowing
from gateway.control.traffic import Canary, CanaryPhase, ModelTraffic, as_table
from gateway.errors import Conflict
from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion

log = logging.getLogger(__name__)

#: Seconds between two looks at a canary.
LOOK_S: Final = 0.5


class Trials:
    """Starts and ends canaries and shadows as the decisions say, and moves canaries on.

    For the event loop's thread only.

    Attributes:
        canaries, shadows: those at work, by model.
        recorders: those who record golden requests, by the version that answers.
    """

    def __init__(self, decisions: Decisions, clock: Callable[[], float]) -> None:
        """Follow ``decisions``; ``clock`` gives monotonic seconds."""
        self.canaries: Final[dict[str, CanaryRun]] = {}
        self.shadows: Final[dict[str, Shadowing]] = {}
        self.recorders: Final[dict[ModelVersion, GoldenRecorder]] = {}
        self._decisions = decisions
        self._routing = decisions.routing
        self._clock = clock
        # Of the canaries that are over, to be asked about until the next one.
        self._reports: dict[str, dict[str, Any]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._routing.watchers = self._watchers

    def start(self) -> None:
        """Look at the canaries from now on."""
        self._looking = asyncio.get_running_loop().create_task(self._look_on())

    async def close(self) -> None:
        """End all of them; what is decided stays."""
        if self._looking is not None:
            self._looking.cancel()
        for run in self.canaries.values():
            run.close()
        self.canaries.clear()
        await asyncio.gather(*(shadowing.close() for shadowing in self.shadows.values()))
        self.shadows.clear()

    async def look(self, model: str) -> None:
        """Look at the model's canary, and do what follows from what it has seen."""
        run = self.canaries.get(model)
        async with self._decisions.turn(model):
            traffic = self._routing.traffic(model)
            canary = traffic.running_canary
            if run is None or canary is None or self.canaries.get(model) is not run:
                return
            after = run.look(canary, self._clock())
            if after is not canary:
                await self._move(model, traffic, after)

    def canary_report(self, model: str) -> dict[str, Any] | None:
        """What the model's canary has seen so far, or its last one saw; see ``CanaryRun``."""
        run = self.canaries.get(model)
        return run.report() if run is not None else self._reports.get(model)

    async def evidence(self, model: str, version: str) -> dict[str, Any] | None:
        """What is known by now of ``version`` by its canary and its shadow, if it has any."""
        found: dict[str, Any] = {}
        run, shadowing = self.canaries.get(model), self.shadows.get(model)
        if run is not None and run.plan.version == version:
            found["canary"] = run.report()
        if shadowing is not None and shadowing.plan.version == version and not shadowing.plan.model:
            found["shadow"] = await shadowing.report()
        return found or None

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for model in list(self.canaries):
                try:
                    await self.look(model)
                except Exception:
                    log.exception("the canary of model '%s' could not be moved", model)

    async def _move(self, model: str, traffic: ModelTraffic, after: Canary) -> None:
        version = after.plan.version
        failed = after.phase is CanaryPhase.ROLLED_BACK
        log.log(
            logging.WARNING if failed else logging.INFO,
            "the canary of model '%s', version '%s', is %s at %g %%%s",
            model,
            version,
            after.phase,
            after.percent,
            f": {after.reason}" if after.reason else "",
        )
        run = self.canaries[model]
        changed = replace(traffic, canary=after)
        if after.phase is CanaryPhase.PROMOTED:
            changed = changed.with_stable(version, traffic.stable, self._routing.keep_previous)
        verbs = {
            CanaryPhase.ROLLED_BACK: "canary_rollback",
            CanaryPhase.PROMOTED: "canary_promote",
        }
        event = Event(
            by=ITSELF,
            verb=verbs.get(after.phase, "canary_step"),
            model=model,
            version=version,
            reason=after.reason or f"step {after.step + 1}: {after.percent:g} %",
            digest=run.loaded.digest,
            lineage=run.loaded.lineage or None,
            evidence={"canary": run.report()},
            before=as_table(traffic),
            after=as_table(changed),
        )
        await self._decisions.commit(model, changed, event)

    def _watchers(self) -> Watchers:
        """Bring all to what is decided and loaded now, for a new route table."""
        for model in {*self._routing.decided(), *self.canaries, *self.shadows}:
            self._sync_canary(model)
            self._sync_shadow(model)
        return Watchers(
            {shadowing.primary: shadowing.mirror for shadowing in self.shadows.values()},
            {entry: recorder.record for entry, recorder in self.recorders.items()},
        )

    def _sync_canary(self, model: str) -> None:
        canary = self._routing.traffic(model).running_canary
        run = self.canaries.get(model)
        stable = self._routing.default(model)
        candidate = self._ready(model, canary.plan.version) if canary else None
        if run is not None and (
            canary is None
            or run.plan != canary.plan
            or run.stable is not stable
            or run.candidate is not candidate
        ):
            self._reports[model] = run.report()
            run.close()
            del self.canaries[model]
            run = None
        if run is None and canary and stable and candidate and stable is not candidate:
            self._reports.pop(model, None)
            self.canaries[model] = CanaryRun(canary, stable, candidate, self._clock())

    def _sync_shadow(self, model: str) -> None:
        plan = self._routing.traffic(model).shadow
        shadowing = self.shadows.get(model)
        primary = self._routing.default(model)
        shadow = self._ready(plan.model or model, plan.version) if plan else None
        if shadowing is not None and (
            shadowing.plan != plan
            or shadowing.primary is not primary
            or shadowing.shadow is not shadow
        ):
            del self.shadows[model]
            self._decisions.begin(shadowing.close())
            shadowing = None
        if shadowing is None and plan and primary and shadow and primary is not shadow:
            try:
                self.shadows[model] = Shadowing(plan, primary, shadow)
            except Conflict as error:
                log.warning("model '%s' is not shadowed: %s", model, error)

    def _ready(self, model: str, version: str) -> ModelVersion | None:
        entry = self._decisions.registry.get(model, version)
        return entry if entry is not None and entry.state is State.READY else None
