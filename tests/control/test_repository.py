"""What is found in a repository, and how one bad model is kept from harming the others."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.repository import (
    Repository,
    chosen_versions,
    scan_repositories,
    version_key,
)
from gateway.errors import ConfigError
from gateway.serving.settings import ModelSettings, VersionPolicy


def put(root: Path, *names: str, content: str = "") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_the_three_layouts(tmp_path: Path) -> None:
    put(tmp_path, "triton/1/model.onnx", "triton/2/model.onnx", "single/model.onnx", "bare.onnx")
    found = Repository(tmp_path).scan()
    assert list(found) == ["bare", "single", "triton"]
    assert list(found["triton"].found) == ["1", "2"]
    assert found["triton"].versions == {"2": tmp_path / "triton/2/model.onnx"}
    assert found["single"].versions == {"1": tmp_path / "single/model.onnx"}
    assert found["bare"].versions == {"1": tmp_path / "bare.onnx"}
    assert all(source.problems == () for source in found.values())
    assert found["bare"].settings == ModelSettings()


def test_hidden_and_foreign_files_are_not_looked_at(tmp_path: Path) -> None:
    put(tmp_path, ".git/1/model.onnx", ".m.onnx", "README.md", "m/1/model.onnx", "m/.2/model.onnx")
    put(tmp_path, "m/assets/tokenizer.json", "m/labels.txt")
    found = Repository(tmp_path).scan()
    assert list(found) == ["m"]
    assert list(found["m"].found) == ["1"]
    assert found["m"].problems == ()


def test_the_highest_version_is_the_latest(tmp_path: Path) -> None:
    put(tmp_path, *(f"m/v{n}/model.onnx" for n in (1, 9, 10)))
    source = Repository(tmp_path).scan()["m"]
    assert list(source.found) == ["v1", "v9", "v10"]
    assert list(source.versions) == ["v10"]


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ('"all"', ["1", "2", "3"]),
        ("{ latest = 2 }", ["2", "3"]),
        ("{ latest = 9 }", ["1", "2", "3"]),
        ('{ specific = ["3", "1"] }', ["1", "3"]),
    ],
)
def test_the_version_policy_chooses(tmp_path: Path, policy: str, versions: list[str]) -> None:
    put(tmp_path, *(f"m/{n}/model.onnx" for n in (1, 2, 3)))
    put(tmp_path, "m/model.toml", content=f"version_policy = {policy}")
    source = Repository(tmp_path).scan()["m"]
    assert list(source.versions) == versions
    assert list(source.found) == ["1", "2", "3"]


def test_a_version_that_the_policy_names_and_nobody_has(tmp_path: Path) -> None:
    put(tmp_path, "m/1/model.onnx")
    put(tmp_path, "m/model.toml", content='version_policy = { specific = ["1", "7"] }')
    source = Repository(tmp_path).scan()["m"]
    assert list(source.versions) == ["1"]
    assert source.problems == ("version 7, which the version policy names, is not there",)


def test_the_only_onnx_file_will_do(tmp_path: Path) -> None:
    put(tmp_path, "m/1/encoder.onnx")
    assert Repository(tmp_path).scan()["m"].versions == {"1": tmp_path / "m/1/encoder.onnx"}


def test_one_of_several_files_must_be_named(tmp_path: Path) -> None:
    put(tmp_path, "m/1/a.onnx", "m/1/b.onnx")
    source = Repository(tmp_path).scan()["m"]
    assert source.versions == {}
    assert source.problems == ("version 1 holds no model.onnx",)
    put(tmp_path, "m/model.toml", content='model_filename = "b.onnx"')
    assert Repository(tmp_path).scan()["m"].versions == {"1": tmp_path / "m/1/b.onnx"}


def test_sample_rows_are_found_by_name(tmp_path: Path) -> None:
    put(tmp_path, "m/1/model.onnx", "m/warmup.npz")
    assert Repository(tmp_path).scan()["m"].settings.warmup == tmp_path / "m/warmup.npz"


def test_golden_requests_lie_in_a_models_directory_and_a_bare_model_has_none(
    tmp_path: Path,
) -> None:
    put(tmp_path, "m/1/model.onnx", "bare.onnx", "golden/a.json")
    found = Repository(tmp_path).scan()
    assert found["m"].settings.golden == tmp_path / "m/golden"
    assert found["bare"].settings.golden is None


def test_a_bad_model_harms_no_other(tmp_path: Path) -> None:
    put(tmp_path, "good/1/model.onnx", "wrong/1/model.onnx")
    put(tmp_path, "wrong/model.toml", content="max_batch = 1")
    (tmp_path / "empty").mkdir()
    found = Repository(tmp_path).scan()
    assert found["good"].problems == ()
    assert found["empty"].versions == found["wrong"].versions == {}
    assert "holds no model: expected <version>/model.onnx" in found["empty"].problems[0]
    assert "did you mean 'max_batch_size'?" in found["wrong"].problems[0]


def test_a_version_without_a_model_is_told_and_the_rest_served(tmp_path: Path) -> None:
    put(tmp_path, "m/1/model.onnx", "m/2/readme.txt")
    source = Repository(tmp_path).scan()["m"]
    assert list(source.versions) == ["1"]
    assert source.problems == ("version 2 holds no model.onnx",)


def test_names_that_clash_are_told(tmp_path: Path) -> None:
    put(tmp_path, "m/1/model.onnx", "m.onnx", "n/model.onnx", "n/4/model.onnx")
    found = Repository(tmp_path).scan()
    assert found["m"].path == tmp_path / "m"
    assert "m.onnx is not served" in found["m"].problems[0]
    assert list(found["n"].versions) == ["4"]
    assert "model.onnx is not served" in found["n"].problems[0]


def test_of_several_repositories_the_first_has_the_name(tmp_path: Path) -> None:
    put(tmp_path, "a/m.onnx", "b/m.onnx", "b/n.onnx")
    found = scan_repositories([tmp_path / "a", tmp_path / "b"])
    assert list(found) == ["m", "n"]
    assert found["m"].versions == {"1": tmp_path / "a/m.onnx"}
    assert f"{tmp_path / 'b/m.onnx'} is not served" in found["m"].problems[0]


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model repository .*gone cannot be read"):
        Repository(tmp_path / "gone").scan()


def test_a_change_on_disk_is_seen_by_the_next_scan(tmp_path: Path) -> None:
    put(tmp_path, "m/1/model.onnx")
    repository = Repository(tmp_path)
    assert list(repository.scan()["m"].versions) == ["1"]
    put(tmp_path, "m/2/model.onnx")
    assert list(repository.scan()["m"].versions) == ["2"]


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_are_sorted_as_numbers(numbers: list[int]) -> None:
    for prefix in ("", "v", "2024-"):
        shuffled = [f"{prefix}{n}" for n in random.Random(0).sample(numbers, len(numbers))]
        assert sorted(shuffled, key=version_key) == [f"{prefix}{n}" for n in sorted(numbers)]


@given(st.lists(st.text(max_size=8)))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(sorted(names, key=version_key)) == sorted(names)


@given(st.sets(st.integers(1, 50).map(str)), st.integers(1, 60))
def test_latest_takes_the_highest(found: set[str], count: int) -> None:
    chosen, missing = chosen_versions(found, VersionPolicy(latest=count))
    assert list(chosen) == sorted(found, key=int)[-count:]
    assert missing == ()
