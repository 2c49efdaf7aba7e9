"""A version serves only if it answers its golden requests, whatever their types and sizes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from gateway.errors import LoadError
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.loader import load_model
from gateway.serving.replay import replay_golden
from gateway.serving.samples import to_datatype
from gateway.serving.settings import ModelSettings, ValidationSettings
from gateway.serving.tensor_json import tensor_document
from gateway.types import BF16, BYTES, DATATYPES, FP16, Array, DataType
from tests import repository
from tests.serving import models

X = np.arange(8, dtype=np.float32).reshape(2, 4)
Y = repository.rows_of(X)


def golden(
    inputs: dict[str, Array],
    outputs: dict[str, Array],
    datatype: DataType | None = None,
    **tolerance: float,
) -> dict[str, Any]:
    """A golden request in JSON; data types follow from the dtypes where none is given."""
    by_dtype = {d.numpy: d for d in DATATYPES.values() if d is not BF16}

    def tensors(arrays: dict[str, Array]) -> list[dict[str, Any]]:
        return [tensor_document(n, datatype or by_dtype[a.dtype], a) for n, a in arrays.items()]

    written = {"inputs": tensors(inputs), "outputs": tensors(outputs)}
    return written | ({"tolerance": tolerance} if tolerance else {})


def doubled() -> ModelProto:
    """What ``echo`` takes, added to itself."""
    return repository.model(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [repository.value("x", "FP32", ["n", "m"])],
        [repository.value("y", "FP32", ["n", "m"])],
    )


class Version:
    """Version 1 of a model, with golden requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, document: Any, name: str = "a.json") -> Path:
        path = self.folder / "1" / "golden" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def load(self, model: ModelProto, progress: Any = None, **settings: Any) -> LoadedModel:
        path = models.save(model, self.folder / "1")
        chosen = ModelSettings(golden=self.folder / "golden", **settings)
        return load_model("m", "1", path, chosen, progress=progress)

    def refuse(self, model: ModelProto, **settings: Any) -> str:
        """The message with which the version is refused."""
        with pytest.raises(LoadError, match=r"model 'm' version '1': .*golden request") as caught:
            self.load(model, **settings)
        return str(caught.value)


@pytest.fixture
def version(tmp_path: Path) -> Version:
    return Version(tmp_path)


def test_a_version_that_answers_them_is_loaded(version: Version) -> None:
    version.put(golden({"x": X}, {"y": Y}))
    version.put(golden({"x": X[:1]}, {"y": Y[:1]}), "one row.json")
    stages: list[tuple[State, str]] = []
    loaded = version.load(repository.rows(), progress=lambda *told: stages.append(told))
    assert loaded.golden_requests == 2
    assert stages[-1] == (State.VALIDATING, "replaying 2 golden requests")
    assert version.load(repository.rows(), validation=ValidationSettings(golden=False))


def test_a_version_without_them_is_loaded_unless_some_are_required(version: Version) -> None:
    assert version.load(repository.rows()).golden_requests == 0
    message = version.refuse(repository.rows(), validation=ValidationSettings(require_golden=True))
    assert "validation.require_golden" in message


def test_a_wrong_value_is_told_with_its_place_and_size(version: Version) -> None:
    wrong = Y.copy()
    wrong[0, 4] += 0.25
    wrong[1, 2] += 2
    path = version.put(golden({"x": X}, {"y": wrong}))
    assert (
        f"1 of 1 golden requests failed: {path}: output 'y' is off in 2 of 10 elements by up to 2"
        " (allowed is 1e-05 + 0.001 * |expected|), first at [0, 4]: expected 6.25, given 6."
    ) in version.refuse(repository.rows())


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (golden({"x": X}, {"y": Y[:1]}), "'y' has the shape [2, 5]; expected is [1, 5]"),
        (golden({"x": X}, {"y": Y.astype(float)}), "'y' is expected as FP64; the model gives FP32"),
        (golden({"x": X}, {"z": Y}), "'z' is expected, which the model does not have; it has y"),
        (golden({"z": X}, {"y": Y}), "missing ['x'], unknown ['z']"),
        (golden({}, {"y": Y}), "the model expects the inputs ['x'], got []: missing ['x']"),
        (golden({"x": X[:, :3]}, {"y": Y}), "shape for input 'x' of the model: expected [-1, 4]"),
        (golden({"x": X.astype(int)}, {"y": Y}), "datatype for input 'x' of the model"),
        ("{", "is not valid JSON"),
        ({"inputs": [], "outputs": [3]}, "outputs[0] must be a table, not 3"),
    ],
)
def test_a_request_that_does_not_fit_is_told(
    version: Version, request_: Any, complaint: str
) -> None:
    path = version.put(request_)
    message = version.refuse(repository.rows())
    assert str(path) in message
    assert complaint in message


