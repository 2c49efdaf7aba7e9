"""Primary beside shadow: what counts as alike, what the report says, which pairs are kept."""

import json
from typing import Any

import numpy as np
import pytest

from gateway.evidence.pairs import Pair, PairComparison
from gateway.types import BF16, Array


def comparison(*names: str, **options: Any) -> PairComparison:
    settings = {
        "relative_tolerance": 1e-3,
        "absolute_tolerance": 1e-5,
        "min_agreement": 0.99,
        "max_flips": 0.01,
        "keep_worst": 3,
    }
    return PairComparison(names or ("y",), **{**settings, **options})


def pair(primary: Array, shadow: Array, key: object = None, ns: tuple[int, int] = (1, 1)) -> Pair:
    return Pair([primary], [shadow], *ns, key)


def report_of(primary: Array, shadow: Array, **options: Any) -> dict[str, Any]:
    compared = comparison(**options)
    compared.add([pair(primary, shadow)])
    return compared.report()


SCORES = np.array([[0.1, 0.7, 0.2]], np.float32)


@pytest.mark.parametrize(
    ("primary", "shadow", "agrees"),
    [
        (np.array([100.0]), np.array([100.09]), True),
        (np.array([100.0]), np.array([100.2]), False),
        (np.array([0.0]), np.array([9e-6]), True),
        (np.array([0.0]), np.array([2e-5]), False),
        (np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), True),
        (np.array([np.nan]), np.array([0.0]), False),
        (np.array([np.inf]), np.array([-np.inf]), False),
        (np.array([np.inf]), np.array([1.0]), False),
        (np.array([5000]), np.array([5001]), False),
        (np.array([True]), np.array([True]), True),
        (np.array(["a", "b"], object), np.array([b"a", b"b"], object), True),
        (np.array(["a", "b"], object), np.array(["a", "c"], object), False),
        (np.zeros((2, 3)), np.zeros((3, 2)), False),
        (np.zeros(2, np.float32), np.zeros(2, np.float64), False),
        (np.zeros((0, 3)), np.zeros((0, 3)), True),
        (np.zeros((2, 0)), np.zeros((2, 0)), True),
    ],
)
def test_values_agree(primary: Array, shadow: Array, agrees: bool) -> None:
    report = report_of(primary, shadow)
    assert report["agreement"]["count"] == agrees
    assert report["outputs"][0]["agreement"]["count"] == agrees


def test_bf16_is_compared_as_numbers() -> None:
    one, nearly = np.array([[0x3F80]], np.uint16), np.array([[0x3F81]], np.uint16)
    output = report_of(one, nearly, datatypes=[BF16], relative_tolerance=0.01)["outputs"][0]
    assert output["agreement"]["count"] == 1
    assert output["max_absolute_difference"] == 2**-7


def test_the_report_of_one_output() -> None:
    compared = comparison()
    compared.add([pair(np.array([[1.0, -4.0]]), np.array([[1.0, -5.0]])) for _ in range(4)])
    compared.add([pair(np.array([[2.0, 2.0]]), np.array([[2.0, np.nan]]))])
    output = compared.report()["outputs"][0]
    assert output["pairs"] == 5
    assert output["max_absolute_difference"] == 1.0
    assert output["max_relative_difference"] == 0.2
    assert output["mean_absolute_difference"]["mean"] == 0.5
    assert output["not_finite_mismatches"] == 1
    assert output["argmax_flips"]["count"] == 1
    primary, shadow = (output["distribution"][side] for side in ("primary", "shadow"))
    assert (primary["count"], primary["min"], primary["max"]) == (10, -4.0, 2.0)
    assert primary["mean"] == pytest.approx((4 * 1 + 4 * -4 + 2 * 2) / 10)
    assert (shadow["count"], shadow["not_finite"], shadow["min"]) == (9, 1, -5.0)
    assert output["distribution"]["kolmogorov_smirnov"] == pytest.approx(4 / 9)


def test_a_highest_score_elsewhere_is_a_flip_even_within_tolerance() -> None:
    near = np.array([[0.45, 0.1, 0.4501]])
    report = report_of(near, near[:, ::-1].copy(), relative_tolerance=0.01)
    assert report["agreement"]["count"] == 1
    assert (report["argmax_flips"]["count"], report["argmax_flips"]["of"]) == (1, 1)


def test_one_flipped_row_flips_the_pair() -> None:
    rows = np.repeat(SCORES, 3, axis=0)
    turned = rows.copy()
    turned[2] = turned[2, ::-1]
    turned[1] = [0.9, 0.1, 0.0]
    report = report_of(rows, turned)
    assert (report["argmax_flips"]["count"], report["argmax_flips"]["of"]) == (1, 1)


def test_outputs_without_scores_have_no_flips() -> None:
    report = report_of(np.array([3]), np.array([4]))
    assert report["argmax_flips"]["of"] == 0
    assert "argmax_flips" not in report["outputs"][0]


def test_a_pair_agrees_if_all_its_outputs_do() -> None:
    compared = comparison("scores", "label")
    same, other = np.array([1]), np.array([2])
    compared.add([Pair([SCORES, same], [SCORES, other], 1, 1)])
    compared.add([Pair([SCORES, same], [SCORES, same], 1, 1)])
    report = compared.report()
    assert (report["agreement"]["count"], report["agreement"]["of"]) == (1, 2)
    assert [output["agreement"]["count"] for output in report["outputs"]] == [2, 1]


