"""Inference over HTTP, byte by byte: framing, order, limits, and clients that leave."""

import gzip
import logging
import socket
import zlib
from collections.abc import Iterator

import numpy as np
import orjson
import pytest

from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InferenceFailed,
    QueueFull,
)
from gateway.front.http_context import HttpLimits
from gateway.types import FP32, InferOutput
from tests.front.running_front import RunningFront, Wire, infer, infer_json, post, until

ECHO = "/v2/models/echo/infer"


@pytest.fixture
def front() -> Iterator[RunningFront]:
    with RunningFront() as running:
        yield running


@pytest.fixture
def wire(front: RunningFront) -> Iterator[Wire]:
    with front.connect() as connection:
        yield connection


def test_a_connection_serves_one_request_after_the_other(wire: Wire) -> None:
    for number in ("1", "2", "3"):
        answer = wire.ask(infer(id=number))
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert "date" in answer.headers
        assert answer.json() == {
            "model_name": "echo",
            "model_version": "1",
            "id": number,
            "outputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}],
        }


def test_binary_tensors_follow_the_json_both_ways(wire: Wire) -> None:
    tensor = np.array([[1.5, -2.0]], np.float32)
    header = orjson.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [1, 2],
                    "parameters": {"binary_data_size": tensor.nbytes},
                }
            ],
            "outputs": [{"name": "x", "parameters": {"binary_data": True}}],
        }
    )
    request = post(
        ECHO, header + tensor.tobytes(), f"inference-header-content-length: {len(header)}"
    )
    for _ in range(2):  # the second answer comes from what the first left behind
        answer = wire.ask(request)
        size = int(answer.headers["inference-header-content-length"])
        assert answer.headers["content-type"] == "application/octet-stream"
        assert orjson.loads(answer.body[:size])["outputs"][0]["parameters"] == {
            "binary_data_size": 8
        }
        assert answer.body[size:] == tensor.tobytes()


@pytest.mark.parametrize("pieces", [1, 7, 64])
def test_a_request_may_come_in_pieces(front: RunningFront, pieces: int) -> None:
    request = infer(id="whole")
    with front.connect() as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(request), pieces):
            wire.send(request[start : start + pieces])
        assert wire.receive().json()["id"] == "whole"


def test_a_chunked_body(wire: Wire) -> None:
    body = infer_json()
    head = f"POST {ECHO} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:5], body[5:9], body[9:])
    )
    assert wire.ask(head + chunks + b"0\r\n\r\n").status == 200
    assert wire.ask(infer()).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "closes"),
    [
        (post(ECHO, infer_json(), "Connection: close"), True),
        (post(ECHO, infer_json(), version="1.0"), True),
        (post(ECHO, infer_json(), "Connection: keep-alive", version="1.0"), False),
        (post(ECHO, infer_json(), "Connection: keep-alive"), False),
    ],
)
def test_the_client_chooses_whether_the_connection_goes_on(
    wire: Wire, request_bytes: bytes, closes: bool
) -> None:
    answer = wire.ask(request_bytes)
    assert answer.status == 200
    assert answer.headers["connection"] == ("close" if closes else "keep-alive")
    if closes:
        assert wire.is_closed()
    else:
        assert wire.ask(infer()).status == 200


def test_nothing_after_a_close_is_served(front: RunningFront, wire: Wire) -> None:
    assert (
        wire.ask(infer("echo", "1", "Connection: close") + infer("echo", "2")).json()["id"] == "1"
    )
    assert wire.is_closed()
    assert len(front.dispatcher.submitted) == 1


def test_expect_100_continue(wire: Wire) -> None:
    body = infer_json()
    wire.send(
        f"POST {ECHO} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
    )
    assert wire.receive().status == 100
    assert wire.ask(body).status == 200


@pytest.mark.parametrize("with_body", [True, False])
def test_an_upgrade_to_h2c_is_ignored_and_its_body_kept(wire: Wire, with_body: bool) -> None:
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAE")
    if with_body:
        request = post(ECHO, infer_json(id="java"), *upgrade)
        head, body = request.split(b"\r\n\r\n")
        assert wire.send(head + b"\r\n\r\n").ask(body).json()["id"] == "java"
    else:
        lines = ["GET /v2/health/live HTTP/1.1", "Host: x", *upgrade, "", ""]
        request = "\r\n".join(lines).encode()
        assert wire.ask(request).json() == {"live": True}
    # In one piece, twice in a row.
    wire.send(request + request)
    assert wire.receive().status == 200
    assert wire.receive().status == 200
    assert wire.ask(infer()).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/v2/models/e%63ho/infer",
        "/v2/models/echo/versions/1/infer",
        "/v2/models/echo/infer?trace=1",
        "http://x/v2/models/echo/infer",
    ],
)
def test_urls_of_one_model(wire: Wire, target: str) -> None:
    assert wire.ask(post(target, infer_json())).json()["model_name"] == "echo"