def test_a_request_that_onnx_runtime_refuses_is_told(version: Version) -> None:
    index = np.array([[99]], np.int64)
    version.put(golden({"index": index}, {"y": np.float32([[0]])}))
    assert "ONNX Runtime" in version.refuse(repository.lookup())


def test_all_are_replayed_and_the_first_three_told(version: Version) -> None:
    for number in range(6):
        version.put(golden({"x": X}, {"y": Y if number == 1 else Y + 1}), f"{number}.json")
    message = version.refuse(repository.rows())
    assert "5 of 6 golden requests failed" in message
    assert all(f"{number}.json: output 'y'" in message for number in (0, 2, 3))
    assert "4.json" not in message
    assert "; and 2 more." in message


def test_a_files_tolerance_is_kept(version: Version) -> None:
    version.put(golden({"x": X}, {"y": Y * 1.05}, relative=0.1))
    version.put(golden({"x": X}, {"y": Y + 0.5}, absolute=0.6), "b.json")
    version.load(repository.rows())
    version.put(golden({"x": X}, {"y": Y + 0.5}, absolute=0.4, relative=0), "c.json")
    assert "(allowed is 0.4 + 0 * |expected|)" in version.refuse(repository.rows())


def test_arrays_in_an_npz_are_replayed(version: Version) -> None:
    path = version.put("", "a.npz")
    np.savez(path, **{"input:x": X, "output:y": Y})
    assert version.load(repository.rows()).golden_requests == 1
    np.savez(path, **{"input:x": X, "output:y": Y + 1})
    assert "is off in 10 of 10 elements by up to 1" in version.refuse(repository.rows())
    np.savez(path, **{"input:x": X, "output:y": Y + 1, "absolute": 1.5})
    assert version.load(repository.rows()).golden_requests == 1


def test_only_named_outputs_are_compared(version: Version) -> None:
    a, b = (np.full((1, 16), n, np.int32) for n in (5, 3))
    version.put(golden({"B": b, "A": a}, {"DIFFERENCE": a - b}))
    assert version.load(repository.sum_and_difference()).golden_requests == 1
    version.put(golden({"A": a, "B": b}, {"DIFFERENCE": a - b, "SUM": a}))
    assert "'SUM' is off in 16 of 16 elements by up to 3, first at [0, 0]: expected 5, given 8" in (
        version.refuse(repository.sum_and_difference())
    )


