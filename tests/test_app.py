"""A whole server, from its first line to its last, as an operator sees it."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from tests.certificates import Certificates
from tests.repository import ModelDirectory, rows, slow
from tests.server import HOST, GatewayProcess

#: Steps of the slow model that take seconds: far longer than what happens meanwhile in a test.
LONG = 20_000
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}]}


def steps(count: int) -> dict[str, Any]:
    return {"inputs": [{"name": "steps", "datatype": "INT64", "shape": [1], "data": [count]}]}


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    models = ModelDirectory(tmp_path)
    models.add("rows", rows)
    models.add("slow", slow, "inline = false\n")
    return models


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def records(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """The log of a gateway that writes JSON."""
    return [json.loads(line) for line in gateway.log().splitlines()]


def messages(gateway: GatewayProcess) -> str:
    return "\n".join(record["message"] for record in records(gateway))


def exit_code(gateway: GatewayProcess, deadline_s: float = 60.0) -> int:
    """The exit code of a gateway that is ending by itself."""
    assert gateway._process is not None
    code = gateway._process.wait(deadline_s)
    gateway._process = None
    return code


def send(gateway: GatewayProcess, number: signal.Signals) -> None:
    assert gateway._process is not None
    gateway._process.send_signal(number)


def scrape(gateway: GatewayProcess, port: int) -> dict[tuple[str, str], float]:
    """Each sample by its name and the value of its label ``model``."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {
        (sample.name, sample.labels.get("model", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_log_tells_where_it_listens_and_what_it_serves(models: ModelDirectory) -> None:
    with GatewayProcess(models.path) as gateway:
        gateway.wait_until(lambda: "serving 2 models" in messages(gateway))
        log = messages(gateway)
        assert f"HTTP on http://127.0.0.1:{gateway.http_port}" in log
        assert f"gRPC on 127.0.0.1:{gateway.grpc_port}" in log
        assert f"metrics on http://127.0.0.1:{gateway.metrics_port}/metrics" in log
        assert re.search(r"model 'rows' version '1' is loaded in .* s: batches of up to", log)
        assert "model 'slow' version '1' is loaded" in log
        assert all(record["time"].endswith("Z") for record in records(gateway))


def test_a_port_of_0_is_off_and_any_is_a_free_one(models: ModelDirectory) -> None:
    options = ("--metrics-port", "0", "--grpc-port", "any", "--admin-port", "0")
    with GatewayProcess(models.path, *options) as gateway:
        log = messages(gateway)
        assert "metrics on" not in log
        match = re.search(r"gRPC on 127\.0\.0\.1:(\d+)", log)
        assert match is not None
        socket.create_connection((HOST, int(match[1])), timeout=10).close()


def test_grpc_is_served_on_a_unix_socket_and_with_tls(
    models: ModelDirectory, certificates: Certificates
) -> None:
    path = models.path.parent / "gateway.sock"
    pair = certificates.server
    options = (
        *("--grpc-unix-socket", str(path)),
        *("--grpc-tls-certificate", str(pair.certificate), "--grpc-tls-key", str(pair.key)),
    )
    with GatewayProcess(models.path, *options) as gateway:
        assert f"gRPC on {gateway.grpc_url} and unix:{path} with TLS" in messages(gateway)
        named = [("grpc.ssl_target_name_override", "localhost")]
        for address in (gateway.grpc_url, f"unix:{path}"):
            with grpc.secure_channel(address, certificates.credentials(), named) as channel:
                assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert not path.exists()


def test_the_log_tells_that_grpc_clients_need_a_certificate(
    models: ModelDirectory, certificates: Certificates
) -> None:
    pair = certificates.server
    options = (
        *("--grpc-tls-certificate", str(pair.certificate), "--grpc-tls-key", str(pair.key)),
        *("--grpc-tls-client-ca", str(certificates.authority)),
    )
    with GatewayProcess(models.path, *options) as gateway:
        expected = f"gRPC on {gateway.grpc_url} with TLS, for clients with a certificate"
        assert expected in messages(gateway)


def test_metrics_count_what_was_served_on_both_ports(models: ModelDirectory) -> None:
    with GatewayProcess(models.path) as gateway:
        for _ in range(3):
            assert gateway.post("/v2/models/rows/infer", ROW)[0] == 200
        for port in (gateway.http_port, gateway.metrics_port):
            samples = scrape(gateway, port)
            assert samples["nv_inference_request_success", "rows"] == 3
            assert samples["onnx_gateway_rows_total", "rows"] == 3
            assert samples["nv_inference_request_success", "slow"] == 0
            assert samples["onnx_gateway_ready", ""] == 1


def test_no_line_a_request_unless_asked_for(models: ModelDirectory) -> None:
    with GatewayProcess(models.path) as gateway:
        gateway.post("/v2/models/rows/infer", ROW)
        gateway.stop()
        assert not [r for r in records(gateway) if r["logger"] == "gateway.access"]


def test_one_line_a_request_when_asked_for(models: ModelDirectory) -> None:
    with GatewayProcess(models.path, "--access-log") as gateway:
        gateway.post("/v2/models/rows/infer", ROW)
        gateway.stop()
        lines = [r for r in records(gateway) if r["logger"] == "gateway.access"]
        infer = [line for line in lines if "/v2/models/rows/infer" in line["message"]]
        assert len(infer) == 1


def test_it_is_live_but_not_ready_while_a_model_fails(models: ModelDirectory) -> None:
    models.add_broken("broken")
    gateway = GatewayProcess(models.path).start()
    try:
        gateway.wait_until(lambda: "failed to load, see above" in messages(gateway))
        assert gateway.get("/v2/health/live")[0] == 200
        assert gateway.get("/v2/health/ready")[0] == 503
        assert gateway.get("/v2/models/rows/ready")[0] == 200
        assert gateway.post("/v2/models/rows/infer", ROW)[0] == 200
        gateway.stop()
    finally:
        gateway.kill()


def test_what_is_there_when_the_models_are_loaded_is_not_walked_for_garbage() -> None:
    script = (
        "import gc; from gateway.app import spare_the_collector\n"
        "print(len(gc.get_objects())); spare_the_collector(); print(len(gc.get_objects()))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    before, after = map(int, ran.stdout.split())
    assert after < before / 100


def test_exit_on_error_ends_with_code_1_and_the_reason(models: ModelDirectory) -> None:
    models.add_broken("broken")
    gateway = GatewayProcess(models.path, "--exit-on-error").start()
    try:
        assert exit_code(gateway) == 1
        assert "1 models failed to load, and --exit-on-error is set" in gateway.log()
        assert "Traceback" not in gateway.log()
    finally:
        gateway.kill()


def test_a_taken_port_ends_with_one_message(models: ModelDirectory) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "gateway",
                "serve",
                str(models.path),
                "--http-port",
                str(port),
                "--grpc-port",
                "any",
                "--metrics-port",
                "0",
                "--admin-port",
                "0",
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--http-port" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_lets_requests_in_flight_finish(
    models: ModelDirectory, pool: ThreadPoolExecutor
) -> None:
    with GatewayProcess(models.path) as gateway:
        answer = pool.submit(gateway.post, "/v2/models/slow/infer", steps(LONG))
        gateway.wait_until(
            lambda: scrape(gateway, gateway.metrics_port)["onnx_gateway_inflight_requests", ""] == 1
        )
        send(gateway, signal.SIGTERM)
        gateway.wait_until(lambda: gateway.get("/v2/health/ready")[0] == 503)
        status, refusal = gateway.post("/v2/models/rows/infer", ROW)
        assert status == 503
        assert "shutting down" in refusal["error"]
        assert not answer.done()
        assert answer.result()[0] == 200
        assert exit_code(gateway) == 0
        assert messages(gateway).endswith("stopped")


def test_new_requests_are_served_during_the_drain_delay(models: ModelDirectory) -> None:
    with GatewayProcess(models.path, "--drain-delay-s", "3600") as gateway:
        send(gateway, signal.SIGTERM)
        gateway.wait_until(lambda: gateway.get("/v2/health/ready")[0] == 503)
        assert gateway.post("/v2/models/rows/infer", ROW)[0] == 200
        send(gateway, signal.SIGTERM)
        assert exit_code(gateway) == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_at_once(
    models: ModelDirectory, pool: ThreadPoolExecutor, number: signal.Signals, code: int
) -> None:
    with GatewayProcess(models.path) as gateway:
        cut = pool.submit(gateway.post, "/v2/models/slow/infer", steps(LONG))
        gateway.wait_until(
            lambda: scrape(gateway, gateway.metrics_port)["onnx_gateway_inflight_requests", ""] == 1
        )
        send(gateway, number)
        gateway.wait_until(lambda: "shutting down" in messages(gateway))
        send(gateway, number)
        assert exit_code(gateway) == code
        assert "ending at once" in messages(gateway)
        assert isinstance(cut.exception(), (OSError, http.client.HTTPException))


def test_the_grace_period_ends_the_wait_for_requests(
    models: ModelDirectory, pool: ThreadPoolExecutor
) -> None:
    with GatewayProcess(models.path, "--grace-period-s", "0.1") as gateway:
        cut = pool.submit(gateway.post, "/v2/models/slow/infer", steps(LONG))
        gateway.wait_until(
            lambda: scrape(gateway, gateway.metrics_port)["onnx_gateway_inflight_requests", ""] == 1
        )
        send(gateway, signal.SIGTERM)
        assert exit_code(gateway) == 0
        assert "1 requests are cut off" in messages(gateway)
        assert isinstance(cut.exception(), (OSError, http.client.HTTPException))


def test_a_signal_while_models_load_ends_cleanly(models: ModelDirectory) -> None:
    gateway = GatewayProcess(models.path).start()
    try:
        gateway.wait_until(lambda: "loading 2 models" in gateway.log())
        gateway.stop()
    finally:
        gateway.kill()
