"""From a request's inputs to what the core batches: proof, order and group.

The binder holds a version's signature against each request. What passes is bound: the input
buffers in the signature's order, the number of rows, and the ``Group`` of requests that may run
together with it.
"""

import hashlib
from collections.abc import Sequence
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from gateway._native.ticket import Group
from gateway.errors import InvalidTensor
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import BYTES, InferInput

# Groups without waiting requests are dropped when there are more than this many shapes.
MAX_GROUPS = 512
# A shared input up to this size is its own key; a longer one is known by its hash.
INLINE_KEY_BYTES = 64


class Layout:
    """The shapes of one group, found again as ``group.shapes``.

    Attributes:
        items: for each input its shape without the batch axis, or ``None`` where an optional
            input is left out.
        axes: for each input its batch axis, ``None`` where it has none.
    """

    __slots__ = ("axes", "items")

    def __init__(
        self, items: tuple[tuple[int, ...] | None, ...], axes: tuple[int | None, ...]
    ) -> None:
        self.items = items
        self.axes = axes

    def shape(self, index: int, rows: int) -> tuple[int, ...] | None:
        """The shape of input ``index`` in a batch of ``rows`` rows; ``None`` if left out."""
        item = self.items[index]
        axis = self.axes[index]
        if item is None or axis is None:
            return item
        return (*item[:axis], rows, *item[axis:])


class Bound(NamedTuple):
    """The inputs of one request, proven: ready to become tickets.

    ``buffers`` follow the signature's order; ``inputs`` are the same as they came, for slicing.
    """

    group: Group
    rows: int
    buffers: list[Any]
    inputs: Sequence[InferInput | None]


class Plan(NamedTuple):
    """What binding finds for every request that has these names, datatypes and shapes.

    Attributes:
        sizes: the bytes of each input, in the request's order.
        places: for each input of the signature its place in the request, -1 where it is left out.
    """

    group: Group
    rows: int
    sizes: list[int]
    places: list[int]


class _Expected:
    """One spec, and the last shape that was proven against it: most requests bring it again."""

    __slots__ = (
        "axis", "datatype", "name", "opaque", "optional", "proven_bytes", "proven_rows",
        "proven_shape", "spec",
    )  # fmt: skip

    def __init__(self, spec: TensorSpec) -> None:
        self.spec: Final = spec
        self.name: Final = spec.name
        self.datatype: Final = spec.datatype
        self.axis: Final = spec.batch_axis
        self.optional: Final = spec.optional
        self.opaque: Final = spec.datatype is BYTES
        self.proven_shape: tuple[int, ...] | None = None
        self.proven_rows = 0
        self.proven_bytes = 0

    @property
    def fixed(self) -> bool:
        """Whether every request brings the same shape, but for the batch axis."""
        return all(size >= 0 or axis == self.axis for axis, size in enumerate(self.spec.shape))


