"""The monitors beside the per-feature one, as tables of ``monitor.toml``.

``[online]`` has river's detectors, ``[multivariate]`` the tests of all features at once, and
``[estimation]`` the performance that is to be expected without labels.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.errors import ConfigError
from gateway.monitor.answers import Answers, AnswerSettings, Task
from gateway.monitor.estimation import EstimationMonitor, PerformanceEstimator
from gateway.monitor.features import FeatureTable, Layout
from gateway.monitor.findings import Finding
from gateway.monitor.kinds import MonitorKind, Watched, WindowMonitor
from gateway.monitor.multivariate import LEAST_ROWS, Comparison, MultivariateMonitor
from gateway.monitor.online import Kind, OnlineMonitor, Reference
from gateway.monitor.profile import FeatureProfile, NumericReference, encode
from gateway.monitor.two_sample import Classifier
from gateway.monitor.windows import Window
from gateway.stream.block import Block
from gateway.tables import boolean, choice, integer, list_of, number, read_table, share, table, text

Array = npt.NDArray[Any]

#: Rows of a window by time, for the level of the online detectors.
ROWS_BY_TIME: Final = 10_000
#: The reference labels of a version, beside its model file or beside ``monitor.toml``.
LABELS_NAME: Final = "labels.npz"


# -- online -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OnlineSettings:
    """``[online]``: see ``OnlineMonitor``."""

    detectors: tuple[str, ...] = (Kind.ADWIN.value,)
    level: float = 0.05
    per_second: Mapping[str, float] = field(default_factory=dict)


class OnlineKind:
    """River's detectors over every numeric feature that is watched."""

    name: Final = "online"

    def read(self, where: str, value: Any) -> OnlineSettings:
        """See ``MonitorKind``."""
        kinds = [kind.value for kind in Kind]

        def per_second(where: str, value: Any) -> Any:
            return read_table(table(where, value), dict.fromkeys(kinds, number), f"{where}.")

        fields = {
            "detectors": list_of(choice(*kinds)),
            "level": share,
            "per_second": per_second,
        }
        return OnlineSettings(**read_table(table(where, value), fields, f"{where}."))

    def make(self, settings: OnlineSettings, watched: Watched) -> WindowMonitor:
        """See ``MonitorKind``."""
        return _Online(settings, watched)


class _Online:
    def __init__(self, settings: OnlineSettings, watched: Watched) -> None:
        known = {
            feature.name: Reference(
                low=feature.reference.minimum,
                high=feature.reference.maximum,
                mean=feature.reference.mean,
                deviation=feature.reference.std,
            )
            for feature in watched.profile.features
            if isinstance(feature.reference, NumericReference)
            and watched.settings.watches(feature.name)
        }
        self._layout: Final = watched.profile.layout
        self._monitor: Final = OnlineMonitor(
            known,
            [Kind(name) for name in settings.detectors],
            level=settings.level,
            window_rows=watched.settings.window.rows or ROWS_BY_TIME,
            # 0 sets no limit.
            per_second={Kind(kind): rate or None for kind, rate in settings.per_second.items()},
        )

    def take(self, block: Block) -> None:
        """See ``WindowMonitor``."""
        columns = {
            name: found.values[:, place]
            for found in self._layout.tables(block)
            for place, name in enumerate(found.names)
            if name in self._monitor.subjects
        }
        self._monitor.add(columns, block.at)

    def end(self, window: Window) -> Iterable[Finding]:
        """See ``WindowMonitor``; of a sliding window, what came in its last step."""
        return self._monitor.findings()


# -- all features at once ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MultivariateSettings:
    """``[multivariate]``: see ``MultivariateMonitor``."""

    tests: tuple[str, ...] = tuple(test.value for test in Comparison)
    level: float = 0.01
    classifier: str = Classifier.FOREST.value
    sample: int = 1000
    budget_s: float = 2.0


class MultivariateKind:
    """The two-sample tests: over all watched features together, and over each wide tensor."""

    name: Final = "multivariate"

    def read(self, where: str, value: Any) -> MultivariateSettings:
        """See ``MonitorKind``."""
        fields = {
            "tests": list_of(choice(*(test.value for test in Comparison))),
            "level": share,
            "classifier": choice(*(classifier.value for classifier in Classifier)),
            "sample": integer(LEAST_ROWS),
            "budget_s": number,
        }
        return MultivariateSettings(**read_table(table(where, value), fields, f"{where}."))

    def make(self, settings: MultivariateSettings, watched: Watched) -> WindowMonitor:
        """See ``MonitorKind``."""
        return _Multivariate(settings, watched)


