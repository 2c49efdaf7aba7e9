"""The two-sample tests: right by their definitions, honest in their p-values, and bounded."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel

from gateway.monitor.two_sample import (
    KERNEL_ROWS,
    Classifier,
    classifier_test,
    mann_whitney,
    median_distance,
    mmd,
)


def normals(rows: int, columns: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (rows, columns))


def test_the_discrepancy_is_that_of_its_definition() -> None:
    """Over whole kernels by scikit-learn, of samples of unlike size, larger than a block."""
    x, y = normals(KERNEL_ROWS + 40, 3, 1), normals(190, 3, 2, 0.2)
    both = np.concatenate([x, y])
    low, middle, high = np.quantile(both, [0.25, 0.5, 0.75], axis=0)
    a, b = ((rows - middle) / ((high - low) / 1.349) for rows in (x, y))
    gamma = 1 / (2 * 1.5**2)
    n, m = len(a), len(b)
    expected = (
        (rbf_kernel(a, a, gamma).sum() - n) / (n * (n - 1))
        + (rbf_kernel(b, b, gamma).sum() - m) / (m * (m - 1))
        - 2 * rbf_kernel(a, b, gamma).mean()
    )
    assert mmd(x, y, bandwidth=1.5, permutations=10).value == pytest.approx(expected)


def test_each_permutation_has_the_value_that_its_rows_would_have() -> None:
    """So a p-value of few rows is that of a plain count over the same kind of permutations."""
    x, y = normals(12, 2, 1), normals(9, 2, 2, 0.8)
    made = mmd(x, y, bandwidth=1.0, permutations=4000)
    both, random = np.concatenate([x, y]), np.random.default_rng(9)
    plain = []
    for _ in range(1000):
        order = random.permutation(len(both))
        plain.append(mmd(both[order[:12]], both[order[12:]], bandwidth=1.0, permutations=1).value)
    assert made.p_value == pytest.approx(np.mean(np.array(plain) >= made.value), abs=0.03)


def test_the_median_distance_is_the_median() -> None:
    rows = normals(60, 4, 1)
    from scipy.spatial.distance import pdist

    assert median_distance(rows, np.random.default_rng(0)) == pytest.approx(np.median(pdist(rows)))
    assert median_distance(np.ones((5, 2)), np.random.default_rng(0)) == 1.0


@pytest.mark.parametrize("ties", [False, True])
def test_mann_whitney_is_scipys(ties: bool) -> None:
    above, below = normals(60, 1, 1, 0.3)[:, 0], normals(45, 1, 2)[:, 0]
    if ties:
        above, below = np.round(above), np.round(below)
    area, deviation = mann_whitney(above, below)
    labels = np.repeat([1, 0], [60, 45])
    assert area == pytest.approx(roc_auc_score(labels, np.concatenate([above, below])))
    expected = stats.mannwhitneyu(
        above, below, alternative="greater", method="asymptotic", use_continuity=False
    )
    assert stats.norm.sf((area - 0.5) / deviation) == pytest.approx(expected.pvalue)
    assert mann_whitney(np.ones(5), np.ones(4)) == (0.5, 0.0)


@pytest.mark.parametrize("classifier", list(Classifier))
def test_of_one_distribution_small_p_values_are_rare_for_a_classifier(classifier) -> None:
    runs = 60 if classifier is Classifier.FOREST else 200
    p_values = [
        classifier_test(normals(120, 4, 2 * n), normals(120, 4, 2 * n + 1), classifier=classifier)
        for n in range(runs)
    ]
    small = sum(made.p_value < 0.05 for made in p_values)
    # As many as 0.05 would have in 999 of 1,000 such tests.
    assert small <= stats.binom.ppf(0.999, runs, 0.05)


def test_of_one_distribution_p_values_of_the_discrepancy_are_even() -> None:
    p_values = [
        mmd(normals(40, 3, 2 * n), normals(40, 3, 2 * n + 1), permutations=199, seed=n).p_value
        for n in range(200)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


@pytest.mark.parametrize("test", ["forest", "linear", "mmd"])
def test_a_shift_of_all_columns_is_seen(test: str) -> None:
    x, y = normals(300, 10, 1), normals(300, 10, 2, 0.4)
    made = mmd(x, y) if test == "mmd" else classifier_test(x, y, classifier=Classifier(test))
    assert made.p_value < 0.01


def test_what_no_column_shows_alone_is_seen_by_the_forest_and_the_kernel() -> None:
    """Two columns that go together and then against each other: all marginals stay."""
    x = normals(500, 1, 1) + normals(500, 2, 2) * 0.3
    y = normals(500, 1, 3) * [[1, -1]] + normals(500, 2, 4) * 0.3
    for column in (0, 1):
        assert stats.ks_2samp(x[:, column], y[:, column]).pvalue > 0.01
    assert classifier_test(x, y).p_value < 1e-6
    assert mmd(x, y).p_value < 0.01
    assert classifier_test(x, y, classifier=Classifier.LINEAR).p_value > 0.01


def test_no_fold_is_begun_after_the_time_is_over() -> None:
    now = iter([0.0, 5.0])
    made = classifier_test(
        normals(80, 2, 1), normals(80, 2, 2, 3.0), budget_s=1.0, clock=lambda: next(now)
    )
    assert not made.complete
    assert made.value > 0.95
    assert made.p_value < 1e-6


def test_samples_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="current sample has 1 rows, at least 2 are needed"):
        mmd(normals(5, 2, 1), normals(1, 2, 2))
    with pytest.raises(ValueError, match=r"\(2,\) columns, one of the current sample \(3,\)"):
        mmd(normals(5, 2, 1), normals(5, 3, 2))
