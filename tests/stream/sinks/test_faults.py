"""A running gateway under load while the receiver of its predictions is stalled, killed, restarted.

Answers go on, the receiver ends up with exactly what the gateway says was delivered (some of it
twice), and whatever it has not is counted under its reason.
"""

import pytest

from gateway.stream.sinks.events import RESPONSE
from tests.repository import ModelDirectory, rows
from tests.server import GatewayProcess
from tests.stream.sinks.receivers import HttpReceiver, NatsReceiver
from tests.stream.sinks.served import accounted, monitoring
from tests.stream.sinks.traffic import ROWS, Traffic

DEADLINE_S = 50.0

#: A try is short, or a stalled receiver would hold the test up for as long.
COMMON = """
timeout_s = 0.5
retry = { first_s = 0.05, most_s = 0.2 }
batch = { bytes = "16KiB", linger_s = 0.05 }
"""


def http_sink(receiver) -> str:
    return f'[sinks.events]\ntype = "cloud_events"\nurl = "{receiver.url}"\n{COMMON}'


def nats_sink(receiver) -> str:
    return (
        f'[sinks.events]\ntype = "nats"\nservers = ["{receiver.url}"]\n'
        f'subject = "predictions.{{model}}"\n{COMMON}'
    )


KINDS = {"http": (HttpReceiver, http_sink), "nats": (NatsReceiver, nats_sink)}


class Scene:
    """A gateway, the receiver of its predictions, and requests on their way."""

    def __init__(self, gateway, receiver, traffic) -> None:
        self.gateway = gateway
        self.receiver = receiver
        self.traffic = traffic

    def status(self) -> dict:
        _, stream = self.gateway.administer("GET", "/admin/stream")
        (found,) = stream["sinks"]
        return found

    def account(self) -> dict:
        return accounted(self.status())

    def until(self, condition) -> None:
        self.gateway.wait_until(condition, DEADLINE_S)

    def until_more_is_delivered(self, rows: int = 200) -> None:
        before = self.account()["delivered"]
        self.until(lambda: self.account()["delivered"] >= before + rows)

    def until_more_is_answered(self, requests: int = 300) -> None:
        before = len(self.traffic.answered)
        self.until(lambda: len(self.traffic.answered) >= before + requests)


@pytest.fixture(params=KINDS)
def play(request, tmp_path):
    """``play(act, buffer)``: what the sink's account and the receiver say after ``act(scene)``."""
    make_receiver, sink = KINDS[request.param]

    def run(act, buffer: str) -> tuple[dict, list[str], int, int]:
        ModelDirectory(tmp_path / "models").add("rows", rows, "")
        (tmp_path / "receiver").mkdir()
        with make_receiver(tmp_path / "receiver") as receiver:
            if request.param == "nats":
                receiver.add_stream()
            file = monitoring(tmp_path, sink(receiver) + f'buffer_bytes = "{buffer}"\n')
            with GatewayProcess(tmp_path / "models", "--monitoring", str(file)) as gateway:
                with Traffic(gateway.http_port) as traffic:
                    scene = Scene(gateway, receiver, traffic)
                    scene.until(lambda: scene.status()["accounts"])
                    scene.until_more_is_delivered()
                    act(scene)
                scene.until(lambda: scene.account()["served"] == ROWS * len(traffic.answered))
                scene.until(lambda: scene.account()["buffered"] == 0)
                account = scene.account()
            ids = [id for type, id in receiver.ids() if type == RESPONSE]
        assert traffic.failed == []
        assert account["served"] == ROWS * len(traffic.answered)
        assert account["delivered"] == ROWS * len(set(ids)), "what it got is what was delivered"
        assert set(ids) <= set(traffic.answered)
        return account

    return run


def stall(scene) -> None:
    scene.receiver.stall()
    scene.until(lambda: scene.status()["state"] == "down")
    scene.until_more_is_answered()
    scene.receiver.go_on()
    scene.until(lambda: scene.status()["state"] == "up")
    scene.until_more_is_delivered()


def kill(scene) -> None:
    scene.receiver.kill()
    scene.until(lambda: scene.status()["state"] == "down")
    scene.until_more_is_answered()
    scene.receiver.start()
    scene.until(lambda: scene.status()["state"] == "up")
    scene.until_more_is_delivered()


def restart_often(scene) -> None:
    for _ in range(3):
        scene.receiver.restart()
        scene.until_more_is_delivered(50)


@pytest.mark.parametrize("act", [stall, kill, pytest.param(restart_often, marks=pytest.mark.slow)])
def test_with_room_in_the_buffer_nothing_is_lost(play, act) -> None:
    account = play(act, "64MiB")
    assert (account["dropped"], account["lost"]) == ({}, {})


@pytest.mark.parametrize("act", [stall, kill])
def test_beyond_the_buffer_predictions_are_dropped_and_counted(play, act) -> None:
    account = play(act, "64KiB")
    assert set(account["dropped"]) == {"buffer_full"}
    assert account["lost"] == {}


def test_at_the_end_a_gateway_delivers_what_waits_and_tells_what_it_could_not(tmp_path) -> None:
    ModelDirectory(tmp_path / "models").add("rows", rows, "")
    (tmp_path / "receiver").mkdir()
    with HttpReceiver(tmp_path / "receiver") as receiver:
        file = monitoring(
            tmp_path,
            f'[sinks.slow]\ntype = "cloud_events"\nurl = "{receiver.url}"\n'
            "batch = { linger_s = 3600 }\n"
            '[sinks.gone]\ntype = "cloud_events"\nurl = { env = "GONE_URL" }\n',
        )
        options = ("--monitoring", str(file), "--sink-flush-s", "10")
        gateway = GatewayProcess(
            tmp_path / "models",
            *options,
            environment={"GONE_URL": "http://127.0.0.1:9/hunter2"},
        )
        with gateway:
            with Traffic(gateway.http_port) as traffic:
                gateway.wait_until(lambda: len(traffic.answered) > 20)
            text = gateway.request("GET", "/metrics")[2].decode()
            assert 'onnx_gateway_stream_buffered{model="rows",subscriber="slow"}' in text
            gateway.stop()
            log = gateway.log()
        ids = [id for type, id in receiver.ids() if type == RESPONSE]
    assert sorted(ids) == sorted(traffic.answered), "once each: nothing failed"
    rows_lost = ROWS * len(traffic.answered)
    assert f"sink 'gone': {rows_lost} predictions were not delivered before the end" in log
    assert "sink 'slow': " not in log
    assert "hunter2" not in log


def test_a_wrong_monitoring_file_ends_the_start_with_one_message(tmp_path) -> None:
    ModelDirectory(tmp_path / "models").add("rows", rows, "")
    file = monitoring(tmp_path, '[sinks.a]\ntype = "parquet"\n')
    gateway = GatewayProcess(tmp_path / "models", "--monitoring", str(file)).start()
    try:
        assert gateway._process.wait(30) == 2
        assert f"{file}: sinks.a.directory is missing" in gateway.log()
        assert "Traceback" not in gateway.log()
    finally:
        gateway.kill()
