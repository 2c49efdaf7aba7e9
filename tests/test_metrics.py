from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import GatewayMetrics, ServerSample, VersionSample
from gateway.rollout_metrics import CanarySample, ModelSample, ShadowSample
from gateway.stream.subscription import Account
from gateway.stream_metrics import StreamSample

BOUNDS_NS = (1_000_000, 1_000_000_000)


@dataclass
class Counters:
    requests_ok: int = 10
    requests_failed: int = 2
    requests_cancelled: int = 1
    rows: int = 41
    batches: int = 3
    queue_ns: int = 5_000_000
    input_ns: int = 1_000
    infer_ns: int = 2_500_000_000
    output_ns: int = 2_999
    total_ns: int = 7_000_000_000
    failed_ns: int = 0
    last_inference_ms: int = 0
    rejected: dict[str, int] = field(default_factory=lambda: {"queue_full": 4})
    batch_sizes: dict[int, list[int]] = field(
        default_factory=lambda: {1: [1, 0, 0, 0], 20: [2, 0, 0, 0]}
    )
    queue_histogram: tuple[int, ...] = (9, 1, 0)
    compute_histogram: tuple[int, ...] = (0, 9, 1)
    total_histogram: tuple[int, ...] = (0, 8, 2)


@dataclass
class SinkHealth:
    up: bool | None
    retries: int
    last_error_at: float


#: 90 predictions were offered, of which 10 are on their way.
ACCOUNT = Account(
    served=90, sampled_out=20, dropped={"buffer_full": 5}, put=65, delivered=52, lost={"gone": 3}
)


@pytest.fixture
def metrics() -> GatewayMetrics:
    versions = [
        VersionSample("mlp", "1", "READY", 5, Counters(), memory_bytes=21_000_000),
        VersionSample("bad", "2", "FAILED", 0, None),
    ]
    return GatewayMetrics(
        lambda: ServerSample(
            ready=True, inflight=7, rejected={"unknown_model": 3}, memory_budget_bytes=1 << 30
        ),
        lambda: versions,
        lambda: [
            ModelSample(
                model="mlp",
                serving="1",
                loads={"ok": 2, "failed": 1},
                canary=CanarySample(version="2", phase="running", percent=5),
                shadow=ShadowSample(model="mlp", version="3", requests={"paired": 8}),
            ),
            ModelSample(model="bad", serving=""),
        ],
        lambda: StreamSample(
            served={("mlp", "1"): 100},
            accounts=[("audit", "mlp", ACCOUNT)],
            buffered_bytes={"audit": 4096},
            sinks={"audit": SinkHealth(False, 6, 1.7e9), "fresh": SinkHealth(None, 0, 0.0)},
        ),
        states=("READY", "FAILED"),
        latency_bounds_ns=BOUNDS_NS,
        build={"version": "1.2.3"},
    )


