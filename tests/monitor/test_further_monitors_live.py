"""All further monitors in a running gateway: from requests and labels to the admin port."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression

from tests.server import GatewayProcess

MONITOR = """
reference = { live = 1000 }
window = { rows = 500 }

[online]
detectors = ["adwin", "page_hinkley"]
per_second = { adwin = 0, page_hinkley = 0 }

[multivariate]
sample = 400

[estimation]
output = "probabilities"
label_output = "label"

[performance]
task = "classification"
output = "probabilities"
label_output = "label"
window_rows = 250
limits = { accuracy = 0.8 }
alarms = ["ddm"]
"""


def rows(count: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and their truth: a line that the model knows, and noise."""
    random = np.random.default_rng(seed)
    x = random.normal(shift, 1.0, (count, 3)).astype(np.float32)
    score = x[:, 0] + x[:, 1] + random.logistic(0, 0.3, count)
    return x, (score > 0).astype(np.int64)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    path = tmp_path_factory.mktemp("models")
    (path / "m" / "1").mkdir(parents=True)
    model = LogisticRegression().fit(*rows(4000, 1))
    made = to_onnx(
        model,
        initial_types=[("x", FloatTensorType([None, 3]))],
        options={id(model): {"zipmap": False}},
    )
    (path / "m" / "1" / "model.onnx").write_bytes(made.SerializeToString())
    features = '[labels]\nwait_hours = 1\n[inputs.x]\nfeatures = ["a", "b", "c"]\n'
    (path / "m" / "model.toml").write_text(features)
    (path / "m" / "monitor.toml").write_text(MONITOR)
    x, truth = rows(3000, 2)
    known = {"probabilities": model.predict_proba(x), "label": model.predict(x), "truth": truth}
    np.savez(path / "m" / "labels.npz", **known)
    with GatewayProcess(path) as running:
        yield running


def send(gateway: GatewayProcess, id: str, x: np.ndarray) -> None:
    given = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
    status, answer = gateway.post("/v2/models/m/infer", {"id": id, "inputs": [given]})
    assert status == 200, answer


def label(gateway: GatewayProcess, id: str, truth: np.ndarray) -> None:
    table = [{"id": id, "row": row, "value": int(one)} for row, one in enumerate(truth)]
    status, answer = gateway.administer("POST", "/admin/models/m/labels", {"labels": table})
    assert (status, answer["joined"]) == (200, len(truth))


def window(gateway: GatewayProcess, number: int) -> dict[tuple[str, str], dict[str, Any]]:
    """The findings of a window, once it is there."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        status, answer = gateway.administer("GET", "/admin/models/m/drift?windows=20")
        if status == 200 and answer["versions"]:
            (version,) = answer["versions"]
            found[:] = [w for w in version["reports"] if w["number"] == number]
        return bool(found)

    gateway.wait_until(there)
    return {(f["subject"], f["test"]): f for f in found[0]["findings"]}


def test_each_monitor_says_what_it_found_of_still_rows_and_of_others(
    gateway: GatewayProcess,
) -> None:
    for part in range(4):
        send(gateway, f"reference-{part}", rows(250, 10 + part)[0])
    for part in range(2):
        x, truth = rows(250, 20 + part)
        send(gateway, f"still-{part}", x)
        if part == 0:
            label(gateway, "still-0", truth)
    still = window(gateway, 0)
    for key in (
        ("a", "adwin"),
        ("a", "page_hinkley"),
        ("", "classifier_two_sample"),
        ("", "mmd"),
        ("", "estimated_accuracy"),
        ("", "estimated_roc_auc"),
    ):
        assert still[key]["level"] == "ok", still[key]
    x, _ = rows(500, 30, shift=1.0)
    send(gateway, "moved-0", x[:250])
    label(gateway, "moved-0", np.random.default_rng(1).integers(0, 2, 250))
    send(gateway, "moved-1", x[250:])
    moved = window(gateway, 1)
    for key in (
        ("a", "adwin"),
        ("a", "page_hinkley"),
        ("", "classifier_two_sample"),
        ("", "mmd"),
        ("", "accuracy"),
    ):
        assert moved[key]["level"] == "drifted", moved.get(key)
    # Random labels are wrong half of the time.
    assert moved["", "ddm"]["value"] == pytest.approx(0.5, abs=0.1)
    # Further from the line the model is surer of itself.
    assert moved["", "estimated_accuracy"]["level"] == "warning"