def test_the_version_in_the_url_is_asked_for(front: RunningFront, wire: Wire) -> None:
    wire.ask(post("/v2/models/echo/versions/v10/infer", infer_json()))
    assert front.dispatcher.submitted[0].request.version == "v10"


def test_unknown_models_and_methods(wire: Wire) -> None:
    assert wire.ask(infer("nobody")).status == 404
    answer = wire.ask(f"GET {ECHO} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


# Order


def test_pipelined_answers_keep_the_order_of_the_requests(front: RunningFront, wire: Wire) -> None:
    wire.send(infer("held", "0") + infer("held", "1") + infer("echo", "2"))
    until(lambda: len(front.dispatcher.submitted) == 3)
    second, first = front.dispatcher.submitted[1], front.dispatcher.submitted[0]
    front.call(front.dispatcher.release, second)
    front.call(front.dispatcher.release, first)
    assert [wire.receive().json()["id"] for _ in range(3)] == ["0", "1", "2"]


def test_pipelined_errors_and_control_requests_keep_the_order(
    front: RunningFront, wire: Wire
) -> None:
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    wire.send(infer("held", "0") + live + infer("nobody") + infer("echo", "3") + live)
    ticket = until(lambda: front.dispatcher.submitted)[0]
    front.call(front.dispatcher.release, ticket)
    assert wire.receive().json()["id"] == "0"
    assert wire.receive().json() == {"live": True}
    assert wire.receive().status == 404
    assert wire.receive().json()["id"] == "3"
    assert wire.receive().json() == {"live": True}


def test_many_pipelined_requests_are_bounded_and_all_answered() -> None:
    count = 3000
    with RunningFront(HttpLimits(max_pipelined=4)) as front, front.connect() as wire:
        first = infer("held", "first")
        wire.send(first + infer("held", "second") * 10)
        until(lambda: len(front.dispatcher.submitted) == 4)
        with front.connect() as other:  # the loop has read all there was
            other.ask(infer())
        assert front.dispatcher.inflight == 4
        for index in range(12):
            if index != 4:  # the request of the other connection
                ticket = until(lambda i=index: front.dispatcher.submitted[i : i + 1])[0]
                front.call(front.dispatcher.release, ticket)
        for _ in range(11):
            assert wire.receive().status == 200
        wire.send(infer("nobody") * count)
        assert all(wire.receive().status == 404 for _ in range(count))


# Clients that leave, and that do not


def test_a_client_that_leaves_cancels_its_requests(front: RunningFront) -> None:
    with front.connect() as wire:
        wire.send(infer("held", "1") + infer("held", "2"))
        until(lambda: len(front.dispatcher.submitted) == 2)
    until(lambda: front.dispatcher.inflight == 0)
    assert all(ticket.cancelled for ticket in front.dispatcher.submitted)


def test_a_client_that_leaves_in_the_middle_of_a_body(front: RunningFront) -> None:
    with front.connect() as wire:
        wire.send(infer()[:-5])
    with front.connect() as wire:
        assert wire.ask(infer()).status == 200
    assert len(front.dispatcher.submitted) == 1


def test_a_client_that_does_not_read_is_not_read_either(front: RunningFront) -> None:
    big = np.zeros((1, 1 << 20), np.float32)
    front.dispatcher.outputs = [InferOutput("y", FP32, big)]
    document = orjson.dumps({"inputs": [], "parameters": {"binary_data_output": True}})
    request = post("/v2/models/fixed/infer", document)
    with front.connect() as wire:
        count = 40
        wire.send(request * count)
        until(lambda: front.dispatcher.submitted)
        sizes = {len(wire.receive().body) for _ in range(count)}
    assert len(sizes) == 1
    assert sizes.pop() > big.nbytes


def test_idle_connections_are_closed() -> None:
    with RunningFront(HttpLimits(keep_alive_timeout_s=0.1)) as front, front.connect() as wire:
        assert wire.ask(infer()).status == 200
        assert wire.is_closed()


@pytest.mark.parametrize("cut", [10, len(infer()) - 3])
def test_a_request_that_stops_coming_is_a_timeout(cut: int) -> None:
    with RunningFront(HttpLimits(read_timeout_s=0.1)) as front, front.connect() as wire:
        answer = wire.ask(infer()[:cut])
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert wire.is_closed()


def test_a_request_in_flight_is_no_idle_connection() -> None:
    limits = HttpLimits(keep_alive_timeout_s=0.05, read_timeout_s=0.05)
    with RunningFront(limits) as front, front.connect() as wire, front.connect() as idle:
        wire.send(infer("held"))
        ticket = until(lambda: front.dispatcher.submitted)[0]
        assert idle.is_closed()
        front.call(front.dispatcher.release, ticket)
        assert wire.receive().status == 200


# Limits and malformed requests


def test_a_body_over_the_limit_is_refused_before_it_comes() -> None:
    with RunningFront(HttpLimits(max_request_bytes=1000)) as front, front.connect() as wire:
        answer = wire.ask(f"POST {ECHO} HTTP/1.1\r\nContent-Length: 1001\r\n\r\n".encode())
        assert answer.status == 413
        assert "--max-request-bytes" in answer.error
        assert "1001" in answer.error
        assert wire.send(b"x" * 1001).is_closed()


def test_a_chunked_body_over_the_limit_is_refused_while_it_comes() -> None:
    with RunningFront(HttpLimits(max_request_bytes=1000)) as front, front.connect() as wire:
        wire.send(f"POST {ECHO} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(3):
            wire.send(b"190\r\n" + b"x" * 400 + b"\r\n")
        answer = wire.receive()
        assert answer.status == 413
        assert "--max-request-bytes" in answer.error
        assert wire.is_closed()


def test_a_control_request_over_the_limit_is_refused_too() -> None:
    with RunningFront(HttpLimits(max_request_bytes=1000)) as front, front.connect() as wire:
        assert wire.ask(post("/v2/logging", b"x" * 1001)).status == 413


def test_a_head_over_the_limit_is_refused() -> None:
    with RunningFront(HttpLimits(max_header_bytes=4096)) as front, front.connect() as wire:
        wire.send(f"POST {ECHO} HTTP/1.1\r\nX: ".encode())
        for _ in range(8):  # each piece is read before the next one is sent
            wire.send(b"x" * 1000)
            with front.connect() as other:
                other.ask(infer())
        answer = wire.receive()
        assert answer.status == 431
        assert "4096" in answer.error
        assert wire.is_closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v2/models/echo/infer HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v2/models/echo/infer HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/models/echo/infer HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v2/models/echo/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v2/models/echo/infer HTTP/1.1\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v2/models/%ff/infer HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v2/logging HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_malformed_http_is_a_400_and_the_end_of_the_connection(
    front: RunningFront, request_bytes: bytes
) -> None:
    with front.connect() as wire:
        answer = wire.ask(request_bytes)
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert answer.error
        assert wire.is_closed()


def test_what_came_before_malformed_bytes_is_answered_first(
    front: RunningFront, wire: Wire
) -> None:
    wire.send(infer("held", "good") + b"\x00garbage\r\n\r\n")
    ticket = until(lambda: front.dispatcher.submitted)[0]
    front.call(front.dispatcher.release, ticket)
    assert wire.receive().json()["id"] == "good"
    assert wire.receive().status == 400
    assert wire.is_closed()


def test_a_content_length_that_is_too_small_spoils_only_its_connection(
    front: RunningFront,
) -> None:
    with front.connect() as wire, front.connect() as other:
        lying = infer().replace(b"Content-Length: ", b"Content-Length: 1\r\nX-Rest: ")
        answer = wire.ask(lying)
        assert answer.status == 400
        assert wire.receive().status == 400
        assert wire.is_closed()
        assert other.ask(infer()).status == 200


@pytest.mark.parametrize("length", ["x", "-1", "", "1.5", "9" * 30, "100000"])
def test_a_wrong_header_length_is_a_400_and_the_connection_goes_on(wire: Wire, length: str) -> None:
    answer = wire.ask(infer("echo", "", f"Inference-Header-Content-Length: {length}"))
    assert answer.status == 400
    assert "Inference-Header-Content-Length" in answer.error
    assert wire.ask(infer()).status == 200


# Errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DeadlineExceeded("waited 5 ms"), 504),
        (InferenceFailed("Gather: index out of range"), 500),
        (GatewayError("other"), 500),
    ],
)
def test_an_error_answer(front: RunningFront, wire: Wire, error: GatewayError, status: int) -> None:
    wire.send(infer("held"))
    ticket = until(lambda: front.dispatcher.submitted)[0]
    front.call(front.dispatcher.release, ticket, error)
    answer = wire.receive()
    assert (answer.status, answer.error) == (status, str(error))
    assert wire.ask(infer()).status == 200


