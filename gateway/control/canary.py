"""One canary at work: what its two versions did, and what follows from it."""

import logging
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np

from gateway.control.traffic import Canary, CanaryPhase
from gateway.evidence.gates import CanaryEvidence, CanaryVerdict, Verdict
from gateway.serving.lane import Batch, Lane
from gateway.serving.onnx.slot import Slot
from gateway.serving.registry import ModelVersion
from gateway.types import Array

log = logging.getLogger(__name__)

#: How Argo Rollouts names the phases of an analysis.
_RESULTS: Final = {
    CanaryPhase.RUNNING: "Running",
    CanaryPhase.PAUSED: "Running",
    CanaryPhase.INCONCLUSIVE: "Inconclusive",
    CanaryPhase.PASSED: "Successful",
    CanaryPhase.PROMOTED: "Successful",
    CanaryPhase.ROLLED_BACK: "Failed",
    CanaryPhase.ABORTED: "Failed",
}


def next_canary(
    canary: Canary, verdict: CanaryVerdict, *, held_s: float, step_requests: int
) -> Canary:
    """The canary as it should stand now; the same object where nothing changes.

    Args:
        verdict: of all evidence so far.
        held_s: seconds that it has been at its step.
        step_requests: requests that the candidate has had at its step.
    """
    plan, phase = canary.plan, canary.phase
    if phase.over:
        return canary
    if verdict.verdict is Verdict.FAIL:
        return replace(canary, phase=CanaryPhase.ROLLED_BACK, reason=verdict.reason)
    if waits(canary, held_s=held_s, step_requests=step_requests):
        return canary
    if canary.step + 1 < len(plan.steps):
        return replace(canary, step=canary.step + 1)
    if verdict.verdict is Verdict.PASS:
        passed = CanaryPhase.PROMOTED if plan.auto_promote else CanaryPhase.PASSED
        return replace(canary, phase=passed, reason=verdict.reason)
    if phase is CanaryPhase.INCONCLUSIVE:
        return canary
    return replace(canary, phase=CanaryPhase.INCONCLUSIVE, reason=verdict.reason)


def waits(canary: Canary, *, held_s: float, step_requests: int) -> bool:
    """Whether nothing but a gate that fails can move ``canary`` now; see ``next_canary``."""
    if canary.phase is not CanaryPhase.RUNNING:
        return canary.phase is not CanaryPhase.INCONCLUSIVE
    step = canary.plan.steps[canary.step]
    return held_s < step.hold_s or step_requests < step.min_requests


class CanaryRun:
    """Counts what the stable version and the candidate answer, from now on until ``close``.

    All that either of them answers counts, however it was addressed. Event loop's thread only.
    """

    def __init__(
        self, canary: Canary, stable: ModelVersion, candidate: ModelVersion, now_s: float
    ) -> None:
        """Watch the lanes of the two, which are READY; ``now_s`` is monotonic seconds."""
        assert stable.lane is not None
        assert candidate.lane is not None
        plan = canary.plan
        outputs = candidate.lane.loaded.signature.outputs
        self.stable: Final = stable
        self.candidate: Final = candidate
        self.plan: Final = plan
        #: The candidate, as it was loaded.
        self.loaded: Final = candidate.lane.loaded
        self._evidence = CanaryEvidence(
            plan.gates,
            [spec.name for spec in outputs],
            [spec.datatype for spec in outputs],
            steps=len(plan.steps) - canary.step,
        )
        self._arms = (
            _Arm(self._evidence, stable.lane, candidate=False),
            _Arm(self._evidence, candidate.lane, candidate=True),
        )
        self._step = canary.step
        self._step_since_s = now_s
        self._requests_before = 0

    def look(self, canary: Canary, now_s: float) -> Canary:
        """What should become of ``canary``, by all that has been seen until ``now_s``."""
        for arm in self._arms:
            arm.count_errors()
        requests = self._evidence.counts(candidate=True).requests
        if canary.step != self._step:
            # The last look's advice was followed: what comes from here on is compared by itself.
            self._evidence.next_step()
            self._step = canary.step
            self._step_since_s = now_s
            self._requests_before = requests
        held_s, step_requests = now_s - self._step_since_s, requests - self._requests_before
        quiet = waits(canary, held_s=held_s, step_requests=step_requests)
        if quiet and not self._evidence.failing():
            return canary
        return next_canary(
            canary, self._evidence.verdict(), held_s=held_s, step_requests=step_requests
        )

    def report(self) -> dict[str, Any]:
        """The gates and the counts, as JSON values."""
        verdict = self._evidence.verdict()
        stable, candidate = (self._evidence.counts(candidate) for candidate in (False, True))
        return {
            "verdict": str(verdict.verdict),
            "gates": [asdict(result) for result in verdict.gates],
            "requests": {"stable": stable.requests, "candidate": candidate.requests},
            "errors": {"stable": stable.errors, "candidate": candidate.errors},
        }

    def close(self) -> None:
        """Watch no longer."""
        for arm in self._arms:
            arm.close()


