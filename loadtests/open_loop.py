"""Requests at a constant rate, whatever the server does, over HTTP/1.1 or gRPC; answers checked.

A request never waits for the answer to another one: over HTTP there are as many connections as it
takes. So what stands in line because the server stands still is seen, not left unsent.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from loadtests.payloads import Payload
from loadtests.raw_http2 import CallStream

_HOST: Final = "127.0.0.1"
#: Seconds between two looks at the clock; what has become due meanwhile goes out together.
_TICK_S: Final = 0.001
#: Seconds that the last answers may take.
_LAST_ANSWERS_S: Final = 30.0


@dataclass(slots=True)
class Samples:
    """What became of the requests; times are seconds, of ``time.monotonic``.

    Attributes:
        sent_s, latency_s, versions: when each request that was answered was sent, how long its
            answer took, and which version gave it; in the order of the answers.
        errors: the beginnings of answers that no version gives.
    """

    sent_s: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)


class OpenLoop:
    """Sends a payload ``rate`` times a second from ``start`` to ``stop``."""

    def __init__(self, port: int, payload: Payload, rate: float, answers: dict[bytes, str]) -> None:
        """Prepare; nothing is connected yet.

        Args:
            payload: sent over gRPC where its content type says so, else over HTTP/1.1.
            answers: every right answer's body, and the version that gives it.
        """
        self.samples = Samples()
        self._port = port
        self._payload = payload
        self._rate = rate
        self._answers = answers
        self._is_grpc = payload.headers["Content-Type"] == "application/grpc"
        self._free: list[Any] = []
        self._all: list[Any] = []
        self._in_flight = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self, connections: int) -> None:
        """Open so many connections, and begin."""
        for _ in range(connections):
            self._free.append(await self._connect())
        self._task = asyncio.get_running_loop().create_task(self._send())

    async def stop(self) -> None:
        """Send no more, and wait for the last answers."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        async with asyncio.timeout(_LAST_ANSWERS_S):
            while self._in_flight:
                await asyncio.sleep(_TICK_S)
        for connection in self._all:
            connection.close()

    async def _send(self) -> None:
        began, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began) * self._rate)
            for _ in range(due - sent):
                connection = self._free.pop(0) if self._free else await self._connect()
                if self._is_grpc:
                    self._free.append(connection)
                self._in_flight += 1
                connection.ask()
            sent = due
            await asyncio.sleep(_TICK_S)

    async def _connect(self) -> Any:
        kind = _GrpcConnection if self._is_grpc else _HttpConnection
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: kind(self._payload, self._answered), _HOST, self._port
        )
        self._all.append(connection)
        return connection

    def _answered(self, connection: Any, sent_s: float, body: bytes) -> None:
        self._in_flight -= 1
        if not self._is_grpc:
            self._free.append(connection)
        version = self._answers.get(body)
        if version is None:
            self.samples.errors.append(body[:300])
            return
        self.samples.sent_s.append(sent_s)
        self.samples.latency_s.append(time.monotonic() - sent_s)
        self.samples.versions.append(version)


#: Told of an answer: by whom it came, when it was asked for, and its body.
_Answered = Callable[[Any, float, bytes], None]


class _Connection(asyncio.Protocol):
    """What both protocols share."""

    def __init__(self, payload: Payload, answered: _Answered) -> None:
        self._payload = payload
        self._answered = answered
        self._transport: Any = None
        self._is_closing = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def close(self) -> None:
        self._is_closing = True
        self._transport.close()


class _HttpConnection(_Connection):
    """One request at a time over HTTP/1.1."""

    def __init__(self, payload: Payload, answered: _Answered) -> None:
        super().__init__(payload, answered)
        fields = {"Host": _HOST, "Content-Length": str(len(payload.body)), **payload.headers}
        lines = [f"POST {payload.path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        self._request = "\r\n".join(lines).encode() + b"\r\n\r\n" + payload.body
        self._received = b""
        self._sent_s = 0.0

    def ask(self) -> None:
        self._sent_s = time.monotonic()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or -1)
        if length < 0 or len(body) < length:
            return
        self._received = b""
        status = head.split(b" ", 2)[1]
        self._answered(self, self._sent_s, body if status == b"200" else status + b" " + body)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._is_closing:
            self._answered(self, self._sent_s, f"the connection was closed: {error}".encode())


class _GrpcConnection(_Connection):
    """Any number of calls at a time over HTTP/2."""

    def __init__(self, payload: Payload, answered: _Answered) -> None:
        super().__init__(payload, answered)
        self._calls = CallStream(payload)
        self._sent_s: dict[int, float] = {}

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.write(self._calls.preface())

    def ask(self) -> None:
        stream, frames = self._calls.call()
        self._sent_s[stream] = time.monotonic()
        self._transport.write(frames)

    def data_received(self, data: bytes) -> None:
        answers, reply = self._calls.receive(data)
        if reply:
            self._transport.write(reply)
        for stream, message in answers:
            self._answered(self, self._sent_s.pop(stream), message)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._is_closing:
            for sent_s in self._sent_s.values():
                self._answered(self, sent_s, f"the connection was closed: {error}".encode())
