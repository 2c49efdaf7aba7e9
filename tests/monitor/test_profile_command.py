"""``onnx-gateway profile build`` and ``show``, over real files and models."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pyarrow
import pyarrow.parquet
import pytest
from onnx import helper

from gateway.cli import main
from gateway.monitor.profile_file import read_profile
from gateway.serving.loader import digest_of
from tests.repository import ModelDirectory, constant, model, rows, rows_of, value


def people() -> onnx.ModelProto:
    """Takes an age and a city; gives the city back, and two scores that sum to 1."""
    return model(
        [
            helper.make_node("Identity", ["city"], ["same"]),
            helper.make_node("Mul", ["age", "weights"], ["weighed"]),
            helper.make_node("Softmax", ["weighed"], ["scores"], axis=1),
        ],
        [value("age", "FP32", ["n", 1]), value("city", "BYTES", ["n", 1])],
        [value("same", "BYTES", ["n", 1]), value("scores", "FP32", ["n", 2])],
        [constant("weights", np.array([[0.01, -0.01]], np.float32))],
    )


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    directory = ModelDirectory(tmp_path / "models")
    directory.add("rows", rows)
    directory.add("people", people)
    return directory


def version_folder(models: ModelDirectory, name: str) -> Path:
    (file,) = (models.path / name).rglob("*.onnx")
    return file.parent


def write_csv(path: Path, names: list[str], lines: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *lines])
    return path


def build(folder: Path, data: Path, *more: str) -> int:
    return main(["profile", "build", "--model", str(folder), "--data", str(data), *more])


def test_a_csv_file_is_profiled_with_what_the_model_says_to_it(models, tmp_path, capsys):
    random = np.random.default_rng(1)
    lines = [
        ["" if place % 10 == 0 else round(random.normal(40, 9), 2), random.choice(["Bern", "Chur"])]
        for place in range(300)
    ]
    lines[3][1] = ""
    data = write_csv(tmp_path / "people.csv", ["age", "city"], lines)
    folder = version_folder(models, "people")
    assert build(folder, data, "--outputs-from-model") == 0
    (file,) = folder.glob("*.onnx")
    profile = read_profile(folder / "profile.json", digest_of(file, []))
    assert (profile.model, profile.rows) == ("people", 300)
    assert [f.name for f in profile.features] == [
        "age", "city", "same", "scores[0]", "scores[1]", "scores.class",
    ]  # fmt: skip
    assert profile.feature("age").missing == 30
    assert profile.feature("city").missing == profile.feature("same").missing == 1
    assert profile.source.name == "people.csv"
    assert main(["profile", "show", str(folder / "profile.json")]) == 0
    told = capsys.readouterr().out
    assert "300 rows" in told
    assert "10.0%" in told
    assert "'Bern'" in told
    assert str(tmp_path) not in (folder / "profile.json").read_text()


@pytest.mark.parametrize("named", ["by option", "by place", "all of them"])
def test_columns_become_the_models_one_input(models, tmp_path, named):
    table = np.random.default_rng(2).normal(size=(200, 4)).astype(np.float32)
    names = [f"x[{at}]" for at in range(4)] if named == "by place" else ["d", "c", "b", "a"]
    options: list[str] = []
    expected = names
    if named == "by option":
        options, expected = ["--columns", "a,b,c,d"], ["a", "b", "c", "d"]
        names, table = [*names, "unused"], np.column_stack([table, table[:, 0]])
    data = write_csv(tmp_path / "d.csv", names, table.tolist())
    out = tmp_path / "p.json"
    folder = version_folder(models, "rows")
    assert build(folder, data, *options, "--outputs-from-model", "-o", str(out)) == 0
    profile = read_profile(out)
    assert [f.name for f in profile.features[:4]] == expected
    order = [names.index(name) for name in expected]
    given = table[:, order].astype(np.float32)
    means = [feature.reference.mean for feature in profile.features]
    np.testing.assert_allclose(means[:4], given.mean(0), rtol=1e-4)
    np.testing.assert_allclose(means[4:], rows_of(given).mean(0), rtol=1e-4)


def test_npz_arrays_are_tensors_and_may_hold_the_outputs(models, tmp_path):
    x = np.random.default_rng(3).normal(size=(150, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=np.tile([0.2, 0.3, 0.5, 0, 0], (150, 1)))
    folder = version_folder(models, "rows")
    assert build(folder, tmp_path / "d.npz", "--rows", "100") == 0
    profile = read_profile(folder / "profile.json")
    assert profile.rows == 100
    assert profile.feature("y.class").reference.categories == (2.0,)
    assert profile.feature("x[0]").reference.maximum == x[:100, 0].max()


def test_parquet_is_read_as_csv_is(models, tmp_path):
    ages = [30.5, None, 41.0] * 50
    cities = ["Bern", None, "Chur"] * 50
    table = pyarrow.table({"age": ages, "city": pyarrow.array(cities).dictionary_encode()})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    lines = [["" if v is None else v for v in pair] for pair in zip(ages, cities, strict=True)]
    write_csv(tmp_path / "d.csv", ["age", "city"], lines)
    found = []
    for name in ("d.parquet", "d.csv"):
        out = tmp_path / f"{name}.json"
        assert build(version_folder(models, "people"), tmp_path / name, "-o", str(out)) == 0
        document = json.loads(out.read_text())
        found.append([document[key] for key in ("features", "sample", "rows", "tensors")])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("names", "lines", "options", "message"),
    [
        (["age"], [[3]], [], "no columns for input 'city'"),
        (["age", "city"], [["x", "Bern"]], [], "column 'age' holds text such as 'x'"),
        (["age", "city"], [[1, "a"], [2]], [], "line 3 has 1 fields, the first line has 2"),
        (["age", "age"], [[1, 2]], [], "names columns twice: 'age'"),
        (["age", "city"], [], [], "has no rows"),
        (["age", "city"], [[1, "a"]], ["--columns", "age"], "a model with one input"),
        (["age", "city"], [[1, "a"]], ["--numeric", "shoe"], "there is no feature 'shoe'"),
        (["age", "city"], [[1, "a"]], ["--rows", "0"], "must be at least 1"),
    ],
)
def test_data_that_do_not_fit_end_with_one_message(
    models, tmp_path, capsys, names, lines, options, message
):
    data = write_csv(tmp_path / "d.csv", names, lines)
    assert build(version_folder(models, "people"), data, *options) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("onnx-gateway: ")
    assert told.count("\n") == 1


def test_what_is_not_there_ends_with_one_message(models, tmp_path, capsys):
    folder = version_folder(models, "rows")
    assert build(folder, tmp_path / "no.csv") == 2
    assert "no.csv cannot be read: No such file" in capsys.readouterr().err
    assert build(folder, tmp_path / "no.txt") == 2
    assert "expected a file that ends with .csv" in capsys.readouterr().err
    data = write_csv(tmp_path / "d.csv", ["x[0]", "x[1]", "x[2]", "x[3]"], [[1, 2, 3, 4]])
    assert build(folder, data, "-o", str(data / "inside.json")) == 2
    assert "inside.json cannot be written: Not a directory" in capsys.readouterr().err
    assert build(models.path / "rows" / "77", tmp_path / "no.csv") == 2
    assert "there is no model version at" in capsys.readouterr().err
    assert main(["profile", "show", str(tmp_path / "no.json")]) == 2
    assert "no.json cannot be read" in capsys.readouterr().err


def test_parquet_without_pyarrow_names_what_to_install(models, tmp_path, capsys, monkeypatch):
    pyarrow.parquet.write_table(pyarrow.table({"age": [1.0]}), tmp_path / "d.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert build(version_folder(models, "people"), tmp_path / "d.parquet") == 2
    assert "pip install 'onnx-gateway[monitor]'" in capsys.readouterr().err


@pytest.mark.parametrize("settings", ["", "max_batch_size = 7\n", "max_batch_size = 0\n"])
def test_a_version_is_found_wherever_the_model_has_it(tmp_path, settings):
    models = ModelDirectory(tmp_path)
    models.add("rows", rows, settings, version="blue" if settings else "2")
    data = write_csv(
        tmp_path / "d.csv",
        ["a", "b", "c", "d"],
        (np.eye(4).repeat(5, axis=0) * np.arange(0.05, 1.05, 0.05)[:, None]).tolist(),
    )
    out = tmp_path / "p.json"
    found = []
    for folder in (version_folder(models, "rows"), tmp_path / "rows"):
        assert build(folder, data, "--outputs-from-model", "-o", str(out)) == 0
        profile = read_profile(out)
        assert (profile.model, profile.version) == ("rows", "blue" if settings else "2")
        found.append([feature.reference.mean for feature in profile.features])
    assert found[0] == found[1]
    assert found[0][:4] == pytest.approx([0.0375, 0.1, 0.1625, 0.225])
    assert found[0][4:8] == pytest.approx(np.multiply(found[0][:4], 2))
    assert found[0][8] == pytest.approx(0.525)
