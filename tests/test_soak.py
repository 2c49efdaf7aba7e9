"""Many calls, many connections, many calls cut short: memory and open files end where they were.

``make soak`` is the same at fifty times the size.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.payloads import Payload, grpc_call
from loadtests.soak import carry_calls, mix_ends, open_connections
from tests.fronts import Request, Tensor, grpc_message, sample
from tests.repository import ModelDirectory, rows
from tests.server import GatewayProcess


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    models = ModelDirectory(tmp_path_factory.mktemp("models"))
    models.add("rows", rows)
    with GatewayProcess(models.path) as process:
        yield process


@pytest.fixture(scope="module")
def payload() -> Payload:
    return grpc_call(grpc_message(Request("rows", (Tensor.of("x", sample("FP32", (1, 4))),))))


def soak(gateway: GatewayProcess, payload: Payload, calls: int, connections: int) -> None:
    carry_calls(gateway.grpc_port, payload, calls)
    open_connections(gateway.grpc_port, payload, connections, at_once=100)
    mix_ends(gateway.grpc_port, payload, connections // 30)


def open_files(gateway: GatewayProcess) -> int:
    return len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))


def test_nothing_stays_behind(gateway: GatewayProcess, payload: Payload) -> None:
    files = open_files(gateway)
    soak(gateway, payload, calls=5_000, connections=100)
    before = gateway.rss_bytes()
    soak(gateway, payload, calls=20_000, connections=300)
    # The readiness poll's connection may have been among the files.
    gateway.wait_until(lambda: open_files(gateway) <= files)
    assert gateway.rss_bytes() / before - 1 < 0.02
    ends = gateway.get("/v2/models/rows/stats")[1]["model_stats"][0]["inference_stats"]
    assert int(ends["success"]["count"]) > 25_000
    assert int(ends["fail"]["count"]) == 0
    assert cut_short(gateway) > 0


def cut_short(gateway: GatewayProcess) -> float:
    """Requests that were cancelled or expired inside the gateway."""
    text = gateway.request("GET", "/metrics")[2].decode()
    counts = re.findall(
        r'^onnx_gateway_\w+{.*"(?:cancelled|deadline)".*} (\S+)$', text, re.MULTILINE
    )
    return sum(map(float, counts))
