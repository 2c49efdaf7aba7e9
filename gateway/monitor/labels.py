"""Ground truth: what was true, told after the prediction, and what comes of the two together.

A *label* says what the answer to one row of one request should have been. ``GroundTruth``
(``ground_truth.py``) keeps the predictions of the models that ask for it, brings labels and
predictions together by the request's id, and hands what is *joined* to its listeners.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from gateway.types import Array

Float64s = npt.NDArray[np.float64]

#: What may be true: a number (a class's index, a measured value; ``true`` is 1), text (the name of
#: a class), or several numbers (a prediction of several values).
Value = float | str | tuple[float, ...]

#: Values a row up to which an output is kept whole. Of a wider one its ``top`` is kept.
WIDEST: Final = 64
#: Ends the names of what is kept of an output of more than ``WIDEST`` values a row: where the
#: highest one is, and how high.
TOP_INDEX: Final = ".top_index"
TOP_VALUE: Final = ".top_value"


class Outcome(StrEnum):
    """What became of a label. Each one received is counted under one of these, or still waits.

    ``received = joined + corrected + duplicate + late + row_missing + unmatched + waiting``
    """

    #: Brought together with its prediction: the first label of it.
    JOINED = "joined"
    #: Another value than the one before, whose place it takes: the last one holds.
    CORRECTED = "corrected"
    #: The same value again; ignored.
    DUPLICATE = "duplicate"
    #: Its prediction is not held any more.
    LATE = "late"
    #: Its request has several rows, and it names none.
    ROW_MISSING = "row_missing"
    #: No prediction of that id and row came within the time that a label waits, or too many wait.
    UNMATCHED = "unmatched"


@dataclass(frozen=True, slots=True)
class Label:
    """What was true of one prediction.

    Attributes:
        id: the request's, as its prediction was published with.
        value: see ``Value``.
        row: the place of the row in its request, from 0; ``None`` where the request has one row.
        time: when it became true or known, Unix seconds; ``None`` for when it was received.
    """

    id: str
    value: Value
    row: int | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Predictions of one model version, each with its truth, as columns. Immutable.

    Row ``i`` of every array belongs to the same prediction. They are in no order: truth comes when
    it comes, and ``predicted_at`` says which window a row belongs to.

    Attributes:
        outputs: by the output's name, rows first: numbers as the model gave them, text as objects
            of ``str``. An output of more than ``WIDEST`` values a row has ``<name>.top_index`` and
            ``<name>.top_value`` instead, one value a row.
        truth: float64, one value a row, or as many as the labels have; objects of ``str`` where
            the labels are text. Batches of the two kinds are never mixed.
        predicted_at: when the predictions were answered, Unix seconds.
        labelled_at: when the truth became known, as the label says, else when it was received.
        earlier: ``None`` for predictions that had no truth before. Of corrections what was said
            before, in one of the forms of ``truth``: whoever has counted that takes it back.
            Corrections and first truths are never mixed either.
    """

    model: str
    version: str
    outputs: Mapping[str, Array]
    truth: Array
    predicted_at: Float64s
    labelled_at: Float64s
    earlier: Array | None = None

    def __len__(self) -> int:
        return len(self.truth)


class TruthListener(Protocol):
    """Gets what is joined.

    Attributes:
        name: whose it is, for metrics and the log.
    """

    name: str

    def joined(self, batch: Joined) -> int:
        """Take a batch; how many of its rows came too late, their window being closed.

        Called on the thread of ``GroundTruth``, one batch after another, and never on the event
        loop. Must not wait for that thread. An error is logged and the listener's loss. Each batch
        comes once; one that was joined in the last moment before the process died may not come.
        """


def truth_array(values: Sequence[Value]) -> Array:
    """``values`` as an array in the form of ``Joined.truth``; all are of one ``kind_of``."""
    if values and isinstance(values[0], str):
        return np.array(values, object)
    return np.array(values, np.float64)


def kind_of(value: Value) -> int:
    """What may share an array: -1 for text, 0 for a number, else how many numbers there are."""
    if isinstance(value, str):
        return -1
    return len(value) if isinstance(value, tuple) else 0
