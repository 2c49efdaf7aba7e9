"""Prometheus metrics of the monitors: the last window of every version that is watched.

As those in ``metrics.py`` they are made of plain figures when somebody scrapes. What makes series
is bounded by whoever makes the samples: features and tests are the model's, not the callers'.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class DriftValue(NamedTuple):
    """One finding: a figure, its p-value where it has one, and how bad it is from 0 to 3."""

    subject: str
    test: str
    value: float
    p_value: float | None
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSample:
    """A watched version at the moment of a scrape.

    Attributes:
        level: the worst of the last window: 0 no data, 1 ok, 2 warning, 3 drifted.
        windows: how many there were.
        rows: predictions that were looked at.
        unlike_rows: predictions that could not be, because they are unlike the reference.
        rows_to_collect: that the reference still needs.
        failed: whether it is not watched as its file says.
        values: of the last window.
        values_left_out: how many more there were.
    """

    model: str
    version: str
    level: int
    windows: int
    rows: int
    unlike_rows: int
    rows_to_collect: int
    failed: bool
    values: tuple[DriftValue, ...]
    values_left_out: int


_BY_VERSION = ("model", "version")
_BY_TEST = (*_BY_VERSION, "subject", "test")


class DriftCollector(Collector):
    """The metrics of what ``sample`` gives; for the event loop's thread."""

    def __init__(self, sample: Callable[[], Sequence[DriftSample]]) -> None:
        self._sample = sample

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family, made anew."""
        samples = self._sample()
        yield from _of_versions(samples)
        yield from _of_tests(samples)


def _of_versions(samples: Sequence[DriftSample]) -> Iterator[Metric]:
    gauges: tuple[tuple[str, str, Callable[[DriftSample], float]], ...] = (
        (
            "onnx_gateway_drift_level",
            "The worst that was found in the last window: 0 no data, 1 ok, 2 warning, 3 drifted.",
            lambda sample: sample.level,
        ),
        (
            "onnx_gateway_drift_reference_rows_wanted",
            "Predictions (rows) that are still collected before windows are compared with them.",
            lambda sample: sample.rows_to_collect,
        ),
        (
            "onnx_gateway_drift_failed",
            "1 where a version is not monitored as its monitor.toml says; the log says why.",
            lambda sample: sample.failed,
        ),
        (
            "onnx_gateway_drift_values_left_out",
            "Figures of the last window that have no series, because there are too many.",
            lambda sample: sample.values_left_out,
        ),
    )
    counters: tuple[tuple[str, str, Callable[[DriftSample], float]], ...] = (
        (
            "onnx_gateway_drift_windows",
            "Windows that have ended.",
            lambda sample: sample.windows,
        ),
        (
            "onnx_gateway_drift_rows",
            "Predictions (rows) that the monitors have looked at.",
            lambda sample: sample.rows,
        ),
        (
            "onnx_gateway_drift_unlike_rows",
            "Predictions (rows) that could not be compared with the reference.",
            lambda sample: sample.unlike_rows,
        ),
    )
    for name, text, figure in gauges:
        gauge = GaugeMetricFamily(name, text, labels=_BY_VERSION)
        for sample in samples:
            gauge.add_metric((sample.model, sample.version), figure(sample))
        yield gauge
    for name, text, figure in counters:
        counter = CounterMetricFamily(name, text, labels=_BY_VERSION)
        for sample in samples:
            counter.add_metric((sample.model, sample.version), figure(sample))
        yield counter


def _of_tests(samples: Sequence[DriftSample]) -> Iterator[Metric]:
    value = GaugeMetricFamily(
        "onnx_gateway_drift_value",
        "The figure of a test of a feature or output (subject) in the last window.",
        labels=_BY_TEST,
    )
    p_value = GaugeMetricFamily(
        "onnx_gateway_drift_p_value",
        "Its p-value, corrected for the number of features.",
        labels=_BY_TEST,
    )
    level = GaugeMetricFamily(
        "onnx_gateway_drift_value_level",
        "What follows: 1 ok, 2 warning, 3 drifted.",
        labels=_BY_TEST,
    )
    for sample in samples:
        for found in sample.values:
            labels = (sample.model, sample.version, found.subject, found.test)
            value.add_metric(labels, found.value)
            level.add_metric(labels, found.level)
            if found.p_value is not None:
                p_value.add_metric(labels, found.p_value)
    yield from (value, p_value, level)
