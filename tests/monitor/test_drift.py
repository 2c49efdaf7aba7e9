"""The measures of drift beside scipy's, and beside what other libraries make of the same data."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from gateway.monitor import binning, drift
from gateway.monitor.drift import Sample
from gateway.monitor.p_values import one_sample_tail

#: What the figures are held to.
CLOSE = 1e-6


def two_windows(shift, sizes=(900, 700), seed=3, decimals=None):
    rng = np.random.default_rng(seed)
    pair = rng.normal(0, 1, sizes[0]), rng.normal(shift, 1.3, sizes[1])
    return pair if decimals is None else tuple(np.round(window, decimals) for window in pair)


WINDOWS = {
    "alike": two_windows(0.0),
    "shifted": two_windows(0.4),
    "apart": two_windows(9.0),
    "with ties": two_windows(0.2, decimals=1),
    "of one size": two_windows(0.1, (400, 400)),
    "small": two_windows(0.5, (7, 4)),
    "one value": two_windows(0.5, (30, 1)),
}


@pytest.fixture(params=WINDOWS, ids=list(WINDOWS))
def windows(request):
    return WINDOWS[request.param]


def samples(windows):
    return [Sample.of(window) for window in windows]


# -- on samples -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["auto", "exact", "asymp"])
def test_kolmogorov_smirnov_and_its_p_value_are_scipys(windows, method):
    found = drift.kolmogorov_smirnov(*samples(windows), method=method)
    expected = stats.ks_2samp(*windows, method=method)
    assert found[0] == pytest.approx(expected.statistic, abs=1e-12)
    effective = len(windows[0]) * len(windows[1]) / (len(windows[0]) + len(windows[1]))
    if method != "asymp" or effective > 100:
        assert found[1] == pytest.approx(expected.pvalue, abs=CLOSE)


def test_large_samples_have_scipys_asymptotic_p_value():
    windows = two_windows(0.005, (12_000, 15_000))
    found = drift.kolmogorov_smirnov(*samples(windows))
    assert found[1] == pytest.approx(stats.ks_2samp(*windows).pvalue, abs=CLOSE)


@pytest.mark.parametrize("n", [140, 500, 3000, 20_000])
@pytest.mark.parametrize("z", [0.05, 0.3, 0.5, 0.8, 1.0, 1.3, 1.48, 1.5, 2.0, 4.0])
def test_the_one_sample_distribution_is_scipys(n, z):
    d = z / math.sqrt(n)
    assert one_sample_tail(n, d) == pytest.approx(stats.kstwo.sf(d, n), abs=CLOSE, rel=1e-5)


def test_wasserstein_is_scipys(windows):
    found = drift.wasserstein(*samples(windows))
    assert found == pytest.approx(stats.wasserstein_distance(*windows), rel=CLOSE)


def test_samples_with_weights_are_scipys_with_weights():
    rng = np.random.default_rng(5)
    values, weights = rng.normal(size=(2, 50)), rng.integers(1, 9, (2, 50)).astype(float)
    made = [Sample.of(v, w) for v, w in zip(values, weights, strict=True)]
    expected = stats.wasserstein_distance(*values, *weights)
    assert drift.wasserstein(*made) == pytest.approx(expected, rel=CLOSE)
    repeated = [np.repeat(v, w.astype(int)) for v, w in zip(values, weights, strict=True)]
    statistic, _ = drift.kolmogorov_smirnov(*made)
    assert statistic == pytest.approx(stats.ks_2samp(*repeated).statistic, abs=1e-12)


def test_what_is_missing_is_not_in_a_sample():
    holes = np.array([1.0, np.nan, 3.0, np.nan])
    assert Sample.of(holes).values.tolist() == [1.0, 3.0]
    assert Sample.of(holes, weights=[1, 2, 3, 4]).size == 4


def test_wasserstein_over_the_deviation_is_evidentlys():
    before, after = two_windows(0.4)
    expected = stats.wasserstein_distance(before, after) / max(np.std(before), 0.001)
    made = Sample.of(before), Sample.of(after)
    assert drift.wasserstein_over_deviation(*made, np.std(before)) == pytest.approx(expected)
    flat = Sample.of([2.0, 2.0]), Sample.of([2.5])
    assert drift.wasserstein_over_deviation(*flat, 0.0) == pytest.approx(500)


# -- on counts --------------------------------------------------------------------------------

COUNTS = {
    "alike": ([100, 200, 300], [10, 20, 31]),
    "far": ([100, 200, 300], [90, 5, 0]),
    "new": ([100, 200, 0], [10, 20, 7]),
    "neither": ([100, 0, 300], [30, 0, 10]),
    "many": ([5] * 40, list(range(1, 41))),
}


@pytest.fixture(params=COUNTS, ids=list(COUNTS))
def counts(request):
    return COUNTS[request.param]


@pytest.mark.parametrize("base", [2, math.e], ids=["NannyML", "Evidently"])
def test_jensen_shannon_is_scipys_distance(counts, base):
    expected = distance.jensenshannon(*counts, base=base)
    assert drift.jensen_shannon(*counts, base=base) == pytest.approx(expected, abs=CLOSE)


def test_chi_square_is_scipys_of_a_table(counts):
    table = np.array(counts)
    expected = stats.chi2_contingency(table[:, table.sum(axis=0) > 0], correction=False)
    assert drift.chi_square(*counts) == pytest.approx(
        (expected.statistic, expected.pvalue), rel=CLOSE
    )


def test_chi_square_of_a_fit_is_scipys(counts):
    before, after = np.array(counts, float)
    seen = (before > 0) | (after > 0)
    with np.errstate(divide="ignore"):
        expected = stats.chisquare(after[seen], before[seen] * after.sum() / before.sum())
    assert drift.chi_square_fit(*counts) == pytest.approx(
        (expected.statistic, expected.pvalue), rel=CLOSE
    )


@pytest.mark.parametrize("freedom", [1, 2, 7, 40, 1000])
@pytest.mark.parametrize("times", [0.001, 0.3, 0.9, 1.0, 1.1, 3.0, 20.0])
def test_the_chi_square_distribution_is_scipys(freedom, times):
    statistic = freedom * times
    expected = stats.chi2.sf(statistic, freedom)
    assert drift.chi_square_tail(statistic, freedom) == pytest.approx(
        expected, rel=1e-9, abs=1e-300
    )


def test_psi_fills_empty_bins_as_evidently_does():
    # No share is as small as 1e-4: the empty one becomes that.
    expected = (0.5 - 1e-4) * math.log(0.5 / 1e-4) + (0.5 - 1.0) * math.log(0.5)
    assert drift.psi([50, 50], [0, 10]) == pytest.approx(expected)
    # One is: the empty one becomes a millionth of it.
    shares = 1 / 20_000, 19_999 / 20_000
    filled = 1 / 20_000 / 1e6
    expected = sum(
        (a - b) * math.log(a / b) for a, b in zip((*shares, filled), (0.25, 0.5, 0.25), strict=True)
    )
    assert drift.psi([1, 19_999, 0], [1, 2, 1]) == pytest.approx(expected)


def test_there_is_no_distance_to_nothing():
    for measure in (drift.psi, drift.jensen_shannon, drift.chi_square, drift.chi_square_fit):
        with pytest.raises(ValueError, match="at least one value"):
            measure([1, 2], [0, 0])


# -- the libraries' ways to count -------------------------------------------------------------


def test_evidently_counts_numbers_in_sturges_bins_of_both_windows_together():
    before, after = two_windows(0.4)
    edges = np.histogram_bin_edges(np.concatenate([before, after]), bins="sturges")
    made = binning.evidently_counts(before, after)
    assert made[0].tolist() == np.histogram(before, edges)[0].tolist()
    assert made[1].tolist() == np.histogram(after, edges)[0].tolist()


def test_evidently_counts_few_values_one_by_one():
    made = binning.evidently_counts([1, 2, 2, 5], [2, 7, 7])
    assert made[0].tolist() == [1, 2, 1, 0]
    assert made[1].tolist() == [0, 1, 0, 2]


def test_nannyml_counts_what_the_reference_has_not_seen_in_one_bin_more():
    before, after = two_windows(3.0)
    edges = np.histogram_bin_edges(before, bins="doane")
    made = binning.nannyml_counts(before, after)
    assert made[0].tolist() == [*np.histogram(before, edges)[0], 0]
    assert made[1].tolist() == [*np.histogram(after, edges)[0], (after > edges[-1]).sum()]


def test_nannyml_takes_numbers_of_few_values_for_categories():
    before = np.repeat([1.0, 2.0, 3.0], 20)
    assert [c.tolist() for c in binning.nannyml_counts(before, [2.0, 9.0, 2.0])] == [
        [20, 20, 20, 0],
        [0, 2, 0, 1],
    ]


def test_text_is_counted_by_value():
    made = binning.category_counts(["a", "b", "a"], ["c", "a"])
    assert [counts.tolist() for counts in made] == [[2, 1, 0], [1, 0, 1]]
