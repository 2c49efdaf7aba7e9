"""The predictions of a window that have their truth."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.monitor.quality import Floats, Judged

Array = npt.NDArray[Any]


@dataclass(slots=True)
class LabelledRows:
    """The rows of a window, in columns: when, truth, what the model said, and how sure it was.

    The last column is there for a classifier alone: the probabilities of all classes, or only the
    highest one of each row.

    Attributes:
        parts: columns of rows that came together.
        rows, left_out: how many are kept, and how many more there were.
        classes: of the classifier.
        began, ended: when the first and last of the predictions were answered.
    """

    parts: list[list[Array]] = field(default_factory=list)
    rows: int = 0
    left_out: int = 0
    classes: int = 0
    began: float = float("inf")
    ended: float = float("-inf")

    def add(self, columns: list[Array], most: int) -> None:
        """Take rows, as long as there are no more than ``most``."""
        count = len(columns[0])
        kept = min(count, max(most - self.rows, 0))
        self.left_out += count - kept
        if kept:
            self.parts.append([column[:kept].copy() for column in columns])
            self.rows += kept
            self.began = min(self.began, float(columns[0].min()))
            self.ended = max(self.ended, float(columns[0].max()))

    def correct(self, row: list[Array], earlier: Any, truth: Any) -> bool:
        """Put ``truth`` in place of ``earlier`` in a row that says all else that ``row`` does."""
        for part in self.parts:
            same = np.ones(len(part[0]), bool)
            for place, (column, one) in enumerate(zip(part, row, strict=True)):
                wanted = earlier if place == 1 else one[0]
                equal = (column == wanted) | ((column != column) & (wanted != wanted))
                same &= equal.reshape(len(column), -1).all(axis=1)
            if (places := np.flatnonzero(same)).size:
                part[1][places[0]] = truth
                return True
        return False

    def columns(self) -> list[Array]:
        """All rows."""
        return [np.concatenate(column) for column in zip(*self.parts, strict=True)]

    def comparable(self, columns: list[Array], regressive: bool) -> npt.NDArray[np.bool_]:
        """Which rows have a truth and an answer to compare: known classes, finite numbers."""
        good = np.ones(len(columns[0]), bool)
        for column in columns[1:]:
            if column.dtype.kind == "f":
                good &= np.isfinite(column).reshape(len(column), -1).all(axis=1)
            if not regressive and column.dtype.kind == "i":
                good &= (column >= 0) & (column < max(self.classes, 1))
        return good

    def judged(self, columns: list[Array]) -> Judged:
        """A classifier's rows."""
        probabilities: Floats | None = None
        confidence: Floats | None = None
        if len(columns) > 3:
            if columns[3].ndim == 2:
                probabilities = columns[3]
                confidence = probabilities.max(axis=1)
            else:
                confidence = columns[3]
        return Judged(columns[1], columns[2], self.classes, probabilities, confidence)
