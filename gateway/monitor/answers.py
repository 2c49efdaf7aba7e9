"""What a model's outputs say, in classes and values, and what labels say in the same terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.monitor.labels import TOP_INDEX, TOP_VALUE
from gateway.monitor.quality import Floats, Ints, Judged

#: Classes there may be where only the highest one of each row is known.
MOST_CLASSES: Final = 1 << 16

Array = npt.NDArray[Any]


class Task(StrEnum):
    """What a model does."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSettings:
    """How to read a model's outputs.

    Attributes:
        output: of a classifier the probabilities, one a class or one alone (class 1 of two); of a
            regression the values.
        label_output: a classifier's output with the class it chose, where it has one; else the
            class of the highest probability is.
        logits: whether ``output`` has logits, not probabilities.
        classes: the classes' names in the order of ``output``, where labels are names.
    """

    task: Task
    output: str
    label_output: str | None = None
    logits: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """A classifier's answers: see ``Judged``."""

    predicted: Ints
    classes: int
    probabilities: Floats | None
    confidence: Floats | None


class Answers:
    """Reads outputs and truths. Immutable."""

    def __init__(self, settings: AnswerSettings) -> None:
        self._settings: Final = settings
        self._places: Final = {name: place for place, name in enumerate(settings.classes)}

    def probabilities(self, outputs: Mapping[str, Array]) -> Floats | None:
        """Of each class, a row a row; ``None`` where only the highest one is known.

        Raises:
            ValueError: the output is not there.
        """
        settings = self._settings
        given = outputs.get(settings.output)
        if given is None:
            if settings.output + TOP_INDEX in outputs:
                return None
            raise ValueError(
                f"there is no output '{settings.output}' among {', '.join(outputs)}; name the one "
                "with the probabilities"
            )
        made = given.astype(np.float64).reshape(len(given), -1)
        if made.shape[1] == 1:
            if settings.logits:
                made = 1 / (1 + np.exp(-made))
            return np.concatenate([1 - made, made], axis=1)
        if settings.logits:
            made = np.exp(made - made.max(axis=1, keepdims=True))
            made /= made.sum(axis=1, keepdims=True)
        return made

    def chosen(self, outputs: Mapping[str, Array], probabilities: Floats | None) -> Ints:
        """The class that each row was given."""
        label_output = self._settings.label_output
        if label_output is not None and label_output in outputs:
            return self.places(outputs[label_output])
        if probabilities is not None:
            return np.asarray(probabilities.argmax(axis=1), np.int64)
        return np.asarray(outputs[self._settings.output + TOP_INDEX].reshape(-1), np.int64)

    def places(self, named: Array) -> Ints:
        """The classes of labels or of an output: names or their numbers; -1 for an unknown one."""
        flat = named.reshape(-1)
        if flat.dtype.kind not in "OUS":
            numbers = flat.astype(np.float64)
            whole = np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))
            return np.where(whole, numbers, -1).astype(np.int64)
        names = (n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in flat.tolist())
        return np.array([self._places.get(name, -1) for name in names], np.int64)

    def read(self, outputs: Mapping[str, Array]) -> "Read":
        """A classifier's answers.

        Raises:
            ValueError: the output is not there.
        """
        probabilities = self.probabilities(outputs)
        chosen = self.chosen(outputs, probabilities)
        if probabilities is not None:
            confidence = probabilities.max(axis=1)
            return Read(chosen, probabilities.shape[1], probabilities, confidence)
        classes = len(self._places) or MOST_CLASSES
        if self._settings.logits:
            # The highest logit alone is no probability.
            return Read(chosen, classes, None, None)
        top = outputs[self._settings.output + TOP_VALUE]
        return Read(chosen, classes, None, top.reshape(-1).astype(np.float64))

    def judged(self, outputs: Mapping[str, Array], truth: Array) -> Judged:
        """A classifier's rows with their truth, without those that cannot be compared.

        Those are rows whose label, or whose answer, is none of the classes, or that have a
        probability that is not a number.
        """
        read, known = self.read(outputs), self.places(truth)
        good = (known >= 0) & (known < read.classes)
        good &= (read.predicted >= 0) & (read.predicted < read.classes)
        if read.confidence is not None:
            good &= np.isfinite(read.confidence)
        return Judged(
            known[good],
            read.predicted[good],
            read.classes,
            None if read.probabilities is None else read.probabilities[good],
            None if read.confidence is None else read.confidence[good],
        )

    def values(self, outputs: Mapping[str, Array], truth: Array) -> tuple[Floats, Floats]:
        """A regression's truths and predictions, columns a row.

        Raises:
            ValueError: the output is not there, or labels have another number of values.
        """
        given = outputs.get(self._settings.output)
        if given is None or truth.dtype.kind in "OUS":
            what = "labels are text" if given is not None else f"outputs are {', '.join(outputs)}"
            raise ValueError(f"'{self._settings.output}' should be compared with numbers: {what}")
        predicted = given.astype(np.float64).reshape(len(given), -1)
        known = truth.astype(np.float64).reshape(len(truth), -1)
        if predicted.shape != known.shape:
            raise ValueError(
                f"labels have {known.shape[1]} values a row, the output '{self._settings.output}' "
                f"has {predicted.shape[1]}"
            )
        return known, predicted
