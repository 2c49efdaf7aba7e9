"""The batch probe believes no dynamic dimension that the model does not keep."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from gateway.errors import LoadError
from gateway.serving.loaded import LoadedModel
from gateway.serving.loader import load_model
from gateway.serving.settings import ModelSettings, TensorSettings
from tests.serving import models


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., LoadedModel]:
    def load(model: ModelProto, **settings: object) -> LoadedModel:
        path = models.save(model, tmp_path / "1")
        return load_model("m", "1", path, ModelSettings(**settings))  # type: ignore[arg-type]

    return load


Load = Callable[..., LoadedModel]


def axes(loaded: LoadedModel) -> dict[str, int | None]:
    signature = loaded.signature
    return {spec.name: spec.batch_axis for spec in (*signature.inputs, *signature.outputs)}


def refusal(loaded: LoadedModel) -> str:
    """Why the model is served one request at a time; fails where it is not."""
    assert loaded.signature.max_batch_size == 0
    assert set(axes(loaded).values()) == {None}
    (note,) = loaded.notes
    assert note.startswith("served one request at a time: ")
    return note


def test_independent_rows_are_batched(load: Load) -> None:
    loaded = load(models.linear())
    assert axes(loaded) == {"x": 0, "y": 0}
    assert loaded.signature.max_batch_size > 1
    assert loaded.notes == ()


@pytest.mark.parametrize(
    "element_type",
    [
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.DOUBLE,
        TensorProto.STRING,
        TensorProto.BOOL,
        TensorProto.UINT8,
        TensorProto.INT64,
    ],
)
def test_every_element_type_can_be_probed(load: Load, element_type: int) -> None:
    assert axes(load(models.identity(element_type))) == {"x": 0, "y": 0}


def test_rows_that_mix_are_refused(load: Load) -> None:
    note = refusal(load(models.softmax_over_batch()))
    assert "at batch size 2 a row of output 'y' differs by up to" in note


def test_a_difference_of_three_percent_is_mixing(load: Load) -> None:
    assert "depends on its neighbours" in refusal(load(models.slightly_mixed(3e-2)))


def test_a_difference_of_rounding_is_not_mixing(load: Load) -> None:
    assert axes(load(models.slightly_mixed(1e-6))) == {"x": 0, "y": 0}


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_model_that_fails_at_one_batch_size_is_refused(load: Load, size: int) -> None:
    assert f"a batch of {size} fails: " in refusal(load(models.fails_at(size)))


def test_a_failure_at_the_asked_for_maximum_is_found(load: Load) -> None:
    loaded = load(models.fails_at(24), max_batch_size=24)
    assert "a batch of 24 fails: " in refusal(loaded)


def test_a_batch_size_that_fails_above_the_proof_is_not_chosen(load: Load) -> None:
    loaded = load(models.fails_at(16))
    assert 1 <= loaded.signature.max_batch_size <= 8


def test_a_frozen_reshape_is_refused(load: Load) -> None:
    assert "a batch of 2 fails" in refusal(load(models.fixed_reshape()))


def test_an_output_that_sums_the_batch_up_is_refused(load: Load) -> None:
    assert "output 'y' is [1, 4] for one row and [1, 4] for 2" in refusal(load(models.summed()))


def test_a_random_output_proves_nothing(load: Load) -> None:
    assert "differs between two runs of the same row" in refusal(load(models.random_output()))


def test_the_batch_need_not_be_the_first_axis(load: Load) -> None:
    loaded = load(models.recurrent())
    assert axes(loaded) == {"input": 0, "state": 1, "sr": None, "output": 0, "stateN": 1}


def test_a_later_guess_is_tried_where_the_first_fails(load: Load) -> None:
    assert axes(load(models.time_major())) == {"x": 1, "y": 0}


def test_a_fully_static_model_is_unbatched_without_a_word(load: Load) -> None:
    loaded = load(models.identity(shape=(1, 4)))
    assert loaded.signature.max_batch_size == 0
    assert loaded.notes == ()
    assert list(loaded.latency_ns) == [1]


def test_batching_asked_for_but_impossible_is_told(load: Load) -> None:
    note = refusal(load(models.identity(shape=(1, 4)), max_batch_size=8))
    assert "no input has a dynamic dimension" in note


def test_batching_can_be_turned_off(load: Load) -> None:
    loaded = load(models.linear(), max_batch_size=0)
    assert loaded.signature.max_batch_size == 0
    assert loaded.notes == ()


def test_the_asked_for_maximum_is_measured_and_kept(load: Load) -> None:
    loaded = load(models.linear(), max_batch_size=6)
    assert loaded.signature.max_batch_size == 6
    assert list(loaded.latency_ns) == [1, 2, 4, 6]


def test_latency_is_measured_up_to_the_chosen_maximum(load: Load) -> None:
    loaded = load(models.linear())
    sizes = list(loaded.latency_ns)
    assert sizes == sorted(sizes)
    assert sizes[-1] == loaded.signature.max_batch_size
    assert all(ns > 0 for ns in loaded.latency_ns.values())


def test_without_the_probe_the_graph_is_believed(load: Load) -> None:
    loaded = load(models.softmax_over_batch(), probe=False, max_batch_size=4)
    assert axes(loaded) == {"x": 0, "y": 0}
    assert loaded.signature.max_batch_size == 4


def test_settings_name_the_axis(load: Load) -> None:
    shared = {"x": TensorSettings(batch_axis=1)}
    assert axes(load(models.identity(shape=(None, None)), inputs=shared)) == {"x": 1, "y": 1}


def test_settings_that_name_no_axis_of_the_input_are_an_error(load: Load) -> None:
    with pytest.raises(LoadError, match="batch_axis is 7, but the input has 2 dimensions"):
        load(models.linear(), inputs={"x": TensorSettings(batch_axis=7)})


def test_a_model_that_refuses_all_samples_is_unbatched_and_asks_for_some(load: Load) -> None:
    note = refusal(load(models.picky()))
    assert "refuses made-up inputs" in note
    assert "`warmup`" in note


def test_sample_rows_of_the_user_are_used(load: Load, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", index=np.array([[1001], [1004], [1007]]))
    loaded = load(models.picky(), warmup=tmp_path / "rows.npz")
    assert axes(loaded) == {"index": 0, "y": 0}


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"other": np.zeros((1, 1))}, "has no array 'index'"),
        ({"index": np.zeros((1, 1))}, "is float64; the model's input is INT64"),
        ({"index": np.zeros(1, np.int64)}, "has 1 dimensions"),
        ({"index": np.zeros((0, 1), np.int64)}, "holds no rows"),
    ],
)
def test_a_wrong_sample_file_is_an_error(
    load: Load, tmp_path: Path, arrays: dict[str, np.ndarray], complaint: str
) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(LoadError, match=complaint):
        load(models.picky(), warmup=tmp_path / "rows.npz")


def test_an_output_that_the_graph_misdescribes_is_described_as_it_is(load: Load) -> None:
    model = models.make(
        [models.helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, ["N", 4])],
        [("y", TensorProto.FLOAT, None)],
    )
    (output,) = load(model).signature.outputs
    assert (output.shape, output.batch_axis) == ((-1, 4), 0)
