"""One version's windows against its reference, from blocks to findings."""

import numpy as np
import pytest

from gateway.errors import ConfigError
from gateway.monitor import binning, drift
from gateway.monitor.findings import Finding, Level
from gateway.monitor.live_profile import LiveProfile
from gateway.monitor.measures import Limits
from gateway.monitor.monitor_file import (
    FeatureSettings,
    MonitorSettings,
    ReferenceSettings,
    WindowSettings,
)
from gateway.monitor.version_monitor import VersionMonitor, level_of
from tests.monitor.streams import WORDS, normal, numbers, source, words

ALL = (
    "jensen_shannon",
    "psi",
    "kolmogorov_smirnov",
    "wasserstein_over_deviation",
    "missing_rate",
    "out_of_range_rate",
)


def watch(tmp_path, *, rows=2000, window=None, columns=None, kinds=(), **settings):
    """A monitor whose first ``rows`` predictions become its reference, and its reports."""
    made = MonitorSettings(
        reference=ReferenceSettings(live=rows),
        window=window or WindowSettings(rows=500),
        **settings,
    )
    reports = []
    at = source(tmp_path) if columns is None else source(tmp_path, columns)
    monitor = VersionMonitor(at, made, LiveProfile(at, rows, None), kinds, reports.append)
    return monitor, reports


def found(report, subject, test):
    (finding,) = [f for f in report.findings if (f.subject, f.test) == (subject, test)]
    return finding


def test_what_does_not_change_is_ok_and_what_shifts_has_drifted(tmp_path):
    monitor, reports = watch(tmp_path, tests=ALL)
    monitor.take([numbers(normal(2000))])
    monitor.take([numbers(normal(500, seed=1))])
    shifted = normal(500, seed=2) + np.array([1.0, 0.0])
    monitor.take([numbers(shifted)])
    still, moved = reports
    assert level_of(still) is Level.OK
    for test in ("jensen_shannon", "psi", "kolmogorov_smirnov", "wasserstein_over_deviation"):
        assert found(moved, "age", test).level is Level.DRIFTED
        assert found(moved, "height", test).level is Level.OK
        assert found(moved, "y", test).level is Level.DRIFTED, "the output has moved with it"


def test_the_figures_are_those_of_the_whole_window_in_memory(tmp_path):
    monitor, reports = watch(tmp_path, tests=ALL)
    before, after = normal(2000).astype(np.float32), normal(500, 0.3, 1).astype(np.float32)
    monitor.take([numbers(before)])
    for start in range(0, 500, 70):
        monitor.take([numbers(after[start : start + 70])])
    (report,) = reports
    ages = before[:, 0], after[:, 0]
    counts = binning.nannyml_counts(*ages)
    assert found(report, "age", "jensen_shannon").value == pytest.approx(
        drift.jensen_shannon(*counts), abs=1e-12
    )
    outside = (ages[1] < ages[0].min()) | (ages[1] > ages[0].max())
    assert found(report, "age", "out_of_range_rate").value == outside.mean()


def test_the_rows_behind_the_reference_begin_the_first_window(tmp_path):
    monitor, reports = watch(tmp_path)
    monitor.take([numbers(normal(2400))])
    assert monitor.to_collect == 0
    assert reports == []
    monitor.take([numbers(normal(100, seed=1))])
    assert [r.rows for r in reports] == [500]


def test_a_sliding_window_has_the_figures_of_all_its_steps(tmp_path):
    window = WindowSettings(rows=400, step=100)
    sliding, slid = watch(tmp_path, window=window, tests=("jensen_shannon",))
    whole, told = watch(tmp_path, window=WindowSettings(rows=400), tests=("jensen_shannon",))
    rows = normal(800, 0.5, 3)
    for monitor in (sliding, whole):
        monitor.take([numbers(normal(2000))])
        monitor.take([numbers(rows)])
    assert [r.number for r in slid] == [0, 1, 2, 3, 4]
    assert slid[0].findings == told[0].findings
    assert slid[4].findings == told[1].findings


def test_a_window_with_too_few_rows_says_no_data(tmp_path):
    window = WindowSettings(seconds=60, min_rows=100)
    monitor, reports = watch(tmp_path, window=window)
    monitor.take([numbers(normal(2000), at=1.0)])
    monitor.tick(61.0)
    monitor.take([numbers(normal(99), at=62.0)])
    monitor.tick(120.0)
    assert {f.level for f in reports[-1].findings} == {Level.NO_DATA}
    assert {f.value for f in reports[-1].findings} == {None}


def test_missing_values_are_told_of_by_their_rate_and_leave_the_others_alone(tmp_path):
    monitor, reports = watch(tmp_path, tests=ALL)
    monitor.take([numbers(normal(2000))])
    holes = normal(500, seed=1)
    holes[:100, 0] = np.nan
    monitor.take([numbers(holes)])
    (report,) = reports
    assert found(report, "age", "missing_rate").value == pytest.approx(0.2)
    assert found(report, "age", "missing_rate").level is Level.DRIFTED
    assert found(report, "age", "jensen_shannon").level is Level.OK