class _Arm:
    """Counts what one version answers: shown its lane's batches, and its errors at each look."""

    def __init__(self, evidence: CanaryEvidence, lane: Lane, *, candidate: bool) -> None:
        self._evidence = evidence
        self._lane = lane
        self._candidate = candidate
        self._axes = [spec.batch_axis for spec in lane.loaded.signature.outputs]
        self._errors = self._errors_so_far()
        self._broken = False
        lane.taps = (*lane.taps, self)

    def batch(self, batch: Batch, slot: Slot, arrays: list[Array], ended_ns: int) -> None:
        """See ``BatchTap``."""
        latencies = np.array(
            [ended_ns - ticket.enqueued_ns for ticket in batch.tickets if not ticket.cancelled],
            dtype=np.int64,
        )
        try:
            self._evidence.add(
                self._candidate,
                latencies,
                [_rows_first(a, axis) for a, axis in zip(arrays, self._axes, strict=True)],
            )
        except Exception:
            if not self._broken:
                log.exception("answers of %s could not be counted", self._lane.label)
            self._broken = True

    def batch_alone(self, rows: int) -> None:
        """See ``BatchTap``: of these nothing is known but that they were answered."""

    def count_errors(self) -> None:
        """Count the requests that have failed, or were refused, since the last time."""
        errors = self._errors_so_far()
        if errors > self._errors:
            self._evidence.add_errors(self._candidate, errors - self._errors)
        self._errors = errors

    def close(self) -> None:
        self._lane.taps = tuple(tap for tap in self._lane.taps if tap is not self)

    def _errors_so_far(self) -> int:
        stats = self._lane.stats
        return int(stats.requests_failed) + sum(stats.rejected.values())


def _rows_first(array: Array, axis: int | None) -> Array:
    if axis is None:
        return array[np.newaxis]
    return np.moveaxis(array, axis, 0) if axis else array


def verdict_of(model: str, canary: Canary, report: dict[str, Any] | None) -> dict[str, Any]:
    """How a canary stands, as JSON values that a delivery tool can act on.

    ``verdict`` is ``pass``, ``fail``, ``inconclusive`` or ``running``; ``result`` is the same in
    the words of Argo Rollouts. ``report`` is a ``CanaryRun``'s, ``None`` where there is none.
    """
    verdicts = {"Successful": "pass", "Failed": "fail", "Inconclusive": "inconclusive"}
    result = _RESULTS[canary.phase]
    return {
        "model": model,
        "version": canary.plan.version,
        "stable": canary.against,
        "phase": str(canary.phase),
        "step": canary.step,
        "steps": len(canary.plan.steps),
        "percent": canary.percent,
        "verdict": verdicts.get(result, "running"),
        "result": result,
        "reason": canary.reason,
        "evidence": report and report["verdict"],
        "gates": report["gates"] if report else [],
        "requests": report["requests"] if report else {"stable": 0, "candidate": 0},
        "errors": report["errors"] if report else {"stable": 0, "candidate": 0},
    }
