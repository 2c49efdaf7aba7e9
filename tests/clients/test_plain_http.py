"""HTTP as its many clients speak it, down to the bytes: curl, Java, proxies, probes."""

import http.client
import json
import re
import socket
from typing import Any

import numpy as np
import pytest

from tests.fronts import sample
from tests.repository import rows_of
from tests.server import HOST, GatewayProcess

X = sample("FP32", (2, 4))
PATH = "/v2/models/rows/infer"
BODY = json.dumps(
    {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": X.tolist()}]}
).encode()


def say(gateway: GatewayProcess, *parts: bytes) -> list[http.client.HTTPResponse]:
    """Send the parts on one connection; one response, read whole, for each."""
    with socket.create_connection((HOST, gateway.http_port), 20) as connection:
        connection.sendall(b"".join(parts))
        return [read(connection) for _ in parts]


def read(connection: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection, method="POST")
    # Unbuffered, so that the next response is left in the socket.
    response.fp = connection.makefile("rb", buffering=0)
    response.begin()
    response.body = response.read()
    return response


def request(*headers: str, body: bytes = BODY, line: str = f"POST {PATH} HTTP/1.1") -> bytes:
    lines = [line, "Host: gateway", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


LENGTH = f"Content-Length: {len(BODY)}"


def assert_answered(response: Any) -> None:
    assert response.status == 200, response.body
    (output,) = json.loads(response.body)["outputs"]
    y = np.array(output["data"], np.float32).reshape(output["shape"])
    np.testing.assert_array_equal(y, rows_of(X))


def test_upgrade_to_http2_that_java_offers(gateway: GatewayProcess) -> None:
    headers = [LENGTH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"]
    (response,) = say(gateway, request(*headers, "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk"))
    assert_answered(response)


def test_upgrade_to_websocket_is_declined_not_obeyed(gateway: GatewayProcess) -> None:
    headers = [LENGTH, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    (response,) = say(gateway, request(*headers))
    assert_answered(response)


def test_pipelined_requests_are_answered_in_order(gateway: GatewayProcess) -> None:
    ids = [str(i) for i in range(20)]
    bodies = [json.dumps({**json.loads(BODY), "id": name}).encode() for name in ids]
    responses = say(
        gateway, *(request(f"Content-Length: {len(body)}", body=body) for body in bodies)
    )
    assert [json.loads(response.body)["id"] for response in responses] == ids


def test_pipelined_error_does_not_end_the_connection(gateway: GatewayProcess) -> None:
    wrong = request("Content-Length: 2", body=b"[]")
    responses = say(gateway, request(LENGTH), wrong, request(LENGTH))
    assert [response.status for response in responses] == [200, 400, 200]


def test_control_and_inference_on_one_connection(gateway: GatewayProcess) -> None:
    live = request(line="GET /v2/health/live HTTP/1.1", body=b"")
    responses = say(gateway, live, request(LENGTH), live, request(LENGTH))
    assert [response.status for response in responses] == [200] * 4


def test_chunked_body(gateway: GatewayProcess) -> None:
    pieces = [BODY[:1], BODY[1:40], BODY[40:]]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    (response,) = say(gateway, request("Transfer-Encoding: chunked", body=chunked))
    assert_answered(response)


def test_continue_is_told_to_who_expects_it(gateway: GatewayProcess) -> None:
    with socket.create_connection((HOST, gateway.http_port), 20) as connection:
        connection.sendall(request(LENGTH, "Expect: 100-continue", body=b""))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert_answered(read(connection))


def test_http_1_0_closes(gateway: GatewayProcess) -> None:
    with socket.create_connection((HOST, gateway.http_port), 20) as connection:
        connection.sendall(request(LENGTH, line=f"POST {PATH} HTTP/1.0"))
        assert_answered(read(connection))
        assert connection.recv(1) == b""


def test_connection_close_is_obeyed(gateway: GatewayProcess) -> None:
    with socket.create_connection((HOST, gateway.http_port), 20) as connection:
        connection.sendall(request(LENGTH, "Connection: close"))
        assert_answered(read(connection))
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "path",
    ["/v2/models/%72ows/infer", f"{PATH}?who=me", "/v2/models/rows/versions/1/infer"],
)
def test_ways_to_write_a_path(gateway: GatewayProcess, path: str) -> None:
    (response,) = say(gateway, request(LENGTH, line=f"POST {path} HTTP/1.1"))
    assert_answered(response)


@pytest.mark.parametrize(
    ("path", "key"), [("/v2/health/live", "live"), ("/v2/health/ready", "ready")]
)
def test_health_has_a_body_and_an_empty_head(gateway: GatewayProcess, path: str, key: str) -> None:
    assert gateway.get(path) == (200, {key: True})
    status, _, body = gateway.request("HEAD", path)
    assert (status, body) == (200, b"")


def test_model_ready(gateway: GatewayProcess) -> None:
    assert gateway.get("/v2/models/rows/ready")[0] == 200
    status, document = gateway.get("/v2/models/nobody/ready")
    assert status == 404
    assert "nobody" in document["error"]


def test_models_are_listed(gateway: GatewayProcess) -> None:
    status, document = gateway.get("/v2/models")
    assert status == 200
    assert {"rows", "types"} <= set(document["models"])


def test_paths_and_methods_that_are_not_there(gateway: GatewayProcess) -> None:
    for method, path, status in [
        ("GET", "/nowhere", 404),
        ("POST", "/v2/nowhere", 404),
        ("GET", PATH, 405),
        ("DELETE", "/v2", 405),
    ]:
        got, headers, body = gateway.request(method, path)
        assert got == status, (method, path)
        assert headers["content-type"].startswith("application/json")
        assert json.loads(body)["error"]


def test_v1_predict(gateway: GatewayProcess) -> None:
    status, document = gateway.post("/v1/models/rows:predict", {"instances": X.tolist()})
    assert status == 200, document
    np.testing.assert_array_equal(np.array(document["predictions"], np.float32), rows_of(X))
    status, document = gateway.post(
        "/v1/models/sum_and_difference:predict",
        {"instances": [{"A": list(range(16)), "B": [1] * 16}] * 2},
    )
    assert status == 200, document
    assert [row["SUM"] for row in document["predictions"]] == [list(range(1, 17))] * 2
    assert gateway.get("/v1/models/rows")[0] == 200
    assert gateway.post("/v1/models/nobody:predict", {"instances": []})[0] == 404
    assert gateway.post("/v1/models/rows:predict", {"instance": []})[0] == 400


def test_metrics_on_both_ports(gateway: GatewayProcess) -> None:
    gateway.post(PATH, json.loads(BODY))
    pages = [gateway.request("GET", "/metrics")[2].decode()]
    connection = http.client.HTTPConnection(HOST, gateway.metrics_port, timeout=20)
    connection.request("GET", "/metrics")
    pages.append(connection.getresponse().read().decode())
    connection.close()
    for page in pages:
        assert re.search(r'^\w+_bucket\{.*model="rows".*version="1".*\} [1-9]', page, re.MULTILINE)
        assert page.count("# TYPE") > 5


def test_openapi_and_its_page_are_whole_without_the_internet(gateway: GatewayProcess) -> None:
    status, document = gateway.get("/openapi.json")
    assert status == 200
    assert document["openapi"].startswith("3.")
    assert any(path.endswith("/infer") for path in document["paths"])
    status, headers, page = gateway.request("GET", "/docs")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert not re.search(rb"""(src|href)=["'](https?:)?//""", page)
