"""Predictions as CloudEvents at real receivers: HTTP, NATS JetStream, Kafka's mock cluster."""

import json
import socket
import sys
import threading

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer

from gateway.errors import ConfigError
from gateway.monitoring_file import read_monitoring_file
from gateway.stream.sinks import sink as sink_module
from gateway.stream.sinks.events import REQUEST, RESPONSE, header_text
from gateway.stream.sinks.sinks import Sinks
from tests.repository import echo, rows, rows_of, slow
from tests.stream.sinks.blocks import block
from tests.stream.sinks.receivers import HttpReceiver, NatsReceiver, until
from tests.stream.sinks.served import accounted, monitoring, request, serve

RETRY = "retry = { first_s = 0.05, most_s = 0.2 }\n"


def some_rows(count: int, start: int = 0) -> np.ndarray:
    return (start + np.arange(4 * count, dtype=np.float32)).reshape(count, 4)


def some_requests(count: int) -> list:
    return [request("rows", {"x": some_rows(1 + n % 3, n)}, f"r{n}") for n in range(count)]


def both_of(ids) -> set:
    return {(type, id) for id in ids for type in (REQUEST, RESPONSE)}


@pytest.fixture
def http(tmp_path):
    directory = tmp_path / "receiver"
    directory.mkdir()
    with HttpReceiver(directory) as receiver:
        yield receiver


@pytest.fixture
def nats_server(tmp_path):
    directory = tmp_path / "nats"
    directory.mkdir()
    with NatsReceiver(directory) as receiver:
        yield receiver


@pytest.fixture
def kafka():
    """The brokers of a cluster that librdkafka makes up; it lasts as long as its producer."""
    cluster = Producer({"test.mock.num.brokers": 2, "log_level": 0})
    brokers = cluster.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{b.host}:{b.port}" for b in brokers)
    cluster.flush(1)


def http_sink(receiver, more: str = "") -> str:
    return f'[sinks.events]\ntype = "cloud_events"\nurl = "{receiver.url}"\n{RETRY}{more}'


# -- HTTP -------------------------------------------------------------------------------------


def test_events_have_the_attributes_of_kserves_logger(http, tmp_path) -> None:
    given = request("rows", {"x": some_rows(2)}, "r1", {b"ce-id": b"event 7"})
    status = serve(
        tmp_path,
        http_sink(
            http,
            'namespace = "shop"\nsource = "http://gateway:8000/"\n'
            'headers = { Authorization = "Bearer hunter2" }\nannotations = { team = "fraud" }\n',
        ),
        [given, request("rows", {"x": some_rows(1)}, "r2")],
        {"rows": rows},
    )
    assert accounted(status["events"])["delivered"] == 3
    events = {(e["headers"]["ce-type"], e["headers"]["ce-id"]): e for e in http.events()}
    assert set(events) == both_of(["event%207", "r2"])
    asked, answered = events[REQUEST, "event%207"], events[RESPONSE, "event%207"]
    for event in (asked, answered):
        headers = event["headers"]
        assert event["target"] == "/events?source=test"
        assert headers["content-type"] == "application/json"
        assert headers["authorization"] == "Bearer hunter2"
        assert {name: headers[f"ce-{name}"] for name in (
            "specversion", "source", "inferenceservicename", "namespace", "component", "endpoint",
            "metadata", "annotations",
        )} == {
            "specversion": "1.0", "source": "http://gateway:8000/", "inferenceservicename": "rows",
            "namespace": "shop", "component": "predictor", "endpoint": "default",
            "metadata": "{}", "annotations": '{"team":"fraud"}',
        }  # fmt: skip
        assert headers["ce-time"].endswith("Z")
        assert headers["ce-recordedtime"] >= headers["ce-time"]
    assert asked["body"] == {
        "id": "r1",
        "inputs": [
            {
                "name": "x",
                "shape": [2, 4],
                "datatype": "FP32",
                "data": some_rows(2).reshape(-1).tolist(),
            }
        ],
    }
    assert answered["body"] == {
        "id": "r1",
        "model_name": "rows",
        "model_version": "1",
        "outputs": [
            {
                "name": "y",
                "shape": [2, 5],
                "datatype": "FP32",
                "data": rows_of(some_rows(2)).reshape(-1).tolist(),
            }
        ],
    }
    assert "hunter2" not in json.dumps(status)


