"""Distinct requests that come evenly, whether or not the ones before are answered.

Sent one by one, to the microsecond as far as the machine allows, for latencies of a fraction of a
millisecond. Runs as a process of its own, ``python -m loadtests.paced``: reads a ``Plan`` from its
standard input and prints a ``Seen`` as JSON.
"""

import gc
import json
import pickle
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from loadtests.payloads import GRPC_PATH, Payload
from loadtests.raw_http2 import CallStream, WrongFrame

CONNECTIONS: Final = 8
#: Seconds that answers may take after the last request.
_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """``rate`` calls of ModelInfer a second for ``seconds``, evenly spaced.

    ``messages`` are sent one after the other, each with gRPC's prefix; those of the first
    ``warm_up_s`` seconds are not measured.
    """

    port: int
    messages: list[bytes]
    rate: float
    seconds: float
    warm_up_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it: all calls, and percentiles of the measured ones, in milliseconds.

    ``late_ms`` is how late the generator itself was at the 99th percentile. A latency counts from
    when the call was sent.
    """

    calls: int
    p50_ms: float
    p99_ms: float
    late_ms: float


class _Connection:
    """One connection; notes when each call was sent and how long its answer took."""

    def __init__(self, port: int, messages: list[bytes], answers: dict[int, bytes]) -> None:
        self.waiting: dict[int, tuple[int, float]] = {}
        self.latencies: list[tuple[float, float]] = []
        self._messages = messages
        self._answers = answers
        headers = {"Content-Type": "application/grpc", "TE": "trailers"}
        self._calls = CallStream(Payload(GRPC_PATH, headers, b""))
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(self._calls.preface())

    def send(self, number: int) -> None:
        stream, frames = self._calls.call(self._messages[number])
        self.waiting[stream] = number, time.perf_counter()
        self.socket.sendall(frames)

    def read(self) -> None:
        """Take what has come. Raises ``WrongFrame`` for what answers no call, or wrongly."""
        received = self.socket.recv(1 << 18)
        now_s = time.perf_counter()
        if not received:
            raise WrongFrame("the server has closed the connection")
        answers, reply = self._calls.receive(received)
        if reply:
            self.socket.sendall(reply)
        for stream, message in answers:
            number, sent_s = self.waiting.pop(stream)
            if not message or self._answers.setdefault(number, message) != message:
                raise WrongFrame(f"the server answers {message!r} to message {number}")
            self.latencies.append((sent_s, now_s - sent_s))


def drive(plan: Plan) -> Seen:
    """Carry out ``plan``. Raises ``WrongFrame``, and ``TimeoutError`` for a missing answer."""
    answers: dict[int, bytes] = {}
    connections = [_Connection(plan.port, plan.messages, answers) for _ in range(CONNECTIONS)]
    by_socket = {connection.socket: connection for connection in connections}
    calls = int(plan.rate * plan.seconds)
    begin_s = time.perf_counter() + 0.05
    late = []
    for call in range(calls):
        due_s = begin_s + call / plan.rate
        _read_until(by_socket, due_s)
        late.append(time.perf_counter() - due_s)
        connections[call % CONNECTIONS].send(call % len(plan.messages))
    end_s = time.perf_counter() + _PATIENCE_S
    while any(connection.waiting for connection in connections):
        if time.perf_counter() > end_s:
            raise TimeoutError("some calls were never answered")
        _read_until(by_socket, time.perf_counter() + 0.01)
    warm_s = begin_s + plan.warm_up_s
    measured = [
        latency
        for connection in connections
        for sent_s, latency in connection.latencies
        if sent_s >= warm_s
    ]
    p50_s, p99_s = np.percentile(measured, [50, 99])
    return Seen(calls, 1e3 * float(p50_s), 1e3 * float(p99_s), 1e3 * float(np.percentile(late, 99)))


def _read_until(by_socket: dict[socket.socket, _Connection], due_s: float) -> None:
    while (left_s := due_s - time.perf_counter()) > 0:
        for readable in select.select(list(by_socket), (), (), left_s)[0]:
            by_socket[readable].read()


def main() -> None:
    plan = pickle.load(sys.stdin.buffer)
    gc.disable()
    print(json.dumps(asdict(drive(plan))))


if __name__ == "__main__":
    main()
