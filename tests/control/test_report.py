"""The check command's explanation is true, complete, and readable by machines."""

import json
from pathlib import Path

import pytest

from gateway.control.report import ModelReport, check
from gateway.errors import ConfigError
from tests.serving import models


@pytest.fixture
def reports(tmp_path: Path) -> dict[str, ModelReport]:
    models.save(models.linear(), tmp_path / "batched" / "1")
    models.save(models.linear(), tmp_path / "batched" / "2")
    models.save(models.softmax_over_batch(), tmp_path / "mixing")
    models.save(models.recurrent(), tmp_path, "voice.onnx")
    (tmp_path / "broken.onnx").write_text("no model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "batched" / "config.pbtxt").write_text("response_cache { enable: true }")
    return {report.source.name: report for report in check([tmp_path])}


def test_every_model_is_reported(reports: dict[str, ModelReport]) -> None:
    assert list(reports) == ["batched", "broken", "empty", "mixing", "voice"]
    assert {name for name, report in reports.items() if report.problems} == {"broken", "empty"}


def test_the_text_explains(reports: dict[str, ModelReport]) -> None:
    batched = reports["batched"].text()
    assert batched.startswith("batched: ok\n")
    assert "config.pbtxt" in batched
    assert "not honoured: response_cache.enable" in batched
    assert "not loaded, by the version policy: 1" in batched
    assert "input  x  FP32 [-1, 4], rows on axis 0" in batched
    assert "runs on CPUExecutionProvider, instances: 1" in batched
    mixing = reports["mixing"].text()
    assert "batching: none" in mixing
    assert "note: served one request at a time: at batch size 2 a row of output 'y'" in mixing
    voice = reports["voice"].text()
    assert "state   FP32 [2, -1, 8], rows on axis 1" in voice
    assert "sr      INT64 [], shared by the batch" in voice
    assert "is not an ONNX model" in reports["broken"].text()
    assert "holds no model" in reports["empty"].text()


def test_the_dictionary_is_json(reports: dict[str, ModelReport]) -> None:
    told = json.loads(json.dumps(reports["batched"].as_dict()))
    assert told["ignored_settings"] == ["response_cache.enable"]
    assert told["found_versions"] == ["1", "2"]
    (version,) = told["versions"]
    assert version["version"] == "2"
    assert version["problem"] is None
    assert version["inputs"][0]["batch_axis"] == 0
    assert str(version["max_batch_size"]) in version["latency_us"]
    broken = json.loads(json.dumps(reports["broken"].as_dict()))
    assert "not an ONNX model" in broken["problems"][0]


def test_stages_are_told_as_they_begin(tmp_path: Path) -> None:
    models.save(models.linear(), tmp_path, "m.onnx")
    stages: list[str] = []
    list(check([tmp_path], stages.append))
    assert stages[0] == "m 1: reading the graph"
    assert len(stages) >= 4


def test_a_repository_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        list(check([tmp_path / "gone"]))
