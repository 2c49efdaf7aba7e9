"""A canary's evidence: what both versions did, and whether the candidate holds its gates.

Each gate compares shares with a confidence sequence (``confidence.py``), so it may be looked at
after every batch, and acted on. Alpha is divided over everything that is looked at: over gates, an
output gate's part over its categories, and over the steps of the canary. Steps are compared each
by itself, because the split of the traffic changes between them: sums over steps would compare
the candidate's later traffic with the stable version's earlier, and hold a busier hour against it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.evidence.confidence import difference_bounds, exceeds
from gateway.evidence.output_bins import LEARN, Counts, OutputBins
from gateway.evidence.slow_threshold import SlowThreshold
from gateway.types import Array, DataType


class Verdict(StrEnum):
    """What the evidence says so far."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"

    @classmethod
    def of_all(cls, verdicts: Iterable["Verdict"]) -> "Verdict":
        """Fail if any fails, pass if all pass."""
        found = set(verdicts)
        if cls.FAIL in found:
            return cls.FAIL
        return cls.PASS if found <= {cls.PASS} else cls.INCONCLUSIVE


class GateLimits(Protocol):
    """The limits that ``CanaryEvidence`` needs; see ``CanaryGates`` of the control plane."""

    @property
    def alpha(self) -> float: ...  # noqa: D102
    @property
    def max_error_increase(self) -> float: ...  # noqa: D102
    @property
    def max_latency_ratio(self) -> float: ...  # noqa: D102
    @property
    def latency_quantile(self) -> float: ...  # noqa: D102
    @property
    def max_slow_increase(self) -> float: ...  # noqa: D102
    @property
    def max_output_shift(self) -> float: ...  # noqa: D102


@dataclass(slots=True)
class ArmCounts:
    """What one version did.

    Attributes:
        requests: that it had, ``errors`` of which failed.
        answered: that are compared by latency, ``slow`` of which were slow.
        categories: rows by category, for each output; empty until its categories are fixed.
    """

    requests: int = 0
    errors: int = 0
    answered: int = 0
    slow: int = 0
    categories: list[Counts] = field(default_factory=list)

    @classmethod
    def of_outputs(cls, outputs: int) -> Self:
        """No counts yet, of a model of so many outputs."""
        return cls(categories=[np.zeros(0, np.int64) for _ in range(outputs)])

    def add(self, other: "ArmCounts") -> None:
        """Take in what ``other`` has counted."""
        self.requests += other.requests
        self.errors += other.errors
        self.answered += other.answered
        self.slow += other.slow
        for output, counts in enumerate(other.categories):
            self.add_categories(output, counts)

    def add_categories(self, output: int, counts: Counts) -> None:
        """Take in rows of one output."""
        if self.categories[output].size == 0:
            self.categories[output] = counts.astype(np.int64)
        elif counts.size:
            self.categories[output] += counts


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """How one gate stands.

    Attributes:
        gate: ``errors``, ``latency``, or ``outputs:`` and the output's name.
        category: of an output gate, the category whose shares differ most; else ``""``.
        stable, candidate: the shares, over all steps; 0 of no trials.
        difference: candidate minus stable, step by step, steps weighted by what they tell; of an
            output gate the largest of any category, without its sign.
        low, high: what the difference surely lies between.
        limit: what it may be at most.
    """

    gate: str
    verdict: Verdict
    stable: float
    candidate: float
    difference: float
    low: float
    high: float
    limit: float
    stable_trials: int
    candidate_trials: int
    category: str = ""

    @property
    def reason(self) -> str:
        """The result in a sentence."""
        what = f"{self.gate} (category {self.category})" if self.category else self.gate
        tells = {
            Verdict.PASS: "is surely within",
            Verdict.FAIL: "is surely above",
            Verdict.INCONCLUSIVE: "may or may not be above",
        }
        return (
            f"{what}: {self.candidate:.2%} of {self.candidate_trials:,} with the candidate, "
            f"{self.stable:.2%} of {self.stable_trials:,} with the stable version; the difference, "
            f"between {self.low:+.2%} and {self.high:+.2%}, {tells[self.verdict]} {self.limit:+.2%}"
        )


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """The verdict over all gates: fail if any fails, pass if all pass."""

    verdict: Verdict
    gates: tuple[GateResult, ...]

    @property
    def reason(self) -> str:
        """The gates that decided, in words."""
        deciding = [gate.reason for gate in self.gates if gate.verdict is self.verdict]
        return "; ".join(deciding) or "no gate is asked for"