def test_the_python_sdk_of_cloudevents_takes_them(http, tmp_path) -> None:
    # kserve, which reads its logger's events with it, brings the package.
    cloudevents = pytest.importorskip("cloudevents.http")
    serve(tmp_path, http_sink(http), some_requests(1), {"rows": rows})
    for event in http.events():
        read = cloudevents.from_http(event["headers"], json.dumps(event["body"]))
        assert read["id"] == "r0"
        assert read.data == event["body"]


def test_every_request_arrives_over_several_connections(http, tmp_path) -> None:
    status = serve(tmp_path, http_sink(http), some_requests(100), {"rows": rows})
    assert accounted(status["events"])["delivered"] == 199
    assert sorted(http.ids()) == sorted(both_of(f"r{n}" for n in range(100)))


def test_the_mode_says_which_of_the_two_events_are_sent(http, tmp_path) -> None:
    serve(tmp_path, http_sink(http, 'mode = "response"\n'), some_requests(2), {"rows": rows})
    assert sorted(http.ids()) == [(RESPONSE, "r0"), (RESPONSE, "r1")]


def test_what_is_refused_is_counted_and_not_sent_again(http, tmp_path) -> None:
    http.answer_with(413)
    status = serve(tmp_path, http_sink(http), some_requests(6), {"rows": rows})
    account = accounted(status["events"])
    assert (account["delivered"], account["lost"]) == (0, {"refused": 12})
    assert status["events"]["last_error"].endswith("answers with status 413")
    assert status["events"]["retries"] == 0


def test_what_is_not_taken_now_is_sent_again(http, tmp_path) -> None:
    http.answer_with(503)
    timer = threading.Timer(0.5, http.answer_with, [200])
    timer.start()
    status = serve(tmp_path, http_sink(http), some_requests(6), {"rows": rows})
    timer.join()
    assert accounted(status["events"])["delivered"] == 12
    assert set(http.ids()) == both_of(f"r{n}" for n in range(6))


def test_a_receiver_that_is_not_there_costs_what_was_to_be_delivered(http, tmp_path) -> None:
    http.kill()
    status = serve(tmp_path, http_sink(http, ""), some_requests(6), {"rows": rows}, flush_s=0.3)[
        "events"
    ]
    account = accounted(status)
    assert (account["delivered"], account["lost"], account["buffered"]) == (0, {"shutdown": 12}, 0)
    assert status["state"] == "down"
    assert "Connection refused" in status["last_error"]


def test_connections_that_the_receiver_closed_while_idle_cost_nothing(http, tmp_path) -> None:
    path = monitoring(tmp_path, http_sink(http))
    (_, (_, sink)) = Sinks(read_monitoring_file(str(path)).sinks)._made[0]
    first, second = (sink.encode([block(1, number=n)]) for n in range(2))
    sink.deliver(first, 5.0)
    http.restart()
    sink.deliver(second, 5.0)
    assert [p.arrived for p in (*first, *second)] == [True, True]


def test_a_server_that_answers_with_rubbish_is_an_error_and_no_delivery(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100_000)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        text = f'[sinks.a]\ntype = "cloud_events"\nurl = "{url}"\nmode = "request"\n'
        path = monitoring(tmp_path, text)
        (_, (_, sink)) = Sinks(read_monitoring_file(str(path)).sinks)._made[0]
        parcels = sink.encode([block(1)])
        with pytest.raises(sink_module.Undelivered, match=r"the answer is not HTTP/1\.1"):
            sink.deliver(parcels, 5.0)
        thread.join()
    assert not parcels[0].arrived


# -- the events themselves --------------------------------------------------------------------


def test_tensors_of_a_model_without_batches_have_the_shape_that_the_caller_gave(http, tmp_path):
    steps = np.array([3], np.int64)
    serve(tmp_path, http_sink(http), [request("slow", {"steps": steps}, "s")], {"slow": slow})
    asked, answered = (
        e["body"] for e in sorted(http.events(), key=lambda e: e["headers"]["ce-type"])
    )
    assert asked["inputs"] == [{"name": "steps", "shape": [1], "datatype": "INT64", "data": [3]}]
    assert answered["outputs"][0]["shape"] == [1]


