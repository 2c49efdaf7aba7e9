"""More work than a model can take, callers that cannot wait, callers that leave, a server that
ends.
"""

import http.client
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fronts import (
    WAYS,
    Front,
    GrpcUnary,
    HttpJson,
    RefusedError,
    Request,
    Tensor,
    Way,
    grpc_message,
)
from tests.server import HOST, GatewayProcess

#: Steps of the ``slow`` model that take long enough for other requests to be sent meanwhile.
LONG = 8_000


def steps(count: int, model: str = "slow") -> Request:
    return Request(model, (Tensor.of("steps", np.array([count], np.int64)),))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def counts(gateway: GatewayProcess, model: str) -> dict[str, int]:
    """The model's statistics: how many requests succeeded, failed, and were queued."""
    status, document = gateway.get(f"/v2/models/{model}/stats")
    assert status == 200
    stats = document["model_stats"][0]
    return {
        "executions": int(stats["execution_count"]),
        **{kind: int(stats["inference_stats"][kind]["count"]) for kind in ("success", "fail")},
    }


class Occupied:
    """The ``slow`` model with its one runner busy on a long request."""

    def __init__(self, gateway: GatewayProcess, pool: ThreadPoolExecutor) -> None:
        self.front = GrpcUnary(gateway)
        self.answer: Future[dict[str, np.ndarray]] = pool.submit(self.front.infer, steps(LONG))
        gateway.wait_until(lambda: is_running(gateway))

    def finish(self) -> None:
        assert self.answer.result(timeout=60)["y"] == [LONG]
        self.front.close()


def test_full_queue(front: Front, pool: ThreadPoolExecutor) -> None:
    """One runs, one waits, and of four more at least two are told to come back later."""
    others = [type(front)(front.gateway) for _ in range(6)]
    answers = [pool.submit(other.infer, steps(LONG // 4, "crowded")) for other in others]
    errors = [answer.exception(timeout=60) for answer in answers]
    refused = [error for error in errors if error is not None]
    assert 2 <= len(refused) < 6
    for error in refused:
        assert isinstance(error, RefusedError)
        assert error.code in ("UNAVAILABLE", None)
        assert "maximum queue size" in error.message
    for other in others:
        other.close()


def test_full_queue_tells_http_when_to_come_back(
    gateway: GatewayProcess, pool: ThreadPoolExecutor
) -> None:
    fronts = [HttpJson(gateway) for _ in range(6)]
    body, headers = fronts[0].encode(steps(LONG // 4, "crowded"))
    path = "/v2/models/crowded/infer"
    answers = [pool.submit(front.post, path, body, headers) for front in fronts]
    results = [answer.result(timeout=60) for answer in answers]
    refused = [headers for status, headers, _ in results if status == 503]
    assert refused
    assert all(int(headers["retry-after"]) >= 1 for headers in refused)
    for front in fronts:
        front.close()


def test_full_queue_tells_grpc_when_to_come_back(grpc_gateway: GatewayProcess) -> None:
    front = GrpcUnary(grpc_gateway)
    message = grpc_message(steps(LONG // 4, "crowded"))
    calls = [front.stub.ModelInfer.future(message, timeout=60) for _ in range(6)]
    errors = [call.exception(timeout=60) for call in calls]
    refused = [error for error in errors if error is not None]
    assert refused
    for error in refused:
        pushback = dict(error.trailing_metadata())["grpc-retry-pushback-ms"]
        assert int(pushback) >= 1000
    front.close()


def is_running(gateway: GatewayProcess) -> bool:
    """Whether the one request that there is has left the queue: the runner has it."""
    text = gateway.request("GET", "/metrics")[2].decode()
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    waiting = samples['onnx_gateway_queue_depth{model="slow",version="1"}']
    return float(samples["onnx_gateway_inflight_requests"]) == 1 and float(waiting) == 0


def test_deadline_that_passes_in_the_queue(front: Front, pool: ThreadPoolExecutor) -> None:
    gateway = front.gateway
    occupied = Occupied(gateway, pool)
    before = counts(gateway, "slow")
    with pytest.raises(RefusedError) as caught:
        front.infer(replace(steps(1), parameters={"timeout": 1_000}))
    assert not occupied.answer.done(), "told only when the runner was free"
    assert caught.value.code in ("DEADLINE_EXCEEDED", None)
    assert any(unit in caught.value.message for unit in ("ms", "us", "µs"))
    occupied.finish()
    after = counts(gateway, "slow")
    assert after["executions"] - before["executions"] == 1, "the expired request was run"


def test_caller_that_leaves_costs_no_compute(
    grpc_gateway: GatewayProcess, pool: ThreadPoolExecutor
) -> None:
    occupied = Occupied(grpc_gateway, pool)
    before = counts(grpc_gateway, "slow")
    leave_http(grpc_gateway)
    leave_grpc(grpc_gateway)
    occupied.finish()
    last = GrpcUnary(grpc_gateway)
    last.infer(steps(1))
    last.close()
    after = counts(grpc_gateway, "slow")
    assert after["executions"] - before["executions"] == 2, "a request was run that nobody awaits"


def leave_http(gateway: GatewayProcess) -> None:
    connection = http.client.HTTPConnection(HOST, gateway.http_port)
    body, headers = HttpJson(gateway).encode(steps(LONG))
    connection.request("POST", "/v2/models/slow/infer", body, headers)
    connection.close()


def leave_grpc(gateway: GatewayProcess) -> None:
    front = GrpcUnary(gateway)
    with pytest.raises(RefusedError) as caught:
        front.infer(steps(LONG), timeout_s=0.05)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    front.close()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_server_that_ends(way: Way, models: Path, pool: ThreadPoolExecutor) -> None:
    """Ready is false, new requests are refused, what is in flight is answered, exit status 0."""
    lenient = {"ONNX_GATEWAY_STRICT_READINESS": "false"}
    with GatewayProcess(models, grpc_impl=way.grpc_impl, environment=lenient) as gateway:
        idle, busy = way.front(gateway), way.front(gateway)
        assert idle.infer(steps(1))["y"] == [1]
        answer = pool.submit(busy.infer, steps(LONG * 2))
        gateway.wait_until(lambda: is_running(gateway))
        stopped = pool.submit(gateway.stop)
        refusal = first_refusal(idle)
        assert refusal.code in ("UNAVAILABLE", None)
        assert "shutting down" in refusal.message.lower()
        assert not answer.done()
        assert answer.result(timeout=60)["y"] == [LONG * 2]
        stopped.result(timeout=60)
        idle.close()
        busy.close()


def first_refusal(front: Front) -> RefusedError:
    """What the connection that was open is told when it gets no answer any more."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            front.infer(steps(1, "crowded"))
        except RefusedError as error:
            return error
    raise AssertionError("still served 20 s after SIGTERM")
