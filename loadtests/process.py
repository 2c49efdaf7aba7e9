"""A server process pinned to one core, and what it has cost so far."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """The server did not start or ended early; the message has the end of its log."""


class Server:
    """A child process, all of whose threads and children run on ``core``; on any for ``None``."""

    def __init__(self, command: Sequence[str], core: int | None, log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
            )

    def wait_until(self, ready: Callable[[], bool]) -> float:
        """Poll ``ready``; the seconds that it took.

        Raises:
            ServerError: the process ended, or is not ready after ``START_TIMEOUT_S``.
        """
        started = time.monotonic()
        while not ready():
            code = self._process.poll()
            if code is not None or time.monotonic() - started > START_TIMEOUT_S:
                reason = "not ready in time" if code is None else f"ended with exit code {code}"
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
                raise ServerError(f"{reason}:\n{tail}")
            time.sleep(0.02)
        return time.monotonic() - started

    def cpu_s(self) -> float:
        """User and system time of the process and its living descendants, in seconds."""
        total = 0
        for pid in self._tree():
            with contextlib.suppress(OSError):
                fields = _stat(pid)
                total += int(fields[11]) + int(fields[12])
        return total * _TICK_S

    def memory_bytes(self, field: str = "VmRSS") -> int:
        """``VmRSS`` (now) or ``VmHWM`` (the peak) of the process and its living descendants."""
        total = 0
        for pid in self._tree():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith(f"{field}:"):
                        total += int(line.split()[1]) * 1024
        return total

    def open_files(self) -> int:
        """File descriptors that the process has open, sockets among them."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def stop(self) -> int:
        """SIGTERM, then the exit code; killed where it does not end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def _tree(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
        tree = [self._process.pid]
        for pid in tree:
            tree += children.get(pid, [])
        return tree


@contextlib.contextmanager
def running(command: Sequence[str], core: int | None, log: Path) -> Iterator[Server]:
    """A ``Server`` inside a ``with``, stopped at its end."""
    server = Server(command, core, log)
    try:
        yield server
    finally:
        server.stop()


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` behind the command's name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
