"""The canary's gates: what they count, when they pass and fail, and what they do not compare."""

from collections.abc import Sequence

import numpy as np
import pytest

from gateway.control.traffic import CanaryGates
from gateway.evidence.gates import CanaryEvidence, CanaryVerdict, GateResult, Verdict

NOTHING = np.zeros(0, np.int64)
CLASSES = 4
DEFAULT = CanaryGates()


def feed(
    evidence: CanaryEvidence,
    candidate: bool,
    requests: int,
    *,
    errors: int = 0,
    slow: int = 0,
    classes: Sequence[int] = (1, 1, 1, 1),
) -> None:
    """So many requests, answers of classes in these proportions, latency 100 or (slow) 1000."""
    answered = requests - errors
    latencies = np.where(np.arange(answered) < slow, 1000, 100)
    picked = np.repeat(np.arange(CLASSES), classes)[np.arange(answered) % sum(classes)]
    evidence.add(candidate, latencies, [np.eye(CLASSES, dtype=np.float32)[picked]], errors)


def evidence_of(gates: CanaryGates = DEFAULT, steps: int = 1) -> CanaryEvidence:
    """Evidence whose latency limit is fixed, at 100, by 200 requests of the stable version."""
    evidence = CanaryEvidence(gates, ["scores"], steps=steps)
    evidence.add(False, np.full(200, 100), [np.zeros((0, CLASSES), np.float32)])
    return evidence


def gate(verdict: CanaryVerdict, name: str) -> GateResult:
    return next(result for result in verdict.gates if result.gate == name)


def test_without_requests_nothing_is_known() -> None:
    verdict = CanaryEvidence(CanaryGates(), ["a", "b"]).verdict()
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert [result.gate for result in verdict.gates] == [
        "errors",
        "latency",
        "outputs:a",
        "outputs:b",
    ]
    assert {result.verdict for result in verdict.gates} == {Verdict.INCONCLUSIVE}
    assert (verdict.gates[0].low, verdict.gates[0].high) == (-1, 1)
    assert (verdict.gates[2].low, verdict.gates[2].high) == (0, 1)


def test_equal_versions_pass_once_there_is_enough() -> None:
    evidence = evidence_of()
    feed(evidence, False, 100, errors=1)
    feed(evidence, True, 100, errors=1)
    assert evidence.verdict().verdict is Verdict.INCONCLUSIVE
    feed(evidence, False, 20_000, errors=200)
    feed(evidence, True, 20_000, errors=200)
    verdict = evidence.verdict()
    assert verdict.verdict is Verdict.PASS
    assert not evidence.failing()
    assert "every gate is surely within its limit: errors, latency" in verdict.reason


@pytest.mark.parametrize(
    ("wrong", "failed"),
    [
        ({"errors": 200}, "errors"),
        ({"slow": 400}, "latency"),
        ({"classes": (5, 1, 1, 1)}, "outputs:scores"),
        ({"classes": (0, 1, 1, 1)}, "outputs:scores"),
    ],
)
def test_a_worse_candidate_fails_by_the_gate_it_breaks(wrong: dict, failed: str) -> None:
    evidence = evidence_of()
    feed(evidence, False, 2_000)
    feed(evidence, True, 1_000, **wrong)
    verdict = evidence.verdict()
    assert evidence.failing()
    assert verdict.verdict is Verdict.FAIL
    assert [g.gate for g in verdict.gates if g.verdict is Verdict.FAIL] == [failed]
    assert verdict.reason.startswith(failed)
    assert "is surely above" in verdict.reason


def test_a_better_candidate_does_not_fail() -> None:
    evidence = evidence_of()
    feed(evidence, False, 1_800, errors=500, slow=700)
    feed(evidence, True, 2_000)
    verdict = evidence.verdict()
    assert not evidence.failing()
    assert gate(verdict, "errors").verdict is Verdict.PASS
    assert gate(verdict, "errors").difference == pytest.approx(-0.25)
    assert gate(verdict, "latency").verdict is Verdict.PASS


def test_a_result_tells_the_shares_the_difference_and_its_bounds() -> None:
    evidence = evidence_of()
    feed(evidence, False, 800, errors=8)
    feed(evidence, True, 200, errors=12, classes=(4, 2, 1, 1))
    errors, _, outputs = evidence.verdict().gates
    assert (errors.stable, errors.candidate) == (8 / 1000, 12 / 200)
    assert errors.difference == pytest.approx(12 / 200 - 8 / 1000)
    assert errors.low < errors.difference < errors.high
    assert (errors.stable_trials, errors.candidate_trials) == (1000, 200)
    assert (outputs.category, outputs.stable, outputs.candidate) == ("0", 0.25, 96 / 188)
    assert outputs.low < outputs.difference < outputs.high