class InputBinder:
    """Binds requests to one version's signature. Used on the event loop's thread only.

    Args:
        model: how messages name the version, e.g. ``"model 'digits' version '1'"``.
        signature: what it takes.
        levels: priority levels of the queue that the groups are for.
    """

    def __init__(self, model: str, signature: Signature, levels: int = 1) -> None:
        self._model = model
        self._levels = levels
        self._batched = signature.max_batch_size > 0
        self._expected = [_Expected(spec) for spec in signature.inputs]
        self._groups: dict[Any, Group] = {}
        self._only: Group | None = None
        #: Whether every request has one and the same layout, so that there is one group only.
        self.fixed = all(
            e.fixed and not e.optional and not (self._batched and e.axis is None)
            for e in self._expected
        )

    def bind(self, inputs: Sequence[InferInput]) -> Bound:
        """Prove and order the inputs of one request.

        Raises:
            InvalidTensor: a missing, unknown or repeated input, or one whose datatype, shape or
                size does not fit; the message says what was expected and what was given.
        """
        expected = self._expected
        ordered: Sequence[InferInput | None] = inputs
        if len(inputs) != len(expected):
            ordered = self._in_order(inputs)
        else:
            for given, wanted in zip(inputs, expected):  # noqa: B905  the lengths are equal
                if given.name != wanted.name:
                    ordered = self._in_order(inputs)
                    break
        rows = -1
        buffers: list[Any] = []
        for given_or_none, wanted in zip(ordered, expected):  # noqa: B905
            if given_or_none is None:
                buffers.append(None)
                continue
            given = given_or_none
            if given.shape != wanted.proven_shape or given.datatype is not wanted.datatype:
                self._prove(given, wanted)
            if wanted.axis is not None and rows != wanted.proven_rows:
                if rows >= 0:
                    raise self._wrong_rows(ordered)
                rows = wanted.proven_rows
            data = given.data
            if wanted.opaque:
                if not isinstance(data, np.ndarray) or data.shape != given.shape:
                    raise self._wrong_elements(given)
            elif (
                data.nbytes if isinstance(data, np.ndarray) else len(data)
            ) != wanted.proven_bytes:
                raise self._wrong_size(given, wanted.proven_bytes)
            buffers.append(data)
        group = self._only if self._only is not None else self._group(ordered)
        return Bound(group, rows if rows >= 0 else 1, buffers, ordered)

    def plan(self, inputs: Sequence[InferInput]) -> Plan | None:
        """What ``bind`` would find whatever the values; ``None`` where values have a say in it.

        That is so for strings, and for inputs that all requests of a batch must agree on. Raises
        as ``bind`` does.
        """
        if any(e.opaque or (self._batched and e.axis is None) for e in self._expected):
            return None
        group, rows, _, _ = self.bind(inputs)
        places = {tensor.name: place for place, tensor in enumerate(inputs)}
        return Plan(
            group,
            rows,
            [prod(tensor.shape) * tensor.datatype.itemsize for tensor in inputs],
            [places.get(wanted.name, -1) for wanted in self._expected],
        )

    def _prove(self, given: InferInput, wanted: _Expected) -> None:
        """Prove datatype and shape, and note what follows from the shape."""
        shape = given.shape
        if given.datatype is not wanted.datatype:
            raise self._wrong_datatype(given, wanted)
        if len(shape) != len(wanted.spec.shape):
            raise self._wrong_shape(given, wanted)
        for axis, (size, declared) in enumerate(zip(shape, wanted.spec.shape, strict=True)):
            if axis != wanted.axis and declared not in (-1, size):
                raise self._wrong_shape(given, wanted)
        wanted.proven_shape = shape
        wanted.proven_rows = 1 if wanted.axis is None else shape[wanted.axis]
        wanted.proven_bytes = prod(shape) * wanted.datatype.itemsize

    def _group(self, inputs: Sequence[InferInput | None]) -> Group:
        if self.fixed:
            self._only = self._new_group(inputs)
            return self._only
        key = tuple(
            [
                None if given is None else self._key(given, wanted)
                for given, wanted in zip(inputs, self._expected, strict=True)
            ]
        )
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = self._new_group(inputs)
        return group

    def _key(self, given: InferInput, wanted: _Expected) -> Any:
        """What of an input must be alike for two requests to share a batch."""
        if not self._batched:
            return given.shape
        axis = wanted.axis
        if axis is not None:
            return given.shape[:axis] + given.shape[axis + 1 :]
        if wanted.opaque:
            return given.shape, tuple(given.array().ravel().tolist())
        value = given.data.tobytes() if isinstance(given.data, np.ndarray) else bytes(given.data)
        if len(value) > INLINE_KEY_BYTES:
            value = hashlib.blake2b(value, digest_size=16).digest()
        return given.shape, value

    def _new_group(self, inputs: Sequence[InferInput | None]) -> Group:
        if len(self._groups) >= MAX_GROUPS:
            self._groups = {key: group for key, group in self._groups.items() if group.waiting}
        layout = []
        items: list[tuple[int, ...] | None] = []
        for given, wanted in zip(inputs, self._expected, strict=True):
            if given is None:
                items.append(None)
                layout.append((0, 0, "opaque"))
                continue
            shape, axis = given.shape, wanted.axis
            items.append(shape if axis is None else shape[:axis] + shape[axis + 1 :])
            if wanted.opaque:
                layout.append((0, 0, "opaque"))
            elif axis is None:
                kind = "shared" if self._batched else "batched"
                layout.append((1, prod(shape) * wanted.datatype.itemsize, kind))
            else:
                inner = prod(shape[axis + 1 :]) * wanted.datatype.itemsize
                layout.append((prod(shape[:axis]), inner, "batched"))
        axes = tuple(wanted.axis for wanted in self._expected)
        return Group(layout, self._levels, Layout(tuple(items), axes))

    def _in_order(self, inputs: Sequence[InferInput]) -> list[InferInput | None]:
        """The inputs in the signature's order; proves that exactly the right ones came."""
        given = {tensor.name: tensor for tensor in inputs}
        known = {wanted.name for wanted in self._expected}
        missing = [w.name for w in self._expected if not w.optional and w.name not in given]
        unknown = [name for name in given if name not in known]
        repeated = len(given) != len(inputs)
        if missing or unknown or repeated:
            names = [tensor.name for tensor in inputs]
            problems = []
            if missing:
                problems.append(f"missing {missing}")
            if unknown:
                problems.append(f"unknown {unknown}")
            if repeated:
                problems.append(f"repeated {sorted({n for n in names if names.count(n) > 1})}")
            raise InvalidTensor(
                f"{self._model} expects the inputs {[w.name for w in self._expected]}, "
                f"got {names}: {', '.join(problems)}"
            )
        return [given.get(wanted.name) for wanted in self._expected]

    def _wrong_shape(self, given: InferInput, wanted: _Expected) -> InvalidTensor:
        return InvalidTensor(
            f"unexpected shape for input '{given.name}' of {self._model}: "
            f"expected {list(wanted.spec.shape)}, got {list(given.shape)}"
        )

    def _wrong_datatype(self, given: InferInput, wanted: _Expected) -> InvalidTensor:
        return InvalidTensor(
            f"unexpected datatype for input '{given.name}' of {self._model}: "
            f"expected {wanted.datatype.name}, got {given.datatype.name}"
        )

    def _wrong_rows(self, inputs: Sequence[InferInput | None]) -> InvalidTensor:
        rows = {
            given.name: given.shape[wanted.axis]
            for given, wanted in zip(inputs, self._expected, strict=True)
            if given is not None
            and wanted.axis is not None
            and len(given.shape) == len(wanted.spec.shape)
        }
        return InvalidTensor(
            f"the inputs of {self._model} must bring the same number of rows on their batch "
            f"axis, got {rows}"
        )

    def _wrong_size(self, given: InferInput, size: int) -> InvalidTensor:
        data = given.data
        got = data.nbytes if isinstance(data, np.ndarray) else len(data)
        return InvalidTensor(
            f"unexpected byte size for input '{given.name}' of {self._model}: shape "
            f"{list(given.shape)} of {given.datatype.name} takes {size} bytes, got {got}"
        )

    def _wrong_elements(self, given: InferInput) -> InvalidTensor:
        got = given.data.size if isinstance(given.data, np.ndarray) else "raw bytes"
        return InvalidTensor(
            f"unexpected number of elements for input '{given.name}' of {self._model}: shape "
            f"{list(given.shape)} takes {prod(given.shape)}, got {got}"
        )
