"""A gateway in a process of its own, as its users run it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

HOST = "127.0.0.1"

#: The values of ``--grpc-impl``. A gateway of the tests has the first unless a test asks for
#: another one; what does not depend on it is tested over the first alone.
GRPC_IMPLEMENTATIONS = ("native", "grpcio")


class GatewayProcess:
    """``python -m gateway serve MODELS`` on free ports of the loopback interface.

    A context manager: entering starts it and waits until it is ready, leaving stops it with
    SIGTERM and asserts that it ends cleanly. What it printed is in ``log()``, and is part of
    every failure's message. A test may stop it earlier.
    """

    def __init__(
        self,
        models: Path,
        *options: str,
        grpc_impl: str = GRPC_IMPLEMENTATIONS[0],
        environment: dict[str, str] | None = None,
    ) -> None:
        self.models = models
        self.options = ("--grpc-impl", grpc_impl, *options)
        self.environment = environment or {}
        ports = free_ports(4)
        self.http_port, self.grpc_port, self.metrics_port, self.admin_port = ports
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def http_url(self) -> str:
        return f"{HOST}:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        return f"{HOST}:{self.grpc_port}"

    @property
    def admin_url(self) -> str:
        return f"http://{HOST}:{self.admin_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start the process; returns at once, ``wait_ready`` waits for it."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                *("-m", "gateway", "serve", str(self.models), "--host", HOST),
                *("--http-port", str(self.http_port)),
                *("--grpc-port", str(self.grpc_port)),
                *("--metrics-port", str(self.metrics_port)),
                *("--admin-port", str(self.admin_port)),
                *self.options,
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
        )
        return self

    def wait_ready(self, deadline_s: float = 60.0) -> Self:
        """Wait until ``/v2/health/ready`` says so."""
        self.wait_until(lambda: self.get("/v2/health/ready")[0] == 200, deadline_s)
        return self

    def wait_until(self, condition: Callable[[], Any], deadline_s: float = 30.0) -> None:
        """Poll ``condition`` until it is true; a server that does not answer yet is not true."""
        deadline = time.monotonic() + deadline_s
        while True:
            self.assert_running()
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException) as error:
                last: Any = error
            else:
                last = "the condition is false"
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {deadline_s} s ({last!r})\n{self.log()}")
            time.sleep(0.02)

    def assert_running(self) -> None:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"the gateway ended by itself with exit status {code}\n{self.log()}"

    def stop(self, deadline_s: float = 60.0) -> None:
        """SIGTERM; asserts that the process ends in time with exit status 0."""
        self.assert_running()
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"still there {deadline_s} s after SIGTERM\n{self.log()}"
            ) from None
        assert code == 0, f"exit status {code} after SIGTERM\n{self.log()}"

    def kill(self) -> None:
        """End the process, whatever its state, and wait for it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> tuple[int, dict[str, str], bytes]:
        """One HTTP exchange on a connection of its own: status, headers in lower case, body."""
        connection = http.client.HTTPConnection(HOST, self.http_port, timeout=timeout_s)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return response.status, names, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        """GET a JSON resource: the status and the decoded body (``None`` where it is empty)."""
        status, _, body = self.request("GET", path)
        return status, json.loads(body) if body else None

    def post(self, path: str, document: Any) -> tuple[int, Any]:
        """POST a JSON document: the status and the decoded body (``None`` where it is empty)."""
        status, _, body = self.request("POST", path, json.dumps(document).encode())
        return status, json.loads(body) if body else None

    def administer(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """Ask the admin API: the status and the decoded body."""
        connection = http.client.HTTPConnection(HOST, self.admin_port, timeout=60.0)
        try:
            body = None if document is None else json.dumps(document).encode()
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def rss_bytes(self) -> int:
        """Resident memory of the gateway's process and its children."""
        return sum(resident_bytes(pid) for pid in process_tree(self.pid))

    def log(self) -> str:
        """The end of what the gateway printed."""
        self._log.flush()
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), 20_000, max(size - 20_000, 0)).decode(errors="replace")

    def __enter__(self) -> Self:
        self.start()
        try:
            return self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if error is None and self._process is not None:
                self.stop()
        finally:
            self.kill()
            self._log.close()


class Gateways:
    """A gateway of each gRPC implementation over the same models, started when first asked for.

    A context manager: leaving stops them all as leaving each of them would.
    """

    def __init__(
        self, models: Path, *options: str, environment: dict[str, str] | None = None
    ) -> None:
        self._models = models
        self._options = options
        self._environment = environment
        self._running: dict[str, GatewayProcess] = {}
        self._stack = ExitStack()

    def __getitem__(self, grpc_impl: str) -> GatewayProcess:
        if grpc_impl not in self._running:
            gateway = GatewayProcess(
                self._models, *self._options, grpc_impl=grpc_impl, environment=self._environment
            )
            self._running[grpc_impl] = self._stack.enter_context(gateway)
        return self._running[grpc_impl]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until the last one is known, so they differ."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def process_tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(inner for child in children for inner in process_tree(int(child)))]


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