def scrape(metrics: GatewayMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("onnx_gateway_build_info", {"version": "1.2.3"}, 1),
        ("onnx_gateway_ready", {}, 1),
        ("onnx_gateway_inflight_requests", {}, 7),
        ("onnx_gateway_memory_budget_bytes", {}, 1 << 30),
        ("onnx_gateway_model_memory_bytes", {"model": "mlp", "version": "1"}, 21_000_000),
        ("onnx_gateway_server_rejected_requests_total", {"reason": "unknown_model"}, 3),
        ("onnx_gateway_requests_total", {"result": "ok"}, 10),
        ("onnx_gateway_requests_total", {"result": "failed"}, 2),
        ("onnx_gateway_requests_total", {"result": "cancelled"}, 1),
        ("onnx_gateway_rejected_requests_total", {"reason": "queue_full"}, 4),
        ("onnx_gateway_rows_total", {}, 41),
        ("onnx_gateway_queue_depth", {}, 5),
        ("onnx_gateway_model_state", {"state": "READY"}, 1),
        ("onnx_gateway_model_state", {"state": "FAILED"}, 0),
        ("onnx_gateway_request_duration_seconds_bucket", {"stage": "queue", "le": "0.001"}, 9),
        ("onnx_gateway_request_duration_seconds_bucket", {"stage": "queue", "le": "1"}, 10),
        ("onnx_gateway_request_duration_seconds_bucket", {"stage": "compute", "le": "+Inf"}, 10),
        ("onnx_gateway_request_duration_seconds_sum", {"stage": "compute"}, 2.5),
        ("onnx_gateway_request_duration_seconds_count", {"stage": "total"}, 10),
        ("onnx_gateway_batch_size_rows_bucket", {"le": "1"}, 1),
        ("onnx_gateway_batch_size_rows_bucket", {"le": "16"}, 1),
        ("onnx_gateway_batch_size_rows_bucket", {"le": "32"}, 3),
        ("onnx_gateway_batch_size_rows_sum", {}, 41),
        ("onnx_gateway_batch_size_rows_count", {}, 3),
        ("nv_inference_request_success", {}, 10),
        ("nv_inference_request_failure", {}, 2),
        ("nv_inference_count", {}, 41),
        ("nv_inference_exec_count", {}, 3),
        ("nv_inference_request_duration_us", {}, 7_000_000),
        ("nv_inference_queue_duration_us", {}, 5_000),
        ("nv_inference_compute_input_duration_us", {}, 1),
        ("nv_inference_compute_infer_duration_us", {}, 2_500_000),
        ("nv_inference_compute_output_duration_us", {}, 2),
        ("nv_inference_pending_request_count", {}, 5),
    ],
)
def test_a_counter_is_exposed_under_its_name_in_its_unit(
    metrics: GatewayMetrics, name: str, labels: dict[str, str], value: float
) -> None:
    of_server = {"build", "ready", "inflight", "server", "memory"}
    if not any(name.startswith(f"onnx_gateway_{word}") for word in of_server):
        labels = {"model": "mlp", "version": "1", **labels}
    assert scrape(metrics)[name, frozenset(labels.items())] == value


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("onnx_gateway_model_serving", {"version": "1"}, 1),
        ("onnx_gateway_model_loads_total", {"outcome": "ok"}, 2),
        ("onnx_gateway_model_loads_total", {"outcome": "failed"}, 1),
        ("onnx_gateway_canary_percent", {"version": "2"}, 5),
        ("onnx_gateway_canary_phase", {"version": "2", "phase": "running"}, 1),
        (
            "onnx_gateway_shadow_requests_total",
            {"shadow_model": "mlp", "shadow_version": "3", "outcome": "paired"},
            8,
        ),
    ],
)
def test_a_rollout_is_exposed(
    metrics: GatewayMetrics, name: str, labels: dict[str, str], value: float
) -> None:
    assert scrape(metrics)[name, frozenset({"model": "mlp", **labels}.items())] == value


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("onnx_gateway_stream_served_total", {"model": "mlp", "version": "1"}, 100),
        ("onnx_gateway_stream_offered_total", {"subscriber": "audit", "model": "mlp"}, 90),
        ("onnx_gateway_stream_buffered", {"subscriber": "audit", "model": "mlp"}, 10),
        ("onnx_gateway_stream_buffered_bytes", {"subscriber": "audit"}, 4096),
    ],
)
def test_the_stream_is_exposed(
    metrics: GatewayMetrics, name: str, labels: dict[str, str], value: float
) -> None:
    assert scrape(metrics)[name, frozenset(labels.items())] == value


def test_of_a_subscriber_every_prediction_is_accounted_for(metrics: GatewayMetrics) -> None:
    outcomes = {
        dict(labels)["outcome"]: value
        for (name, labels), value in scrape(metrics).items()
        if name == "onnx_gateway_stream_predictions_total"
    }
    assert outcomes == {
        "delivered": 52,
        "sampled_out": 20,
        "dropped_buffer_full": 5,
        "lost_gone": 3,
    }
    assert sum(outcomes.values()) + 10 == 90


def test_a_version_without_a_lane_shows_its_state_alone(metrics: GatewayMetrics) -> None:
    names = {name for name, labels in scrape(metrics) if ("model", "bad") in labels}
    assert names == {"onnx_gateway_model_state"}


def test_the_process_is_measured(metrics: GatewayMetrics) -> None:
    names = {name for name, _ in scrape(metrics)}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total"} <= names


def test_how_a_sink_fares_is_told_once_it_has_tried(metrics: GatewayMetrics) -> None:
    found = {key: value for key, value in scrape(metrics).items() if "_sink_" in key[0]}
    audit, fresh = (frozenset({("sink", name)}) for name in ("audit", "fresh"))
    assert found == {
        ("onnx_gateway_sink_up", audit): 0,
        ("onnx_gateway_sink_retries_total", audit): 6,
        ("onnx_gateway_sink_retries_total", fresh): 0,
        ("onnx_gateway_sink_last_error_timestamp_seconds", audit): 1.7e9,
    }
