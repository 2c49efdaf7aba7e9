"""Whether two results of one model are the same, and how two runs of a batch relate."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gateway.serving.samples import from_datatype
from gateway.types import BF16, FP16, Array, DataType


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may differ: ``relative`` of the element, plus ``scaled`` of the tensor's largest one.

    The second part is for small elements that are differences of large ones: their rounding error
    goes with the large ones' size.
    """

    relative: float
    scaled: float


#: Kernels sum in another order for another batch size. In FP32 that moves a result by some 1e-7 to
#: 1e-5 of the tensor's scale in deep networks; rows that mix move it by 1e-2 and more, dynamic
#: quantisation over the whole batch included. The bounds lie between, a decade from either.
FINE: Final = Tolerance(1e-3, 1e-4)
#: FP16, and FP32 on a GPU, where matrix units round the factors to 10 bits of mantissa (TF32).
HALF: Final = Tolerance(1e-2, 2e-3)
#: BF16 has 7 bits of mantissa.
BRAIN: Final = Tolerance(5e-2, 1e-2)


def tolerance_of(datatype: DataType, coarse: bool) -> Tolerance:
    """The tolerance for a floating-point type; ``coarse`` for devices that compute in TF32."""
    if datatype is BF16:
        return BRAIN
    return HALF if coarse or datatype is FP16 else FINE


def difference(
    expected: Array, given: Array, datatype: DataType, coarse: bool = False
) -> str | None:
    """Words for how far ``given`` lies from ``expected``, ``None`` where they are the same.

    Both have the same shape. Integers, booleans and text must be equal; floats within the type's
    tolerance, not-a-number and infinities in the same places.
    """
    wanted, got = from_datatype(expected, datatype), from_datatype(given, datatype)
    if wanted.dtype.kind != "f":
        unequal = int(np.count_nonzero(wanted != got))
        return f"differs in {unequal} of {wanted.size} elements" if unequal else None
    with np.errstate(all="ignore"):
        wanted, got = wanted.astype(np.float64), got.astype(np.float64)
        same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
        distance = np.where(same, 0.0, np.abs(wanted - got))
        scale = float(np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted)))
        bounds = tolerance_of(datatype, coarse)
        allowed = bounds.relative * np.abs(wanted) + bounds.scaled * scale
        # An infinite `allowed` must not excuse a finite result; NaN compares false and is kept.
        wrong = ~same & ~((distance <= allowed) & np.isfinite(distance))
    if not wrong.any():
        return None
    if not np.isfinite(distance[wrong]).all():
        return "is not finite in the same places"
    return f"differs by up to {distance[wrong].max():.2g} (values reach {scale:.2g})"


@dataclass(frozen=True, slots=True)
class Deviation:
    """How a result differs from what was expected.

    Attributes:
        count: elements that differ.
        largest: the largest difference among them; infinite where one of the two values is not
            finite, ``None`` for booleans and text.
        index: of the first of them, in row-major order.
        expected, given: its values; BF16 widened to FP32.
    """

    count: int
    largest: float | None
    index: tuple[int, ...]
    expected: Any
    given: Any


def deviation(
    expected: Array, given: Array, datatype: DataType, relative: float, absolute: float
) -> Deviation | None:
    """Where ``given`` is not what was ``expected``; ``None`` where it is, in every element.

    Both have the same shape. A float ``e`` may be given as ``g`` where ``|e - g| <= absolute +
    relative * |e|``, and not-a-number equals itself; integers, booleans and text must be equal.
    """
    wanted = np.asarray(from_datatype(expected, datatype))
    got = np.asarray(from_datatype(given, datatype))
    wrong: Array = np.asarray(wanted != got, np.bool_)
    largest: float | None = None
    if wanted.dtype.kind in "iuf":
        with np.errstate(all="ignore"):
            wide = wanted.astype(np.float64)
            distance = np.asarray(np.abs(wide - got.astype(np.float64)))
            if wanted.dtype.kind == "f":
                allowed = absolute + relative * np.abs(wide)
                # An infinite `allowed` must not excuse a finite result.
                close = (distance <= allowed) & np.isfinite(distance)
                wrong = wrong & ~close & ~(np.isnan(wanted) & np.isnan(got))
        distances = distance[wrong]
        largest = float(distances.max(initial=0.0)) if np.isfinite(distances).all() else math.inf
    if not wrong.any():
        return None
    first = tuple(int(place) for place in np.argwhere(wrong)[0])
    count = int(np.count_nonzero(wrong))
    return Deviation(count, largest, first, wanted.item(first), got.item(first))


def batch_axes(alone: tuple[int, ...], together: tuple[int, ...], rows: int) -> set[int]:
    """The axes on which a result of one row, stacked ``rows`` times, has the shape ``together``."""
    return {
        axis
        for axis, size in enumerate(alone)
        if size == 1 and together == (*alone[:axis], rows, *alone[axis + 1 :])
    }
