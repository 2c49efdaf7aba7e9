"""Online detectors: river's own, fed as it would be, and no more often than they may cost."""

import builtins

import numpy as np
import pytest
from river import drift

from gateway.errors import ConfigError
from gateway.monitor.allowance import Allowance
from gateway.monitor.findings import Level
from gateway.monitor.online import (
    Kind,
    OnlineMonitor,
    Reference,
    make,
    page_hinkley_threshold,
    parameters,
)

UNLIMITED = dict.fromkeys(Kind)
RIVERS = {
    Kind.ADWIN: drift.ADWIN,
    Kind.PAGE_HINKLEY: lambda: drift.PageHinkley(threshold=30),
    Kind.KSWIN: lambda: drift.KSWIN(alpha=0.001, seed=0),
}
RIVERS_PARAMETERS = {
    Kind.ADWIN: {"delta": 0.002},
    Kind.PAGE_HINKLEY: {"delta": 0.005, "threshold": 30, "alpha": 0.9999},
    Kind.KSWIN: {"alpha": 0.001, "window_size": 100, "stat_size": 30},
}


def stepping(rows: int = 3000, dtype: type = np.float32) -> np.ndarray:
    """Values that jump every 1,000."""
    steps = np.repeat(np.arange(rows // 1000) % 2, 1000)
    return np.random.default_rng(1).normal(2.0 * steps, 1.0, len(steps)).astype(dtype)


def blocks(values: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """``values`` cut into blocks of these sizes, over and over."""
    made, start, turn = [], 0, 0
    while start < len(values):
        made.append(values[start : start + sizes[turn % len(sizes)]])
        start += sizes[turn % len(sizes)]
        turn += 1
    return made


def rivers_own(kind: Kind, values: np.ndarray) -> list[int]:
    """The places at which river's detector, fed directly, finds a change."""
    detector, found = RIVERS[kind](), []
    for place, value in enumerate(values):
        detector.update(float(value))
        if detector.drift_detected:
            found.append(place)
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("kind", list(Kind))
def test_river_detects_through_the_monitor_what_it_detects_alone(kind: Kind, dtype: type) -> None:
    values = stepping(dtype=dtype)
    watching = OnlineMonitor(
        {"x": None}, [kind], given={kind: RIVERS_PARAMETERS[kind]}, per_second=UNLIMITED
    )
    for number, block in enumerate(blocks(values, [1, 64, 7, 500])):
        watching.add({"x": block}, float(number))
    found = [detection.row for detection in watching.detections]
    assert found == rivers_own(kind, values)
    assert found, "the jumps should be found at all"


def test_each_subject_has_detectors_of_its_own() -> None:
    jumping, still = stepping(), stepping(1000).repeat(3)
    names = {"still": None, "jumping": None}
    watching = OnlineMonitor(
        names, [Kind.ADWIN], given={Kind.ADWIN: RIVERS_PARAMETERS[Kind.ADWIN]}, per_second=UNLIMITED
    )
    watching.add({"jumping": jumping, "still": still}, 0.0)
    by_subject = {f.subject: f for f in watching.findings()}
    assert by_subject["jumping"].value == len(rivers_own(Kind.ADWIN, jumping))
    assert by_subject["still"].value == len(rivers_own(Kind.ADWIN, still))


def test_a_window_tells_of_its_own_changes_only() -> None:
    watching = OnlineMonitor({"x": None}, [Kind.ADWIN], per_second=UNLIMITED)
    values = stepping(2000)
    watching.add({"x": values[:900]}, 0.0)
    (before,) = watching.findings()
    assert (before.level, before.value, before.detail) == (Level.OK, 0.0, "")
    watching.add({"x": values[900:1500]}, 1.0)
    (changed,) = watching.findings()
    assert changed.level is Level.DRIFTED
    assert changed.value == 1.0
    assert "seen at row 10" in changed.detail
    watching.add({"x": values[1500:]}, 2.0)
    assert watching.findings()[0].level is Level.OK
    assert watching.findings()[0].level is Level.NO_DATA


def test_what_is_no_number_is_passed_over() -> None:
    values = stepping().astype(np.float64)
    holed = np.insert(values, np.arange(0, 3000, 10), np.nan)
    holed[5] = np.inf
    watching = OnlineMonitor(
        {"x": None}, [Kind.ADWIN], given={Kind.ADWIN: RIVERS_PARAMETERS[Kind.ADWIN]}, per_second={}
    )
    watching.add({"x": holed, "of no interest": values}, 0.0)
    kept = np.flatnonzero(np.isfinite(holed))
    assert [d.row for d in watching.detections] == kept[
        rivers_own(Kind.ADWIN, holed[kept])
    ].tolist()


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(("shift", "by"), [(0.0, 1.0), (1e6, 1e4), (-3.0, 1e-5)])
def test_the_unit_of_a_feature_changes_nothing(kind: Kind, shift: float, by: float) -> None:
    """A change is found and stillness is not, in metres or in millimetres."""
    random = np.random.default_rng(3)
    training, still = random.normal(size=2000), random.normal(size=1500)
    moved = random.normal(1.0, 1.0, 1500)
    watching = OnlineMonitor(
        {"x": Reference.of(shift + by * training)}, [kind], per_second=UNLIMITED
    )
    watching.add({"x": shift + by * still}, 0.0)
    assert watching.findings()[0].level is Level.OK
    watching.add({"x": shift + by * moved}, 1.0)
    assert watching.findings()[0].level is Level.DRIFTED


@pytest.mark.parametrize("kind", [Kind.ADWIN, Kind.PAGE_HINKLEY])
def test_false_alarms_stay_under_the_level_over_200_still_windows(kind: Kind) -> None:
    random = np.random.default_rng(4)
    subjects = {
        "normal": random.normal(size=(205, 1000)),
        "skewed": random.exponential(size=(205, 1000)),
        "of two values": random.integers(0, 2, (205, 1000)).astype(float),
    }
    known = {name: Reference.of(values[:5]) for name, values in subjects.items()}
    watching = OnlineMonitor(known, [kind], level=0.05, window_rows=1000, per_second=UNLIMITED)
    alarmed = 0
    for window in range(5, 205):
        watching.add({name: values[window] for name, values in subjects.items()}, window)
        alarmed += any(f.level is Level.DRIFTED for f in watching.findings())
    assert alarmed <= 0.05 * 200


def test_the_threshold_of_page_hinkley_gives_the_run_length_asked_for() -> None:
    """Simulated: sums with a reflecting floor, both sides, until one passes the threshold."""
    wanted, allowance, streams = 2000.0, 0.1, 2000
    threshold = page_hinkley_threshold(allowance, wanted)
    random = np.random.default_rng(5)
    up, down = np.zeros(streams), np.zeros(streams)
    length = np.zeros(streams)
    running = np.ones(streams, bool)
    while running.any():
        values = random.normal(size=streams)
        up = np.maximum(up + values - allowance, 0)
        down = np.maximum(down - values - allowance, 0)
        length += running
        running &= (up <= threshold) & (down <= threshold)
    assert length.mean() == pytest.approx(wanted, rel=0.1)


def test_a_smaller_level_or_more_subjects_make_detectors_slower_to_alarm() -> None:
    for kind in Kind:
        easy, strict = parameters(kind, 0.05, 1, 1000), parameters(kind, 0.01, 20, 1000)
        assert strict.get("threshold", 0) >= easy.get("threshold", 0)
        for chance in ("delta", "alpha"):
            assert strict.get(chance, 0) <= easy.get(chance, 0)


def test_kswin_sees_no_more_rows_a_second_than_it_is_allowed() -> None:
    watching = OnlineMonitor({"a": None, "b": None}, [Kind.KSWIN], per_second={Kind.KSWIN: 40})
    values = stepping(1000)
    for second in range(5):
        watching.add({"a": values, "b": values}, float(second))
    assert watching.held_back(Kind.KSWIN) == 5 * 1000 - 5 * 20
    assert watching.rows == 5000
    for finding in watching.findings():
        assert finding.detail.endswith("100 of 5000 values were looked at")


def test_an_allowance_spreads_what_it_passes_and_counts_the_rest() -> None:
    allowance = Allowance(10.0)
    assert allowance.choose(100, 0.0).tolist() == list(range(0, 100, 10))
    assert allowance.choose(5, 0.0).tolist() == []
    assert allowance.choose(5, 0.5) is None
    assert allowance.choose(4, 0.4).tolist() == []  # the clock went back
    assert allowance.choose(100, 60.0).tolist() == list(range(0, 100, 10))
    assert (allowance.passed, allowance.held_back) == (25, 189)


def test_without_river_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.startswith("river"):
            raise ModuleNotFoundError("No module named 'river'", name="river")
        return real(name, *rest, **more)

    monkeypatch.setattr("importlib.import_module", without)
    with pytest.raises(ConfigError, match=r"pip install 'onnx-gateway\[monitor\]'"):
        make(Kind.ADWIN, {})
