"""Versions of a model that multiplies by its own version's number, good ones and bad ones."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper

from tests.fronts import Array
from tests.repository import constant, model, value

#: Sliced requests and a memory budget are part of what swaps must stand.
SETTINGS = """\
max_batch_size = 8

[validation]
max_memory_bytes = "32MiB"
require_same_signature = true
"""


def answer_of(version: str, x: Array) -> Array:
    """What the version answers to ``x``, bit for bit: one multiplication rounds but one way."""
    product: Array = x * np.float32(int(version))
    return product


def scaled(factor: int, output: str = "y") -> ModelProto:
    return model(
        [helper.make_node("Mul", ["x", "factor"], [output])],
        [value("x", "FP32", ["n", 4])],
        [value(output, "FP32", ["n", 4])],
        [constant("factor", np.array(factor, np.float32))],
    )


def heavy(factor: int) -> ModelProto:
    """The same beside a table of 64 MB, of which each element takes one zero."""
    return model(
        [
            helper.make_node("Mul", ["x", "zero"], ["nothing"]),
            helper.make_node("Cast", ["nothing"], ["index"], to=onnx.TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["looked_up"]),
            helper.make_node("Mul", ["x", "factor"], ["product"]),
            helper.make_node("Add", ["product", "looked_up"], ["y"]),
        ],
        [value("x", "FP32", ["n", 4])],
        [value("y", "FP32", ["n", 4])],
        [
            constant("zero", np.array(0, np.float32)),
            constant("factor", np.array(factor, np.float32)),
            constant("table", np.zeros(16 << 20, np.float32)),
        ],
    )


#: Ways in which a version can be bad, and what the reason says then.
BAD = {
    "damaged": "damaged",
    "wrong golden": "golden",
    "no external data": "external data",
    "too large": "max_memory_bytes",
    "another signature": "signature",
}


class Versions:
    """The versions of one model in a repository, numbered from 1 on, as they are put there."""

    def __init__(self, repository: Path, name: str, settings: str = "") -> None:
        """A model with version 1, and ``settings`` beside those of every one.

        Attributes:
            bad: the bad versions, and a word that the reason has to have.
        """
        self.name = name
        self.bad: dict[str, str] = {}
        self._path = repository / name
        self._path.mkdir(parents=True)
        (self._path / "model.toml").write_text(settings + SETTINGS)
        self._count = 0
        self.add()

    @property
    def next(self) -> str:
        """The number that the next version will have."""
        return str(self._count + 1)

    def add(self) -> None:
        """Another good version, with a golden request."""
        with self._place() as place:
            onnx.save(scaled(self._count), place / "model.onnx")
            self._add_golden(place, self._count)

    def add_bad(self, kind: str) -> str:
        """Another version, bad in that way; its number."""
        with self._place() as place:
            self._write_bad(place, kind)
        self.bad[str(self._count)] = BAD[kind]
        return str(self._count)

    def _write_bad(self, place: Path, kind: str) -> None:
        file = place / "model.onnx"
        if kind == "too large":
            onnx.save(heavy(self._count), file)
        elif kind == "another signature":
            onnx.save(scaled(self._count, output="z"), file)
        elif kind == "no external data":
            onnx.save(
                scaled(self._count),
                file,
                save_as_external_data=True,
                location="weights",
                size_threshold=0,
            )
            (place / "weights").unlink()
        else:
            onnx.save(scaled(self._count), file)
            if kind == "damaged":
                file.write_bytes(file.read_bytes()[:-7])
            else:
                self._add_golden(place, self._count + 1)

    @contextmanager
    def _place(self) -> Iterator[Path]:
        """A directory for the next version, which is there at once when it is full."""
        self._count += 1
        unfinished = self._path / f".{self._count}"
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(self._path / str(self._count))

    def _add_golden(self, place: Path, factor: int) -> None:
        x = [0.5, -1.25, 3.0, 100.0]
        y = [factor * element for element in x]
        tensor = {"datatype": "FP32", "shape": [1, 4]}
        document = {
            "inputs": [{"name": "x", "data": x, **tensor}],
            "outputs": [{"name": "y", "data": y, **tensor}],
        }
        (place / "golden").mkdir()
        (place / "golden" / "one.json").write_text(json.dumps(document))
