"""Performance without labels: right where probabilities are, by NannyML's convention."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import make_classification
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from gateway.monitor.answers import Answers, AnswerSettings, Task
from gateway.monitor.estimation import (
    Calibration,
    EstimationMonitor,
    PerformanceEstimator,
    expected_roc_auc,
)
from gateway.monitor.findings import Level
from gateway.monitor.quality import Judged

SETTINGS = AnswerSettings(task=Task.CLASSIFICATION, output="probabilities", label_output="label")


def honest(rows: int, seed: int, *, hard: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of class 1 and a truth drawn by them; ``hard`` moves them towards 1/2."""
    random = np.random.default_rng(seed)
    one = random.beta(0.5, 0.5, rows)
    one = 0.5 + (one - 0.5) * (1 - hard)
    return np.stack([1 - one, one], axis=1), (random.random(rows) < one).astype(np.int64)


def judged(probabilities: np.ndarray, truth: np.ndarray) -> Judged:
    predicted = probabilities.argmax(axis=1)
    classes = probabilities.shape[1]
    return Judged(truth, predicted, classes, probabilities, probabilities.max(axis=1))


@pytest.mark.parametrize("hard", [0.0, 0.3, 0.7])
def test_of_honest_probabilities_the_estimate_is_what_comes_true(hard: float) -> None:
    estimator = PerformanceEstimator(judged(*honest(20_000, 1)), window_rows=2000)
    probabilities, truth = honest(50_000, 2, hard=hard)
    made = estimator.estimate(probabilities, probabilities.argmax(axis=1))
    accuracy = metrics.accuracy_score(truth, probabilities.argmax(axis=1))
    assert made["accuracy"].value == pytest.approx(accuracy, abs=0.01)
    assert made["accuracy"].low < accuracy < made["accuracy"].high
    area = metrics.roc_auc_score(truth, probabilities[:, 1])
    assert made["roc_auc"].value == pytest.approx(area, abs=0.01)


def test_the_expected_area_of_certain_probabilities_is_the_area() -> None:
    random = np.random.default_rng(1)
    truth, scores = random.integers(0, 2, 500), random.random(500)
    assert expected_roc_auc(truth.astype(float), scores) == pytest.approx(
        metrics.roc_auc_score(truth, scores)
    )
    assert expected_roc_auc(np.ones(5), np.arange(5.0)) is None


def test_the_expected_area_is_the_mean_over_truths_that_may_be() -> None:
    random = np.random.default_rng(2)
    probabilities = random.beta(0.5, 0.5, 3000)
    areas = [
        metrics.roc_auc_score(random.random(3000) < probabilities, probabilities)
        for _ in range(200)
    ]
    assert expected_roc_auc(probabilities, probabilities) == pytest.approx(np.mean(areas), abs=1e-3)


def test_a_calibration_is_scikit_learns_isotonic_one() -> None:
    random = np.random.default_rng(3)
    scores = random.random(2000)
    positive = random.random(2000) < scores**3
    made = Calibration.fit(scores, positive)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(scores, positive)
    asked = np.concatenate([random.random(500), [-1.0, 2.0]])
    assert made(asked) == pytest.approx(oracle.predict(asked))


def test_probabilities_are_calibrated_where_that_makes_them_better_and_else_left() -> None:
    probabilities, truth = honest(20_000, 4)
    scores = probabilities[:, 1]
    bold = np.clip(0.5 + (scores - 0.5) * 1.6, 0.001, 0.999) ** 2
    assert len(Calibration.fit_where_better(bold, truth == 1).scores)
    perfect = truth.astype(float) * 0.8 + 0.1
    assert not len(Calibration.fit_where_better(perfect, truth == 1).scores)


