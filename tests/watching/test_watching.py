"""Monitors that attach to a running gateway: over HTTP, over gRPC, and from the command line."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from gateway.protos import STREAM_SERVICE, stream_message
from tests.repository import ModelDirectory, echo, rows, rows_of
from tests.server import GRPC_IMPLEMENTATIONS, HOST, GatewayProcess, Gateways

FEATURES = '[inputs.x]\nfeatures = ["age", "height", "weight", "income"]\n'
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    models = tmp_path_factory.mktemp("models")
    directory = ModelDirectory(models)
    directory.add("rows", rows, FEATURES)
    directory.add("words", lambda: echo("BYTES"), "")
    directory.add("wide", lambda: echo("FP32"), "")
    with Gateways(models, "--grpc-prediction-stream", "--max-stream-subscribers", "2") as running:
        yield running


@pytest.fixture
def gateway(gateways: Gateways) -> GatewayProcess:
    return gateways[GRPC_IMPLEMENTATIONS[0]]


def infer(gateway: GatewayProcess, id: str, array: np.ndarray, model: str = "rows") -> None:
    datatype = "BYTES" if array.dtype == object else "FP32"
    tensor = {"name": "x", "datatype": datatype, "shape": array.shape}
    data = array.reshape(-1).tolist()
    status, answer = gateway.post(
        f"/v2/models/{model}/infer", {"id": id, "inputs": [{**tensor, "data": data}]}
    )
    assert status == 200, answer


def some(n: float, count: int = 1) -> np.ndarray:
    return np.full((count, 4), n, np.float32)


def metrics(gateway: GatewayProcess, name: str, **labels: str) -> float:
    """The sum of the samples of that name that have these labels."""
    text = gateway.request("GET", "/metrics")[2].decode()
    found = re.findall(rf"^{name}{{(.*)}} (.*)$", text, re.MULTILINE)
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(value) for given, value in found if all(each in given for each in wanted))


def subscribers(gateway: GatewayProcess) -> int:
    text = gateway.request("GET", "/metrics")[2].decode()
    return int(re.search(r"^onnx_gateway_stream_subscribers (\d+)", text, re.M)[1])


class Events:
    """A client of server-sent events; entering returns once it is subscribed."""

    def __init__(self, gateway: GatewayProcess, query: str = "", model: str = "rows") -> None:
        self._connection = http.client.HTTPConnection(HOST, gateway.admin_port, DEADLINE_S)
        self._connection.request("GET", f"/admin/models/{model}/stream{query}")
        self.response = self._connection.getresponse()

    def __enter__(self) -> "Events":
        assert self.response.status == 200
        assert self.response.readline().startswith(b": ")
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        name = ""
        for raw in self.response:
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                yield name, json.loads(line[6:])

    def predictions(self) -> Iterator[dict[str, Any]]:
        return (data for name, data in self if name == "prediction")


# HTTP


def test_predictions_are_events(gateway: GatewayProcess) -> None:
    with Events(gateway, "?limit=2") as events:
        infer(gateway, "first", some(1))
        infer(gateway, "second", some(2, 2))
        made = list(events)
    assert [name for name, _ in made] == ["columns", "prediction", "prediction", "end"]
    columns, first, second, end = (data for _, data in made)
    assert columns["inputs"][0]["features"] == ["age", "height", "weight", "income"]
    assert (first["id"], first["model"], first["version"]) == ("first", "rows", "1")
    assert first["inputs"] == {"x": [[1, 1, 1, 1]]}
    assert second["outputs"] == {"y": rows_of(some(2, 2)).tolist()}
    assert first["latency_ms"] > 0
    assert abs(first["time"] - time.time()) < 3600
    assert end == {"reason": "limit"}


def test_features_may_be_chosen_and_wrong_ones_are_refused(gateway: GatewayProcess) -> None:
    with Events(gateway, "?limit=1&fields=age,y") as events:
        infer(gateway, "a", some(3))
        (prediction,) = events.predictions()
    assert prediction["inputs"] == {"x": [[3]]}
    assert prediction["outputs"] == {"y": rows_of(some(3)).tolist()}
    status, answer = gateway.administer("GET", "/admin/models/rows/stream?fields=agee")
    assert status == 400
    assert "neither a tensor nor a feature" in answer["error"]


def test_there_is_a_limit_of_subscribers_and_those_that_leave_make_room(
    gateway: GatewayProcess,
) -> None:
    for _ in range(3):
        with Events(gateway), Events(gateway):
            status, answer = gateway.administer("GET", "/admin/models/rows/stream")
            assert status == 503
            assert "--max-stream-subscribers" in answer["error"]
            assert subscribers(gateway) == 2
        gateway.wait_until(lambda: subscribers(gateway) == 0)
    assert metrics(gateway, "onnx_gateway_stream_buffered_bytes", subscriber="events") == 0


def test_a_subscriber_that_reads_nothing_costs_its_own_buffer(gateway: GatewayProcess) -> None:
    dropped = {"subscriber": "events", "model": "wide", "outcome": "dropped_buffer_full"}
    before = metrics(gateway, "onnx_gateway_stream_predictions_total", **dropped)
    wide = np.zeros((1, 50_000), np.float32)
    with Events(gateway, model="wide") as events:
        sent = 0
        while metrics(gateway, "onnx_gateway_stream_predictions_total", **dropped) < before + 3:
            infer(gateway, f"w{sent}", wide, "wide")
            sent += 1
            assert sent < 500
        lost = metrics(gateway, "onnx_gateway_stream_predictions_total", **dropped) - before
        seen, told = 0, 0
        for name, data in events:
            seen += name == "prediction"
            if name == "dropped":
                told += data["dropped"]
                assert data["reasons"] == {"buffer_full": data["dropped"]}
            if told == lost and seen == sent - lost:
                break
    assert seen + told == sent
    gateway.wait_until(lambda: subscribers(gateway) == 0)


# gRPC


def subscribe(channel: grpc.Channel, **request: Any) -> Any:
    """A call of Subscribe that has begun."""
    call = channel.unary_stream(
        f"/{STREAM_SERVICE}/Subscribe",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=stream_message("SubscribeResponse").FromString,
    )
    return call(stream_message("SubscribeRequest")(**request), timeout=DEADLINE_S)


def unpacked(predictions: Any) -> dict[str, np.ndarray]:
    tensors = (*predictions.inputs, *predictions.outputs)
    assert len(tensors) == len(predictions.raw_contents)
    return {
        tensor.name: np.frombuffer(raw, np.float32).reshape(tuple(tensor.shape))
        for tensor, raw in zip(tensors, predictions.raw_contents, strict=True)
    }


@pytest.mark.parametrize("implementation", GRPC_IMPLEMENTATIONS)
class TestGrpc:
    def test_predictions_come_as_raw_tensors(self, gateways: Gateways, implementation: str) -> None:
        gateway = gateways[implementation]
        with grpc.insecure_channel(gateway.grpc_url) as channel:
            call = subscribe(channel, models=["ro*"], limit=3)
            gateway.wait_until(lambda: subscribers(gateway) == 1)
            infer(gateway, "other", np.array([[b"a".decode()]], object), "words")
            for n in range(3):
                infer(gateway, f"r{n}", some(n, n + 1))
            found = [message.predictions for message in call]
        ids = [request.id for each in found for request in each.requests]
        assert ids == ["r0", "r1", "r2"]
        assert [request.rows for each in found for request in each.requests] == [1, 2, 3]
        given = np.concatenate([some(n, n + 1) for n in range(3)])
        arrays = [unpacked(each) for each in found]
        assert (np.concatenate([each["x"] for each in arrays]) == given).all()
        assert (np.concatenate([each["y"] for each in arrays]) == rows_of(given)).all()
        for each in found:
            assert (each.model, each.version) == ("rows", "1")
            assert list(each.inputs[0].features) == ["age", "height", "weight", "income"]

    def test_text_has_its_length_before_it(self, gateways: Gateways, implementation: str) -> None:
        gateway = gateways[implementation]
        with grpc.insecure_channel(gateway.grpc_url) as channel:
            call = subscribe(channel, models=["words"], limit=1, fields=["y"])
            gateway.wait_until(lambda: subscribers(gateway) == 1)
            infer(gateway, "w", np.array([["hi", "é"]], object), "words")
            (message,) = call
        assert list(message.predictions.raw_contents) == [b"\x02\0\0\0hi\x02\0\0\0" + "é".encode()]

    def test_what_is_wrong_is_told(self, gateways: Gateways, implementation: str) -> None:
        with grpc.insecure_channel(gateways[implementation].grpc_url) as channel:
            for request, code in (
                ({"sample": 2}, grpc.StatusCode.INVALID_ARGUMENT),
                ({"models": ["rows"], "fields": ["no"]}, grpc.StatusCode.INVALID_ARGUMENT),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    next(subscribe(channel, **request))
                assert refused.value.code() is code

    def test_a_client_that_leaves_makes_room(self, gateways: Gateways, implementation: str) -> None:
        gateway = gateways[implementation]
        for _ in range(3):
            with grpc.insecure_channel(gateway.grpc_url) as channel:
                calls = [subscribe(channel) for _ in range(2)]
                gateway.wait_until(lambda: subscribers(gateway) == 2)
                with pytest.raises(grpc.RpcError) as refused:
                    next(subscribe(channel))
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
                calls[0].cancel()
                gateway.wait_until(lambda: subscribers(gateway) == 1)
            gateway.wait_until(lambda: subscribers(gateway) == 0)


def test_over_grpc_nobody_watches_unless_the_operator_says_so(tmp_path: Path) -> None:
    ModelDirectory(tmp_path).add("rows", rows, "")
    with GatewayProcess(tmp_path) as gateway, grpc.insecure_channel(gateway.grpc_url) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            next(subscribe(channel))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


# The end


@pytest.mark.parametrize("implementation", GRPC_IMPLEMENTATIONS)
def test_watchers_get_the_last_prediction_and_are_told_of_the_end(
    tmp_path: Path, implementation: str
) -> None:
    ModelDirectory(tmp_path).add("rows", rows, "")
    gateway = GatewayProcess(tmp_path, "--grpc-prediction-stream", grpc_impl=implementation)
    with gateway, grpc.insecure_channel(gateway.grpc_url) as channel, Events(gateway) as events:
        call = subscribe(channel)
        gateway.wait_until(lambda: subscribers(gateway) == 2)
        infer(gateway, "last", some(1))
        gateway.stop()
        assert [data["id"] for name, data in events if name == "prediction"] == ["last"]
        assert [r.id for message in call for r in message.predictions.requests] == ["last"]
        assert "grace period" not in gateway.log()


# The command line


class Tail:
    """``onnx-gateway tail`` in a process of its own; entering returns once it watches."""

    def __init__(self, gateway: GatewayProcess, *options: str) -> None:
        before = subscribers(gateway)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "tail", "rows", "--url", gateway.admin_url, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        gateway.wait_until(lambda: subscribers(gateway) > before)

    def end(self) -> tuple[int, list[str], list[str]]:
        """Exit code and the lines of stdout and stderr."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out.splitlines(), err.splitlines()