def test_a_full_queue_says_when_to_come_back(front: RunningFront, wire: Wire) -> None:
    front.dispatcher.refusal = QueueFull("exceeds maximum queue size")
    answer = wire.ask(infer())
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/json"
    assert answer.error == "exceeds maximum queue size"


def test_a_timeout_becomes_a_deadline(front: RunningFront, wire: Wire) -> None:
    document = orjson.loads(infer_json()) | {"parameters": {"timeout": 2000, "priority": 1}}
    wire.ask(post(ECHO, orjson.dumps(document)))
    request = front.dispatcher.submitted[0].request
    assert request.deadline_ns == request.received_ns + 2_000_000
    assert request.parameters == {"timeout": 2000, "priority": 1}


# Content codings


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),
        ("identity", bytes),
        ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
    ],
)
def test_compressed_requests(wire: Wire, coding: str, encode: object) -> None:
    body = encode(infer_json(id="small"))  # type: ignore[operator]
    assert wire.ask(post(ECHO, body, f"Content-Encoding: {coding}")).json()["id"] == "small"
    large = orjson.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [50000], "data": [0.5] * 50000}]}
    )
    answer = wire.ask(post(ECHO, encode(large), f"Content-Encoding: {coding}"))  # type: ignore[operator]
    assert answer.json()["outputs"][0]["data"] == [0.5] * 50000


