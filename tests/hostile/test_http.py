"""Whatever is sent to the HTTP port, the server neither crashes nor hangs nor forgets its work."""

import json
import socket
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fronts import HttpBinary, Request, Tensor, decode_http, sample
from tests.hostile.mutations import mutated
from tests.hostile.raw import ask, exchange, post, status_of
from tests.hostile.victim import Victim, X
from tests.repository import rows_of
from tests.server import HOST

PATH = "/v2/models/rows/infer"
INPUT = {"name": "x", "datatype": "FP32", "shape": [2, 4]}
examples = settings(max_examples=60, deadline=None)


def header_of(size: int) -> bytes:
    return json.dumps({"inputs": [{**INPUT, "parameters": {"binary_data_size": size}}]}).encode()


HEADER = header_of(X.nbytes)
RIGHT_HTTP = post(PATH, HEADER + X.tobytes(), f"Inference-Header-Content-Length: {len(HEADER)}")
DATA = json.dumps({"inputs": [{**INPUT, "data": X.ravel().tolist()}]}).encode()
RIGHT_JSON = post(PATH, DATA, "Content-Type: application/json")


@examples
@given(data=st.binary(max_size=4096))
@example(data=b"")
@example(data=b"\0" * 100_000)
@example(data=b"GET " + b"/" * 1_000_000)
@example(data=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
@example(data=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
def test_random_bytes(victim: Victim, data: bytes) -> None:
    exchange(victim.gateway.http_port, data)
    victim.assert_well()


@examples
@given(data=mutated(RIGHT_HTTP))
def test_binary_request_made_wrong(victim: Victim, data: bytes) -> None:
    assert status_of(exchange(victim.gateway.http_port, data)) not in (500, 502)
    victim.assert_well()


@examples
@given(data=mutated(RIGHT_JSON))
def test_json_request_made_wrong(victim: Victim, data: bytes) -> None:
    assert status_of(exchange(victim.gateway.http_port, data)) not in (500, 502)
    victim.assert_well()


@examples
@given(told=st.integers(-5, 10_000) | st.sampled_from([2**31, 2**63, 2**64, 10**30]))
def test_lying_content_length(victim: Victim, told: int) -> None:
    body = HEADER + X.tobytes()
    header_length = f"Inference-Header-Content-Length: {len(HEADER)}"
    request = post(PATH, body, header_length, length=told)
    if told == len(body):
        assert status_of(ask(victim.gateway.http_port, request)) == 200
    else:
        assert status_of(exchange(victim.gateway.http_port, request)) != 200
    victim.assert_well()


@pytest.mark.parametrize("cut", range(0, len(RIGHT_HTTP), 23))
def test_request_cut_short(victim: Victim, cut: int) -> None:
    assert status_of(exchange(victim.gateway.http_port, RIGHT_HTTP[:cut])) != 200
    victim.assert_well()


sizes = st.integers(-3, 200) | st.sampled_from([2**31 - 1, 2**32, 2**63 - 1, 2**63, 2**64, 10**25])


@examples
@given(header=sizes, data=sizes, shape=st.lists(sizes, max_size=4), body=st.binary(max_size=80))
@example(header=len(header_of(32)), data=32, shape=[2, 4], body=X.tobytes())
def test_sizes_that_do_not_agree(
    victim: Victim, header: int, data: int, shape: list[int], body: bytes
) -> None:
    entry = {**INPUT, "shape": shape, "parameters": {"binary_data_size": data}}
    document = json.dumps({"inputs": [entry]}).encode()
    told = f"Inference-Header-Content-Length: {header if header < 0 else len(document) + header}"
    answer = ask(victim.gateway.http_port, post(PATH, document + body, told))
    assert status_of(answer) in (200, 400), answer
    answer = ask(
        victim.gateway.http_port,
        post(PATH, document + body, f"Inference-Header-Content-Length: {len(document)}"),
    )
    right = len(body) == data == 16 * (shape[:1] or [0])[0] and shape[1:] == [4]
    assert status_of(answer) == (200 if right else 400), answer
    victim.assert_well()


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["x", "FP32", "y", 2, 4, 8]),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "id"])
            | st.text(max_size=4),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@examples