def test_tail_prints_a_line_for_each_prediction(gateway: GatewayProcess) -> None:
    tail = Tail(gateway, "--limit", "2")
    infer(gateway, "one", some(1.5))
    infer(gateway, "a\x1b[31mb", some(2, 2))
    code, out, err = tail.end()
    assert (code, err) == (0, ["2 predictions, 0 rows dropped"])
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3}  1  one  \d+\.\d\d ms  "
        r"age=1.5 height=1.5 weight=1.5 income=1.5 -> y=\[3, 3, 3, 3, 6\]",
        out[0],
    )
    assert r"a\x1b[31mb" in out[1], "what a terminal might obey is shown as its escape"
    assert "x=2 rows [2, 2, 2, 2, 2, 2, 2, 2]" in out[1]


def test_tail_prints_json_for_programs(gateway: GatewayProcess) -> None:
    tail = Tail(gateway, "--limit", "1", "--json", "--fields", "y")
    infer(gateway, "one", some(1))
    code, out, _ = tail.end()
    (line,) = out
    assert code == 0
    assert json.loads(line)["outputs"] == {"y": rows_of(some(1)).tolist()}
    assert json.loads(line)["inputs"] == {}


def test_tail_ends_well_at_ctrl_c_and_where_nobody_reads(gateway: GatewayProcess) -> None:
    tail = Tail(gateway)
    infer(gateway, "one", some(1))
    assert "one" in tail.process.stdout.readline()
    tail.process.send_signal(signal.SIGINT)
    code, _, err = tail.end()
    assert (code, err[-1]) == (0, "1 prediction, 0 rows dropped")
    gateway.wait_until(lambda: subscribers(gateway) == 0)

    tail = Tail(gateway)
    tail.process.stdout.close()
    infer(gateway, "two", some(1))
    assert tail.process.wait(DEADLINE_S) == 0
    assert "Error" not in tail.process.stderr.read()


def test_tail_of_nothing_says_so(gateway: GatewayProcess) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "tail", "nothing", "--url", gateway.admin_url],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.returncode == 1
    assert "nothing" in ended.stderr