@pytest.mark.parametrize("limit", [20_000, 1_000_000])
def test_a_small_body_cannot_become_a_large_one(limit: int) -> None:
    bomb = gzip.compress(b" " * 2_000_000)
    assert len(bomb) < limit
    with RunningFront(HttpLimits(max_request_bytes=limit)) as front, front.connect() as wire:
        answer = wire.ask(post(ECHO, bomb, "Content-Encoding: gzip"))
        assert answer.status == 413
        assert "--max-request-bytes" in answer.error
        assert wire.ask(infer()).status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_broken_or_unknown_coding_is_a_400(wire: Wire, coding: str) -> None:
    answer = wire.ask(post(ECHO, gzip.compress(infer_json())[:-9], f"Content-Encoding: {coding}"))
    assert answer.status == 400
    assert coding in answer.error


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.2, deflate", "deflate"),
        ("gzip;q=0", None),
        ("br", None),
        ("gzip, deflate, br", "gzip"),
    ],
)
@pytest.mark.parametrize("size", [2, 1000, 100_000])
def test_compressed_responses(wire: Wire, accept: str, coding: str | None, size: int) -> None:
    tensor = np.arange(size, dtype=np.float32)
    header = orjson.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [size],
                    "parameters": {"binary_data_size": tensor.nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    )
    answer = wire.ask(
        post(
            ECHO,
            header + tensor.tobytes(),
            f"Inference-Header-Content-Length: {len(header)}",
            f"Accept-Encoding: {accept}",
        )
    )
    expected = coding if size > 2 else None
    assert answer.headers.get("content-encoding") == expected
    body = zlib.decompress(answer.body, 47) if expected else answer.body
    length = int(answer.headers["inference-header-content-length"])
    assert body[length:] == tensor.tobytes()


# The end


def test_close_finishes_what_is_in_flight(front: RunningFront) -> None:
    with front.connect() as busy, front.connect() as idle:
        assert idle.ask(infer()).status == 200
        busy.send(infer("held"))
        ticket = until(lambda: front.dispatcher.submitted[1:])[0]
        closing = front.spawn(front.front.close(30))
        assert idle.is_closed()
        assert not closing.done()
        front.call(front.dispatcher.release, ticket)
        answer = busy.receive()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert busy.is_closed()
        closing.result(10)
    front.closed = True
    with pytest.raises(ConnectionRefusedError):
        front.connect()


def test_close_ends_what_does_not_finish(front: RunningFront) -> None:
    with front.connect() as wire:
        wire.send(infer("held"))
        until(lambda: front.dispatcher.submitted)
        front.run(front.front.close(0.01))
        front.closed = True
        assert wire.is_closed()
    assert front.dispatcher.inflight == 0


def test_the_access_log_has_one_line_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.access")
    with RunningFront(access_log=True) as front, front.connect() as wire:
        wire.ask(infer())
        wire.ask(infer("nobody"))
        wire.ask(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: len(caplog.records) == 3)
    lines = [(each.http["path"], each.http["status"]) for each in caplog.records]  # type: ignore[attr-defined]
    assert lines == [(ECHO, 200), ("/v2/models/nobody/infer", 404), ("/v2", 200)]
