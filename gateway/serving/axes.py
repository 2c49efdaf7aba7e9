"""Guesses which axis of each input holds the batch; ``serving/probe.py`` proves or refutes them."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from gateway.errors import LoadError
from gateway.serving.settings import TensorSettings
from gateway.serving.signature import TensorSpec

#: The batch axis of each input by name; ``None`` for an input that the whole batch shares.
Axes: TypeAlias = dict[str, int | None]

#: Names that exporters give to the batch dimension, lower case; any name with "batch" in it too.
BATCH_SYMBOLS: Final = frozenset({"n", "b", "bs", "none"})

#: More guesses than this are not worth the time that each proof takes.
MOST_GUESSES: Final = 4


def guess_axes(inputs: Sequence[TensorSpec], settings: Mapping[str, TensorSettings]) -> list[Axes]:
    """Assignments of a batch axis (or ``None``, shared) to every input, the likeliest first.

    In order: a symbol named like a batch; for each input axis 0 where that is dynamic, else its
    only dynamic axis; then each other symbol. What the settings say holds in all of them. Empty
    where no input has a dynamic axis to offer.

    Raises:
        LoadError: the settings name an axis that the input does not have.
    """
    fixed = _fixed(inputs, settings)
    symbols = list(dict.fromkeys(s for spec in inputs for s in spec.symbols if s))
    symbols.sort(key=lambda symbol: not _like_batch(symbol))
    likely = sum(map(_like_batch, symbols))
    guesses = [_by_symbol(inputs, symbol) for symbol in symbols]
    guesses.insert(likely, {spec.name: _by_position(spec) for spec in inputs})
    found: list[Axes] = []
    for guess in guesses:
        axes = guess | fixed
        if any(axis is not None for axis in axes.values()) and axes not in found:
            found.append(axes)
    return found[:MOST_GUESSES]


def _fixed(inputs: Sequence[TensorSpec], settings: Mapping[str, TensorSettings]) -> Axes:
    fixed: Axes = {}
    for spec in inputs:
        axis = settings[spec.name].batch_axis if spec.name in settings else None
        if axis is None:
            continue
        if axis >= len(spec.shape):
            raise LoadError(
                f"inputs.{spec.name}.batch_axis is {axis}, but the input has"
                f" {len(spec.shape)} dimensions: {list(spec.shape)}"
            )
        fixed[spec.name] = None if axis < 0 else axis
    return fixed


def _like_batch(symbol: str) -> bool:
    return "batch" in symbol.lower() or symbol.lower() in BATCH_SYMBOLS


def _by_symbol(inputs: Sequence[TensorSpec], symbol: str) -> Axes:
    """The one axis of that symbol; inputs without it, or with it twice, are shared."""
    return {
        spec.name: spec.symbols.index(symbol) if spec.symbols.count(symbol) == 1 else None
        for spec in inputs
    }


def _by_position(spec: TensorSpec) -> int | None:
    dynamic = [axis for axis, size in enumerate(spec.shape) if size < 0]
    if 0 in dynamic:
        return 0
    return dynamic[0] if len(dynamic) == 1 else None