def test_pairs_of_unlike_shapes_are_compared_in_one_call() -> None:
    compared = comparison()
    compared.add([pair(np.zeros((rows, 2)), np.zeros((rows, 2))) for rows in (1, 3, 1, 2)])
    assert compared.report()["agreement"]["count"] == 4


def test_enough_equal_pairs_pass_and_their_intervals_say_so() -> None:
    compared = comparison()
    compared.add([pair(SCORES, SCORES)] * 50)
    assert compared.report()["verdict"] == "inconclusive"
    compared.add([pair(SCORES, SCORES)] * 2000)
    report = compared.report()
    assert report["verdict"] == "pass"
    assert report["agreement"]["low"] >= 0.99
    assert report["argmax_flips"]["high"] <= 0.01
    assert "surely at least 99.00%" in report["reasons"][0]
    assert "surely at most 1.00%" in report["reasons"][1]


def test_too_many_disagreeing_pairs_fail() -> None:
    compared = comparison()
    compared.add([pair(SCORES, SCORES * 1.5)] * 20)
    report = compared.report()
    assert report["verdict"] == "fail"
    assert "surely not at least" in report["reasons"][0]
    assert "which may or may not be" in report["reasons"][1]


def test_a_request_that_one_side_alone_answered_is_a_pair_that_does_not_agree() -> None:
    compared = comparison()
    compared.add([pair(SCORES, SCORES)] * 90)
    compared.add_errors(primary_only=2, shadow_only=8, both=100)
    report = compared.report()
    assert (report["agreement"]["count"], report["agreement"]["of"]) == (90, 100)
    errors = report["errors"]
    assert (errors["requests"], errors["primary"], errors["shadow"]) == (200, 102, 108)
    assert errors["difference"] == pytest.approx(0.03)
    assert errors["low"] < 0.03 < errors["high"]


def test_latencies_are_compared_in_milliseconds() -> None:
    compared = comparison()
    rng = np.random.default_rng(1)
    took = rng.exponential(2e6, (3000, 2)).astype(int) + 1_000_000
    compared.add([pair(SCORES, SCORES, ns=(int(p), int(s) + 500_000)) for p, s in took])
    latency = compared.report()["latency"]
    assert latency["difference_ms"]["low"] < 0.5 < latency["difference_ms"]["high"]
    assert latency["primary"]["p50_ms"] == pytest.approx(np.median(took[:, 0]) / 1e6, rel=0.05)
    assert latency["shadow"]["p99_ms"] == pytest.approx(
        np.quantile(took[:, 1] + 500_000, 0.99) / 1e6, rel=0.05
    )


def test_the_worst_pairs_are_kept_whatever_their_scale_and_order() -> None:
    compared = comparison(keep_worst=3)
    off_by = {"half": 0.5, "tenth": 0.9, "turned": -1.0, "hundredth": 0.99, "none": 1.0}
    for scale, (key, factor) in zip((1e6, 1e3, 1e-3, 1e9, 1.0), off_by.items(), strict=True):
        compared.add([pair(SCORES * scale, SCORES * scale * factor, key)])
    compared.add([pair(SCORES, np.full_like(SCORES, np.nan), "nan")])
    assert [kept.key for kept in compared.worst] == ["nan", "turned", "half"]


def test_of_equally_bad_pairs_the_first_are_kept() -> None:
    compared = comparison(keep_worst=2)
    compared.add([pair(SCORES, -SCORES, key) for key in range(5)])
    assert sorted(kept.key for kept in compared.worst) == [0, 1]


def test_kept_answers_are_copies() -> None:
    compared = comparison()
    primary, shadow = SCORES.copy(), -SCORES
    compared.add([pair(primary, shadow)])
    primary[:], shadow[:] = 0, 0
    assert np.array_equal(compared.worst[0].primary[0], SCORES)
    assert np.array_equal(compared.worst[0].shadow[0], -SCORES)


def test_none_are_kept_where_none_are_asked_for() -> None:
    compared = comparison(keep_worst=0)
    compared.add([pair(SCORES, -SCORES)])
    assert compared.worst == []


def test_the_report_is_json_before_the_first_pair_and_after() -> None:
    compared = comparison("scores", "text")
    empty = json.loads(json.dumps(compared.report(), allow_nan=False))
    assert empty["verdict"] == "inconclusive"
    text = np.array(["x"], object)
    strange = np.array([[np.nan, np.inf, 1e300]]), np.array([[1e300, -1.7e308, 1.7e308]])
    for primary in (SCORES.astype(np.float64), *strange):
        compared.add([Pair([primary, text], [shadow, text], 10, 20) for shadow in strange])
    json.dumps(compared.report(), allow_nan=False)


def test_large_outputs_are_summarised_from_evenly_spaced_elements() -> None:
    big = np.arange(1_000_000.0).reshape(1, -1)
    seen = report_of(big, big)["outputs"][0]["distribution"]["primary"]
    assert seen["count"] <= 65_536
    assert seen["mean"] == pytest.approx(big.mean(), rel=1e-3)
