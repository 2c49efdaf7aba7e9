"""The server's own limits: their errors name the limit and the option that raises it."""

import gzip
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fronts import Front, HttpBinary, RefusedError, Request, Tensor, sample
from tests.repository import ModelDirectory, rows, rows_of
from tests.server import GatewayProcess, Gateways

LIMIT = 4096
X = sample("FP32", (2, 4))
RIGHT = Request("rows", (Tensor.of("x", X),))


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    path = tmp_path_factory.mktemp("models")
    ModelDirectory(path).add("rows", rows)
    with Gateways(path, "--max-request-bytes", str(LIMIT)) as running:
        yield running


@pytest.mark.parametrize("times", [1.1, 30])
def test_request_over_the_limit(front: Front, times: float) -> None:
    x = Tensor.of("x", sample("FP32", (int(LIMIT * times) // 16, 4)))
    with pytest.raises(RefusedError) as caught:
        front.infer(replace(RIGHT, inputs=(x,)))
    if caught.value.code is not None:
        assert caught.value.code == "RESOURCE_EXHAUSTED", caught.value
    assert str(LIMIT) in caught.value.message
    assert "--max-request-bytes" in caught.value.message
    after = type(front)(front.gateway)
    np.testing.assert_array_equal(after.infer(RIGHT)["y"], rows_of(X))
    after.close()


def test_small_body_that_inflates_over_the_limit(gateway: GatewayProcess) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    status, _, body = gateway.request(
        "POST", "/v2/models/rows/infer", bomb[: LIMIT - 1], {"Content-Encoding": "gzip"}
    )
    assert status == 413, body
    assert str(LIMIT) in json.loads(body)["error"]


def test_chunked_body_over_the_limit(gateway: GatewayProcess) -> None:
    front = HttpBinary(gateway)
    chunks = (b" " * 1000 for _ in range(100))
    status, _, body = front.post("/v2/models/rows/infer", chunks, {})
    assert status == 413, body
    front.close()


def test_head_over_the_limit_and_head_that_never_ends(tmp_path: Path) -> None:
    ModelDirectory(tmp_path).add("rows", rows)
    options = ("--max-header-bytes", "2k", "--read-timeout-s", "0.2")
    with GatewayProcess(tmp_path, *options) as gateway:
        address = ("127.0.0.1", gateway.http_port)
        with socket.create_connection(address, 30) as wire:
            wire.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n")
            # Nothing more comes: the server gives up, not the client.
            assert wire.recv(4096).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(address, 30) as wire:
            # The answer to the first request tells that the begin of the second head was read.
            wire.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\nGET /v2 HTTP/1.1\r\nLong: ")
            assert wire.recv(4096).startswith(b"HTTP/1.1 200 ")
            wire.sendall(b"x" * 3000)
            assert b"HTTP/1.1 431 " in b"".join(iter(lambda: wire.recv(4096), b""))
