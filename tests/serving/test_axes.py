"""Guesses of the batch axes: the likeliest first, what the settings say in all."""

import pytest

from gateway.serving.axes import MOST_GUESSES, guess_axes
from gateway.serving.settings import TensorSettings
from gateway.serving.signature import TensorSpec
from gateway.types import FP32


def spec(name: str, *dimensions: int | str | None) -> TensorSpec:
    return TensorSpec(
        name,
        FP32,
        tuple(size if isinstance(size, int) else -1 for size in dimensions),
        tuple(size if isinstance(size, str) else "" for size in dimensions),
    )


@pytest.mark.parametrize(
    ("inputs", "first"),
    [
        ([spec("x", "N", 4)], {"x": 0}),
        ([spec("x", None, 4)], {"x": 0}),
        ([spec("x", "seq", "batch_size", 4)], {"x": 1}),
        ([spec("ids", "batch", "seq"), spec("mask", "batch", "seq")], {"ids": 0, "mask": 0}),
        ([spec("x", None, None), spec("state", 2, None, 8)], {"x": 0, "state": 1}),
        ([spec("x", None, 4), spec("rate")], {"x": 0, "rate": None}),
        ([spec("x", "batch", 4), spec("table", "entries", 4)], {"x": 0, "table": None}),
        ([spec("x", "unk__1", 4), spec("y", "unk__2", 4)], {"x": 0, "y": 0}),
    ],
)
def test_the_likeliest_guess(inputs: list[TensorSpec], first: dict[str, int | None]) -> None:
    assert guess_axes(inputs, {})[0] == first


def test_static_inputs_offer_nothing() -> None:
    assert guess_axes([spec("x", 1, 4), spec("y")], {}) == []


def test_a_symbol_twice_in_one_input_is_no_batch() -> None:
    assert all(guess["x"] != 1 for guess in guess_axes([spec("x", "n", "n")], {}))


def test_settings_hold_in_every_guess() -> None:
    inputs = [spec("x", "a", "b"), spec("y", "b", "a")]
    guesses = guess_axes(
        inputs, {"x": TensorSettings(batch_axis=1), "y": TensorSettings(batch_axis=-1)}
    )
    assert guesses == [{"x": 1, "y": None}]


def test_guesses_are_few_and_differ() -> None:
    guesses = guess_axes([spec("x", *"abcdefgh")], {})
    assert len(guesses) == MOST_GUESSES
    assert all(a != b for i, a in enumerate(guesses) for b in guesses[:i])
