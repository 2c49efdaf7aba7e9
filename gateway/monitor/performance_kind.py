"""The performance of the versions that ask for it: ``[performance]`` of a ``monitor.toml``."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.monitor.answers import AnswerSettings, Task
from gateway.monitor.findings import Finding, Level
from gateway.monitor.judge import Limit
from gateway.monitor.kinds import Watched, WindowMonitor
from gateway.monitor.labels import Joined
from gateway.monitor.monitor_file import seconds
from gateway.monitor.performance import Alarm, PerformanceMonitor, PerformanceSettings
from gateway.monitor.quality import CLASSIFICATION, REGRESSION
from gateway.monitor.windows import Window
from gateway.stream.block import Block
from gateway.tables import boolean, choice, integer, list_of, read_table, share, table, text, wrong

#: Versions that labels are taken for; of more, the one that came first is let go.
MOST_VERSIONS: Final = 256

_ORDER: Final = (Level.NO_DATA, Level.OK, Level.WARNING, Level.DRIFTED)


class PerformanceKind:
    """Measures versions by their labels: a ``MonitorKind`` that is a ``TruthListener`` too.

    Labels come when they come, so that its windows are not those of the predictions. At the end of
    one of those it tells of the windows of labels that have closed since the one before, of each
    figure the worst.
    """

    name: str = "performance"

    def __init__(self) -> None:
        self._versions: Final[dict[tuple[str, str], PerformanceMonitor]] = {}
        self._lock: Final = threading.Lock()

    def read(self, where: str, value: Any) -> PerformanceSettings:
        """See ``MonitorKind``."""
        return read_performance(where, value)

    def make(self, settings: PerformanceSettings, watched: Watched) -> WindowMonitor:
        """See ``MonitorKind``; takes the place of what there was of the version."""
        source = watched.source
        monitor = PerformanceMonitor(source.model, settings)
        key = (source.model, source.version)
        with self._lock:
            self._versions.pop(key, None)
            self._versions[key] = monitor
            while len(self._versions) > MOST_VERSIONS:
                del self._versions[next(iter(self._versions))]
        return _Performance(monitor)

    def joined(self, batch: Joined) -> int:
        """See ``TruthListener``. Labels of a version that is not measured are nobody's loss."""
        with self._lock:
            monitor = self._versions.get((batch.model, batch.version))
        return 0 if monitor is None else monitor.joined(batch)


@dataclass(slots=True)
class _Performance:
    monitor: PerformanceMonitor

    def take(self, block: Block) -> None:
        """See ``WindowMonitor``; it is the labels that tell."""

    def end(self, window: Window) -> Iterable[Finding]:
        """See ``WindowMonitor``."""
        worst: dict[str, Finding] = {}
        for report in self.monitor.close(window.ended):
            for finding in report.findings:
                known = worst.get(finding.test)
                if known is None or _ORDER.index(finding.level) >= _ORDER.index(known.level):
                    worst[finding.test] = finding
        return worst.values()


def read_performance(where: str, value: Any) -> PerformanceSettings:
    """The settings in the table ``value`` of ``monitor.toml``, at ``where``.

    Raises:
        ConfigError: something in it is wrong.
    """
    values = read_table(table(where, value), _FIELDS, f"{where}.")
    for key in ("task", "output"):
        if key not in values:
            raise ConfigError(f"{where}.{key} is missing")
    answers = AnswerSettings(
        task=Task(values.pop("task")),
        **{key: values.pop(key) for key in _ANSWERS if key in values},
    )
    if "window_rows" in values and "window_s" in values:
        raise ConfigError(f"{where}: a window has window_rows or window_s, not both")
    if "window_s" in values:
        values["window_rows"] = None
    alarms = [Alarm(name) for name in values.pop("alarms", ())]
    regressive = answers.task is Task.REGRESSION
    known = REGRESSION if regressive else CLASSIFICATION
    for figure in values.get("limits", {}):
        if figure not in known:
            raise wrong(f"{where}.limits", f"a table of {', '.join(known)}", figure)
    if regressive and alarms:
        raise ConfigError(f"{where}.alarms are over a classifier's errors; this is a regression")
    return PerformanceSettings(answers=answers, alarms=alarms, **values)


def _limit(where: str, value: Any) -> Limit:
    """``{ warning = ..., drifted = ... }``, or a number alone, which is ``drifted``."""
    if not isinstance(value, dict):
        return Limit(drifted=_number(where, value))
    values = read_table(value, {"warning": _number, "drifted": _number}, f"{where}.")
    if "drifted" not in values:
        raise ConfigError(f"{where}.drifted is missing")
    return Limit(**values)


def _number(where: str, value: Any) -> float:
    """A finite number, which for R2 may be below 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise wrong(where, "a finite number", value)
    return float(value)


def _limits(where: str, value: Any) -> Mapping[str, Limit]:
    given = table(where, value)
    return read_table(given, dict.fromkeys((*CLASSIFICATION, *REGRESSION), _limit), f"{where}.")


_ANSWERS: Final = ("output", "label_output", "logits", "classes")
_FIELDS: Final = {
    "task": choice(*(task.value for task in Task)),
    "output": text,
    "label_output": text,
    "logits": boolean,
    "classes": list_of(text),
    "window_rows": integer(1),
    "window_s": seconds,
    "patience_s": seconds,
    "least_rows": integer(1),
    "most_rows": integer(1),
    "limits": _limits,
    "confidence": share,
    "alarms": list_of(choice(*(alarm.value for alarm in Alarm))),
}