@pytest.mark.parametrize("rows", [3, 8, 19])
def test_a_request_of_many_rows_is_run_in_slices(version: Version, rows: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
    version.put(golden({"x": x}, {"y": repository.rows_of(x)}))
    assert version.load(repository.rows(), max_batch_size=8).golden_requests == 1


def test_slices_keep_the_shared_inputs_and_each_outputs_axis(version: Version) -> None:
    rows = 5
    rng = np.random.default_rng(1)
    sound = rng.normal(size=(rows, 16)).astype(np.float32)
    state = rng.normal(size=(2, rows, 8)).astype(np.float32)
    output = sound.sum(1, keepdims=True)
    version.put(
        golden(
            {"input": sound, "state": state, "sr": np.array(8000, np.int64)},
            {"output": output, "stateN": state + output},
            absolute=1e-4,
        )
    )
    assert version.load(models.recurrent(), max_batch_size=2).golden_requests == 1


def test_more_rows_than_may_be_sliced_are_refused(version: Version) -> None:
    version.put(golden({"x": X}, {"y": Y}))
    message = version.refuse(repository.rows(), max_batch_size=1, allow_slicing=False)
    assert "it brings 2 rows, the model takes at most 1" in message


def test_text_must_be_equal(version: Version) -> None:
    words = np.array([["red", "naïve"]], object)
    version.put(golden({"x": words}, {"y": words}))
    assert version.load(repository.echo("BYTES")).golden_requests == 1
    version.put(golden({"x": words}, {"y": words[:, ::-1]}))
    message = version.refuse(repository.echo("BYTES"))
    assert "is off in 2 of 2 elements, first at [0, 0]: expected 'naïve', given 'red'" in message


@pytest.mark.parametrize("datatype", [FP16, BF16], ids=repr)
def test_half_floats_have_the_tolerance_of_their_type(version: Version, datatype: DataType) -> None:
    x = to_datatype(np.float32([[1, 2, -3, np.nan]]), datatype)
    near = to_datatype(np.float32([[1.008, 2, -3, np.nan]]), datatype)
    far = to_datatype(np.float32([[1.25, 2, -3, np.nan]]), datatype)
    version.put(golden({"x": x}, {"y": near}, datatype))
    assert version.load(repository.echo(datatype.name)).golden_requests == 1
    version.put(golden({"x": x}, {"y": far}, datatype))
    assert "first at [0, 0]: expected 1.25, given 1" in version.refuse(
        repository.echo(datatype.name)
    )


def test_brain_floats_in_an_npz_are_their_bits(version: Version) -> None:
    bits = to_datatype(np.float32([[1, 2]]), BF16)
    np.savez(version.put("", "a.npz"), **{"input:x": bits, "output:y": bits})
    assert version.load(repository.echo("BF16")).golden_requests == 1


def test_every_data_type_may_be_in_one_request(version: Version) -> None:
    sent = {d: np.ones((2, 3)).astype(d.numpy) for d in DATATYPES.values() if d is not BYTES}
    sent[BYTES] = np.full((2, 3), "a", object)
    version.put(
        {
            f"{way}puts": [tensor_document(f"{way}_{d.name}", d, a) for d, a in sent.items()]
            for way in ("in", "out")
        }
    )
    assert version.load(repository.types()).golden_requests == 1


def test_a_model_of_scalars_is_replayed(version: Version) -> None:
    scalar = models.make(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", TensorProto.FLOAT, [])],
        [("y", TensorProto.FLOAT, [])],
    )
    version.put(golden({"x": np.array(2, np.float32)}, {"y": np.array(4, np.float32)}))
    assert version.load(scalar).golden_requests == 1
    version.put(golden({"x": np.array(2, np.float32)}, {"y": np.array(5, np.float32)}))
    assert "is off in 1 of 1 elements by up to 1" in version.refuse(scalar)


def test_a_model_without_batches_takes_any_shape_it_declares(version: Version) -> None:
    x = np.float32([[0, 0, 0, 0], [0, 0, 0, 0]])
    version.put(golden({"x": x}, {"y": np.full_like(x, 0.5)}))
    loaded = version.load(models.softmax_over_batch())
    assert loaded.signature.max_batch_size == 0
    assert loaded.golden_requests == 1


def test_requests_go_round_the_sessions(version: Version) -> None:
    files = [version.put(golden({"x": X}, {"y": X}), f"{number}.json") for number in range(4)]
    right = version.load(repository.echo("FP32"), validation=ValidationSettings(golden=False))
    wrong = version.load(doubled(), validation=ValidationSettings(golden=False))
    sessions = (right.sessions[0], wrong.sessions[0])
    with pytest.raises(LoadError) as caught:
        replay_golden(files, right.signature, right.settings, sessions)
    assert [str(file) in str(caught.value) for file in files] == [False, True, False, True]


def test_what_opening_took_is_measured(version: Version) -> None:
    weights = np.ones((4, 4_000_000), np.float32)
    large = models.make(
        [
            helper.make_node("MatMul", ["x", "w"], ["p"]),
            helper.make_node("ReduceMax", ["p"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, [1, 4])],
        [("y", TensorProto.FLOAT, [1, 1])],
        {"w": weights},
    )
    assert version.load(large).memory_bytes > weights.nbytes // 2