def test_a_boastful_model_is_seen_through() -> None:
    """Naive Bayes, whose probabilities are far too sure, with reference labels and without."""
    x, y = make_classification(
        24_000, 12, n_informative=5, n_redundant=5, class_sep=0.5, random_state=1
    )
    model = GaussianNB().fit(x[:4000], y[:4000])
    told = model.predict_proba(x)
    reference = judged(told[4000:14_000], y[4000:14_000])
    probabilities, truth = told[14_000:], y[14_000:]
    predicted = probabilities.argmax(axis=1)
    true = metrics.accuracy_score(truth, predicted)
    naive = PerformanceEstimator(reference, window_rows=1000, calibrate=False)
    made = PerformanceEstimator(reference, window_rows=1000)
    assert made.estimate(probabilities, predicted)["accuracy"].value == pytest.approx(
        true, abs=0.01
    )
    assert naive.estimate(probabilities, predicted)["accuracy"].value > true + 0.03


def test_of_several_classes_each_is_calibrated_against_the_rest() -> None:
    x, y = make_classification(
        12_000, 10, n_informative=6, n_classes=4, class_sep=0.8, random_state=2
    )
    model = LogisticRegression(max_iter=500).fit(x[:3000], y[:3000])
    told = model.predict_proba(x) ** 2
    told /= told.sum(axis=1, keepdims=True)
    estimator = PerformanceEstimator(judged(told[3000:8000], y[3000:8000]), window_rows=1000)
    probabilities, truth = told[8000:], y[8000:]
    predicted = probabilities.argmax(axis=1)
    made = estimator.estimate(probabilities, predicted)
    assert estimator.calibrated(probabilities).sum(axis=1) == pytest.approx(1.0)
    assert made["accuracy"].value == pytest.approx(
        metrics.accuracy_score(truth, predicted), abs=0.02
    )
    assert made["roc_auc"].value == pytest.approx(
        metrics.roc_auc_score(truth, probabilities, multi_class="ovr"), abs=0.02
    )


def test_a_window_of_harder_inputs_is_drift_and_one_of_easier_ones_a_warning() -> None:
    watching = EstimationMonitor(
        PerformanceEstimator(judged(*honest(20_000, 5, hard=0.3)), window_rows=1000), SETTINGS
    )

    def window(hard: float, seed: int) -> set[Level]:
        probabilities, _ = honest(1000, seed, hard=hard)
        label = probabilities.argmax(axis=1)
        watching.add({"probabilities": probabilities.astype(np.float32), "label": label})
        found = watching.findings()
        assert [f.test for f in found] == ["estimated_accuracy", "estimated_roc_auc"]
        return {f.level for f in found}

    assert window(0.3, 6) == {Level.OK}
    assert window(0.7, 7) == {Level.DRIFTED}
    assert window(0.0, 8) == {Level.WARNING}
    assert {f.level for f in watching.findings()} == {Level.NO_DATA}


def test_a_long_window_is_estimated_from_an_even_sample() -> None:
    estimator = PerformanceEstimator(judged(*honest(20_000, 9)), window_rows=1000)
    watching = EstimationMonitor(estimator, SETTINGS, most_rows=5000)
    probabilities, _ = honest(40_000, 10)
    for start in range(0, 40_000, 1000):
        part = probabilities[start : start + 1000]
        watching.add({"probabilities": part, "label": part.argmax(axis=1)})
    accuracy, _ = watching.findings()
    whole = estimator.estimate(probabilities, probabilities.argmax(axis=1))["accuracy"]
    assert accuracy.value == pytest.approx(whole.value, abs=0.01)
    assert "of 40000 rows" in accuracy.detail


def test_what_cannot_be_estimated_from_is_refused() -> None:
    probabilities, truth = honest(500, 11)
    with pytest.raises(ValueError, match="at least two windows of 400 are needed"):
        PerformanceEstimator(judged(probabilities, truth), window_rows=400)
    with pytest.raises(ValueError, match="no probabilities"):
        PerformanceEstimator(Judged(truth, truth, 2), window_rows=100)
    with pytest.raises(ValueError, match="there is no output 'probabilities' among scores"):
        Answers(SETTINGS).read({"scores": probabilities})
