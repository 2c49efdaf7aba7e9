"""From a file to a loaded model, with a digest, stages, warm sessions, and errors that explain."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gateway.errors import LoadError
from gateway.serving.lifecycle import State
from gateway.serving.loader import load_model
from gateway.serving.settings import ModelSettings, TensorSettings
from tests.serving import models


def test_a_loaded_model_is_whole(tmp_path: Path) -> None:
    path = models.save(models.linear(), tmp_path)
    stages: list[tuple[State, str]] = []
    loaded = load_model(
        "m", "3", path, ModelSettings(instances=2), progress=lambda *told: stages.append(told)
    )
    assert (loaded.name, loaded.version, loaded.path) == ("m", "3", path)
    assert loaded.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert len(loaded.sessions) == 2
    x = np.ones((2, 4), np.float32)
    first, second = (session.run({"x": x}, ["y"])[0] for session in loaded.sessions)
    np.testing.assert_array_equal(first, second)
    assert stages == [
        (State.LOADING, "reading the graph"),
        (State.LOADING, "opening session 1 of 2"),
        (State.LOADING, "opening session 2 of 2"),
        (State.VALIDATING, "probing how it may be batched"),
        (State.WARMING, "warming up"),
    ]


def test_the_digest_covers_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(models.linear(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    before = load_model("m", "1", path, ModelSettings())
    weights = tmp_path / "w.bin"
    weights.write_bytes(weights.read_bytes()[::-1])
    assert load_model("m", "1", path, ModelSettings()).digest != before.digest
    assert before.signature.max_batch_size > 1


def test_labels_of_the_settings_are_used(tmp_path: Path) -> None:
    path = models.save(models.linear(), tmp_path)
    settings = ModelSettings(outputs={"y": TensorSettings(labels=("a", "b", "c"))})
    assert load_model("m", "1", path, settings).signature.outputs[0].labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"inputs": {"z": TensorSettings()}}, "describe input 'z'.*it has x"),
        ({"outputs": {"z": TensorSettings()}}, "describe output 'z'.*it has y"),
        (
            {"inputs": {"x": TensorSettings(datatype="INT8")}},
            "'x' is INT8; in the graph it is FP32",
        ),
        ({"inputs": {"x": TensorSettings(shape=(-1, 5))}}, r"shape \[-1, 5\]; in .* \[-1, 4\]"),
        ({"inputs": {"x": TensorSettings(shape=(4,))}}, r"shape \[4\]; in the graph"),
        ({"warmup": Path("/nowhere.npz")}, "warm-up file .* cannot be read"),
    ],
)
def test_settings_that_contradict_the_model_are_errors(
    tmp_path: Path, settings: dict[str, object], complaint: str
) -> None:
    path = models.save(models.linear(), tmp_path)
    with pytest.raises(LoadError, match=f"model 'm' version '1': .*{complaint}"):
        load_model("m", "1", path, ModelSettings(**settings))  # type: ignore[arg-type]


def test_settings_that_agree_are_taken(tmp_path: Path) -> None:
    path = models.save(models.linear(), tmp_path)
    claim = TensorSettings(shape=(8, -1), datatype="FP32")
    loaded = load_model("m", "1", path, ModelSettings(inputs={"x": claim}))
    assert loaded.signature.inputs[0].shape == (-1, 4)


def test_fields_that_are_not_honoured_are_in_the_notes(tmp_path: Path) -> None:
    path = models.save(models.linear(), tmp_path)
    settings = ModelSettings(source=tmp_path / "config.pbtxt", ignored=("response_cache.enable",))
    loaded = load_model("m", "1", path, settings)
    assert loaded.notes == ("not honoured in config.pbtxt: response_cache.enable",)


def test_a_version_may_bring_its_own_sample_rows(tmp_path: Path) -> None:
    path = models.save(models.picky(), tmp_path / "1")
    np.savez(tmp_path / "warmup.npz", index=np.array([[0]]))
    np.savez(tmp_path / "1" / "warmup.npz", index=np.array([[1001], [1002]]))
    loaded = load_model("m", "1", path, ModelSettings(warmup=tmp_path / "warmup.npz"))
    assert loaded.signature.max_batch_size > 1


def test_a_graph_that_onnx_runtime_refuses_is_a_load_error(tmp_path: Path) -> None:
    model = models.make(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["N"])],
        [("y", TensorProto.FLOAT, ["N"])],
    )
    with pytest.raises(LoadError, match=r"ONNX Runtime refuses the model: .*NoSuchOperator"):
        load_model("m", "1", models.save(model, tmp_path), ModelSettings())
