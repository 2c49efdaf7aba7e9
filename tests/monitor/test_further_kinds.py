"""The monitors beside the per-feature one: from a table of ``monitor.toml`` to findings."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gateway.errors import ConfigError
from gateway.monitor.findings import Finding, Level
from gateway.monitor.further_kinds import FURTHER_KINDS
from gateway.monitor.kinds import Watched, WindowMonitor
from gateway.monitor.monitor_file import MonitorSettings, read_monitor_file
from gateway.monitor.profile_builder import ProfileBuilder, ProfileSource
from gateway.monitor.windows import Window
from gateway.stream.block import Block
from gateway.stream.columns import Column, Columns
from gateway.types import DATATYPES

COLUMNS = Columns(
    (
        Column("x", DATATYPES["FP32"], 0, 0, ("age", "income", "city")),
        Column("pixels", DATATYPES["FP32"], 1, 0),
    ),
    (Column("probabilities", DATATYPES["FP32"], 0, 0),),
)
KINDS = {kind.name: kind for kind in FURTHER_KINDS}


def block(rows: int, seed: int, *, shift: float = 0.0, hard: float = 0.3, at: float = 0.0) -> Block:
    """Predictions whose age moves by ``shift`` and whose pixels become as much brighter."""
    random = np.random.default_rng(seed)
    x = np.stack(
        [
            random.normal(40 + 10 * shift, 10, rows),
            random.lognormal(10, 1, rows),
            random.integers(0, 5, rows),
        ],
        axis=1,
    )
    one = 0.5 + (random.beta(0.5, 0.5, rows) - 0.5) * (1 - hard)
    return Block(
        "m",
        "1",
        COLUMNS,
        number=0,
        at=at,
        request_rows=np.ones(rows, np.int64),
        latency_ns=np.ones(rows, np.int64),
        ids=None,
        event_ids=None,
        inputs={
            "x": x.astype(np.float32),
            "pixels": random.normal(shift, 1, (rows, 600)).astype(np.float32),
        },
        outputs={"probabilities": np.stack([1 - one, one], axis=1).astype(np.float32)},
    )


@pytest.fixture(scope="module")
def profile() -> Any:
    builder = ProfileBuilder()
    builder.add(block(4000, 1))
    return builder.profile("sha256:0", ProfileSource(name="test", rows=4000))


@pytest.fixture
def make(tmp_path: Path, profile: Any) -> Any:
    """The monitor that a text of ``monitor.toml`` asks for."""

    def made(text: str) -> WindowMonitor:
        path = tmp_path / "monitor.toml"
        path.write_text("window = { rows = 1000 }\n" + text)
        settings = read_monitor_file(path, {name: kind.read for name, kind in KINDS.items()})
        ((name, own),) = settings.monitors.items()
        source = SimpleNamespace(path=tmp_path / "1" / "model.onnx")
        return KINDS[name].make(own, Watched(source, settings, profile))

    return made


def findings(monitor: WindowMonitor, *blocks: Block) -> dict[tuple[str, str], Finding]:
    for one in blocks:
        monitor.take(one)
    rows = sum(one.rows for one in blocks)
    window = Window(0, 0.0, 1.0, rows, True, True)
    return {(found.subject, found.test): found for found in monitor.end(window)}


def drifted(found: dict[tuple[str, str], Finding]) -> set[tuple[str, str]]:
    return {key for key, finding in found.items() if finding.level is Level.DRIFTED}


def test_online_detectors_watch_the_numbers_and_not_the_categories(make) -> None:
    monitor = make('[online]\ndetectors = ["adwin", "page_hinkley"]\n')
    still = findings(monitor, block(600, 2), block(400, 3))
    assert {subject for subject, _ in still} >= {"age", "income", "pixels.mean"}
    assert "city" not in {subject for subject, _ in still}
    assert drifted(still) == set()
    moved = findings(monitor, block(1000, 4, shift=0.6, at=1.0))
    assert drifted(moved) >= {("age", "adwin"), ("age", "page_hinkley")}
    assert ("income", "adwin") not in drifted(moved)


def test_a_feature_that_is_ignored_has_no_detector(make) -> None:
    monitor = make('ignore = ["a*"]\n[online]\n')
    assert "age" not in {subject for subject, _ in findings(monitor, block(100, 2))}


def test_kswin_is_given_as_many_values_a_second_as_the_file_says(make) -> None:
    monitor = make('[online]\ndetectors = ["kswin"]\nper_second = { kswin = 70 }\n')
    found = findings(monitor, block(1000, 2), block(1000, 3, at=1.0))
    watched = {subject for subject, _ in found}
    passed = monitor._monitor._allowances["kswin"].passed
    assert passed == 2 * (70 // len(watched))


def test_all_features_are_tested_together_and_each_wide_tensor_by_itself(make) -> None:
    monitor = make("[multivariate]\nsample = 400\n")
    still = findings(monitor, block(700, 2), block(300, 3))
    assert set(still) == {
        (subject, test) for subject in ("", "pixels") for test in ("classifier_two_sample", "mmd")
    }
    assert drifted(still) == set()
    moved = findings(monitor, block(1000, 4, shift=0.5))
    assert {subject for subject, _ in drifted(moved)} == {"", "pixels"}


def labels(path: Path, *, rows: int = 4000, **left: Any) -> None:
    one = block(rows, 5).outputs["probabilities"]
    truth = np.random.default_rng(6).random(rows) < one[:, 1]
    arrays = {"probabilities": one, "truth": truth.astype(np.int64), **left}
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize("place", ["labels.npz", "1/labels.npz"])
def test_performance_is_estimated_by_the_labels_beside_the_model(make, tmp_path, place) -> None:
    labels(tmp_path / place)
    monitor = make('[estimation]\noutput = "probabilities"\n')
    still = findings(monitor, block(1000, 7))
    assert set(still) == {("", "estimated_accuracy"), ("", "estimated_roc_auc")}
    assert drifted(still) == set()
    assert drifted(findings(monitor, block(1000, 8, hard=0.8))) == set(still)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[online]\ndetectors = ["adwin", "cusum"]\n', "detectors"),
        ("[online]\nlevel = 2\n", "level must be a number from 0 to 1, not 2"),
        ("[online]\nper_second = { ddm = 3 }\n", "ddm"),
        ("[multivariate]\nsample = 10\n", "sample must be an integer of at least 50"),
        ("[estimation]\n", "output is missing"),
        ('[estimation]\noutput = "probabilities"\n', "there is neither .*labels.npz nor .*savez"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_key(make, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(text)


def test_a_file_of_labels_that_does_not_fit_is_told(make, tmp_path) -> None:
    table = '[estimation]\noutput = "probabilities"\n'
    labels(tmp_path / "labels.npz", truth=None)
    with pytest.raises(ConfigError, match="has no array 'truth'; it has probabilities"):
        make(table)
    labels(tmp_path / "labels.npz", rows=1500)
    with pytest.raises(ConfigError, match="at least two windows of 1000 are needed"):
        make(table)
    (tmp_path / "labels.npz").write_bytes(b"not this")
    with pytest.raises(ConfigError, match="is no NPZ file of plain arrays"):
        make(table)


def test_without_their_tables_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "monitor.toml"
    path.write_text("")
    read = {name: kind.read for name, kind in KINDS.items()}
    assert read_monitor_file(path, read) == MonitorSettings()
