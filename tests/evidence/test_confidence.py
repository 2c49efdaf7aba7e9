"""Confidence sequences: exact where they say so, and right at every look together."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.confidence import (
    Moments,
    difference_bounds,
    exceeds,
    mean_bounds,
    proportion_bounds,
)

RUNS, LOOKS, BATCH = 600, 200, 20
ALPHA = 0.1


def log_ratio(hits: int, trials: int, p: np.ndarray) -> np.ndarray:
    """Logarithm of the mixture's likelihood over that of ``p``, from the definition."""
    misses = trials - hits
    mixture = (
        math.lgamma(hits + 0.5) + math.lgamma(misses + 0.5) - math.lgamma(trials + 1)
    ) - 2 * math.lgamma(0.5)
    likelihood = np.zeros_like(p)
    with np.errstate(divide="ignore"):
        if hits:
            likelihood += hits * np.log(p)
        if misses:
            likelihood += misses * np.log1p(-p)
    return mixture - likelihood


@pytest.mark.parametrize(
    ("hits", "trials"), [(0, 10), (10, 10), (1, 7), (3, 40), (50, 100), (12, 9000)]
)
def test_a_proportions_interval_is_all_that_the_mixture_does_not_reject(
    hits: int, trials: int
) -> None:
    grid = np.linspace(0, 1, 200_001)[1:-1]
    held = grid[log_ratio(hits, trials, grid) < math.log(1 / 0.05)]
    low, high = proportion_bounds(hits, trials, 0.05)
    assert low == pytest.approx(held[0], abs=1e-5)
    assert high == pytest.approx(held[-1], abs=1e-5)


@pytest.mark.parametrize(
    ("stable", "candidate"),
    [
        ((10, 1000), (40, 1000)),
        ((0, 50), (5, 20)),
        ((50, 50), (3, 20)),
        ((2, 100), (0, 30)),
        ((0, 0), (3, 10)),
        ((7, 300), (0, 0)),
    ],
)
def test_a_differences_interval_is_all_that_the_product_of_mixtures_does_not_reject(
    stable: tuple[int, int], candidate: tuple[int, int]
) -> None:
    grid = np.linspace(0, 1, 2_001)
    rejected = log_ratio(*stable, grid)[:, None] + log_ratio(*candidate, grid) >= math.log(20)
    apart = (grid - grid[:, None])[~rejected]
    low, high = difference_bounds(*stable, *candidate, 0.05)
    assert low == pytest.approx(apart.min(), abs=2e-3)
    assert high == pytest.approx(apart.max(), abs=2e-3)


def test_of_nothing_everything_is_possible() -> None:
    assert proportion_bounds(0, 0, 0.05) == (0, 1)
    assert difference_bounds(0, 0, 0, 0, 0.05) == (-1, 1)
    assert not exceeds(0, 0, 0, 0, 0.0, 0.05)
    assert mean_bounds(1, 5.0, 0.0, 0.05) == (-math.inf, math.inf)


def test_many_at_once_are_as_each_alone() -> None:
    hits, trials = np.array([[0, 3], [40, 7]]), np.array([[10, 9], [41, 700]])
    together = proportion_bounds(hits, trials, 0.01)
    for place in np.ndindex(2, 2):
        alone = proportion_bounds(hits[place], trials[place], 0.01)
        assert (together[0][place], together[1][place]) == alone


counts = st.tuples(st.integers(0, 400), st.integers(0, 400))


@given(counts, counts, st.floats(-0.9, 0.9), st.sampled_from([0.2, 0.05, 0.001]))
def test_exceeding_is_a_lower_bound_above_the_limit(
    stable: tuple[int, int], candidate: tuple[int, int], limit: float, alpha: float
) -> None:
    arms = (stable[0], sum(stable), candidate[0], sum(candidate))
    possible = sum(stable) > 0 and sum(candidate) > 0
    assert exceeds(*arms, limit, alpha) == (possible and difference_bounds(*arms, alpha)[0] > limit)