class _Multivariate:
    def __init__(self, settings: MultivariateSettings, watched: Watched) -> None:
        profile = watched.profile
        self._layout: Final[Layout] = profile.layout
        self._features: Final[tuple[FeatureProfile, ...]] = profile.features
        self._chosen: Final = [
            place
            for place, feature in enumerate(profile.features)
            if watched.settings.watches(feature.name)
        ]
        references: dict[str, Array] = {}
        if self._chosen:
            references[""] = profile.sample[:, self._chosen]
        references.update(profile.subjects)
        self._monitors: Final = {
            subject: _multivariate(subject, rows, settings) for subject, rows in references.items()
        }

    def take(self, block: Block) -> None:
        """See ``WindowMonitor``."""
        tables, wide = self._layout.tables(block), self._layout.subjects(block)
        for subject, monitor in self._monitors.items():
            if subject:
                monitor.add(wide[subject])
            else:
                monitor.offer(block.rows, self._encoder(tables))

    def _encoder(self, tables: list[FeatureTable]) -> Callable[[Array], Array]:
        """What makes numbers of the rows at some places: of those alone, as text costs much."""

        def encoded(places: Array) -> Array:
            few = [replace(found, values=found.values[places]) for found in tables]
            return encode(few, self._features)[:, self._chosen]

        return encoded

    def end(self, window: Window) -> Iterable[Finding]:
        """See ``WindowMonitor``; of a sliding window, what its last step says."""
        return [found for monitor in self._monitors.values() for found in monitor.findings()]


def _multivariate(subject: str, rows: Array, settings: MultivariateSettings) -> MultivariateMonitor:
    if len(rows) < LEAST_ROWS:
        raise ConfigError(
            f"multivariate: the profile keeps {len(rows)} rows of {subject or 'its features'}, at "
            f"least {LEAST_ROWS} are needed; make it of more rows"
        )
    return MultivariateMonitor(
        subject,
        tests=[Comparison(name) for name in settings.tests],
        level=settings.level,
        warning_level=min(5 * settings.level, 1.0),
        reference=rows,
        classifier=Classifier(settings.classifier),
        sample_rows=settings.sample,
        budget_s=settings.budget_s,
    )


# -- performance without labels ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EstimationSettings:
    """``[estimation]``: which output has the probabilities, and how its reference is used.

    Attributes:
        output: the probabilities of all classes, or of class 1 alone.
        label_output: the class that the model chose; ``""`` for the one of the highest.
        logits: whether ``output`` has logits.
        classes: names of the classes, where labels are names.
        calibrate: whether to; by default where it is better.
        labels: the file of the reference: see ``EstimationKind``.
    """

    output: str
    label_output: str = ""
    logits: bool = False
    classes: tuple[str, ...] = ()
    calibrate: bool | None = None
    labels: str = LABELS_NAME

    def answers(self) -> AnswerSettings:
        """How to read the outputs."""
        return AnswerSettings(
            task=Task.CLASSIFICATION,
            output=self.output,
            label_output=self.label_output or None,
            logits=self.logits,
            classes=self.classes,
        )


class EstimationKind:
    """The accuracy and the area under the ROC curve that are to be expected.

    Its reference is an NPZ file with an array for each output that the settings name, as the model
    gave it for rows that it was not trained on, and with what was true of them: ``truth``.
    """

    name: Final = "estimation"

    def read(self, where: str, value: Any) -> EstimationSettings:
        """See ``MonitorKind``."""
        fields = {
            "output": text,
            "label_output": text,
            "logits": boolean,
            "classes": list_of(text),
            "calibrate": boolean,
            "labels": text,
        }
        values = read_table(table(where, value), fields, f"{where}.")
        if "output" not in values:
            raise ConfigError(f"{where}.output is missing: name the output with the probabilities")
        return EstimationSettings(**values)

    def make(self, settings: EstimationSettings, watched: Watched) -> WindowMonitor:
        """See ``MonitorKind``."""
        path, arrays = _labels(watched.source.path, settings.labels)
        try:
            truth = arrays.pop("truth")
            judged = Answers(settings.answers()).judged(arrays, truth)
            estimator = PerformanceEstimator(
                judged,
                window_rows=watched.settings.window.rows or ROWS_BY_TIME,
                calibrate=settings.calibrate,
            )
        except KeyError as error:
            raise ConfigError(f"{path} has no array {error}; it has {', '.join(arrays)}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None
        return _Estimation(EstimationMonitor(estimator, settings.answers()))


def _labels(model: Path, name: str) -> tuple[Path, dict[str, Array]]:
    tried = [model.parent / name, model.parent.parent / name]
    for path in tried:
        if path.is_file():
            try:
                with np.load(path, allow_pickle=False) as file:
                    return path, dict(file)
            except (OSError, ValueError) as error:
                raise ConfigError(f"{path} is no NPZ file of plain arrays: {error}") from None
    places = " nor ".join(str(path) for path in tried)
    raise ConfigError(
        f"estimation.labels: there is neither {places}; write one with numpy.savez: an array "
        "for each output that is named, and 'truth'"
    )


@dataclass(slots=True)
class _Estimation:
    monitor: EstimationMonitor

    def take(self, block: Block) -> None:
        """See ``WindowMonitor``."""
        self.monitor.add(block.outputs)

    def end(self, window: Window) -> Iterable[Finding]:
        """See ``WindowMonitor``; of a sliding window, what its last step says."""
        return self.monitor.findings()


#: All of them.
FURTHER_KINDS: Final[tuple[MonitorKind, ...]] = (OnlineKind(), MultivariateKind(), EstimationKind())