def test_text_is_text_and_what_is_not_finite_is_null(http, tmp_path) -> None:
    words = np.array([[b"a", "né".encode()]], object)
    nan = np.array([[np.nan, 1, 2, 3]], np.float32)
    serve(
        tmp_path,
        http_sink(http, 'mode = "request"\n'),
        [request("words", {"x": words}), request("rows", {"x": nan})],
        {"words": lambda: echo("BYTES"), "rows": rows},
    )
    data = [e["body"]["inputs"][0]["data"] for e in http.events()]
    assert sorted(data, key=str) == [["a", "né"], [None, 1, 2, 3]]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain-1", "plain-1"),
        ("a b", "a%20b"),
        ('"%', "%22%25"),
        ("é", "%C3%A9"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil:%201"),
    ],
)
def test_nothing_that_a_caller_names_breaks_out_of_a_header(value, written) -> None:
    assert header_text(value) == written


# -- NATS -------------------------------------------------------------------------------------


def nats_sink(server, more: str = "") -> str:
    return (
        f'[sinks.events]\ntype = "nats"\nservers = ["{server.url}"]\n'
        f'subject = "predictions.{{model}}"\n{RETRY}{more}'
    )


def test_jetstream_has_every_request_with_its_attributes(nats_server, tmp_path) -> None:
    nats_server.add_stream()
    status = serve(tmp_path, nats_sink(nats_server), some_requests(400), {"rows": rows})
    assert accounted(status["events"])["delivered"] == 799
    messages = nats_server.messages()
    assert sorted((m.headers["ce-type"], m.headers["ce-id"]) for m in messages) == sorted(
        both_of(f"r{n}" for n in range(400))
    )
    first = messages[0]
    assert first.subject == "predictions.rows"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["ce-inferenceservicename"] == "rows"
    assert {"inputs", "outputs"} & set(json.loads(first.data))


def test_a_message_that_is_sent_twice_is_taken_once(nats_server, tmp_path) -> None:
    nats_server.add_stream()
    path = monitoring(tmp_path, nats_sink(nats_server))
    (_, (_, sink)) = Sinks(read_monitoring_file(str(path)).sinks)._made[0]
    parcels = sink.encode([block(1, 1)])
    sink.deliver(parcels, 5.0)
    for parcel in parcels:
        for letter in parcel.content:
            letter.arrived = False
    sink.deliver(parcels, 5.0)
    sink.close()
    assert len(nats_server.messages()) == 4


def test_requests_of_one_id_are_messages_of_their_own(nats_server, tmp_path) -> None:
    nats_server.add_stream()
    same = [request("rows", {"x": some_rows(1, n)}, "same") for n in range(5)]
    serve(tmp_path, nats_sink(nats_server), same, {"rows": rows})
    assert len(nats_server.messages()) == 10


def test_without_a_stream_it_waits_for_one(nats_server, tmp_path) -> None:
    timer = threading.Timer(0.5, nats_server.add_stream)
    timer.start()
    status = serve(tmp_path, nats_sink(nats_server), some_requests(3), {"rows": rows})
    timer.join()
    assert accounted(status["events"])["delivered"] == 6
    assert "no stream takes the subject of model 'rows'" in status["events"]["last_error"]


def test_a_message_that_the_stream_never_takes_is_refused(nats_server, tmp_path) -> None:
    nats_server.add_stream(max_msg_size=1000)
    large = request("rows", {"x": some_rows(60)}, "large")
    small = request("rows", {"x": some_rows(1)}, "small")
    status = serve(tmp_path, nats_sink(nats_server), [large, small], {"rows": rows})
    account = accounted(status["events"])
    assert (account["delivered"], account["lost"]) == (1, {"refused": 60})


