"""Prometheus metrics of ground truth: what became of the labels of each model.

As those in ``metrics.py`` they are made of plain counters when somebody scrapes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class LabelSample:
    """The labels of one model at the moment of a scrape.

    Attributes:
        outcomes: how many ended how.
        received: how many there were; those that are not in ``outcomes`` wait.
        waiting: for a prediction that is not there yet.
        held: predictions (rows) that are kept for labels.
        too_late: joined rows whose window was closed already, by who says so.
    """

    model: str
    outcomes: Mapping[str, int]
    received: int
    waiting: int
    held: int
    too_late: Mapping[str, int]


class LabelCollector(Collector):
    """The metrics of what ``samples`` gives; for the event loop's thread."""

    def __init__(self, samples: Callable[[], Sequence[LabelSample]]) -> None:
        self._samples = samples

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family, made anew."""
        received = CounterMetricFamily(
            "onnx_gateway_labels_received", "Labels that were received.", labels=("model",)
        )
        ended = CounterMetricFamily(
            "onnx_gateway_labels",
            "Labels by what became of them; with those that wait they are those received.",
            labels=("model", "outcome"),
        )
        late = CounterMetricFamily(
            "onnx_gateway_labels_too_late",
            "Labels that were joined with a prediction of a window that was closed already.",
            labels=("model", "listener"),
        )
        waiting = GaugeMetricFamily(
            "onnx_gateway_labels_waiting",
            "Labels that wait for a prediction that is not there yet.",
            labels=("model",),
        )
        held = GaugeMetricFamily(
            "onnx_gateway_labels_held_predictions",
            "Predictions (rows) that are kept for labels.",
            labels=("model",),
        )
        for sample in self._samples():
            received.add_metric((sample.model,), sample.received)
            waiting.add_metric((sample.model,), sample.waiting)
            held.add_metric((sample.model,), sample.held)
            for outcome, count in sample.outcomes.items():
                ended.add_metric((sample.model, outcome), count)
            for listener, count in sorted(sample.too_late.items()):
                late.add_metric((sample.model, listener), count)
        yield from (received, ended, late, waiting, held)
