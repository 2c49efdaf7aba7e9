"""A canary's evidence: what both versions did, and whether the candidate holds its gates.

Each gate compares shares with a confidence sequence (``confidence.py``), so it may be looked at
after every batch, and acted on. Alpha is divided over everything that is looked at: over gates, an
output gate's part over its categories, and over the steps of the canary. Steps are compared each
by itself, because the split of the traffic changes between them: sums over steps would compare
the candidate's later traffic with the stable version's earlier, and hold a busier hour against it.
A step that failed stays failed; what passes is the last one, where the candidate has most traffic.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from gateway.evidence.comparisons import Comparisons
from gateway.evidence.confidence import Floats
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
    """How one gate stands, by the step that decides: one that failed, else the last.

    Attributes:
        gate: ``errors``, ``latency``, or ``outputs:`` and the output's name.
        category: of an output gate, the category whose shares differ most; else ``""``.
        step: the step that decides, from 0; the last is the last where both had requests.
        stable, candidate: the shares; 0 of no trials.
        difference: candidate minus stable; of an output gate the largest of any category, without
            its sign.
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
    step: int
    category: str

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
        if self.verdict is Verdict.PASS and self.gates:
            names = ", ".join(gate.gate for gate in self.gates)
            return f"every gate is surely within its limit: {names}"
        deciding = [gate.reason for gate in self.gates if gate.verdict is self.verdict]
        return "; ".join(deciding) or "no gate is asked for"


@dataclass(frozen=True, slots=True)
class _Gate:
    """A gate, and the alpha that all its comparisons have together; ``output`` -1 for none."""

    name: str
    limit: float
    alpha: float
    output: int = -1

    def shares(self, arm: ArmCounts) -> tuple[Counts, int]:
        """Hits by category, and what they are out of."""
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
        compared = limits.max_output_shift < 1
        self.bins = [OutputBins(datatype, learn) for datatype in types if compared]
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
            outputs: of those requests, rows along the first axis; not kept. May be empty where
                none was answered.
            errors: requests that failed besides.
        """
        arm = self._steps[-1][candidate]
        arm.requests += latencies_ns.size + errors
        arm.errors += errors
        answered, slow = self.threshold.count(latencies_ns, candidate)
        arm.answered += answered
        arm.slow += slow
        if outputs:
            for output, bins in enumerate(self.bins):
                counts = bins.count(outputs[output], candidate)
                if counts is not None:
                    arm.add_categories(output, counts)

    def add_errors(self, candidate: bool, errors: int) -> None:
        """Count requests that one version failed on, or that it refused."""
        arm = self._steps[-1][candidate]
        arm.requests += errors
        arm.errors += errors

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
        return bool(self._compare(self._steps[-1:]).fails().any())

    def verdict(self) -> CanaryVerdict:
        """How every gate stands; takes a millisecond or two."""
        comparisons = self.comparisons()
        bounds = comparisons.bounds()
        results, end = [], 0
        for gate, categories in zip(self._gates, self._categories(), strict=True):
            start, end = end, end + len(categories)
            results.append(_result(gate, categories, comparisons, bounds, slice(start, end)))
        return CanaryVerdict(Verdict.of_all(result.verdict for result in results), tuple(results))

    def comparisons(self) -> Comparisons:
        """What the gates compare, gate by gate, with the counts of all steps."""
        return self._compare(self._steps)

    def _no_counts(self) -> tuple[ArmCounts, ArmCounts]:
        return ArmCounts.of_outputs(len(self.bins)), ArmCounts.of_outputs(len(self.bins))

    def _categories(self) -> list[tuple[str, ...]]:
        """What each gate compares: one nameless share, or one of each category of an output."""
        return [
            (gate.output >= 0 and self.bins[gate.output].categories) or ("",)
            for gate in self._gates
        ]

    def _compare(self, steps: Sequence[tuple[ArmCounts, ArmCounts]]) -> Comparisons:
        sizes = [len(categories) for categories in self._categories()]
        each = list(zip(self._gates, sizes, strict=True))
        hits = np.zeros((2, len(steps), sum(sizes)))
        trials = np.zeros_like(hits)
        for step, arms in enumerate(steps):
            for arm, counts in enumerate(arms):
                end = 0
                for gate, size in each:
                    start, end = end, end + size
                    counted, trials[arm, step, start:end] = gate.shares(counts)
                    if counted.size:
                        hits[arm, step, start:end] = counted
        return Comparisons(
            hits,
            trials,
            np.array([g.alpha / n for g, n in each for _ in range(n)]),
            np.array([g.limit for g, n in each for _ in range(n)]),
            np.array([g.output >= 0 for g, n in each for _ in range(n)], bool),
        )


def _gates(limits: GateLimits, outputs: Sequence[str], steps: int) -> list[_Gate]:
    """The gates that can fail: each kind gets the same part of alpha, and each step of that."""
    kinds = {
        "errors": (limits.max_error_increase, ["errors"]),
        "latency": (limits.max_slow_increase, ["latency"]),
        "outputs": (limits.max_output_shift, [f"outputs:{name}" for name in outputs]),
    }
    used = {kind: (limit, names) for kind, (limit, names) in kinds.items() if limit < 1 and names}
    return [
        _Gate(
            name,
            limit,
            limits.alpha / (len(used) * len(names) * steps),
            output if kind == "outputs" else -1,
        )
        for kind, (limit, names) in used.items()
        for output, name in enumerate(names)
    ]


def _result(
    gate: _Gate,
    categories: Sequence[str],
    compared: Comparisons,
    bounds: tuple[Floats, Floats],
    span: slice,
) -> GateResult:
    """The gate whose comparisons are ``span``, by the step that decides."""
    lows, highs = (bound[:, span].max(axis=1) for bound in bounds)
    step = int(lows.argmax())
    if lows[step] <= gate.limit:
        both = np.flatnonzero((compared.trials[:, :, span.start] > 0).all(axis=0))
        step = int(both[-1]) if both.size else len(lows) - 1
    shares = compared.shares()[:, step, span]
    differences = shares[1] - shares[0]
    if gate.output >= 0:
        differences = np.abs(differences)
    worst = int(differences.argmax())
    low, high = float(lows[step]), float(highs[step])
    return GateResult(
        gate=gate.name,
        verdict=_verdict(low, high, gate.limit),
        stable=float(shares[0, worst]),
        candidate=float(shares[1, worst]),
        difference=float(differences[worst]),
        low=low,
        high=high,
        limit=gate.limit,
        stable_trials=int(compared.trials[0, step, span.start]),
        candidate_trials=int(compared.trials[1, step, span.start]),
        step=step,
        category=categories[worst],
    )


def _verdict(low: float, high: float, limit: float) -> Verdict:
    if low > limit:
        return Verdict.FAIL
    return Verdict.PASS if high <= limit else Verdict.INCONCLUSIVE
