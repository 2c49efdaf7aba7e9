"""Results are the same up to the rounding of their type, and not beyond."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.serving.compare import Deviation, batch_axes, deviation, difference
from gateway.serving.samples import to_datatype
from gateway.types import BF16, BOOL, BYTES, FP16, FP32, FP64, INT64, UINT64, DataType

FLOATS = arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e6, 1e6, width=32))


@given(FLOATS)
def test_equal_results_are_the_same(values: np.ndarray) -> None:
    assert difference(values, values.copy(), FP32) is None


@given(FLOATS, st.floats(0.03, 10))
def test_the_largest_element_three_percent_off_is_seen(values: np.ndarray, factor: float) -> None:
    values = values + np.float32(1)
    moved = values.copy()
    index = int(np.argmax(np.abs(values)))
    moved[index] *= 1 + factor
    assert (difference(values, moved, FP32) is None) == (values[index] == 0)


@pytest.mark.parametrize("datatype", [FP16, FP32, BF16])
def test_one_unit_in_the_last_place_is_rounding(datatype: DataType) -> None:
    values = to_datatype(np.linspace(-3, 3, 50), datatype)
    bits = values.view(np.uint32 if datatype is FP32 else np.uint16)
    assert difference(values, (bits + 1).view(values.dtype), datatype) is None


def test_integers_and_text_must_be_equal() -> None:
    assert difference(np.array([1, 2]), np.array([1, 3]), INT64) == "differs in 1 of 2 elements"
    assert difference(np.array(["a"], object), np.array(["b"], object), BYTES) is not None
    assert difference(np.array(["a"], object), np.array(["a"], object), BYTES) is None


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_must_stand_in_the_same_places(odd: float) -> None:
    plain = np.array([1.0, 2.0], np.float32)
    holed = np.array([odd, 2.0], np.float32)
    assert difference(holed, holed.copy(), FP32) is None
    assert difference(plain, holed, FP32) == "is not finite in the same places"
    assert difference(holed, plain, FP32) == "is not finite in the same places"


@given(st.lists(st.integers(0, 4), max_size=4), st.integers(0, 4), st.integers(2, 9))
def test_the_batch_axis_is_the_one_that_grew(rest: list[int], axis: int, rows: int) -> None:
    axis = min(axis, len(rest))
    alone = (*rest[:axis], 1, *rest[axis:])
    together = (*rest[:axis], rows, *rest[axis:])
    assert batch_axes(alone, together, rows) == {axis}


def test_no_axis_grew() -> None:
    assert batch_axes((1, 4), (1, 4), 3) == set()
    assert batch_axes((1, 4), (3, 5), 3) == set()
    assert batch_axes((2, 4), (6, 4), 3) == set()


@given(FLOATS)
def test_equal_results_do_not_deviate(values: np.ndarray) -> None:
    assert deviation(values, values.copy(), FP32, 0.0, 0.0) is None


@given(
    st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 1), st.floats(0, 10), st.integers(0, 4)
)
def test_a_float_deviates_beyond_its_bounds_alone(
    expected: float, given_: float, relative: float, absolute: float, place: int
) -> None:
    wanted = np.zeros((2, 5))
    got = wanted.copy()
    wanted[1, place], got[1, place] = expected, given_
    found = deviation(wanted, got, FP64, relative, absolute)
    off = abs(expected - given_)
    assert (found is None) == (off <= absolute + relative * abs(expected))
    if found is not None:
        assert found == Deviation(1, off, (1, place), expected, given_)


@pytest.mark.parametrize(
    ("datatype", "expected", "given_", "found"),
    [
        (FP32, np.nan, np.nan, None),
        (FP32, np.inf, np.inf, None),
        (FP32, np.inf, -np.inf, Deviation(1, np.inf, (), np.inf, -np.inf)),
        (FP32, np.inf, 1, Deviation(1, np.inf, (), np.inf, 1.0)),
        (FP32, 1, np.inf, Deviation(1, np.inf, (), 1.0, np.inf)),
        (INT64, 5, 2, Deviation(1, 3.0, (), 5, 2)),
        (UINT64, 2**64 - 1, 2**64 - 1, None),
        (BOOL, True, False, Deviation(1, None, (), True, False)),
        (BYTES, "a", "b", Deviation(1, None, (), "a", "b")),
        (BF16, 0x3F80, 0x4000, None),
        (BF16, 0x3F80, 0x4080, Deviation(1, 3.0, (), 1.0, 4.0)),
    ],
)
def test_a_scalar_deviates(
    datatype: DataType, expected: object, given_: object, found: Deviation | None
) -> None:
    wanted, got = (np.array(scalar, datatype.numpy) for scalar in (expected, given_))
    assert deviation(wanted, got, datatype, 1.0, 1.0) == found


def test_every_element_that_deviates_is_counted() -> None:
    found = deviation(np.arange(6).reshape(2, 3), np.full((2, 3), 2), INT64, 1.0, 1.0)
    assert found == Deviation(5, 3.0, (0, 0), 0, 2)
