"""False rollbacks and power of the canary's gates: ``python -m loadtests.canary_statistics``.

Simulates whole canaries, with a look after every batch, by the comparisons that the gateway makes.
The exit code is 1 when candidates that are no worse than the limits are rolled back more often
than alpha allows.
"""

import argparse
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from gateway.control.traffic import CanaryGates
from gateway.evidence.comparisons import Comparisons
from gateway.evidence.gates import CanaryEvidence

SPLITS = (0.05, 0.2, 0.5)
BATCH = 32
BATCHES = 625  # 20,000 requests
CLASSES = 10
EVEN = (1 / CLASSES,) * CLASSES

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Version:
    """How a version behaves: shares of failed and of slow requests, and of each class.

    ``drift`` multiplies the first two, from 1 at the start to this at the end of the canary.
    """

    errors: float = 0.01
    slow: float = 0.05
    classes: tuple[float, ...] = EVEN
    drift: float = 1.0


@dataclass(frozen=True)
class Scenario:
    """A candidate beside a stable version, under limits; ``null`` if it is no worse than these."""

    name: str
    limits: CanaryGates
    candidate: Version = field(default_factory=Version)
    stable: Version = field(default_factory=Version)
    null: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of many canaries.

    Attributes:
        rolled_back: share of them.
        requests: mean requests that the candidate had had by then; NaN if none was rolled back.
        peeked: share that a z-test made for one look would have rolled back, asked at each.
    """

    rolled_back: float
    requests: float
    peeked: float


def shifted(by: float) -> tuple[float, ...]:
    """Even classes, but for the first, which has ``by`` more at the cost of all others."""
    rest = (1 - 1 / CLASSES - by) / (CLASSES - 1)
    return (1 / CLASSES + by, *[rest] * (CLASSES - 1))


def zero(**changed: float) -> CanaryGates:
    """Limits that allow nothing: the null where any wrong step is a false rollback."""
    none = {"max_error_increase": 0.0, "max_slow_increase": 0.0, "max_output_shift": 0.0}
    return CanaryGates(**{**none, **changed})


DEFAULT = CanaryGates()
AT_THE_LIMITS = Version(0.02, 0.1, shifted(0.1))
BUSIER = Version(0.005, 0.05, drift=5)
NULLS = (
    Scenario("no difference, limits 0", zero(), null=True),
    Scenario("no difference, both ever busier, limits 0", zero(), BUSIER, BUSIER, null=True),
    Scenario("worse by exactly the default limits", DEFAULT, AT_THE_LIMITS, null=True),
)
WORSE = {
    "errors +3 points": Version(errors=0.04),
    "errors +1.5 points": Version(errors=0.025),
    "slow x4": Version(slow=0.2),
    "slow x2": Version(slow=0.1),
    "one class +0.2": Version(classes=shifted(0.2)),
    "one class +0.05": Version(classes=shifted(0.05)),
}
ALTERNATIVES = tuple(
    Scenario(f"{name}, {which}", limits, candidate)
    for name, candidate in WORSE.items()
    for which, limits in (("limits 0", zero()), ("default limits", DEFAULT))
)


def comparisons(limits: CanaryGates) -> Comparisons:
    """The comparisons of a canary of a classifier, without counts."""
    evidence = CanaryEvidence(limits, ["scores"], steps=len(SPLITS))
    evidence.add(False, np.zeros(0, np.int64), [np.eye(CLASSES, dtype=np.float32)])
    return evidence.comparisons()


def batch(
    rng: np.random.Generator, version: Version, requests: npt.NDArray[np.int64], at: float
) -> tuple[Floats, Floats]:
    """Hits and trials of one batch in each canary, in the order of ``comparisons``."""
    drift = 1 + (version.drift - 1) * at
    errors = rng.binomial(requests, version.errors * drift)
    answered = requests - errors
    slow = rng.binomial(answered, version.slow * drift)
    classes = rng.multinomial(answered, version.classes)
    none = np.zeros((requests.size, 2))  # neither "other" nor "not finite"
    hits = np.concatenate([errors[:, None], slow[:, None], classes, none], axis=1)
    trials = np.repeat(answered[:, None], hits.shape[1], axis=1)
    trials[:, 0] = requests
    return hits, trials.astype(np.float64)


def peeking_fails(compared: Comparisons) -> npt.NDArray[np.bool_]:
    """What z-tests would say that are made for one look, at the same alpha; as ``fails`` does."""
    sides = np.where(compared.either_way, 2, 1)
    z = np.array([NormalDist().inv_cdf(1 - alpha) for alpha in compared.alpha / sides])
    trials = np.maximum(compared.trials, 1)
    shares = compared.hits / trials
    error = np.sqrt((shares * (1 - shares) / trials).sum(axis=0))
    apart = shares[1] - shares[0]
    apart = np.where(compared.either_way, np.abs(apart), apart)
    # The rule of thumb for a z-test: at least five hits on both sides.
    fails: npt.NDArray[np.bool_] = apart - compared.limit > z * error
    return fails & (compared.hits.min(axis=0) >= 5)


def simulate(scenario: Scenario, canaries: int, seed: int = 1, batches: int = BATCHES) -> Outcome:
    """Run the canaries side by side, a batch at a time, each until it is rolled back."""
    rng = np.random.default_rng(seed)
    plan = comparisons(scenario.limits)
    shape = (2, canaries, plan.limit.size)
    requests = np.zeros(canaries)
    stopped, peeked = np.zeros(canaries, bool), np.zeros(canaries, bool)
    for step, split in enumerate(SPLITS):
        hits, trials = np.zeros(shape), np.zeros(shape)
        for look in range(batches // len(SPLITS)):
            at = (step + look * len(SPLITS) / batches) / len(SPLITS)
            to_candidate = rng.binomial(BATCH, split, canaries)
            arms = ((scenario.stable, BATCH - to_candidate), (scenario.candidate, to_candidate))
            for arm, (version, sent) in enumerate(arms):
                for total, new in zip((hits, trials), batch(rng, version, sent, at), strict=True):
                    total[arm] += new
            requests += np.where(stopped, 0, to_candidate)
            # Canaries stand where `Comparisons` has steps: each is compared by itself.
            counted = Comparisons(hits, trials, plan.alpha, plan.limit, plan.either_way)
            peeked |= peeking_fails(counted).any(axis=1)
            stopped |= counted.fails().any(axis=1)
    mean = float(requests[stopped].mean()) if stopped.any() else float("nan")
    return Outcome(float(stopped.mean()), mean, float(peeked.mean()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate canaries.")
    parser.add_argument("canaries", type=int, nargs="?", default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(
        f"{arguments.canaries:,} canaries each, of {BATCH * BATCHES:,} requests in batches of "
        f"{BATCH}, {SPLITS[0]:.0%} -> {SPLITS[1]:.0%} -> {SPLITS[2]:.0%}, alpha {DEFAULT.alpha}\n"
    )
    print("| candidate | rolled back | its requests by then | peeking z-test |\n|---|---|---|---|")
    wrong = False
    for scenario in (*NULLS, *ALTERNATIVES):
        outcome = simulate(scenario, arguments.canaries, arguments.seed)
        wrong |= scenario.null and outcome.rolled_back > scenario.limits.alpha
        asked = "" if np.isnan(outcome.requests) else f"{outcome.requests:,.0f}"
        print(
            f"| {scenario.name} | {outcome.rolled_back:.2%} | {asked} | {outcome.peeked:.1%} |",
            flush=True,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
