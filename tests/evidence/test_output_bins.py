"""Rows of outputs become categories that no counted row had a part in choosing."""

import numpy as np
import pytest

from gateway.evidence.output_bins import MAX_CATEGORIES, OutputBins
from gateway.evidence.slow_threshold import SlowThreshold
from gateway.types import BF16, BYTES, Array


def named(bins: OutputBins, array: Array, candidate: bool = True) -> dict[str, int]:
    """The counts by category, without those of 0."""
    counts = bins.count(array, candidate)
    assert counts is not None
    return {name: int(n) for name, n in zip(bins.categories, counts, strict=True) if n}


def one_hot(*indices: int, classes: int = 4) -> Array:
    return np.eye(classes, dtype=np.float32)[list(indices)]


def test_scores_are_counted_by_the_highest_from_the_first_row_on() -> None:
    bins = OutputBins()
    assert named(bins, one_hot(0, 2, 2), candidate=False) == {"0": 1, "2": 2}
    assert named(bins, one_hot(3)) == {"3": 1}


def test_scores_of_a_candidate_wait_for_the_stable_version() -> None:
    bins = OutputBins()
    assert bins.count(one_hot(1), True) is None
    assert named(bins, one_hot(1), candidate=False) == {"1": 1}


def test_a_class_that_the_stable_version_does_not_have_is_another() -> None:
    bins = OutputBins()
    bins.count(one_hot(1), False)
    assert named(bins, one_hot(5, classes=6)) == {"other": 1}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_counted_as_such(value: float) -> None:
    bins = OutputBins()
    rows = one_hot(0, 1)
    bins.count(rows, False)
    rows[1, 3] = value
    assert named(bins, rows) == {"0": 1, "not finite": 1}


def test_of_many_classes_the_most_frequent_have_categories() -> None:
    bins = OutputBins(learn=120)
    seen = [*range(40)] * 2 + [7] * 40
    assert bins.count(one_hot(*seen, classes=1000), False) is None
    assert len(bins.categories) == MAX_CATEGORIES + 2
    assert named(bins, one_hot(7, 7, 999, classes=1000)) == {"7": 2, "other": 1}


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_few_values_are_their_own_categories(dtype: type) -> None:
    bins = OutputBins(learn=4)
    assert bins.count(np.array([0, 1, 1, 0], dtype), False) is None
    assert named(bins, np.array([[1], [0], [1]], dtype)) == {"0": 1, "1": 2}
    if dtype is not np.bool_:
        assert named(bins, np.array([9, 1], dtype)) == {"1": 1, "other": 1}


def test_text_is_counted_by_its_value_as_bytes_or_str() -> None:
    bins = OutputBins(BYTES, learn=3)
    assert bins.count(np.array(["cat", "dog", "cat"], object), False) is None
    assert named(bins, np.array([b"cat", "dog", "cow"], object)) == {"cat": 1, "dog": 1, "other": 1}


def test_other_numbers_are_counted_by_tenths_of_the_stable_version() -> None:
    bins = OutputBins(learn=1000)
    rng = np.random.default_rng(1)
    assert bins.count(rng.normal(size=(1000, 1)), False) is None
    counts = bins.count(rng.normal(size=(10_000, 1)), True)
    assert counts is not None
    assert len(counts) == 12
    assert counts[:10] == pytest.approx(np.full(10, 1000), rel=0.25)
    assert named(bins, np.array([[1e9], [np.nan]])) == {"above": 1, "not finite": 1}


def test_many_integers_are_numbers_too() -> None:
    bins = OutputBins(learn=100)
    bins.count(np.arange(100), False)
    assert named(bins, np.array([-5, 1000])) == {"<= 9.9": 1, "above": 1}


def test_equal_values_make_fewer_tenths() -> None:
    bins = OutputBins(learn=10)
    bins.count(np.array([0.0] * 9 + [1.0]), False)
    assert sum(named(bins, np.array([0.0, 0.0, 5.0])).values()) == 3


def test_an_output_of_nothing_but_nan_can_be_learned() -> None:
    bins = OutputBins(learn=2)
    bins.count(np.array([np.nan, np.nan]), False)
    assert named(bins, np.array([1.0, np.nan])) == {"above": 1, "not finite": 1}


def test_a_row_of_several_axes_is_its_mean() -> None:
    bins = OutputBins(learn=10)
    rows = np.arange(10.0)[:, None, None] * np.ones((10, 2, 3))
    bins.count(rows, False)
    assert named(bins, rows[:1]) == {"<= 0.9": 1}


def test_bf16_is_read_as_the_numbers_that_its_bits_are() -> None:
    bits = (one_hot(2, 0).view(np.uint32) >> 16).astype(np.uint16)
    assert named(OutputBins(BF16), bits, candidate=False) == {"0": 1, "2": 1}


def test_rows_that_chose_the_categories_are_not_counted_nor_candidates_before() -> None:
    bins = OutputBins(learn=4)
    assert bins.count(np.array([1, 2]), False) is None
    assert bins.count(np.array([1, 2]), True) is None
    assert bins.count(np.array([1, 2]), False) is None
    assert named(bins, np.array([1, 2]), candidate=False) == {"1": 1, "2": 1}


def test_slow_is_above_a_quantile_of_the_stable_versions_first_requests() -> None:
    threshold = SlowThreshold(quantile=0.9, ratio=2.0, learn=11)
    assert threshold.count(np.array([10**9]), True) == (0, 0)
    assert threshold.count(np.arange(6), False) == (0, 0)
    assert threshold.count(np.arange(6, 11), False) == (0, 0)
    assert threshold.quantile_ns == 9
    assert threshold.count(np.array([8, 9, 10]), False) == (3, 1)
    assert threshold.count(np.array([10, 18, 19]), True) == (3, 1)
