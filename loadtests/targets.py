"""The servers under test: the gateway, and the bare servers beside it."""

import contextlib
import http.client
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from examples.gateway import free_ports
from loadtests import payloads, runtime
from loadtests.models import INPUT, row
from loadtests.process import Server, listens, running

SERVER_CORE, LOAD_CORE = 0, 1
_TIMEOUT_S = 60.0


class WrongAnswer(Exception):
    """A server's answer is not ONNX Runtime's."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway: its process, its ports, and how long it took to be ready."""

    server: Server
    http_port: int
    grpc_port: int
    admin_port: int
    start_s: float

    def admin(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        """A call of the admin port, with ``fields`` as its JSON body; the answer's."""
        body = json.dumps(fields).encode() if fields else b""
        headers = {"Content-Type": "application/json"} if fields else {}
        content, _ = _request(self.admin_port, method, f"/admin/{path}", body, headers)
        answer: dict[str, Any] = json.loads(content)
        return answer

    def statistics(self, model: str) -> dict[str, Any]:
        """The protocol's statistics of the one loaded version of ``model``."""
        body, _ = _get(self.http_port, f"/v2/models/{model}/stats")
        first: dict[str, Any] = json.loads(body)["model_stats"][0]
        return first

    def failures(self, model: str, version: str = "1") -> int:
        """Requests of a version that were not answered well, but for those that were left."""
        body, _ = _get(self.http_port, f"/v2/models/{model}/versions/{version}/stats")
        return int(json.loads(body)["model_stats"][0]["inference_stats"]["fail"]["count"])

    def change(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """POST ``document`` to the admin API; the answer.

        Raises:
            WrongAnswer: it was refused.
        """
        payload = payloads.Payload(
            path, {"Content-Type": "application/json"}, json.dumps(document).encode()
        )
        answer: dict[str, Any] = json.loads(_post(self.admin_port, payload)[0])
        return answer

    def ask(self, payload: payloads.Payload) -> bytes:
        """The body of the answer, over gRPC the message; raises ``WrongAnswer`` for an error."""
        if payload.path != payloads.GRPC_PATH:
            return _post(self.http_port, payload)[0]
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            message: bytes = channel.unary_unary(payload.path, None, None)(
                payload.body[5:], timeout=_TIMEOUT_S
            )
            return message

    def verify(self, models: Path, model: str) -> None:
        """Compare one answer of each protocol with ONNX Runtime in process.

        Raises:
            WrongAnswer: they differ by more than rounding.
        """
        session = runtime.session(str(models / model / "1" / "model.onnx"))
        expected = session.run(None, {INPUT: row(model)})[0]
        answers = {
            "HTTP binary": self._ask_binary(model),
            "HTTP JSON": self._ask_json(model),
            "gRPC": self._ask_grpc(model),
        }
        for protocol, answer in answers.items():
            if answer.shape != expected.shape or not np.allclose(answer, expected, 1e-4, 1e-5):
                raise WrongAnswer(f"{model} over {protocol} answers {answer}, not {expected}")

    def _ask_binary(self, model: str) -> payloads.Answer:
        body, headers = _post(self.http_port, payloads.http_binary(model))
        return payloads.read_binary(body, int(headers["Inference-Header-Content-Length"]))

    def _ask_json(self, model: str) -> payloads.Answer:
        return payloads.read_json(_post(self.http_port, payloads.http_json(model))[0])

    def _ask_grpc(self, model: str) -> payloads.Answer:
        return payloads.read_grpc(self.ask(payloads.grpc_raw(model)))


@contextlib.contextmanager
def gateway(
    models: Path,
    only: str,
    grpc_impl: str = "native",
    options: Sequence[str] = (),
    core: int | None = SERVER_CORE,
) -> Iterator[Gateway]:
    """The gateway on ``core``, or on any for ``None``, serving the model ``only`` of ``models``."""
    http_port, grpc_port, admin_port = free_ports(3)
    command = [
        sys.executable, "-m", "gateway", "serve", str(models),
        "--model-control-mode", "explicit", "--load-model", only,
        "--http-port", str(http_port), "--metrics-port", "0", "--admin-port", str(admin_port),
        "--grpc-port", str(grpc_port), "--grpc-impl", grpc_impl, *options,
    ]  # fmt: skip
    with _log() as log, running(command, core, log) as server:
        start_s = server.wait_until(lambda: _is_ready(http_port))
        yield Gateway(server, http_port, grpc_port, admin_port, start_s)


@contextlib.contextmanager
def echo(kind: str) -> Iterator[tuple[Server, int]]:
    """A bare server of ``loadtests.echo`` on the server's core, and its port."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "loadtests.echo", kind, str(port)]
    with _log() as log, running(command, SERVER_CORE, log) as server:
        server.wait_until(lambda: listens(port))
        yield server, port


@contextlib.contextmanager
def _log() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "server.log"


def _is_ready(port: int) -> bool:
    try:
        _get(port, "/v2/health/ready")
    except (OSError, http.client.HTTPException, WrongAnswer):
        return False
    return True


def _get(port: int, path: str) -> tuple[bytes, http.client.HTTPMessage]:
    return _request(port, "GET", path, b"", {})


def _post(port: int, payload: payloads.Payload) -> tuple[bytes, http.client.HTTPMessage]:
    return _request(port, "POST", payload.path, payload.body, payload.headers)


def _request(
    port: int, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise WrongAnswer(f"{path} answered {response.status}: {content[:200]!r}")
        return content, response.headers
