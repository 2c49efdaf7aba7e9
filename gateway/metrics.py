"""Prometheus metrics, made of plain counters when somebody scrapes.

Nothing here runs for a request: a lane counts into integers of its own, and ``GatewayMetrics``
reads them, through functions that it was given, at scrape time on the event loop's thread. Names
under ``onnx_gateway_`` follow Prometheus' conventions (base units, ``_total``); the
``nv_inference_`` counters repeat what Triton exports, in its units and under its names, so that
dashboards and alerts made for Triton keep working.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.alert_metrics import AlertCollector, AlertsSample
from gateway.drift_metrics import DriftCollector, DriftSample
from gateway.label_metrics import LabelCollector, LabelSample
from gateway.rollout_metrics import ModelSample, RolloutCollector
from gateway.stream_metrics import StreamCollector, StreamSample

#: The content type of what ``GatewayMetrics.exposition`` gives.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Upper bounds of the batch size histogram, in rows.
BATCH_SIZE_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class LaneStats(Protocol):
    """The counters of one model version; ``_ns`` are sums of nanoseconds.

    ``batch_sizes`` maps rows to ``[runs, input_ns, infer_ns, output_ns]``. A histogram has one
    count for each bound of ``latency_bounds_ns`` and a last one for what lies past them.
    """

    requests_ok: int
    requests_failed: int
    requests_cancelled: int
    rows: int
    batches: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int
    total_ns: int
    failed_ns: int
    last_inference_ms: int

    @property
    def rejected(self) -> Mapping[str, int]:
        """Refused requests by reason."""

    @property
    def batch_sizes(self) -> Mapping[int, Sequence[int]]:
        """What ran, by rows in the batch."""

    @property
    def queue_histogram(self) -> Sequence[int]:
        """Requests by time in the queue."""

    @property
    def compute_histogram(self) -> Sequence[int]:
        """Requests by the run time of their batch."""

    @property
    def total_histogram(self) -> Sequence[int]:
        """Requests by time from arrival to answer."""


@dataclass(frozen=True, slots=True)
class VersionSample:
    """One model version at the moment of a scrape.

    ``stats`` is ``None`` where it has no lane; ``memory_bytes`` is 0 where it is not loaded.
    """

    model: str
    version: str
    state: str
    queue_depth: int
    stats: LaneStats | None
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ServerSample:
    """The server as a whole at the moment of a scrape.

    ``rejected`` counts by reason; ``memory_budget_bytes`` is 0 for no limit but the machine's.
    """

    ready: bool
    inflight: int
    rejected: Mapping[str, int]
    memory_budget_bytes: int = 0


class GatewayMetrics:
    """All metrics of a server. Use on the event loop's thread only."""

    def __init__(
        self,
        server: Callable[[], ServerSample],
        versions: Callable[[], Iterable[VersionSample]],
        rollouts: Callable[[], Iterable[ModelSample]],
        stream: Callable[[], StreamSample],
        labels: Callable[[], Sequence[LabelSample]] = tuple,
        drift: Callable[[], Sequence[DriftSample]] = tuple,
        alerts: Callable[[], AlertsSample] = AlertsSample,
        *,
        states: Sequence[str],
        latency_bounds_ns: Sequence[int],
        build: Mapping[str, str],
    ) -> None:
        """Make the metrics of what the functions give at scrape time.

        Args:
            states: every state that a version can have.
            latency_bounds_ns: upper bounds of the histograms of ``LaneStats``.
            build: labels of ``onnx_gateway_build_info``: versions of the server and its parts.
        """
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(_ServerCollector(server, build))
        self._registry.register(_VersionCollector(versions, states, latency_bounds_ns))
        self._registry.register(RolloutCollector(rollouts))
        self._registry.register(StreamCollector(stream))
        self._registry.register(LabelCollector(labels))
        self._registry.register(AlertCollector(alerts))
        self._registry.register(DriftCollector(drift))

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format, of ``CONTENT_TYPE``."""
        return generate_latest(self._registry)


class _ServerCollector(Collector):
    def __init__(self, sample: Callable[[], ServerSample], build: Mapping[str, str]) -> None:
        self._sample = sample
        self._build = dict(build)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        sample = self._sample()
        yield InfoMetricFamily("onnx_gateway_build", "Versions of the server.", self._build)
        yield GaugeMetricFamily(
            "onnx_gateway_ready", "1 where the server is ready.", float(sample.ready)
        )
        yield GaugeMetricFamily(
            "onnx_gateway_inflight_requests",
            "Inference requests inside the server.",
            sample.inflight,
        )
        rejected = CounterMetricFamily(
            "onnx_gateway_server_rejected_requests",
            "Inference requests refused before they reached a model, by reason.",
            labels=("reason",),
        )
        for reason, count in sorted(sample.rejected.items()):
            rejected.add_metric((reason,), count)
        yield rejected
        yield GaugeMetricFamily(
            "onnx_gateway_memory_budget_bytes",
            "Host memory that loaded versions may take together; 0 for no limit but the machine's.",
            sample.memory_budget_bytes,
        )


class _VersionCollector(Collector):
    def __init__(
        self,
        samples: Callable[[], Iterable[VersionSample]],
        states: Sequence[str],
        latency_bounds_ns: Sequence[int],
    ) -> None:
        self._samples = samples
        self._states = states
        self._le = [f"{ns / 1e9:g}" for ns in latency_bounds_ns] + ["+Inf"]

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        samples = list(self._samples())
        measured = [
            ((sample.model, sample.version), sample, sample.stats)
            for sample in samples
            if sample.stats is not None
        ]
        yield self._state(samples)
        yield _memory(samples)
        yield from _requests(measured)
        yield from self._latencies(measured)
        yield _batch_sizes(measured)
        yield from _triton(measured)

    def _state(self, samples: Iterable[VersionSample]) -> Metric:
        family = GaugeMetricFamily(
            "onnx_gateway_model_state",
            "1 for the state that a model version is in, 0 for the others.",
            labels=("model", "version", "state"),
        )
        for sample in samples:
            for state in self._states:
                labels = (sample.model, sample.version, state)
                family.add_metric(labels, float(state == sample.state))
        return family

    def _latencies(self, measured: "_Measured") -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "onnx_gateway_request_duration_seconds",
            "Time of answered requests by stage: waiting in the queue, in the run of their batch, "
            "and in all, from arrival to answer.",
            labels=("model", "version", "stage"),
        )
        for labels, _, stats in measured:
            for stage, counts, sum_ns in (
                ("queue", stats.queue_histogram, stats.queue_ns),
                ("compute", stats.compute_histogram, stats.infer_ns),
                ("total", stats.total_histogram, stats.total_ns),
            ):
                family.add_metric((*labels, stage), _cumulative(self._le, counts), sum_ns / 1e9)
        yield family


_Measured = Sequence[tuple[tuple[str, str], VersionSample, LaneStats]]


def _cumulative(bounds: Sequence[str], counts: Iterable[int]) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def _memory(samples: Iterable[VersionSample]) -> Metric:
    family = GaugeMetricFamily(
        "onnx_gateway_model_memory_bytes",
        "Host memory that stands for a model version: what was measured at its load or what its "
        "files hold, whichever is more.",
        labels=("model", "version"),
    )
    for sample in samples:
        if sample.memory_bytes:
            family.add_metric((sample.model, sample.version), sample.memory_bytes)
    return family


def _requests(measured: _Measured) -> Iterator[Metric]:
    by_version = ("model", "version")
    requests = CounterMetricFamily(
        "onnx_gateway_requests",
        "Requests that reached a model, by result.",
        labels=(*by_version, "result"),
    )
    rejected = CounterMetricFamily(
        "onnx_gateway_rejected_requests",
        "Requests that a model refused or gave up, by reason.",
        labels=(*by_version, "reason"),
    )
    rows = CounterMetricFamily("onnx_gateway_rows", "Rows inferred.", labels=by_version)
    depth = GaugeMetricFamily(
        "onnx_gateway_queue_depth", "Requests that wait in the queue.", labels=by_version
    )
    for labels, sample, stats in measured:
        requests.add_metric((*labels, "ok"), stats.requests_ok)
        requests.add_metric((*labels, "failed"), stats.requests_failed)
        requests.add_metric((*labels, "cancelled"), stats.requests_cancelled)
        for reason, count in sorted(stats.rejected.items()):
            rejected.add_metric((*labels, reason), count)
        rows.add_metric(labels, stats.rows)
        depth.add_metric(labels, sample.queue_depth)
    yield from (requests, rejected, rows, depth)


def _batch_sizes(measured: _Measured) -> Metric:
    family = HistogramMetricFamily(
        "onnx_gateway_batch_size_rows", "Rows in a run of a model.", labels=("model", "version")
    )
    bounds = [str(bound) for bound in BATCH_SIZE_BOUNDS] + ["+Inf"]
    for labels, _, stats in measured:
        counts = [0] * len(bounds)
        for rows, entry in stats.batch_sizes.items():
            index = sum(rows > bound for bound in BATCH_SIZE_BOUNDS)
            counts[index] += entry[0]
        family.add_metric(labels, _cumulative(bounds, counts), stats.rows)
    return family


def _triton(measured: _Measured) -> Iterator[Metric]:
    """Triton's counters. They lack the suffix ``_total`` that a counter family would append."""

    def family(name: str, help: str, value: Callable[[VersionSample, LaneStats], float]) -> Metric:
        metric = Metric(name, help, "unknown")
        for (model, version), sample, stats in measured:
            metric.add_sample(
                name, {"model": model, "version": version}, float(value(sample, stats))
            )
        return metric

    def microseconds(attribute: str) -> Callable[[VersionSample, LaneStats], float]:
        return lambda _, stats: int(getattr(stats, attribute)) // 1000

    yield family("nv_inference_request_success", "Requests answered.", lambda _, s: s.requests_ok)
    yield family("nv_inference_request_failure", "Requests failed.", lambda _, s: s.requests_failed)
    yield family("nv_inference_count", "Rows inferred.", lambda _, s: s.rows)
    yield family("nv_inference_exec_count", "Runs of the model.", lambda _, s: s.batches)
    for name, attribute in (
        ("request", "total_ns"),
        ("queue", "queue_ns"),
        ("compute_input", "input_ns"),
        ("compute_infer", "infer_ns"),
        ("compute_output", "output_ns"),
    ):
        yield family(
            f"nv_inference_{name}_duration_us",
            f"Sum of the requests' {name.replace('_', ' ')} time in microseconds.",
            microseconds(attribute),
        )
    yield family(
        "nv_inference_pending_request_count",
        "Requests that wait in the queue.",
        lambda sample, _: sample.queue_depth,
    )
