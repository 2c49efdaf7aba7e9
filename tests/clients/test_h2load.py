"""h2load, nghttp2's load generator: an HTTP/2 client that knows no gRPC.

It counts answers that are 200; what gRPC's trailers say is in the gateway's own statistics.
"""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.fronts import Request, Tensor, grpc_message, sample
from tests.server import GatewayProcess

ROW = Request("rows", (Tensor.of("x", sample("FP32", (1, 4))),))
MEGABYTE = Request("echo", (Tensor.of("x", np.zeros((4, 1 << 16), np.float32)),))


class H2load:
    """Sends one message many times; ``work`` is for its file."""

    def __init__(self, program: str, gateway: GatewayProcess, work: Path) -> None:
        self._program = program
        self._gateway = gateway
        self._body = work / "body"

    def send(self, request: Request, count: int, connections: int, streams: int) -> str:
        """``count`` calls of ModelInfer; gives the report."""
        message = grpc_message(request).SerializeToString()
        self._body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        result = subprocess.run(
            [
                *(self._program, f"-n{count}", f"-c{connections}", f"-m{streams}", "-t1"),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                *("-d", str(self._body)),
                f"http://{self._gateway.grpc_url}/inference.GRPCInferenceService/ModelInfer",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout


@pytest.fixture
def h2load(grpc_gateway: GatewayProcess, tmp_path: Path) -> H2load:
    program = shutil.which("h2load")
    if program is None:
        pytest.skip("h2load is not installed (Debian: apt install nghttp2-client)")
    return H2load(program, grpc_gateway, tmp_path)


def outcomes(gateway: GatewayProcess, model: str) -> dict[str, int]:
    """How many requests came to each end, and how many rows were run."""
    counted = gateway.get(f"/v2/models/{model}/stats")[1]["model_stats"][0]
    ends = {end: int(counted["inference_stats"][end]["count"]) for end in ("success", "fail")}
    return {**ends, "rows": int(counted["inference_count"])}


@pytest.mark.parametrize("connections", [1, 16])
def test_thirty_two_streams_on_each_connection(
    h2load: H2load, grpc_gateway: GatewayProcess, connections: int
) -> None:
    count = 6_400
    before = outcomes(grpc_gateway, "rows")
    report = h2load.send(ROW, count, connections, streams=32)
    after = outcomes(grpc_gateway, "rows")
    assert_all_succeeded(report, count)
    gained = {end: after[end] - before[end] for end in after}
    assert gained == {"success": count, "fail": 0, "rows": count}


def test_megabytes_both_ways(h2load: H2load, grpc_gateway: GatewayProcess) -> None:
    """Each answer needs windows to be opened many times, in turn with its neighbours."""
    count = 64
    before = outcomes(grpc_gateway, "echo")
    report = h2load.send(MEGABYTE, count, connections=2, streams=8)
    assert_all_succeeded(report, count)
    after = outcomes(grpc_gateway, "echo")
    assert after["success"] - before["success"] == count
    received = int(re.search(r"\((\d+)\) data", report)[1])
    assert received >= count * (1 << 20)


def assert_all_succeeded(report: str, count: int) -> None:
    assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in report, report
    assert f"status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx" in report, report
