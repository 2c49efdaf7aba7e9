"""Histograms of any numbers: quantiles to some percent, and distances of distributions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.histogram import Histogram


def histogram(values: object) -> Histogram:
    made = Histogram()
    made.add(np.asarray(values))
    return made


@given(
    st.lists(st.floats(-1e12, 1e12).filter(lambda x: x == 0 or abs(x) > 1e-9), min_size=1),
    st.sampled_from([0.01, 0.5, 0.99]),
)
def test_a_quantile_is_within_three_percent_of_the_value_there(
    values: list[float], share: float
) -> None:
    at = np.quantile(values, share, method="inverted_cdf")
    assert histogram(values).quantiles(share) == [pytest.approx(at, rel=0.03)]


@pytest.mark.parametrize("extreme", [1e-300, -1e-300, 0.0])
def test_what_is_too_small_for_a_bin_counts_as_zero(extreme: float) -> None:
    assert histogram([extreme]).quantiles(0.5) == [0.0]


def test_what_is_too_large_for_a_bin_has_the_last_one() -> None:
    assert histogram([1e300, -1e300]).quantiles(0, 1) == pytest.approx(
        [-1.13e18, 1.13e18], rel=0.05
    )


def test_distances_are_nought_of_equals_and_one_of_strangers() -> None:
    rng = np.random.default_rng(1)
    first, second = histogram(rng.normal(size=5000)), histogram(rng.normal(size=5000))
    far = histogram(rng.normal(1000, 1, size=5000))
    assert first.kolmogorov_smirnov(first) == 0
    assert first.jensen_shannon(first) == 0
    assert first.kolmogorov_smirnov(second) < 0.05
    assert first.jensen_shannon(second) < 0.05
    assert first.kolmogorov_smirnov(far) == pytest.approx(1)
    assert first.jensen_shannon(far) == pytest.approx(1)


def test_the_distance_to_nothing_is_nought() -> None:
    assert histogram([1.0]).kolmogorov_smirnov(Histogram()) == 0
    assert Histogram().jensen_shannon(histogram([1.0])) == 0
    assert Histogram().quantiles(0.5, 0.9) == [0.0, 0.0]
