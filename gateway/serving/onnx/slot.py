"""The staging memory and the IO bindings of one batch in flight.

The core gathers a batch's rows straight into the slot's memory; ONNX Runtime reads them there and
writes its outputs into memory of the slot too. Nothing is allocated for a batch of a shape and
size that was seen before, and its binding is made once. A single large request that lies aligned in
its message is not even gathered: its binding is told where it lies.
"""

import ctypes
from math import prod
from typing import Any

import numpy as np

from gateway._native.arena import Arena
from gateway._native.queue import Batch
from gateway._native.ticket import Group
from gateway.errors import GatewayError, InferenceFailed
from gateway.serving.binder import Layout
from gateway.serving.onnx.session import OnnxSession, blame
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import BYTES, DATATYPES_BY_ONNX, Array

# Bindings kept; a model of dynamic shapes meets more, and then starts over.
MAX_BINDINGS = 128
# Binding an input anew costs what the copy of some 64 KiB does.
IN_PLACE_FROM_BYTES = 1 << 16


class Slot:
    """Runs batches of one session, one at a time, on whichever thread holds the slot.

    The arrays that ``run`` returns are views of the slot's memory: valid until its next run.
    """

    def __init__(self, session: OnnxSession, signature: Signature) -> None:
        strings = any(t.datatype is BYTES for t in signature.inputs + signature.outputs)
        self.arena = Arena(len(signature.inputs), 0 if strings else IN_PLACE_FROM_BYTES)
        self._outputs = Arena(len(signature.outputs))
        self._session = session
        self._signature = signature
        self._bindings: dict[tuple[Group, int], _Binding] = {}
        self._has_strings = strings

    def run(self, batch: Batch) -> list[Array]:
        """Run a gathered batch; the outputs in the signature's order, all rows of the batch.

        Raises:
            GatewayError: ``InvalidTensor`` where ONNX Runtime blames the inputs, else
                ``InferenceFailed`` with its message.
        """
        if not batch.gathered:
            raise InferenceFailed(f"no memory to gather a batch of {batch.rows} rows")
        try:
            return self._run_plain(batch) if self._has_strings else self._run(batch)
        except GatewayError:
            raise
        except Exception as error:
            raise blame(error) from error

    def close(self) -> None:
        """Drop the bindings, and with them what they hold of the session."""
        self._bindings.clear()

    def _run(self, batch: Batch) -> list[Array]:
        key = (batch.group, batch.rows)
        binding = self._bindings.get(key)
        if binding is None or binding.moved():
            if len(self._bindings) >= MAX_BINDINGS:
                self._bindings.clear()
            binding = _Binding(self._session, self._signature, batch, self.arena, self._outputs)
            self._bindings[key] = binding
        return binding.run(batch.addresses() if batch.in_place else None)

    def _run_plain(self, batch: Batch) -> list[Array]:
        """The way for strings, which IO binding does not know."""
        layout: Layout = batch.group.shapes
        feeds = {}
        for index, spec in enumerate(self._signature.inputs):
            shape = layout.shape(index, batch.rows)
            if shape is None:
                continue
            if spec.datatype is not BYTES:
                feeds[spec.name] = _view(self.arena.ensure(index, 0), spec, shape)
            elif spec.batch_axis is None:
                feeds[spec.name] = batch.tickets[0].inputs[index]
            else:
                parts = [ticket.inputs[index] for ticket in batch.tickets]
                feeds[spec.name] = np.concatenate(parts, axis=spec.batch_axis)
        return self._session.run(feeds, [spec.name for spec in self._signature.outputs])


