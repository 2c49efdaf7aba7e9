"""Figures with labels: scikit-learn's, with intervals that hold the truth as often as they say."""

import numpy as np
import pytest
from sklearn import metrics

from gateway.monitor.quality import Judged, classification, regression, roc_auc, wilson


def drawn(rows: int, classes: int, seed: int, ties: int | None = None) -> Judged:
    """A classifier whose probabilities are right, more or less; in ``ties`` steps if given."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (rows, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (true.cumsum(axis=1) > random.random((rows, 1))).argmax(axis=1)
    given = np.exp(logits * 1.4)
    given /= given.sum(axis=1, keepdims=True)
    if ties:
        given = np.round(given * ties) / ties
    return Judged(truth, given.argmax(axis=1), classes, given, given.max(axis=1))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("ties", [None, 10])
def test_the_figures_of_two_classes_are_scikit_learns(seed: int, ties: int | None) -> None:
    judged = drawn(500, 2, seed, ties)
    made = {name: estimate.value for name, estimate in classification(judged).items()}
    truth, told, one = judged.truth, judged.predicted, judged.probabilities[:, 1]
    assert made["accuracy"] == pytest.approx(metrics.accuracy_score(truth, told))
    assert made["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, told))
    assert made["f1"] == pytest.approx(metrics.f1_score(truth, told))
    assert made["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, one))
    assert made["brier"] == pytest.approx(metrics.brier_score_loss(truth, one))
    assert made["log_loss"] == pytest.approx(metrics.log_loss(truth, one))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_figures_of_several_classes_are_scikit_learns(seed: int) -> None:
    judged = drawn(500, 4, seed)
    made = {name: estimate.value for name, estimate in classification(judged).items()}
    truth, told, given = judged.truth, judged.predicted, judged.probabilities
    assert made["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, told))
    assert made["f1"] == pytest.approx(metrics.f1_score(truth, told, average="macro"))
    assert made["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(truth, given, multi_class="ovr", average="macro")
    )
    assert made["log_loss"] == pytest.approx(metrics.log_loss(truth, given))
    assert made["brier"] == pytest.approx(((given - np.eye(4)[truth]) ** 2).sum(axis=1).mean())


def test_the_calibration_error_is_what_its_definition_says() -> None:
    judged = drawn(2000, 3, 1)
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (judged.confidence > low) & (judged.confidence <= low + 1 / 15)
        if inside.any():
            gap = judged.right[inside].mean() - judged.confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    made = classification(judged)["expected_calibration_error"]
    assert made.value == pytest.approx(expected)
    assert 0.01 < made.low < made.value < made.high


@pytest.mark.parametrize("columns", [1, 3])
def test_the_figures_of_a_regression_are_scikit_learns(columns: int) -> None:
    random = np.random.default_rng(1)
    truth = random.normal(size=(300, columns)) * np.arange(1, columns + 1)
    told = truth + random.normal(0, 0.5, truth.shape)
    made = {name: estimate.value for name, estimate in regression(truth, told).items()}
    assert made["mae"] == pytest.approx(metrics.mean_absolute_error(truth, told))
    assert made["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, told))
    assert made["r2"] == pytest.approx(metrics.r2_score(truth, told))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 400 windows of 400 rows, against the figures of 200,000 rows."""
    held: dict[str, int] = {}
    whole = classification(drawn(200_000, 2, 0))
    for window in range(400):
        for name, estimate in classification(drawn(400, 2, window + 1), 0.9).items():
            held[name] = held.get(name, 0) + (estimate.low <= whole[name].value <= estimate.high)
    # The calibration error of so few rows is biased upwards: its interval is rough, as it says.
    del held["expected_calibration_error"]
    for name, count in held.items():
        assert 0.86 * 400 <= count <= 0.94 * 400, name


def test_intervals_of_a_regression_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(2)
    held = dict.fromkeys(("mae", "rmse", "r2"), 0)
    true = {"mae": 0.5 * np.sqrt(2 / np.pi), "rmse": 0.5, "r2": 0.75}
    for _ in range(400):
        truth = random.normal(size=400)
        for name, estimate in regression(truth, truth + random.normal(0, 0.5, 400), 0.9).items():
            held[name] += estimate.low <= true[name] <= estimate.high
    for name, count in held.items():
        assert 0.86 * 400 <= count <= 0.94 * 400, name


def test_delongs_variance_is_that_of_his_definition() -> None:
    judged = drawn(200, 2, 5)
    scores, positive = judged.probabilities[:, 1], judged.truth == 1
    area, influence = roc_auc(scores, positive)
    wins = (scores[positive][:, None] > scores[~positive]).astype(float)
    variance = (
        wins.mean(axis=1).var() / positive.sum() + wins.mean(axis=0).var() / (~positive).sum()
    )
    assert area == pytest.approx(wins.mean())
    assert (influence**2).sum() / 200**2 == pytest.approx(variance)


def test_wilsons_interval_is_scipys() -> None:
    from scipy.stats import binomtest

    for successes, trials in ((0, 10), (10, 10), (37, 50)):
        expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        made = wilson(successes, trials, 0.95)
        assert (made.low, made.high) == pytest.approx((expected.low, expected.high))


def test_what_is_not_defined_is_left_out() -> None:
    judged = Judged(np.ones(3, np.int64), np.array([1, 1, 0]), 2, None, None)
    assert set(classification(judged)) == {"accuracy", "balanced_accuracy", "f1"}
    one_class = Judged(np.ones(2, np.int64), np.ones(2, np.int64), 2, np.full((2, 2), 0.5), None)
    assert "roc_auc" not in classification(one_class)
    assert set(regression(np.ones(3), np.array([1.0, 2.0, 3.0]))) == {"mae", "rmse"}
    assert classification(Judged(*[np.zeros(0, np.int64)] * 2, 2)) == {}
