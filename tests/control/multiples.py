"""Models whose answers say which version made them, and a clock that stands still."""

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, helper

from tests.control.plane import ControlPlane
from tests.repository import constant, model, value

ROW = np.array([[1, 2]], np.float32)


def scaled(factor: float) -> Callable[[], ModelProto]:
    """``y = factor * x``: the answer says which version made it."""
    return lambda: model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [value("x", "FP32", ["n", 2])],
        [value("y", "FP32", ["n", 2])],
        [constant("factor", np.array(factor, np.float32))],
    )


async def answer(plane: ControlPlane, version: str = "", model: str = "m") -> tuple[str, float]:
    """Which version says that it answered, and by what it multiplied."""
    response = await plane.infer(model, version, x=ROW)
    return response.version, float(response.outputs[0].array[0, 0])


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s
