"""Models that take some megabytes, and what happens to their versions."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion
from tests.repository import ModelDirectory, constant, model, value

MB = 1_000_000

#: Numbers in a row of a weighty model's input.
WIDTH = 1600
ROW = np.ones((1, WIDTH), np.float32)


def weighty(factor: float, size: int = 20 * MB) -> onnx.ModelProto:
    """``y`` is ``factor`` times the sum of a row, by weights of about ``size`` bytes."""
    columns = size // WIDTH // 4
    weights = np.full((WIDTH, columns), factor, np.float32)
    return model(
        [
            helper.make_node("MatMul", ["x", "weights"], ["all"]),
            helper.make_node("ReduceMax", ["all", "last"], ["y"], keepdims=1),
        ],
        [value("x", "FP32", ["n", WIDTH])],
        [value("y", "FP32", ["n", 1])],
        [constant("weights", weights), constant("last", np.array([-1], np.int64))],
    )


def add(models: ModelDirectory, name: str, version: str, settings: str = "") -> Path:
    """A version of 20 MB, which multiplies by its number; its file."""
    models.add(name, lambda: weighty(float(version)), settings, version=version)
    return models.path / name / version / "model.onnx"


class Transitions:
    """What happens to versions, as ``("m:2", State.LOADING)``, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, State]] = []
        move = ModelVersion.move

        def watched(entry: ModelVersion, state: State, reason: str = "") -> None:
            move(entry, state, reason)
            self.seen.append((f"{entry.name}:{entry.version}", state))

        monkeypatch.setattr(ModelVersion, "move", watched)

    def of(self, *states: State) -> list[tuple[str, State]]:
        """Those to one of ``states``."""
        return [entry for entry in self.seen if entry[1] in states]