class _Binding:
    """The IO binding of one group and row count, good until one of the arenas moves."""

    def __init__(
        self,
        session: OnnxSession,
        signature: Signature,
        batch: Batch,
        arena: Arena,
        outputs: Arena,
    ) -> None:
        self._session = session
        self._outputs = signature.outputs
        self._input_arena = arena
        self._output_arena = outputs
        self._generations = (arena.generation, outputs.generation)
        self._inputs: list[tuple[str, int, tuple[int, ...], int]] = []
        layout: Layout = batch.group.shapes
        for index, spec in enumerate(signature.inputs):
            shape = layout.shape(index, batch.rows)
            if shape is not None:
                address = arena.ensure(index, 0)
                self._inputs.append((spec.name, spec.datatype.onnx, shape, address))
        self._io: Any = session.raw.io_binding()
        # Binding an input copies it when the session runs elsewhere than in host memory, so
        # there it must be bound again for every batch.
        self._bind_each_run = session.device != "cpu"
        self._bound_elsewhere = False
        if not self._bind_each_run:
            self._bind_inputs()
        self._expected = [_declared_shape(spec, batch.rows) for spec in self._outputs]
        self._arrays: list[Array] | None = None

    def moved(self) -> bool:
        """Whether the memory that it names has gone elsewhere."""
        return self._generations != (
            self._input_arena.generation,
            self._output_arena.generation if self._arrays is not None else self._generations[1],
        )

    def run(self, addresses: list[int] | None) -> list[Array]:
        """Run on the inputs at ``addresses``, one for each; ``None`` for those in the arena."""
        if self._bind_each_run:
            self._io.clear_binding_inputs()
        if self._bind_each_run or self._bound_elsewhere or addresses is not None:
            self._bind_inputs(addresses)
            self._bound_elsewhere = addresses is not None
        if self._arrays is not None:
            self._session.raw.run_with_iobinding(self._io)
            return self._arrays
        # A value that an earlier run left in the binding would be written over in place.
        self._io.clear_binding_outputs()
        for spec in self._outputs:
            self._io.bind_output(spec.name, "cpu")
        self._session.raw.run_with_iobinding(self._io)
        arrays = [_adopt(value) for value in self._io.get_outputs()]
        if all(array.shape == shape for array, shape in zip(arrays, self._expected, strict=True)):
            self._keep_outputs()
        return arrays

    def _bind_inputs(self, addresses: list[int] | None = None) -> None:
        for index, (name, element_type, shape, address) in enumerate(self._inputs):
            place = address if addresses is None else addresses[index]
            self._io.bind_input(name, "cpu", 0, element_type, shape, place)

    def _keep_outputs(self) -> None:
        """Bind memory of our own from now on: the model gives the shapes that it declares."""
        shapes = [shape for shape in self._expected if shape is not None]
        for index, (spec, shape) in enumerate(zip(self._outputs, shapes, strict=True)):
            self._output_arena.ensure(index, prod(shape) * spec.datatype.itemsize)
        self._generations = (self._input_arena.generation, self._output_arena.generation)
        self._io.clear_binding_outputs()
        self._arrays = []
        for index, (spec, shape) in enumerate(zip(self._outputs, shapes, strict=True)):
            address = self._output_arena.ensure(index, 0)
            self._arrays.append(_view(address, spec, shape))
            self._io.bind_output(spec.name, "cpu", 0, spec.datatype.onnx, shape, address)


def _declared_shape(spec: TensorSpec, rows: int) -> tuple[int, ...] | None:
    """The shape that the graph promises for ``rows`` rows; ``None`` where it promises none."""
    shape = tuple(rows if axis == spec.batch_axis else size for axis, size in enumerate(spec.shape))
    return None if -1 in shape else shape


def _adopt(value: Any) -> Array:
    """The tensor of an ``OrtValue`` as an array that keeps the value alive; no copy."""
    shape = tuple(value.shape())
    dtype = DATATYPES_BY_ONNX[value.element_type()].numpy
    nbytes = value.tensor_size_in_bytes()
    if nbytes == 0:
        return np.empty(shape, dtype)
    memory: Any = (ctypes.c_char * nbytes).from_address(value.data_ptr())
    memory.owner = value
    array: Array = np.frombuffer(memory, dtype).reshape(shape)
    return array


def _view(address: int, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """An array over ``address``; whoever holds the arena keeps it alive."""
    count = prod(shape)
    if count == 0:
        return np.empty(shape, spec.datatype.numpy)
    memory: Any = (ctypes.c_char * (count * spec.datatype.itemsize)).from_address(address)
    array: Array = np.frombuffer(memory, spec.datatype.numpy).reshape(shape)
    return array