#: Shares of one step that a gate compares: hits by category, and what they are out of.
_Shares: TypeAlias = tuple[Counts, int]


@dataclass(frozen=True, slots=True)
class _Gate:
    """A gate, and the alpha that all its comparisons have together; ``output`` -1 for none."""

    name: str
    limit: float
    alpha: float
    output: int = -1

    def shares(self, arm: ArmCounts) -> _Shares:
        if self.name == "errors":
            return np.array([arm.errors]), arm.requests
        if self.name == "latency":
            return np.array([arm.slow]), arm.answered
        counts = arm.categories[self.output]
        return counts, int(counts.sum())


class CanaryEvidence:
    """Counts what the stable version and a candidate do, and compares them.

    Counting costs some microseconds a batch; ``failing`` may be asked after each one. One thread.

    ``steps`` is how many steps the canary has at most. ``outputs`` and ``datatypes`` name the
    model's outputs in the order in which ``add`` gets them; a gate whose limit is 1 is left out,
    and costs the others nothing.
    """

    def __init__(
        self,
        limits: GateLimits,
        outputs: Sequence[str] = (),
        datatypes: Sequence[DataType | None] = (),
        *,
        steps: int = 1,
        learn: int = LEARN,
    ) -> None:
        types = datatypes or [None] * len(outputs)
        self.threshold = SlowThreshold(limits.latency_quantile, limits.max_latency_ratio, learn)
        self.bins = [OutputBins(datatype, learn) for datatype in types]
        self._gates = _gates(limits, outputs, steps)
        self._max_steps = steps
        self._steps = [self._no_counts()]

    def add(
        self,
        candidate: bool,
        latencies_ns: npt.NDArray[np.int64],
        outputs: Sequence[Array],
        errors: int = 0,
    ) -> None:
        """Count a batch of one version.

        Args:
            candidate: whether the candidate ran it, else the stable version.
            latencies_ns: of each request that was answered.
            outputs: of those requests, rows along the first axis; not kept.
            errors: requests that failed besides.
        """
        arm = self._steps[-1][candidate]
        arm.requests += latencies_ns.size + errors
        arm.errors += errors
        answered, slow = self.threshold.count(latencies_ns, candidate)
        arm.answered += answered
        arm.slow += slow
        for output, (bins, array) in enumerate(zip(self.bins, outputs, strict=True)):
            counts = bins.count(array, candidate)
            if counts is not None:
                arm.add_categories(output, counts)

    def next_step(self) -> None:
        """Compare what comes from here on by itself. Raises ``ValueError`` beyond ``steps``."""
        if len(self._steps) == self._max_steps:
            raise ValueError(f"the evidence was made for {self._max_steps} steps: pass more")
        self._steps.append(self._no_counts())

    def counts(self, candidate: bool) -> ArmCounts:
        """All that one version did so far."""
        total = ArmCounts.of_outputs(len(self.bins))
        for step in self._steps:
            total.add(step[candidate])
        return total

    def failing(self) -> bool:
        """Whether a gate fails by this step's counts: what ``verdict`` says, for less."""
        stable, candidate = self._steps[-1]
        for gate in self._gates:
            hits_s, trials_s = gate.shares(stable)
            hits_c, trials_c = gate.shares(candidate)
            if hits_s.size == 0 or hits_c.size == 0:
                continue
            alpha = gate.alpha / hits_s.size
            if exceeds(hits_s, trials_s, hits_c, trials_c, gate.limit, alpha).any():
                return True
            if gate.output >= 0 and (
                exceeds(hits_c, trials_c, hits_s, trials_s, gate.limit, alpha).any()
            ):
                return True
        return False

    def verdict(self) -> CanaryVerdict:
        """How every gate stands, by the counts of all steps."""
        results = tuple(self._result(gate) for gate in self._gates)
        return CanaryVerdict(Verdict.of_all(result.verdict for result in results), results)

    def _no_counts(self) -> tuple[ArmCounts, ArmCounts]:
        return ArmCounts.of_outputs(len(self.bins)), ArmCounts.of_outputs(len(self.bins))

    def _result(self, gate: _Gate) -> GateResult:
        names = self.bins[gate.output].categories if gate.output >= 0 else ("",)
        shares = [
            (gate.shares(stable), gate.shares(candidate)) for stable, candidate in self._steps
        ]
        return _compare(gate, names, shares)


