"""Windows of labelled predictions: which rows are in them, what they say, when they close."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from gateway.errors import ConfigError
from gateway.monitor.answers import AnswerSettings, Task
from gateway.monitor.findings import Finding, Level, WindowReport
from gateway.monitor.judge import Limit, judge
from gateway.monitor.kinds import Watched
from gateway.monitor.labels import Joined
from gateway.monitor.performance import Alarm, PerformanceMonitor, PerformanceSettings
from gateway.monitor.performance_kind import PerformanceKind, read_performance
from gateway.monitor.quality import Estimate
from gateway.monitor.windows import Window

CLASSIFIER = AnswerSettings(task=Task.CLASSIFICATION, output="p", label_output="label")
REGRESSION = AnswerSettings(task=Task.REGRESSION, output="y")


def batch(
    probabilities: np.ndarray,
    truth: np.ndarray,
    *,
    at: np.ndarray | None = None,
    earlier: np.ndarray | None = None,
    version: str = "1",
) -> Joined:
    when = np.arange(len(truth), dtype=float) if at is None else np.asarray(at, float)
    return Joined(
        model="m",
        version=version,
        outputs={"p": probabilities.astype(np.float32), "label": probabilities.argmax(axis=1)},
        truth=truth if truth.dtype == object else truth.astype(float),
        predicted_at=when,
        labelled_at=when + 100,
        earlier=earlier,
    )


def drawn(rows: int, seed: int, right: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, rows)
    one = np.where((random.random(rows) < right) == (truth == 1), 0.7, 0.3)
    one = one + random.uniform(-0.2, 0.2, rows)
    return np.stack([1 - one, one], axis=1), truth


def figures(report: WindowReport) -> dict[str, Finding]:
    return {finding.test: finding for finding in report.findings}


def test_a_window_of_rows_closes_once_it_is_full() -> None:
    watching = PerformanceMonitor("m", PerformanceSettings(answers=CLASSIFIER, window_rows=300))
    probabilities, truth = drawn(800, 1)
    for start in range(0, 800, 160):
        part = slice(start, start + 160)
        assert (
            watching.joined(batch(probabilities[part], truth[part], at=range(start, start + 160)))
            == 0
        )
    first, second = watching.close(0.0)
    assert (first.number, first.rows, first.began, first.ended) == (0, 300, 0.0, 299.0)
    assert (second.number, second.rows, second.began, second.ended) == (1, 300, 300.0, 599.0)
    accuracy = metrics.accuracy_score(truth[300:600], probabilities[300:600].argmax(axis=1))
    assert figures(second)["accuracy"].value == pytest.approx(accuracy)
    assert figures(second)["roc_auc"].value == pytest.approx(
        metrics.roc_auc_score(truth[300:600], probabilities[300:600, 1])
    )
    assert watching.close(0.0) == []


def test_versions_are_told_apart() -> None:
    watching = PerformanceMonitor("m", PerformanceSettings(answers=CLASSIFIER, window_rows=200))
    watching.joined(batch(*drawn(200, 1, 0.9), version="1"))
    watching.joined(batch(*drawn(200, 2, 0.6), version="2"))
    by_version = {report.version: report for report in watching.close(0.0)}
    assert figures(by_version["1"])["accuracy"].value > 0.85
    assert figures(by_version["2"])["accuracy"].value < 0.7


def test_a_window_of_time_waits_for_its_labels_and_then_takes_no_more() -> None:
    settings = PerformanceSettings(
        answers=CLASSIFIER, window_rows=None, window_s=100.0, patience_s=50.0, least_rows=10
    )
    watching = PerformanceMonitor("m", settings)
    probabilities, truth = drawn(60, 1)
    watching.joined(batch(probabilities[:30], truth[:30], at=np.linspace(1000, 1090, 30)))
    assert watching.close(1149.9) == []
    watching.joined(batch(probabilities[30:], truth[30:], at=np.linspace(1010, 1099, 30)))
    (report,) = watching.close(1150.0)
    assert (report.rows, report.began, report.ended) == (60, 1000.0, 1099.0)
    late = batch(probabilities[:4], truth[:4], at=np.array([1050, 1099, 1100, 1101]))
    assert watching.joined(late) == 2


@pytest.mark.parametrize("window_rows", [100, None])
def test_a_correction_takes_the_place_of_what_was_said_before(window_rows: int | None) -> None:
    settings = PerformanceSettings(
        answers=CLASSIFIER, window_rows=window_rows, window_s=1000.0, patience_s=0.0
    )
    watching = PerformanceMonitor("m", settings)
    probabilities, truth = drawn(100, 1)
    watching.joined(batch(probabilities, truth))
    corrected = truth.copy()
    corrected[20:30] = 1 - corrected[20:30]
    assert (
        watching.joined(
            batch(
                probabilities[20:30],
                corrected[20:30],
                at=np.arange(20, 30),
                earlier=truth[20:30].astype(float),
            )
        )
        == 0
    )
    (report,) = watching.close(1000.0)
    assert report.rows == 100
    expected = metrics.accuracy_score(corrected, probabilities.argmax(axis=1))
    assert figures(report)["accuracy"].value == pytest.approx(expected)
    again = batch(probabilities[:3], truth[:3], earlier=1.0 - truth[:3])
    assert watching.joined(again) == 3, "their window is closed"


def test_labels_may_be_names() -> None:
    answers = AnswerSettings(task=Task.CLASSIFICATION, output="p", classes=("no", "yes"))
    watching = PerformanceMonitor("m", PerformanceSettings(answers=answers, window_rows=200))
    probabilities, truth = drawn(200, 3)
    names = np.array(["no", "yes"], object)[truth]
    names[:5] = "perhaps"
    watching.joined(batch(probabilities, names))
    (report,) = watching.close(0.0)
    accuracy = figures(report)["accuracy"]
    expected = metrics.accuracy_score(truth[5:], probabilities[5:].argmax(axis=1))
    assert accuracy.value == pytest.approx(expected)
    assert accuracy.detail.endswith("of 195 labelled (5 more left out) rows")


def test_too_few_labels_say_nothing_and_too_many_rows_are_left_out() -> None:
    settings = PerformanceSettings(
        answers=CLASSIFIER, window_rows=None, window_s=1000.0, patience_s=0.0, most_rows=150
    )
    watching = PerformanceMonitor("m", settings)
    watching.joined(batch(*drawn(40, 1)))
    watching.joined(batch(*drawn(400, 2), at=np.linspace(1000, 1999, 400)))
    few, many = watching.close(3000.0)
    (nothing,) = few.findings
    assert (nothing.level, nothing.value) == (Level.NO_DATA, None)
    assert nothing.detail == "40 labelled rows, 50 are needed"
    assert "of 150 labelled (250 more left out) rows" in figures(many)["accuracy"].detail


def test_a_regression_has_its_own_figures() -> None:
    limits = {"rmse": Limit(drifted=0.5, warning=0.4)}
    settings = PerformanceSettings(answers=REGRESSION, window_rows=500, limits=limits)
    watching = PerformanceMonitor("m", settings)
    random = np.random.default_rng(4)
    for noise, level in ((0.3, Level.OK), (0.45, Level.WARNING), (0.8, Level.DRIFTED)):
        truth = random.normal(size=500)
        told = (truth + random.normal(0, noise, 500)).astype(np.float32)[:, None]
        when = np.arange(500.0)
        watching.joined(
            Joined(
                model="m",
                version="1",
                outputs={"y": told},
                truth=truth,
                predicted_at=when,
                labelled_at=when,
            )
        )
        (report,) = watching.close(0.0)
        found = figures(report)
        assert found["rmse"].level is level
        assert found["rmse"].value == pytest.approx(
            metrics.root_mean_squared_error(truth, told[:, 0]), rel=1e-5
        )
        assert found["r2"].value == pytest.approx(metrics.r2_score(truth, told[:, 0]), rel=1e-5)


def test_alarms_tell_that_errors_have_become_more_frequent() -> None:
    settings = PerformanceSettings(
        answers=CLASSIFIER, window_rows=1000, alarms=(Alarm.DDM, Alarm.EDDM)
    )
    watching = PerformanceMonitor("m", settings)
    watching.joined(batch(*drawn(1000, 11, 0.9), at=np.arange(1000)))
    (still,) = watching.close(0.0)
    watching.joined(batch(*drawn(1000, 6, 0.5), at=np.arange(1000, 2000)))
    (worse,) = watching.close(0.0)
    assert figures(still)["ddm"].level is not Level.DRIFTED
    assert figures(worse)["ddm"].level is Level.DRIFTED
    assert figures(worse)["ddm"].value == pytest.approx(0.5, abs=0.05)
    assert figures(worse)["eddm"].level is Level.DRIFTED


@pytest.mark.parametrize(
    ("estimate", "level"),
    [
        (Estimate(0.90, 0.88, 0.92), Level.OK),
        (Estimate(0.84, 0.82, 0.86), Level.WARNING),
        (Estimate(0.79, 0.77, 0.81), Level.WARNING),
        (Estimate(0.78, 0.76, 0.79), Level.DRIFTED),
    ],
)
def test_a_figure_is_drift_where_chance_does_not_explain_it(estimate, level) -> None:
    limit = Limit(drifted=0.8, warning=0.85)
    finding = judge("accuracy", estimate, limit, 100, "labelled")
    assert (finding.level, finding.threshold) == (level, 0.8)
    loss = Estimate(1 - estimate.value, 1 - estimate.high, 1 - estimate.low)
    turned = Limit(drifted=1 - 0.8, warning=1 - 0.85)
    assert judge("brier", loss, turned, 100, "labelled").level is level
    assert judge("accuracy", estimate, None, 100, "labelled").level is Level.OK


def test_of_wide_outputs_of_which_only_the_highest_is_kept_there_is_an_accuracy() -> None:
    answers = AnswerSettings(task=Task.CLASSIFICATION, output="p")
    watching = PerformanceMonitor("m", PerformanceSettings(answers=answers, window_rows=100))
    truth = np.arange(100) % 70
    told = truth.copy()
    told[:10] += 1
    when = np.arange(100.0)
    outputs = {"p.top_index": told[:, None], "p.top_value": np.full((100, 1), 0.9)}
    watching.joined(
        Joined(
            model="m", version="1", outputs=outputs, truth=truth.astype(float),
            predicted_at=when, labelled_at=when,
        )
    )  # fmt: skip
    (report,) = watching.close(0.0)
    found = figures(report)
    assert found["accuracy"].value == 0.9
    assert found["expected_calibration_error"].value == pytest.approx(0.0, abs=1e-9)
    assert "roc_auc" not in found


def test_the_table_of_the_monitor_file_says_what_is_measured() -> None:
    settings = read_performance(
        "performance",
        {
            "task": "classification",
            "output": "p",
            "label_output": "label",
            "window_s": "1h",
            "patience_s": "1d",
            "limits": {"accuracy": 0.8, "log_loss": {"warning": 0.5, "drifted": 0.7}},
            "alarms": ["ddm"],
        },
    )
    assert settings.answers == CLASSIFIER
    assert (settings.window_rows, settings.window_s, settings.patience_s) == (None, 3600.0, 86400.0)
    assert settings.limits["accuracy"] == Limit(drifted=0.8)
    assert settings.limits["log_loss"] == Limit(warning=0.5, drifted=0.7)
    assert settings.alarms == [Alarm.DDM]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "ranking"}, "task"),
        ({"output": None}, "output is missing"),
        ({"window_rows": 10, "window_s": 10}, "window_rows or window_s, not both"),
        ({"limits": {"rmse": 1.0}}, "limits must be a table of accuracy, .*'rmse'"),
        ({"limits": {"accuracy": {"warning": 0.9}}}, "accuracy.drifted is missing"),
        ({"task": "regression", "alarms": ["ddm"]}, "a classifier's errors"),
    ],
)
def test_what_is_wrong_in_the_table_is_told_with_its_key(wrong, message) -> None:
    given = {"task": "classification", "output": "p", **wrong}
    with pytest.raises(ConfigError, match=message):
        read_performance("performance", {k: v for k, v in given.items() if v is not None})


def test_at_a_windows_end_the_labels_that_have_come_since_are_told_of() -> None:
    kind = PerformanceKind()
    settings = kind.read(
        "performance",
        {
            "task": "classification",
            "output": "p",
            "window_rows": 200,
            "limits": {"accuracy": 0.7},
        },
    )
    source = SimpleNamespace(model="m", version="1")
    measured = kind.make(settings, Watched(source, None, None))

    def end() -> dict[str, Finding]:
        return {f.test: f for f in measured.end(Window(0, 0.0, 1.0, 10, True, True))}

    assert end() == {}
    for seed, right in ((1, 0.9), (2, 0.5), (3, 0.9)):
        assert kind.joined(batch(*drawn(200, seed, right))) == 0
    kind.joined(batch(*drawn(200, 4, 0.1), version="2"))
    found = end()
    assert found["accuracy"].level is Level.DRIFTED
    assert found["accuracy"].value == pytest.approx(0.5, abs=0.1)
    assert end() == {}
