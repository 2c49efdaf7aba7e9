"""A whole gateway with an operator's file: what it refuses, serves and takes up again."""

import http.client
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import ModelDirectory, rows
from tests.server import HOST, GatewayProcess

FILE = """
[channels.log]
type = "log"
[actions.retrain]
type = "command"
argv = ["true"]
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    directory = tmp_path / "models"
    directory.mkdir()
    ModelDirectory(directory).add("rows", rows, "")
    return directory


def test_alerts_are_served_silenced_journaled_and_remembered(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "monitoring.toml"
    file.write_text(FILE)
    options = ("--monitoring", str(file), "--state-dir", str(tmp_path / "state"))
    with GatewayProcess(models, *options) as gateway:
        status, alerts = gateway.administer("GET", "/admin/models/rows/alerts")
        assert (status, alerts["serving"], alerts["episode"]) == (200, "1", None)
        path = "/admin/models/rows/alerts/silence"
        status, alerts = gateway.administer("PUT", path, {"for_s": 3600, "reason": "move"})
        assert (status, alerts["silence"]["reason"]) == (200, "move")
        status, answer = gateway.administer("PUT", "/admin/models/x/alerts/silence", {"for_s": 1})
        assert (status, "unknown model 'x'" in answer["error"]) == (404, True)
        assert 'onnx_gateway_drift_actions_pending{action="retrain"} 0.0' in metrics(gateway)
    with GatewayProcess(models, *options) as gateway:
        _, (alerts,) = gateway.administer("GET", "/admin/alerts")
        assert alerts["silence"]["reason"] == "move"
        assert 'onnx_gateway_alerts_silenced{model="rows"} 1.0' in metrics(gateway)
        _, history = gateway.administer("GET", "/admin/history?model=rows")
        assert [entry["verb"] for entry in history].count("silence") == 1
        _, verified = gateway.administer("GET", "/admin/history/verify")
        assert verified["intact"]


def test_a_wrong_file_ends_the_start_with_the_key_that_is_wrong(
    models: Path, tmp_path: Path
) -> None:
    file = tmp_path / "monitoring.toml"
    file.write_text(FILE.replace('["true"]', '["no-such-program"]'))
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", str(models), "--monitoring", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "actions.retrain.argv: there is no program 'no-such-program'" in done.stderr
    assert "Traceback" not in done.stderr


def metrics(gateway: GatewayProcess) -> str:
    connection = http.client.HTTPConnection(HOST, gateway.metrics_port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
