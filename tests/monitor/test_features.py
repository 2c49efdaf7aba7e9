"""From the tensors of a block to named features."""

import numpy as np
import pytest

from gateway.monitor.features import (
    MOST_SUBJECT,
    Part,
    Side,
    UnlikeBlock,
    layout_of,
    together,
)
from gateway.types import BF16
from tests.monitor.blocks import block

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)


def names(made):
    return [name for name, *_ in layout_of(made).names()]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1)])
def test_one_value_a_row_is_a_feature_under_the_tensors_name(shape):
    made = block({"age": np.arange(4).reshape(shape)})
    layout = layout_of(made)
    assert list(layout.names()) == [("age", Side.INPUT, "age", Part.VALUE)]
    (table,) = layout.tables(made)
    assert table.values.tolist() == [[0], [1], [2], [3]]


def test_columns_are_features_named_by_the_settings_or_by_their_place():
    made = block({"x": TABLE, "y": TABLE}, features={"x": ["a", "b", "c"]})
    assert names(made) == ["a", "b", "c", "y[0]", "y[1]", "y[2]"]
    x, y = layout_of(made).tables(made)
    assert (x.names, y.names) == (("a", "b", "c"), ("y[0]", "y[1]", "y[2]"))
    np.testing.assert_array_equal(x.values, TABLE)


def test_a_name_that_is_taken_is_made_longer():
    made = block(
        {"x": TABLE[:, :2], "y": TABLE[:, :2]}, features={"x": ["a", "b"], "y": ["b", "a"]}
    )
    assert names(made) == ["a", "b", "y.b", "y.a"]


@pytest.mark.parametrize("shape", [(3, 513), (3, 8, 8, 3), (3, 7, 2)])
def test_wide_tensors_are_one_subject_with_mean_and_deviation_of_each_row(shape):
    array = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    made = block({"image": array})
    layout = layout_of(made)
    assert [(n, p) for n, _, _, p in layout.names()] == [
        ("image.mean", Part.MEAN),
        ("image.std", Part.STD),
    ]
    mean, std = layout.tables(made)
    flat = array.reshape(3, -1)
    np.testing.assert_allclose(mean.values[:, 0], flat.mean(1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(std.values[:, 0], flat.std(1), rtol=1e-5)
    np.testing.assert_array_equal(layout.subjects(made)["image"], flat)


def test_512_columns_are_features_still():
    made = block({"x": np.zeros((2, 512), np.float32)})
    assert len(names(made)) == 512
    assert layout_of(made).subjects(made) == {}


def test_very_wide_subjects_are_means_of_neighbours():
    array = np.random.default_rng(2).normal(size=(3, 5000)).astype(np.float32)
    made = block({"pixels": array})
    subject = layout_of(made).subjects(made)["pixels"]
    assert subject.shape == (3, 1667) <= (3, MOST_SUBJECT)
    np.testing.assert_allclose(subject[:, 0], array[:, :3].mean(1), rtol=1e-5)
    np.testing.assert_allclose(subject[:, -1], array[:, 4998:].mean(1), rtol=1e-5)


def test_rows_of_probabilities_give_the_predicted_class_too():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25], [0, 0, 1]], np.float32)
    made = block({"x": TABLE[:3]}, {"p": scores})
    layout = layout_of(made)
    assert list(layout.names())[-1] == ("p.class", Side.OUTPUT, "p", Part.CLASS)
    assert layout.tables(made)[-1].values.tolist() == [[1], [0], [2]]
    # The layout decides, not the block that happens to come.
    other = block({"x": TABLE[:1]}, {"p": np.array([[9, np.nan, 3]], np.float32)})
    assert np.isnan(layout.tables(other)[-1].values).all()


@pytest.mark.parametrize("output", [TABLE, np.full((4, 3), 0.3), np.array([[1.5, -0.5]] * 4)])
def test_other_outputs_have_no_class_unless_they_have_labels(output):
    made = block({"x": TABLE}, {"logits": output})
    assert "logits.class" not in names(made)
    labels = [f"l{at}" for at in range(output.shape[1])]
    assert layout_of(made, {"logits": labels}).tensors[-1].labels == tuple(labels)
    assert not any(layout.scores for layout in layout_of(made, {"logits": ["one"]}).tensors)


def test_inputs_that_sum_to_one_are_no_classes():
    assert names(block({"x": np.full((4, 2), 0.5)})) == ["x[0]", "x[1]"]


def test_half_floats_are_read_as_numbers():
    half = np.array([[1.5], [2.5]], np.float16)
    bits = (np.array([1.5, -2.0], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    made = block({"h": half, "b": bits}, types={"b": BF16})
    h, b = layout_of(made).tables(made)
    assert (h.values.dtype, h.values.tolist()) == (np.float32, [[1.5], [2.5]])
    assert (b.values.dtype, b.values.tolist()) == (np.float32, [[1.5], [-2.0]])


def test_wide_text_is_left_out():
    assert names(block({"t": np.full((2, 600), "a", object), "x": TABLE[:2, :1]})) == ["x"]


def test_a_block_of_another_shape_is_refused():
    layout = layout_of(block({"x": TABLE, "t": np.array(["a"] * 4, object)}))
    for inputs, message in (
        ({"x": TABLE[:, :2], "t": np.array(["a"] * 4, object)}, "'x' has 2 values a row.* of 3"),
        ({"x": TABLE}, "no input 't'"),
        ({"x": TABLE, "t": np.arange(4)}, "'t' is numbers; the profile was made of text"),
    ):
        with pytest.raises(UnlikeBlock, match=message):
            layout.tables(block(inputs))


def test_axes_of_size_one_are_none():
    made = block({"x": np.zeros((5, 1, 4), np.float32)}, {"p": np.full((5, 1, 2), 0.5)})
    assert names(made) == ["x[0]", "x[1]", "x[2]", "x[3]", "p[0]", "p[1]", "p.class"]


def test_blocks_are_looked_at_together():
    parts = [block({"x": TABLE[:1]}), block({"x": TABLE[1:]})]
    np.testing.assert_array_equal(together(parts).inputs["x"], TABLE)
    assert together(parts).rows == 4
    assert together(parts[:1]) is parts[0]
    for other in (block({"x": TABLE[:, :2]}), block({"x": TABLE, "y": TABLE})):
        with pytest.raises(UnlikeBlock, match="together"):
            together([*parts, other])