def _gates(limits: GateLimits, outputs: Sequence[str], steps: int) -> list[_Gate]:
    """The gates that can fail; each kind gets the same part of alpha, and each step of that."""
    kinds = {
        "errors": (limits.max_error_increase, ("errors",)),
        "latency": (limits.max_slow_increase, ("latency",)),
        "outputs": (limits.max_output_shift, tuple(f"outputs:{name}" for name in outputs)),
    }
    used = {kind: (limit, names) for kind, (limit, names) in kinds.items() if limit < 1 and names}
    return [
        _Gate(name, limit, limits.alpha / (len(used) * len(names) * steps), output)
        for kind, (limit, names) in used.items()
        for output, name in (enumerate(names) if kind == "outputs" else [(-1, names[0])])
    ]


def _compare(
    gate: _Gate, names: Sequence[str], shares: Sequence[tuple[_Shares, _Shares]]
) -> GateResult:
    """The gate's result; the difference is in every step's interval, and so in what they share."""
    none = np.zeros(len(names), np.int64)
    arms = [[hits if hits.size else none for hits, _ in arm] for arm in zip(*shares, strict=True)]
    hits_s, hits_c = np.array(arms[0], float), np.array(arms[1], float)
    trials_s, trials_c = (
        np.array([[t] for _, t in arm], float) for arm in zip(*shares, strict=True)
    )
    if not names:
        return _result(gate, "", (0.0, 0.0, 0.0), (0.0, 1.0), (0, 0))
    lows, highs = difference_bounds(hits_s, trials_s, hits_c, trials_c, gate.alpha / len(names))
    low, high = lows.max(axis=0), highs.min(axis=0)
    differences = _mean_difference(hits_s, trials_s, hits_c, trials_c)
    if gate.output >= 0:
        differences = np.abs(differences)
        low, high = np.maximum(np.maximum(low, -high), 0.0), np.maximum(high, -low)
    worst = int(differences.argmax())
    totals = int(trials_s.sum()), int(trials_c.sum())
    stable = float(hits_s[:, worst].sum()) / max(totals[0], 1)
    candidate = float(hits_c[:, worst].sum()) / max(totals[1], 1)
    return _result(
        gate,
        names[worst],
        (stable, candidate, float(differences[worst])),
        (float(low.max()), float(high.max())),
        totals,
    )


def _mean_difference(hits_s: Array, trials_s: Array, hits_c: Array, trials_c: Array) -> Array:
    """Mean difference of the shares over steps, weighted as Mantel and Haenszel did (1959)."""
    weights = trials_s * trials_c / np.maximum(trials_s + trials_c, 1)
    apart = hits_c / np.maximum(trials_c, 1) - hits_s / np.maximum(trials_s, 1)
    mean: Array = (weights * apart).sum(axis=0) / max(float(weights.sum()), 1e-300)
    return mean


def _result(
    gate: _Gate,
    category: str,
    shares: tuple[float, float, float],
    bounds: tuple[float, float],
    trials: tuple[int, int],
) -> GateResult:
    verdict = Verdict.INCONCLUSIVE
    if bounds[0] > gate.limit:
        verdict = Verdict.FAIL
    elif bounds[1] <= gate.limit:
        verdict = Verdict.PASS
    return GateResult(
        gate=gate.name,
        verdict=verdict,
        category=category,
        stable=shares[0],
        candidate=shares[1],
        difference=shares[2],
        low=bounds[0],
        high=bounds[1],
        limit=gate.limit,
        stable_trials=trials[0],
        candidate_trials=trials[1],
    )
