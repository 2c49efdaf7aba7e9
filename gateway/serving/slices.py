"""A request with more rows than a batch may have: run in slices, answered whole."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from gateway._native.ticket import Ticket
from gateway.errors import GatewayError
from gateway.serving.binder import Layout
from gateway.types import Array, InferInput


class Sink(Protocol):
    """Who waits for a request; exactly one of the three is called, on the loop's thread."""

    def complete(self, arrays: list[Array]) -> None:
        """The outputs in the signature's order; the arrays are valid until this returns."""

    def fail(self, error: GatewayError) -> None:
        """There is no answer."""

    def cancelled(self) -> None:
        """The caller has left, and nobody waits for an answer."""

    def request_id(self) -> str:
        """The caller's own id of the request, ``""`` for none; until its ticket is released."""

    def header(self, name: bytes) -> bytes | None:
        """What came with the request under ``name``, lower case; until its ticket is released."""


class Slices:
    """Gathers the answers of a request's slices into one, for its ``sink``.

    Args:
        drop: takes a ticket that still waits out of the queue.
        sink: who waits for the whole.
        count: how many slices there are.
        axes: the batch axis of each output.
    """

    def __init__(
        self, drop: Callable[[Ticket], None], sink: Sink, count: int, axes: list[int]
    ) -> None:
        self._drop = drop
        self.sink = sink
        self._axes = axes
        self._missing = count
        self._parts: list[list[Array]] = [[] for _ in range(count)]
        self._done = False
        self.tickets: list[Ticket] = []

    def abandon(self) -> None:
        """Drop the slices that still wait; what comes of the others is ignored."""
        self._done = True
        for ticket in self.tickets:
            self._drop(ticket)

    def complete(self, number: int, arrays: list[Array]) -> None:
        """Keep the outputs of one slice; the last one completes the request."""
        if self._done:
            return
        self._parts[number] = [array.copy() for array in arrays]
        self._missing -= 1
        if self._missing == 0:
            self._done = True
            whole: list[Array] = [
                np.concatenate(parts, axis=axis)
                for parts, axis in zip(zip(*self._parts, strict=True), self._axes, strict=True)
            ]
            self.sink.complete(whole)

    def fail(self, error: GatewayError) -> None:
        """One slice failed: so does the request, and the other slices are dropped."""
        if self._done:
            return
        self.sink.fail(error)
        self.abandon()


class SlicePart:
    """The sink of one slice, whose first row is the request's row ``first_row``."""

    __slots__ = ("_number", "_slices", "first_row")

    def __init__(self, slices: Slices, number: int, first_row: int = 0) -> None:
        self._slices = slices
        self._number = number
        self.first_row = first_row

    def complete(self, arrays: list[Array]) -> None:
        """Hand the outputs on, with the slice's number."""
        self._slices.complete(self._number, arrays)

    def fail(self, error: GatewayError) -> None:
        """Hand the error on."""
        self._slices.fail(error)

    def cancelled(self) -> None:
        """Slices are cancelled as a whole, and their sink is told."""

    def request_id(self) -> str:
        """The whole request's."""
        return self._slices.sink.request_id()

    def header(self, name: bytes) -> bytes | None:
        """The whole request's."""
        return self._slices.sink.header(name)


#: Where an accepted request is, for ``Lane.cancel``.
Place: TypeAlias = Ticket | Slices


def slice_rows(
    inputs: Sequence[InferInput | None], layout: Layout, start: int, stop: int
) -> list[Any]:
    """The buffers of rows ``start`` to ``stop`` of a request; shared inputs are passed whole."""
    parts: list[Any] = []
    for given, axis in zip(inputs, layout.axes, strict=True):
        if given is None or axis is None:
            parts.append(None if given is None else given.data)
        else:
            array: Array = given.array()
            index = (slice(None),) * axis + (slice(start, stop),)
            parts.append(np.ascontiguousarray(array[index]))
    return parts