def test_a_feature_without_any_value_has_no_data_but_a_missing_rate(tmp_path):
    monitor, reports = watch(tmp_path, tests=ALL)
    monitor.take([numbers(normal(2000))])
    monitor.take([numbers(normal(500) * [np.nan, 1.0])])
    assert found(reports[0], "age", "missing_rate").level is Level.DRIFTED
    assert found(reports[0], "age", "psi").level is Level.NO_DATA


def test_new_categories_and_moved_ones_are_found(tmp_path):
    monitor, reports = watch(
        tmp_path, columns=WORDS, tests=("chi_square", "jensen_shannon", "new_category_rate")
    )
    monitor.take([words([b"a", b"b"] * 1000)])
    monitor.take([words([b"a", b"b"] * 250)])
    monitor.take([words([b"a"] * 400 + [b"new"] * 100)])
    still, moved = reports
    assert level_of(still) is Level.OK
    assert found(moved, "word", "new_category_rate").value == pytest.approx(0.2)
    assert {f.level for f in moved.findings} == {Level.DRIFTED}


def test_a_figure_that_chance_makes_is_no_drift_unless_the_limits_alone_decide(tmp_path):
    levels = {}
    for significance in (0.01, 1.0):
        monitor, reports = watch(
            tmp_path,
            rows=300,
            window=WindowSettings(rows=60),
            tests=("jensen_shannon",),
            significance=significance,
        )
        monitor.take([numbers(normal(300))])
        monitor.take([numbers(normal(60, seed=5))])
        levels[significance] = [f.level for f in reports[0].findings]
        assert all(f.value > 0.1 for f in reports[0].findings)
    assert set(levels[0.01]) == {Level.OK}
    assert set(levels[1.0]) == {Level.DRIFTED}


def test_on_a_still_stream_alarms_are_as_rare_as_they_are_to_be(tmp_path):
    monitor, reports = watch(tmp_path, rows=5000, tests=ALL, correction="holm")
    monitor.take([numbers(normal(5000))])
    for seed in range(200):
        monitor.take([numbers(normal(500, seed=1000 + seed))])
    alarms = {
        test: sum(
            any(f.level is Level.DRIFTED for f in r.findings if f.test == test) for r in reports
        )
        for test in ALL
    }
    # Binomial of 200 windows at 0.01: more than 7 would be a chance of 1 in 1,000.
    assert len(reports) == 200
    assert max(alarms.values()) <= 7, alarms


def test_p_values_are_corrected_for_the_number_of_features(tmp_path):
    made = {}
    for correction in ("none", "bonferroni"):
        monitor, reports = watch(tmp_path, tests=("kolmogorov_smirnov",), correction=correction)
        monitor.take([numbers(normal(2000))])
        monitor.take([numbers(normal(500, 0.1, 4))])
        made[correction] = [f.p_value for f in reports[0].findings]
    assert made["bonferroni"] == pytest.approx([min(3 * p, 1.0) for p in made["none"]])


def test_features_have_their_own_tests_and_limits(tmp_path):
    own = FeatureSettings("age", ("jensen_shannon",), {"jensen_shannon": Limits(None, 0.9)})
    monitor, reports = watch(
        tmp_path,
        tests=("psi",),
        ignore=("y",),
        features=(own,),
    )
    monitor.take([numbers(normal(2000))])
    monitor.take([numbers(normal(500, 1.0, 1))])
    assert [(f.subject, f.test, f.level) for f in reports[0].findings] == [
        ("age", "jensen_shannon", Level.OK),
        ("height", "psi", Level.DRIFTED),
    ]


def test_blocks_that_are_unlike_the_reference_are_counted_and_the_next_is_looked_at(tmp_path):
    monitor, reports = watch(tmp_path)
    monitor.take([numbers(normal(2000))])
    block = numbers(normal(100))
    other = numbers(normal(100), inputs={"x": np.ones((100, 3), np.float32)}, outputs=block.outputs)
    monitor.take([other])
    assert monitor.lost_rows == 100
    monitor.take([numbers(normal(500, seed=1))])
    assert [r.rows for r in reports] == [500]


class CountRows:
    """A further monitor: tells how many rows the window has."""

    name = "count"

    def read(self, where, value):
        return value

    def make(self, settings, watched):
        if settings == {"bad": True}:
            raise ConfigError("count: it does not fit")
        self.rows = 0
        return self

    def take(self, block):
        self.rows += block.rows

    def end(self, window):
        rows, self.rows = self.rows, 0
        return [Finding(subject="", test="count", value=float(rows))]


def test_a_further_monitor_takes_the_same_rows_and_adds_its_findings(tmp_path):
    monitor, reports = watch(tmp_path, kinds=[CountRows()], monitors={"count": {}})
    monitor.take([numbers(normal(2400))])
    monitor.take([numbers(normal(700, seed=1))])
    assert [found(r, "", "count").value for r in reports] == [500.0, 500.0]


def test_reports_are_kept_up_to_a_number(tmp_path):
    monitor, reports = watch(tmp_path, keep=3)
    monitor.take([numbers(normal(2000))])
    monitor.take([numbers(normal(5000, seed=1))])
    assert monitor.windows == len(reports) == 10
    assert [r.number for r in monitor.reports] == [7, 8, 9]
