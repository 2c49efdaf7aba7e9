"""A running gateway that watches its models: from requests to reports, metrics and exit codes."""

import http.client
import json
import subprocess
import sys

import numpy as np
import pytest

from tests.repository import ModelDirectory, rows
from tests.server import HOST, GatewayProcess

FEATURES = '[inputs.x]\nfeatures = ["age", "height", "weight", "size"]\n'
MONITOR = """
reference = { live = 2000 }
window = { rows = 500 }
tests = ["jensen_shannon", "psi", "kolmogorov_smirnov", "missing_rate", "out_of_range_rate"]
"""


@pytest.fixture
def models(tmp_path):
    directory = ModelDirectory(tmp_path / "models")
    directory.add("rows", rows, FEATURES)
    directory.add("plain", rows)
    (tmp_path / "models" / "rows" / "monitor.toml").write_text(MONITOR)
    return tmp_path / "models"


def send(gateway, count, shift=0.0, seed=0, model="rows"):
    x = np.random.default_rng(seed).normal(0, 1, (count, 4))
    x[:, 0] += shift
    for start in range(0, count, 250):
        part = x[start : start + 250]
        tensor = {
            "name": "x",
            "shape": list(part.shape),
            "datatype": "FP32",
            "data": part.ravel().tolist(),
        }
        status, answer = gateway.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
        assert status == 200, answer


def version_of(gateway, windows=1):
    status, answer = gateway.administer("GET", f"/admin/models/rows/drift?windows={windows}")
    assert status == 200, answer
    return answer["versions"][0]


def after_windows(gateway, count):
    gateway.wait_until(lambda: version_of(gateway)["windows"] >= count)
    return version_of(gateway, windows=count)["reports"][0]


def levels(report, subject):
    return {f["test"]: f["level"] for f in report["findings"] if f["subject"] == subject}


def metrics(gateway):
    connection = http.client.HTTPConnection(HOST, gateway.metrics_port, timeout=10)
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


def command(gateway, *arguments):
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "gateway",
            "drift",
            "rows",
            "--admin",
            gateway.admin_url,
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_shifted_input_has_drifted_and_an_unshifted_one_has_not(models):
    with GatewayProcess(models) as gateway:
        gateway.wait_until(lambda: version_of(gateway)["state"] == "collecting")
        send(gateway, 2000)
        send(gateway, 500, seed=1)
        assert after_windows(gateway, 1)["level"] == "ok"
        assert command(gateway, "--exit-code").returncode == 0
        send(gateway, 500, shift=1.0, seed=2)
        report = after_windows(gateway, 2)
        assert levels(report, "age")["kolmogorov_smirnov"] == "drifted"
        assert levels(report, "age")["psi"] == "drifted"
        assert set(levels(report, "height").values()) == {"ok"}
        shown = command(gateway, "--exit-code", "--windows", "2")
        assert shown.returncode == 1, shown.stderr
        assert "rows version 1: drifted" in shown.stdout
        assert "reference  2,000 rows of live predictions" in shown.stdout
        text = metrics(gateway)
        assert 'onnx_gateway_drift_level{model="rows",version="1"} 3.0' in text
        assert 'onnx_gateway_drift_windows_total{model="rows",version="1"} 2.0' in text
        labels = 'model="rows",subject="age",test="psi",version="1"'
        assert f"onnx_gateway_drift_value_level{{{labels}}} 3.0" in text
        assert (
            'onnx_gateway_stream_predictions_total{model="rows",outcome="delivered",'
            'subscriber="monitors"} 3000.0'
        ) in text


def test_the_file_is_followed_without_a_reload(models):
    with GatewayProcess(models) as gateway:
        gateway.wait_until(lambda: version_of(gateway)["state"] == "collecting")
        send(gateway, 2500)
        assert after_windows(gateway, 1)["number"] == 0
        file = models / "rows" / "monitor.toml"
        file.write_text(MONITOR.replace("rows = 500", "rows = 100"))
        gateway.wait_until(lambda: version_of(gateway)["window"]["rows"] == 100)
        send(gateway, 100, seed=1)
        assert after_windows(gateway, 2)["rows"] == 100, "with the reference that was collected"
        file.write_text("tests = ['nothing']\n")
        gateway.wait_until(lambda: version_of(gateway)["state"] == "outdated")
        assert "tests[0] must be" in version_of(gateway)["reason"]
        send(gateway, 100, seed=2)
        after_windows(gateway, 3)
        file.unlink()
        gateway.wait_until(lambda: gateway.administer("GET", "/admin/models/rows/drift")[0] == 404)


def test_a_collected_reference_outlives_a_restart(models, tmp_path):
    options = ("--state-dir", str(tmp_path / "state"))
    with GatewayProcess(models, *options) as gateway:
        gateway.wait_until(lambda: version_of(gateway)["state"] == "collecting")
        send(gateway, 2000)
        gateway.wait_until(lambda: version_of(gateway)["state"] == "watching")
    with GatewayProcess(models, *options) as gateway:
        gateway.wait_until(lambda: version_of(gateway)["state"] == "watching")
        send(gateway, 500, shift=1.0, seed=3)
        assert after_windows(gateway, 1)["level"] == "drifted"


def test_models_that_are_not_monitored_cost_no_copy_and_say_how_they_would_be(models):
    with GatewayProcess(models) as gateway:
        gateway.wait_until(lambda: version_of(gateway)["state"] == "collecting")
        status, answer = gateway.administer("GET", "/admin/models/plain/drift")
        assert status == 404
        assert "put a monitor.toml" in answer["error"]
        assert gateway.administer("GET", "/admin/models/nobody/drift")[0] == 404
        status, answer = gateway.administer("GET", "/admin/models/rows/drift?windows=-1")
        assert status == 400

        def offered():
            name = 'onnx_gateway_stream_offered_total{model="plain",subscriber="monitors"}'
            return [line for line in metrics(gateway).splitlines() if line.startswith(name)]

        send(gateway, 250, model="plain")
        before = offered()
        send(gateway, 250, model="plain")
        assert offered() == before


def test_without_a_profile_the_report_says_how_to_make_one(models):
    (models / "rows" / "monitor.toml").write_text("")
    with GatewayProcess(models) as gateway:
        gateway.wait_until(lambda: version_of(gateway)["state"] == "failed")
        assert "onnx-gateway profile build" in version_of(gateway)["reason"]
        send(gateway, 250)
        gateway.wait_until(lambda: 'outcome="lost_no_reference"' in metrics(gateway))


def test_the_answer_is_described(models):
    with GatewayProcess(models) as gateway:
        status, document = gateway.administer("GET", "/openapi.json")
        assert status == 200
        assert "/admin/models/{model}/drift" in document["paths"]
        assert "Finding" in json.dumps(document["components"]["schemas"])