def test_a_limit_of_one_leaves_its_gate_out_and_its_alpha_to_the_others() -> None:
    few = evidence_of(CanaryGates(max_output_shift=1, max_slow_increase=1))
    all_ = evidence_of()
    for evidence in (few, all_):
        feed(evidence, False, 1_000)
        feed(evidence, True, 1_000, errors=20)
    assert [result.gate for result in few.verdict().gates] == ["errors"]
    assert gate(few.verdict(), "errors").low > gate(all_.verdict(), "errors").low


def test_without_any_gate_everything_passes() -> None:
    none = CanaryGates(max_error_increase=1, max_slow_increase=1, max_output_shift=1)
    evidence = evidence_of(none, steps=2)
    feed(evidence, True, 100, errors=100)
    assert not evidence.failing()
    assert evidence.verdict().verdict is Verdict.PASS
    assert evidence.verdict().reason == "no gate is asked for"


def test_a_busier_hour_is_not_held_against_the_version_that_has_more_of_it() -> None:
    """In sums over both steps the candidate is 14 points worse; in each step it is no worse."""
    evidence = evidence_of(steps=2)
    feed(evidence, False, 10_000, errors=100)
    feed(evidence, True, 500, errors=5)
    evidence.next_step()
    feed(evidence, False, 1_200, errors=240)
    feed(evidence, True, 3_600, errors=720)
    stable, candidate = evidence.counts(False), evidence.counts(True)
    assert candidate.errors / candidate.requests - stable.errors / stable.requests > 0.14
    errors = gate(evidence.verdict(), "errors")
    assert (errors.step, errors.stable, errors.candidate) == (1, 0.2, 0.2)
    assert not evidence.failing()
    assert errors.verdict is not Verdict.FAIL


def test_the_last_step_passes_not_one_before_it() -> None:
    evidence = evidence_of(steps=2)
    feed(evidence, False, 20_000)
    feed(evidence, True, 20_000)
    assert evidence.verdict().verdict is Verdict.PASS
    evidence.next_step()
    feed(evidence, False, 10)
    feed(evidence, True, 10)
    assert evidence.verdict().verdict is Verdict.INCONCLUSIVE


def test_a_last_step_that_leaves_the_stable_version_nothing_is_judged_by_the_one_before() -> None:
    evidence = evidence_of(steps=2)
    feed(evidence, False, 20_000)
    feed(evidence, True, 20_000)
    evidence.next_step()
    feed(evidence, True, 1_000)
    assert {result.step for result in evidence.verdict().gates} == {0}
    assert evidence.verdict().verdict is Verdict.PASS


def test_a_step_that_failed_stays_failed() -> None:
    evidence = evidence_of(steps=2)
    feed(evidence, False, 2_000)
    feed(evidence, True, 500, errors=200)
    assert evidence.failing()
    evidence.next_step()
    feed(evidence, False, 20_000)
    feed(evidence, True, 20_000)
    assert not evidence.failing()
    assert evidence.verdict().verdict is Verdict.FAIL
    assert gate(evidence.verdict(), "errors").step == 0


def test_no_more_steps_than_alpha_was_divided_for() -> None:
    evidence = CanaryEvidence(CanaryGates(), steps=1)
    with pytest.raises(ValueError, match="made for 1 steps"):
        evidence.next_step()


def test_counts_are_over_all_steps() -> None:
    evidence = evidence_of(steps=2)
    feed(evidence, True, 10, errors=2, slow=3)
    evidence.next_step()
    feed(evidence, False, 8)
    feed(evidence, True, 10, errors=1, slow=4)
    evidence.add(True, NOTHING, [], errors=5)
    counts = evidence.counts(candidate=True)
    assert (counts.requests, counts.errors, counts.answered, counts.slow) == (25, 8, 17, 7)
    assert int(counts.categories[0].sum()) == 9  # its first 8 came before any stable row


def test_failing_is_what_the_verdict_says_at_every_look() -> None:
    evidence = evidence_of(CanaryGates(max_error_increase=0.0))
    rng = np.random.default_rng(5)
    looks = []
    for _ in range(200):
        feed(evidence, False, 16, errors=int(rng.binomial(16, 0.01)))
        feed(evidence, True, 16, errors=int(rng.binomial(16, 0.06)))
        looks.append(evidence.failing())
        assert looks[-1] is (evidence.verdict().verdict is Verdict.FAIL)
    assert {True, False} == set(looks)