@given(counts, counts)
def test_exchanging_the_arms_turns_the_interval_round(
    stable: tuple[int, int], candidate: tuple[int, int]
) -> None:
    first, second = (stable[0], sum(stable)), (candidate[0], sum(candidate))
    low, high = difference_bounds(*first, *second, 0.05)
    turned = difference_bounds(*second, *first, 0.05)
    assert turned == (-high, -low)
    assert -1 <= low <= high <= 1


def test_the_difference_is_narrower_than_both_arms_by_themselves() -> None:
    stable, candidate = (10, 1000), (20, 1000)
    low, high = difference_bounds(*stable, *candidate, 0.05)
    stable_low, stable_high = proportion_bounds(*stable, 0.025)
    candidate_low, candidate_high = proportion_bounds(*candidate, 0.025)
    assert low > candidate_low - stable_high
    assert high < candidate_high - stable_low


def walks(rng: np.random.Generator, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Successes and trials of ``RUNS`` experiments at each of ``LOOKS`` looks."""
    hits = rng.binomial(BATCH, p, (RUNS, LOOKS)).cumsum(axis=1)
    return hits, np.broadcast_to(np.arange(1, LOOKS + 1) * BATCH, hits.shape)


def missed(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    """Share of the runs whose interval missed at any look."""
    return float(((low > truth) | (high < truth)).any(axis=1).mean())


@pytest.mark.parametrize("p", [0.01, 0.3])
def test_a_proportion_is_covered_at_all_looks_together(p: float) -> None:
    hits, trials = walks(np.random.default_rng(1), p)
    assert missed(*proportion_bounds(hits, trials, ALPHA), p) <= ALPHA


def test_an_interval_for_one_look_misses_when_it_is_looked_at_often() -> None:
    """The check of coverage can fail: Wald's interval does."""
    hits, trials = walks(np.random.default_rng(1), 0.3)
    share = hits / trials
    width = NormalDist().inv_cdf(1 - ALPHA / 2) * np.sqrt(share * (1 - share) / trials)
    assert missed(share - width, share + width, 0.3) > 3 * ALPHA


@pytest.mark.parametrize(("p", "q"), [(0.01, 0.01), (0.05, 0.15), (0.5, 0.4)])
def test_a_difference_is_covered_at_all_looks_together(p: float, q: float) -> None:
    rng = np.random.default_rng(2)
    bounds = difference_bounds(*walks(rng, p), *walks(rng, q), ALPHA)
    assert missed(*bounds, q - p) <= ALPHA


def test_a_mean_is_covered_at_all_looks_but_the_first() -> None:
    """Exponential, as latencies are; the sequence is asymptotic, so it begins at 200 of them."""
    values = np.random.default_rng(3).exponential(5.0, (RUNS, LOOKS * BATCH))
    count = np.arange(1, LOOKS * BATCH + 1)
    mean = values.cumsum(axis=1) / count
    variance = (
        (np.square(values).cumsum(axis=1) / count - mean**2) * count / np.maximum(count - 1, 1)
    )
    at = slice(200, None, BATCH)
    bounds = mean_bounds(count[at], mean[:, at], variance[:, at], ALPHA)
    assert missed(*bounds, 5.0) <= ALPHA
    width = 1.645 * np.sqrt(variance[:, at] / count[at])
    assert missed(mean[:, at] - width, mean[:, at] + width, 5.0) > 2 * ALPHA


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=20), min_size=1, max_size=6))
def test_moments_in_parts_are_moments_of_all(parts: list[list[float]]) -> None:
    moments = Moments()
    for part in parts:
        moments.add(np.array(part, np.float64))
    everything = np.array([value for part in parts for value in part], np.float64)
    assert moments.count == everything.size
    if everything.size:
        assert moments.mean == pytest.approx(everything.mean(), abs=1e-6)
        assert (moments.minimum, moments.maximum) == (everything.min(), everything.max())
    if everything.size > 1:
        assert moments.variance == pytest.approx(everything.var(ddof=1), rel=1e-6, abs=1e-6)