@given(inputs=values, outputs=values, parameters=values, request_id=values)
def test_json_of_any_form(
    victim: Victim, inputs: Any, outputs: Any, parameters: Any, request_id: Any
) -> None:
    document = {
        "inputs": inputs, "outputs": outputs, "parameters": parameters, "id": request_id
    }  # fmt: skip
    answer = ask(victim.gateway.http_port, post(PATH, json.dumps(document).encode()))
    assert status_of(answer) == 400, answer
    victim.assert_well()


@examples
@given(changed=st.dictionaries(st.sampled_from([*sorted(INPUT), "data"]), values, min_size=1))
def test_input_of_any_form(victim: Victim, changed: dict[str, Any]) -> None:
    entry = {**INPUT, "data": X.ravel().tolist(), **changed}
    answer = ask(victim.gateway.http_port, post(PATH, json.dumps({"inputs": [entry]}).encode()))
    assert status_of(answer) in (200, 400), answer
    victim.assert_well()


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-Big: {'a' * 1_000_000}"],
        [f"X-{i}: {'a' * 100}" for i in range(20_000)],
        ["Content-Length: 3"],
        ["Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Inference-Header-Content-Length: 5", "Inference-Header-Content-Length: 50"],
        ["Bad Header: 1"],
        ["X: \x00"],
        [": nothing"],
        ["Expect: the-unexpected"],
    ],
    ids=[
        "one of 1 MB", "20,000", "two lengths", "length and chunks", "gzip chunks",
        "two header lengths", "space in a name", "NUL", "no name", "expectation",
    ],
)  # fmt: skip
def test_strange_headers(victim: Victim, headers: list[str]) -> None:
    answer = exchange(victim.gateway.http_port, post(PATH, DATA, *headers))
    assert status_of(answer) not in (500, 502)
    victim.assert_well()


@examples
@given(
    name=st.text(st.characters(min_codepoint=1, blacklist_categories=["Cs"]), max_size=20),
    raw=st.booleans(),
)
@example(name="../../etc/passwd", raw=True)
@example(name="%00", raw=True)
@example(name="%ff%fe", raw=True)
def test_any_model_name(victim: Victim, name: str, raw: bool) -> None:
    path = f"/v2/models/{name if raw else quote(name, safe='')}/infer"
    data = post("PATH", DATA).replace(b"PATH", path.encode())
    assert status_of(exchange(victim.gateway.http_port, data)) not in (200, 500, 502)
    victim.assert_well()


@pytest.mark.parametrize("part", [0, 1, 50, 150, len(RIGHT_HTTP) - 1])
def test_connections_that_say_nothing_more(victim: Victim, part: int) -> None:
    before = victim.descriptors()
    idle = [socket.create_connection((HOST, victim.gateway.http_port)) for _ in range(100)]
    for connection in idle:
        connection.sendall(RIGHT_HTTP[:part])
    victim.assert_well()
    for connection in idle:
        connection.close()
    victim.wait_for_descriptors(before)


def test_callers_that_never_read(victim: Victim) -> None:
    """Answers to a caller who does not take them pile up to a bound, and harm nobody else."""
    x = sample("FP32", (2000, 4))
    front = HttpBinary(victim.gateway)
    body, headers = front.encode(Request("rows", (Tensor.of("x", x),)))
    lines = [f"{name}: {value}" for name, value in headers.items()]
    request = post(PATH, body, *lines).replace(b"Connection: close\r\n", b"")
    memory = victim.gateway.rss_bytes()
    deaf = [socket.create_connection((HOST, victim.gateway.http_port)) for _ in range(4)]
    for connection in deaf:
        connection.settimeout(0.5)
        sent = 0
        try:
            for _ in range(1000):
                sent += connection.send(request)
        except TimeoutError:
            pass
    victim.assert_well()
    assert victim.gateway.rss_bytes() - memory < 32 << 20
    for connection in deaf:
        connection.close()


def test_body_that_comes_a_byte_at_a_time(victim: Victim) -> None:
    with socket.create_connection((HOST, victim.gateway.http_port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(RIGHT_HTTP)):
            connection.sendall(RIGHT_HTTP[i : i + 1])
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == 200
    headers = dict(
        line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line
    )
    np.testing.assert_array_equal(decode_http(body, headers)["y"], rows_of(X))
