"""How good a version was in each window, once it is known what was true."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.monitor.answers import Answers, AnswerSettings, Task
from gateway.monitor.error_rate import ErrorAlarm, ErrorDistanceAlarm, ErrorRateAlarm
from gateway.monitor.findings import Finding, Level, WindowReport
from gateway.monitor.judge import Limit, judge
from gateway.monitor.labelled_rows import LabelledRows
from gateway.monitor.labels import Joined
from gateway.monitor.quality import (
    CLASSIFICATION,
    REGRESSION,
    classification,
    regression,
)

Array = npt.NDArray[Any]

#: Levels from good to bad.
_ORDER: Final = (Level.OK, Level.WARNING, Level.DRIFTED)


class Alarm(StrEnum):
    """An alarm over the errors one by one; see ``error_rate.py``."""

    DDM = "ddm"
    EDDM = "eddm"


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceSettings:
    """What is measured of a model.

    Attributes:
        window_rows: labelled predictions of a window, in the order in which they got their labels;
            ``None`` for windows of ``window_s``.
        window_s: seconds of a window, by the time of the prediction, from the epoch on.
        patience_s: how long after its end such a window waits for labels.
        least_rows: labelled rows below which a window says nothing.
        most_rows: rows that a window keeps; further ones are left out, and counted.
        limits: by figure (``accuracy``, ``rmse``, ...).
        confidence: of the intervals.
        alarms: those wanted, of a classifier.
    """

    answers: AnswerSettings
    window_rows: int | None = 1000
    window_s: float = 3600.0
    patience_s: float = 3600.0
    least_rows: int = 50
    most_rows: int = 50_000
    limits: Mapping[str, Limit] = field(default_factory=dict)
    confidence: float = 0.95
    alarms: Sequence[Alarm] = ()


@dataclass(slots=True)
class _Version:
    """The windows and alarms of one version."""

    alarms: dict[Alarm, ErrorAlarm]
    worst: dict[Alarm, Level]
    open: dict[int, LabelledRows] = field(default_factory=dict)
    full: list[LabelledRows] = field(default_factory=list)
    closed: int = 0
    #: Windows of time up to this one are closed.
    past: int = -(1 << 62)
    errors: float = 0.0
    labelled: int = 0

    def next_number(self) -> int:
        """The number of the window that is closed now."""
        self.closed += 1
        return self.closed - 1


class PerformanceMonitor:
    """Measures every version of one model: a ``TruthListener``.

    ``joined`` and ``close`` may be called on two threads.

    Args:
        model: its name.
    """

    def __init__(self, model: str, settings: PerformanceSettings) -> None:
        self.name: Final = f"performance of {model}"
        self.model: Final = model
        self._settings: Final = settings
        self._answers: Final = Answers(settings.answers)
        self._versions: Final[dict[str, _Version]] = {}
        self._lock: Final = threading.Lock()

    def joined(self, batch: Joined) -> int:
        """See ``TruthListener``. Corrections reach rows of windows that are still open."""
        if batch.model != self.model or not len(batch):
            return 0
        order = np.argsort(batch.predicted_at, kind="stable")
        columns, classes = self._columns(batch, batch.truth, order)
        with self._lock:
            version = self._version(batch.version)
            if batch.earlier is None:
                self._alarm(version, columns)
                return self._first(version, columns, classes)
            earlier = self._columns(batch, batch.earlier, order)[0][1]
            return self._correct(version, columns, earlier)

    def close(self, now: float) -> list[WindowReport]:
        """The reports of the windows that are over.

        A window of rows is over once it has them; one of time, ``patience_s`` after its end.

        Args:
            now: Unix seconds.
        """
        with self._lock:
            over = [
                (name, window, version.next_number(), list(_alarms(version)))
                for name, version in self._versions.items()
                for window in self._over(version, now)
            ]
        return [self._report(*closed) for closed in over]

    # -- taking ---------------------------------------------------------------------------------

    def _columns(self, batch: Joined, truth: Array, order: Array) -> tuple[list[Array], int]:
        """Of each row: when, truth, what was said, and its probabilities where they are known."""
        outputs = {name: array[order] for name, array in batch.outputs.items()}
        at, truth = batch.predicted_at[order], truth[order]
        if self._settings.answers.task is Task.REGRESSION:
            return [at, *self._answers.values(outputs, truth)], 0
        read = self._answers.read(outputs)
        columns: list[Array] = [at, self._answers.places(truth), read.predicted]
        if read.probabilities is not None:
            columns.append(read.probabilities)
        elif read.confidence is not None:
            columns.append(read.confidence)
        return columns, read.classes

    def _version(self, name: str) -> _Version:
        version = self._versions.get(name)
        if version is None:
            wanted = self._settings.alarms
            if self._settings.answers.task is Task.REGRESSION:
                wanted = ()
            alarms: dict[Alarm, ErrorAlarm] = {
                alarm: ErrorRateAlarm() if alarm is Alarm.DDM else ErrorDistanceAlarm()
                for alarm in wanted
            }
            version = _Version(alarms, dict.fromkeys(alarms, Level.OK))
            self._versions[name] = version
        return version

    def _first(self, version: _Version, columns: list[Array], classes: int) -> int:
        settings = self._settings
        if settings.window_rows is None:
            numbers = np.floor(columns[0] / settings.window_s).astype(np.int64)
            late = 0
            for number in np.unique(numbers).tolist():
                chosen = numbers == number
                if number <= version.past:
                    late += int(chosen.sum())
                    continue
                window = version.open.setdefault(number, LabelledRows())
                window.classes = max(window.classes, classes)
                window.add([column[chosen] for column in columns], settings.most_rows)
            return late
        while len(columns[0]):
            window = version.open.setdefault(0, LabelledRows())
            window.classes = max(window.classes, classes)
            taken = settings.window_rows - window.rows
            window.add([column[:taken] for column in columns], settings.window_rows)
            columns = [column[taken:] for column in columns]
            if window.rows == settings.window_rows:
                version.full.append(version.open.pop(0))
        return 0

    def _correct(self, version: _Version, columns: list[Array], earlier: Array) -> int:
        late = 0
        for place in range(len(earlier)):
            row = [column[place : place + 1] for column in columns]
            windows = (*version.full, *version.open.values())
            late += not any(w.correct(row, earlier[place], row[1][0]) for w in windows)
        return late

    def _alarm(self, version: _Version, columns: list[Array]) -> None:
        if not version.alarms:
            return
        wrong = columns[1] != columns[2]
        version.errors += float(wrong.sum())
        version.labelled += len(wrong)
        for name, alarm in version.alarms.items():
            for one in wrong.tolist():
                level = alarm.add(one)
                if _ORDER.index(level) > _ORDER.index(version.worst[name]):
                    version.worst[name] = level

    # -- telling --------------------------------------------------------------------------------

    def _over(self, version: _Version, now: float) -> Iterator[LabelledRows]:
        settings = self._settings
        if settings.window_rows is not None:
            over, version.full = version.full, []
            yield from over
            return
        last = int((now - settings.patience_s) // settings.window_s) - 1
        for number in sorted(version.open):
            if number <= last:
                yield version.open.pop(number)
        version.past = max(version.past, last)

    def _report(
        self, version: str, window: LabelledRows, number: int, alarms: list[Finding]
    ) -> WindowReport:
        return WindowReport(
            model=self.model,
            version=version,
            number=number,
            began=window.began,
            ended=window.ended,
            rows=window.rows,
            findings=(*self._figures(window), *alarms),
        )

    def _figures(self, window: LabelledRows) -> Iterator[Finding]:
        settings = self._settings
        regressive = settings.answers.task is Task.REGRESSION
        known = window.columns()
        good = window.comparable(known, regressive)
        rows = int(good.sum())
        if rows < settings.least_rows:
            detail = f"{rows} labelled rows, {settings.least_rows} are needed"
            for figure in REGRESSION if regressive else CLASSIFICATION[:1]:
                yield Finding(
                    subject="", test=figure, value=None, level=Level.NO_DATA, detail=detail
                )
            return
        columns = [column[good] for column in known]
        if regressive:
            made = regression(columns[1], columns[2], settings.confidence)
        else:
            made = classification(window.judged(columns), settings.confidence)
        told = "labelled"
        if left := window.left_out + len(good) - rows:
            told = f"labelled ({left} more left out)"
        for figure, estimate in made.items():
            yield judge(figure, estimate, settings.limits.get(figure), rows, told)


def _alarms(version: _Version) -> Iterator[Finding]:
    """The worst level of each alarm since the last call, with the share of errors since then."""
    share = version.errors / max(version.labelled, 1)
    for name, level in version.worst.items():
        yield Finding(
            subject="",
            test=name.value,
            value=share,
            level=level,
            detail="" if level is Level.OK else "errors have become more frequent",
        )
        version.worst[name] = Level.OK
    version.errors, version.labelled = 0.0, 0
