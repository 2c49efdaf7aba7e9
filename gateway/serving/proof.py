"""The proof that rows may share a batch: rows run together are the rows run alone.

Nothing here knows ONNX Runtime: the model is a callable.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway.errors import GatewayError
from gateway.serving.axes import Axes
from gateway.serving.compare import batch_axes, difference
from gateway.serving.samples import Feeds, stack
from gateway.serving.signature import TensorSpec
from gateway.types import Array

#: Runs the model once: feeds by input name, names of outputs -> arrays in that order. Raises a
#: ``GatewayError`` where the model refuses.
Run: TypeAlias = Callable[[Feeds, list[str]], list[Array]]

#: Batch sizes of the proof, of those that fit the largest one.
PROVEN_SIZES: Final = (2, 3, 4, 5)


class BatchRefusedError(Exception):
    """The model cannot be batched under one guess; the message says why."""


class BatchFailedError(BatchRefusedError):
    """A batch did not run at all."""


@dataclass(slots=True)
class Sample:
    """Rows that the model accepted one by one, and what it made of each."""

    axes: Axes
    rows: list[Feeds]
    alone: list[list[Array]]
    #: Whether no dimension but the batch can vary, so that other shapes than these cannot occur.
    fixed: bool


class BatchProof:
    """Runs the rows of ``sample`` together, and compares them with what they gave alone.

    Args:
        outputs: the graph's outputs, in its order.
        run: runs the model.
        coarse: whether the device rounds FP32 more than FP32 does (TF32).
    """

    def __init__(
        self, sample: Sample, outputs: Sequence[TensorSpec], run: Run, coarse: bool
    ) -> None:
        self.sample = sample
        self.outputs = outputs
        self.names = [spec.name for spec in outputs]
        self.run_model = run
        self.coarse = coarse

    def _run(self, feeds: Feeds) -> list[Array]:
        return self.run_model(feeds, self.names)

    def axes(self, largest: int, deadline: float) -> Axes:
        """The batch axis of each output, the same at every size tried up to ``largest``.

        Args:
            largest: rows of the largest batch that will be asked for.
            deadline: when to give up, by ``time.monotonic``.

        Raises:
            BatchRefusedError: rows run together are not the rows run alone.
        """
        again = self._run(self.sample.rows[0])
        for spec, first, second in zip(self.outputs, self.sample.alone[0], again, strict=True):
            if first.shape != second.shape or difference(first, second, spec.datatype, self.coarse):
                raise BatchRefusedError(
                    f"output {spec.name!r} differs between two runs of the same row, so nothing"
                    " can show that rows are independent"
                )
        axes: Axes | None = None
        for size in [n for n in PROVEN_SIZES if n <= max(2, largest)]:
            if axes is not None and time.monotonic() > deadline:
                raise BatchRefusedError(
                    f"the probe ran out of time at batch size {size}; `probe = false` believes the"
                    " graph without it"
                )
            axes = self.expect(size, axes)
        return axes or {}

    def expect(self, size: int, axes: Axes | None) -> Axes:
        """``check``, which must also give the same axes as the batch sizes before."""
        found = self.check(size)
        if axes is not None and found != axes:
            name = next(name for name, axis in found.items() if axis != axes[name])
            raise BatchRefusedError(
                f"output {name!r} has its rows on axis {found[name]} at batch size {size},"
                f" and on {axes[name]} at smaller ones"
            )
        return found

    def check(self, size: int) -> Axes:
        """Run ``size`` rows together, compare them with the rows alone; gives the outputs' axes."""
        count = len(self.sample.rows)
        order = [(index + size) % count for index in range(size)]
        try:
            together = self._run(
                stack([self.sample.rows[index] for index in order], self.sample.axes)
            )
        except GatewayError as error:
            raise BatchFailedError(f"a batch of {size} fails: {first_line(error)}") from error
        found: Axes = {}
        for position, (spec, result) in enumerate(zip(self.outputs, together, strict=True)):
            alone = [self.sample.alone[index][position] for index in order]
            found[spec.name] = self._compare(spec, alone, result)
        return found

    def _compare(self, spec: TensorSpec, alone: list[Array], together: Array) -> int:
        """The axis on which ``together`` is ``alone`` stacked."""
        size = len(alone)
        shapes = {array.shape for array in alone}
        if len(shapes) != 1:
            raise BatchRefusedError(
                f"the shape of output {spec.name!r} depends on the row's values"
            )
        shape = shapes.pop()
        axes = batch_axes(shape, together.shape, size)
        if not axes:
            raise BatchRefusedError(
                f"output {spec.name!r} is {list(shape)} for one row and {list(together.shape)}"
                f" for {size}: no axis grows with the batch, so rows cannot be told apart"
            )
        (axis,) = axes
        for row, expected in enumerate(alone):
            wrong = difference(expected, together.take([row], axis), spec.datatype, self.coarse)
            if wrong:
                raise BatchRefusedError(
                    f"at batch size {size} a row of output {spec.name!r} {wrong} from the same"
                    " row run alone: its result depends on its neighbours"
                )
        return axis


def first_line(error: Exception) -> str:
    """What an error says first, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
