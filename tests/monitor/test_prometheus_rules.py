"""The alert rules in examples/prometheus name metrics and labels that the server has."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.alert_metrics import AlertSample, AlertsSample, EpisodeSample
from gateway.metrics import GatewayMetrics, ServerSample
from gateway.monitor.courier import OUTCOMES
from gateway.monitor.findings import Level
from gateway.stream.subscription import Account
from gateway.stream_metrics import StreamSample

FILE = Path(__file__).parents[2] / "examples/prometheus/onnx-gateway.rules.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]
]

SAMPLE = AlertsSample(
    states=[level.value for level in Level],
    alerts=[AlertSample(model="m", version="1", kind="version", alert="", state="no data")],
    episodes=[EpisodeSample(model="m", version="1", began=5.0, acknowledged=True)],
    episodes_begun={"m": 3},
    attempts={("retrain", "m", "failed"): 2},
    pending={"retrain": 1},
    messages={("ops", outcome): 1 for outcome in OUTCOMES},
    silenced=["m"],
    reports={"judged": 4, "dropped": 1, "failed": 0},
)
STREAM = StreamSample(
    served={("m", "1"): 2},
    accounts=[("s", "m", Account(served=2, dropped={"buffer_full": 1}, lost={"gone": 1}))],
)


@pytest.fixture(scope="module")
def exposed() -> dict[str, list[dict[str, str]]]:
    """The labels of every sample, by the metric's name as a query has it."""
    metrics = GatewayMetrics(
        lambda: ServerSample(ready=True, inflight=0, rejected={}),
        tuple,
        tuple,
        lambda: STREAM,
        alerts=lambda: SAMPLE,
        states=[],
        latency_bounds_ns=(),
        build={},
    )
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_there_is(
    rule: dict[str, Any], exposed: dict[str, list[dict[str, str]]]
) -> None:
    selectors = re.findall(r"(onnx_gateway_\w+)(?:\{([^}]*)\})?", rule["expr"])
    assert selectors
    labels: set[str] = set()
    for name, matchers in selectors:
        assert name in exposed
        labels |= {label for sample in exposed[name] for label in sample}
        wanted = re.findall(r'(\w+)\s*(=~|!=|=)\s*"([^"]*)"', matchers)
        assert matchers.count('"') == 2 * len(wanted)
        assert any(all(fits(sample, *w) for w in wanted) for sample in exposed[name]), matchers
    told = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", told)) <= labels
    assert rule["labels"]["severity"] in ("info", "warning", "critical")


def fits(labels: dict[str, str], name: str, operator: str, value: str) -> bool:
    assert name in labels
    found = labels[name]
    if operator == "=~":
        return re.fullmatch(value, found) is not None
    if operator == "!=":
        return found != value
    return found == value or (name == "state" and value in SAMPLE.states)


def test_what_is_exposed_of_alerts(exposed: dict[str, list[dict[str, str]]]) -> None:
    assert len(exposed["onnx_gateway_alert_state"]) == len(Level)
    assert exposed["onnx_gateway_drift_episodes_total"] == [{"model": "m"}]
    assert exposed["onnx_gateway_alerts_silenced"] == [{"model": "m"}]