def test_a_message_that_the_server_never_takes_is_refused(nats_server, tmp_path) -> None:
    nats_server.add_stream()
    wide = np.zeros((1, 600_000), np.float32)
    status = serve(
        tmp_path,
        nats_sink(nats_server, 'buffer_bytes = "64MiB"\n'),
        [request("wide", {"x": wide}), request("wide", {"x": wide[:, :4]})],
        {"wide": lambda: echo("FP32")},
    )
    account = accounted(status["events"])
    assert (account["delivered"], account["lost"]) == (1, {"refused": 1})
    assert "the server takes 1048576" in status["events"]["last_error"]


# -- Kafka ------------------------------------------------------------------------------------


def test_kafka_has_every_request_with_its_attributes(kafka, tmp_path) -> None:
    text = (
        f'[sinks.events]\ntype = "kafka"\nbrokers = "{kafka}"\ntopic = "predictions-{{model}}"\n'
        f'{RETRY}[sinks.events.options]\n"compression.type" = "gzip"\n'
    )
    status = serve(tmp_path, text, some_requests(300), {"rows": rows})
    assert accounted(status["events"])["delivered"] == 600
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "test", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["predictions-rows"])
    found: list = []
    until(lambda: found.extend(consumer.consume(1000, 0.2)) or len(found) >= 600)
    consumer.close()
    headers = [{name: value.decode() for name, value in m.headers()} for m in found]
    assert sorted((h["ce_type"], h["ce_id"]) for h in headers) == sorted(
        both_of(f"r{n}" for n in range(300))
    )
    assert headers[0]["ce_specversion"] == "1.0"
    assert headers[0]["content-type"] == "application/json"
    assert {m.key().decode() for m in found} == {f"r{n}" for n in range(300)}


def test_kafka_that_is_not_there_costs_what_was_to_be_delivered(tmp_path) -> None:
    text = (
        '[sinks.events]\ntype = "kafka"\nbrokers = "127.0.0.1:9"\ntopic = "t"\n'
        f"timeout_s = 0.5\n{RETRY}"
    )
    status = serve(tmp_path, text, some_requests(3), {"rows": rows}, flush_s=1.0)["events"]
    account = accounted(status)
    assert (account["delivered"], account["lost"], account["buffered"]) == (0, {"shutdown": 6}, 0)
    assert status["state"] == "down"
    assert status["last_error"].startswith("Kafka: ")


# -- settings ---------------------------------------------------------------------------------

HTTP = '[sinks.a]\ntype = "cloud_events"\n'
NATS = '[sinks.a]\ntype = "nats"\nservers = ["nats://n"]\n'
KAFKA = '[sinks.a]\ntype = "kafka"\nbrokers = "k:9092"\ntopic = "t"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HTTP + 'url = "logger:8080"', "sinks.a.url must be a URL such as http://logger:8080/"),
        (HTTP + 'url = "http://u:hunter2@h/"', "sinks.a.url has a name or password in it"),
        (HTTP + 'url = "http://h"\nca = "x"', "sinks.a.ca is for a url of https"),
        (HTTP + 'url = "https://h"\nca = "x"', "sinks.a.ca: cannot read"),
        (HTTP + 'url = "http://h"\nmode = "both"', 'sinks.a.mode must be "all" or "request" or'),
        (HTTP + 'url = "http://h"\nheaders = { ce-id = "1" }', "is written by the sink itself"),
        (HTTP + 'url = "http://h"\nheaders = { A = "a\\nb" }', "headers.A must be printable ASCII"),
        (NATS + 'subject = "a.*"', "sinks.a.subject must be a subject without spaces, '*' and '>'"),
        (NATS + 'subject = "a"\ncredentials = "none"', "sinks.a.credentials: there is no file"),
        (KAFKA + 'options = { "bootstrap.servers" = "x" }', "is set by the sink's own keys"),
        (KAFKA + 'options = { "acks.all" = "hunter2" }', "options: librdkafka does not take them"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_sink_is_told_before_anything_starts(tmp_path, text, message) -> None:
    path = monitoring(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        Sinks(read_monitoring_file(str(path)).sinks)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "text", "extra"),
    [("nats", NATS + 'subject = "a"', "nats"), ("confluent_kafka", KAFKA, "kafka")],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    tmp_path, monkeypatch, module, text, extra
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = monitoring(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"pip install 'onnx-gateway\[{extra}\]'"):
        Sinks(read_monitoring_file(str(path)).sinks)
