"""Runs ``onnx-gateway serve`` as a child process."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0


class GatewayError(Exception):
    """The gateway did not start; the message ends with what it logged."""


class Gateway:
    """A gateway that serves ``models`` on free ports of 127.0.0.1 until ``stop``.

    Its log goes to ``log``, whole.
    """

    def __init__(
        self,
        models: Path,
        log: Path,
        *options: str,
        prepare: Callable[["Gateway"], object] | None = None,
    ) -> None:
        """Start it; ``prepare`` is called before, when the ports are known."""
        self.http_port, self.grpc_port, self.admin_port = free_ports(3)
        self._log = log
        self.command = [
            sys.executable, "-m", "gateway", "serve", str(models),
            "--http-port", str(self.http_port), "--grpc-port", str(self.grpc_port),
            "--metrics-port", "0", "--admin-port", str(self.admin_port), *options,
        ]  # fmt: skip
        if prepare is not None:
            prepare(self)
        with log.open("wb") as file:
            self._process = subprocess.Popen(self.command, stdout=file, stderr=file)

    def wait_until_ready(self) -> float:
        """Seconds until readiness.

        Raises:
            GatewayError: it ended, or is not ready after ``START_TIMEOUT_S``.
        """
        started = time.monotonic()
        while time.monotonic() - started < START_TIMEOUT_S:
            if self._process.poll() is not None:
                raise GatewayError(
                    f"the gateway ended with exit code {self._process.returncode}:\n{self._tail()}"
                )
            if self._is_ready():
                return time.monotonic() - started
            time.sleep(0.05)
        raise GatewayError(f"not ready after {START_TIMEOUT_S:.0f} s:\n{self._tail()}")

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; the exit code, and the seconds that the drain took."""
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return code, time.monotonic() - started

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.http_port}/v2/health/ready"
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])


@contextlib.contextmanager
def running(
    models: Path,
    log: Path,
    *options: str,
    prepare: Callable[[Gateway], object] | None = None,
) -> Iterator[Gateway]:
    """A gateway inside a ``with``; whatever happens there, no process is left behind."""
    gateway = Gateway(models, log, *options, prepare=prepare)
    try:
        yield gateway
    finally:
        gateway.kill()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]
