"""Prometheus metrics of the prediction stream: the account of every subscriber.

As those in ``metrics.py`` they are made of plain counters when somebody scrapes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Account(Protocol):
    """What became of a model's predictions on their way to one subscriber, in rows."""

    served: int
    sampled_out: int
    dropped: dict[str, int]
    delivered: int
    lost: dict[str, int]

    @property
    def buffered(self) -> int:
        """On their way."""


class Health(Protocol):
    """How a sink fares."""

    up: bool | None
    retries: int
    last_error_at: float


@dataclass(frozen=True, slots=True)
class StreamSample:
    """The stream at the moment of a scrape.

    Attributes:
        served: rows answered, by model and version.
        accounts: the subscriber, the model, and what became of its predictions.
        buffered_bytes: memory of what waits, by subscriber.
        watching: clients that watch predictions live.
        sinks: how each sink fares, by name.
    """

    served: Mapping[tuple[str, str], int] = field(default_factory=dict)
    accounts: Sequence[tuple[str, str, Account]] = ()
    buffered_bytes: Mapping[str, int] = field(default_factory=dict)
    watching: int = 0
    sinks: Mapping[str, Health] = field(default_factory=dict)


class StreamCollector(Collector):
    """The metrics of what ``sample`` gives; for the event loop's thread."""

    def __init__(self, sample: Callable[[], StreamSample]) -> None:
        self._sample = sample

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family, made anew."""
        sample = self._sample()
        served = CounterMetricFamily(
            "onnx_gateway_stream_served",
            "Predictions (rows) that callers were answered.",
            labels=("model", "version"),
        )
        for labels, rows in sample.served.items():
            served.add_metric(labels, rows)
        yield served
        yield from _accounts(sample)
        held = GaugeMetricFamily(
            "onnx_gateway_stream_buffered_bytes",
            "Memory of the predictions that wait for a subscriber.",
            labels=("subscriber",),
        )
        for name, size in sample.buffered_bytes.items():
            held.add_metric((name,), size)
        yield held
        yield GaugeMetricFamily(
            "onnx_gateway_stream_subscribers",
            "Clients that watch predictions live.",
            sample.watching,
        )
        yield from _sinks(sample)


def _accounts(sample: StreamSample) -> Iterator[Metric]:
    by_model = ("subscriber", "model")
    outcomes = CounterMetricFamily(
        "onnx_gateway_stream_predictions",
        "Predictions (rows) by what became of them on their way to a subscriber; with those that "
        "are buffered they are those that were offered.",
        labels=(*by_model, "outcome"),
    )
    offered = CounterMetricFamily(
        "onnx_gateway_stream_offered",
        "Predictions (rows) answered since the subscription began.",
        labels=by_model,
    )
    buffered = GaugeMetricFamily(
        "onnx_gateway_stream_buffered",
        "Predictions (rows) on their way to a subscriber.",
        labels=by_model,
    )
    for subscriber, model, account in sample.accounts:
        labels = (subscriber, model)
        offered.add_metric(labels, account.served)
        buffered.add_metric(labels, account.buffered)
        outcomes.add_metric((*labels, "delivered"), account.delivered)
        outcomes.add_metric((*labels, "sampled_out"), account.sampled_out)
        for reason, rows in sorted(account.dropped.items()):
            outcomes.add_metric((*labels, f"dropped_{reason}"), rows)
        for reason, rows in sorted(account.lost.items()):
            outcomes.add_metric((*labels, f"lost_{reason}"), rows)
    yield from (outcomes, offered, buffered)


def _sinks(sample: StreamSample) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "onnx_gateway_sink_up",
        "1 where the last try to deliver went well; missing before the first.",
        labels=("sink",),
    )
    retries = CounterMetricFamily(
        "onnx_gateway_sink_retries",
        "Tries to deliver that followed a failed one.",
        labels=("sink",),
    )
    failed = GaugeMetricFamily(
        "onnx_gateway_sink_last_error_timestamp_seconds",
        "When a sink failed or was refused for the last time; missing where it never was.",
        labels=("sink",),
    )
    for name, health in sample.sinks.items():
        if health.up is not None:
            up.add_metric((name,), float(health.up))
        retries.add_metric((name,), health.retries)
        if health.last_error_at:
            failed.add_metric((name,), health.last_error_at)
    yield from (up, retries, failed)
