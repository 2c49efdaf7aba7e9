"""gRPC over HTTP/2: calls of a few methods, by a client that need not know how it is done.

The input is a script, as ``grpc_session`` and ``http2_peer`` read it, with steps for the calls.
"""

from collections.abc import Iterator
from typing import Any

from gateway._native.grpc import GrpcConnection
from tests.fuzz.grpc_session import (
    CUT,
    DRAIN,
    JOIN,
    PAUSE,
    RESUME,
    SESSION_STEPS,
    TICK,
    WAIT,
    GrpcSession,
    messages_of,
    request,
    status_of,
)
from tests.fuzz.http2_peer import (
    DATA,
    END_STREAM,
    FILLER,
    FRAME,
    MESSAGE,
    PADDED,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    TRAILERS,
    WHOLE,
    WINDOW_UPDATE,
)
from tests.fuzz.script import Script

SEND, COMPLETE, FAIL, READ = range(SESSION_STEPS, SESSION_STEPS + 4)
STEPS = SESSION_STEPS + 4

ECHO, SLOW, THROTTLED, REFUSED = "echo", "slow", "throttled", "refused"
METHODS = {f"/s/{name}".encode(): name for name in (ECHO, SLOW, THROTTLED, REFUSED)}
REQUESTS = (
    request(b"/s/echo"),
    request(b"/s/slow"),
    request(b"/s/throttled"),
    request(b"/s/refused"),
    request(b"/s/none"),
    request(b"/s/slow", (b"grpc-timeout", b"5m")),
    request(b"/s/slow", (b"grpc-timeout", b"99999999H")),
    request(b"/s/slow", (b"grpc-timeout", b"0n")),
    request(b"/s/slow", (b"grpc-timeout", b"1s")),
    request(b"/s/echo", (b"grpc-encoding", b"gzip")),
    request(b"/s/echo", (b"grpc-encoding", b"gzip"), (b"grpc-accept-encoding", b"identity, br")),
    request(b"/s/echo", (b"grpc-encoding", b"br")),
    request(b"/s/echo", (b"content-length", b"6")),
    request(b"/s/slow", (b"v", b"v" * 900), (b"w", b"w" * 900)),
    [*request(b"/s/echo")[:-1], (b"content-type", b"text/plain")],
    [(b":method", b"GET"), *request(b"/s/echo")[1:]],
    [(b"x-trailer", b"1")],
)
MESSAGES = (b"", b"m", b"message" * 100, bytes(70_000))
DETAILS = "näh %\n"


class Call:
    """One call, which the script answers where the method does not."""

    def __init__(self, connection: "Connection", stream: Any) -> None:
        self.stream = stream
        self.sent: list[tuple[bool, bytes]] = []
        self.status: int | None = None
        self.cancelled = False
        self._connection = connection
        self._ended = False
        self._untaken = 0
        self._more = 0

    # The core's side

    def receive(self, message: bytes, compressed: bool) -> None:
        assert not self.cancelled
        assert not self._ended
        assert not self.stream.answered
        method = self.stream.method
        self._untaken += len(message)
        if method == ECHO:
            self.take()
            self.send(message, compressed and self.stream.reply_encoding is not None)
        elif method == THROTTLED:
            self._connection.throttle(self.stream)
        elif method == REFUSED:
            self.fail(3)

    def end(self) -> None:
        assert not self.cancelled
        assert not self._ended
        self._ended = True
        if self.stream.method == ECHO:
            self.complete()

    def drained(self) -> None:
        assert not self.cancelled
        assert self.stream.waiting_bytes == 0
        if self._more and not self.stream.answered:
            self._more -= 1
            self.send(bytes(20_000))

    def cancel(self) -> None:
        assert not self.cancelled
        self.cancelled = True

    # The script's

    def take(self) -> None:
        """Be done with the messages that came, and ready for more."""
        self._connection.release(self.stream, self._untaken)
        self._connection.unthrottle(self.stream)
        self._untaken = 0

    def send(self, message: bytes, compressed: bool = False) -> None:
        if not self.cancelled:
            self.sent.append((compressed, message))
        self._connection.send_message(self.stream, message, compressed)

    def stream_on(self, more: int) -> None:
        """Send so many more messages, each when nothing waits any more."""
        self._more = more

    def complete(self) -> None:
        if not self.cancelled:
            self.status = 0
        self._connection.complete_call(self.stream, [(b"x-y", b"z")])
        assert self.cancelled

    def fail(self, code: int) -> None:
        if not self.cancelled:
            self.status = code
        self._connection.fail_call(self.stream, code, DETAILS)
        assert self.cancelled


class Connection(GrpcConnection):
    """Notes its calls."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(methods=METHODS, **arguments)
        self.calls: dict[int, Call] = {}

    def begin(self, stream: Any) -> None:
        assert not self.failed
        assert stream.id not in self.calls
        stream.head.metadata()
        stream.call = self.calls[stream.id] = Call(self, stream)
        stream.endless = stream.method == THROTTLED

    def message_too_large(self, stream: Any, size: int) -> None:
        assert size > self.max_message_bytes
        self.fail_call(stream, 8, "")


def one_input(data: bytes) -> None:
    script = Script(data)
    session = GrpcSession(script, Connection, REQUESTS, MESSAGES)
    calls = session.connection.calls
    while script and not session.transport.closed:
        step = script.number() % STEPS
        if step < SESSION_STEPS:
            session.step(step, script)
        else:
            answer(step, calls.get(script.number()), script)
        session.check()
    session.lose()
    for number, call in calls.items():
        assert call.cancelled
        heard = session.peer.heard[number]
        messages = messages_of(heard)
        assert messages == call.sent[: len(messages)]
        if heard.ended:
            code, details = status_of(heard)
            assert call.status in (None, code)
            if call.status is not None:
                assert messages == call.sent
                assert details == (DETAILS if code else "")
    for heard in session.peer.heard.values():
        if heard.ended:
            status_of(heard)
    # The calls and the connection know one another.
    calls.clear()


def answer(step: int, call: Call | None, script: Script) -> None:
    size = script.number(2) if step == SEND else 0
    if call is None:
        return
    if step == SEND:
        call.stream_on(size % 4)
        call.send(bytes(size))
    elif step == COMPLETE:
        call.complete()
    elif step == FAIL:
        call.fail(13)
    else:
        call.take()


def seeds() -> Iterator[tuple[str, bytes]]:
    strict, generous, small = b"\0\1", b"\1\1", b"\3\1"

    def begun(what: int, how: int = 0) -> bytes:
        return bytes([REQUEST, what, how])

    def message(stream: int, what: int, flags: int = 0) -> bytes:
        return bytes([MESSAGE, stream, flags, 0, what])

    def framed(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return bytes([FRAME, kind, flags, stream, len(payload)]) + payload

    def update(stream: int, more: int) -> bytes:
        return framed(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))

    def sent(stream: int, size: int) -> bytes:
        return bytes([SEND, stream]) + size.to_bytes(2, "big")

    def filler(stream: int, flags: int, size: int) -> bytes:
        return bytes([FILLER, stream, flags]) + size.to_bytes(2, "big")

    end = framed(DATA, END_STREAM, 1)
    closed_window = framed(SETTINGS, 0, 0, b"\0\4\0\0\0\0")
    for what in range(len(REQUESTS)):
        yield f"request-{what:02}", strict + begun(what) + message(1, 1) + end
        yield f"ended-{what:02}", strict + begun(what, END_STREAM)
    yield "two-messages", strict + begun(0) + message(1, 0) + message(1, 2, END_STREAM)
    yield "in-pieces", strict + bytes([CUT, 1]) + begun(0) + message(1, 1) + end
    yield "together", strict + bytes([JOIN, 4]) + begun(0) + message(1, 1) * 2 + end
    yield (
        "large",
        generous + begun(1) + message(1, 3) + filler(1, 0, 16384) * 3 + filler(1, 1, 4469),
    )
    for cut in (0, 1, 200):
        yield (
            f"large-frame-{cut}",
            generous
            + bytes([CUT, cut])
            + begun(0)
            + message(1, 3, WHOLE)
            + message(1, 1)
            + message(1, 3, WHOLE | END_STREAM),
        )
    yield (
        "large-frame-reset",
        generous
        + bytes([CUT, 100])
        + begun(1) * 2
        + message(1, 3, WHOLE)
        + message(3, 3, WHOLE)
        + framed(RST_STREAM, 0, 1, bytes(4)),
    )
    yield "cut-short", strict + begun(1) + framed(DATA, END_STREAM, 1, b"\0\0\0\0\2a")
    yield "no-prefix", strict + begun(1) + framed(DATA, 0, 1, b"\2\0\0\0\0")
    yield "padded", strict + begun(0) + framed(DATA, PADDED, 1, b"\2\0\0\0\0\1m\0\0") + end
    yield "too-large", strict + begun(1) + framed(DATA, 0, 1, b"\0\x7f\0\0\0") + message(1, 1)
    announced = framed(DATA, 0, 1, b"\0\0\4\0\0x") + framed(DATA, 0, 3, b"\0\0\4\0\0x")
    yield "budget", generous + begun(1) * 9 + announced + filler(1, 0, 16384) * 5
    yield "compressed", strict + begun(9) + message(1, 1, 2) + end
    yield "compressed-without-a-name", strict + begun(0) + message(1, 1, 2) + end
    yield "trailers", strict + begun(0) + message(1, 1) + begun(16, END_STREAM | TRAILERS) + b"\1"
    yield "answered", strict + begun(1) + sent(1, 9) + bytes([COMPLETE, 1])
    yield "failed", strict + begun(1) + sent(1, 9) + bytes([FAIL, 1]) + message(1, 1)
    yield "failed-at-once", strict + begun(1, END_STREAM) + bytes([FAIL, 1])
    yield "reset", strict + begun(1) + message(1, 3) + framed(RST_STREAM, 0, 1, bytes(4))
    yield "expired", strict + begun(5) + begun(6) + bytes([WAIT, 2, TICK])
    yield (
        "no-window",
        strict
        + closed_window
        + begun(1) * 2
        + sent(1, 20)
        + sent(3, 20)
        + bytes([COMPLETE, 1, COMPLETE, 3])
        + update(3, 100)
        + update(1, 100),
    )
    yield (
        "throttled",
        strict + begun(2) + message(1, 2) * 4 + bytes([READ, 1]) + message(1, 2) * 2,
    )
    yield "paused", strict + begun(1) + bytes([PAUSE]) + sent(1, 9) + bytes([FAIL, 1, RESUME])
    yield "small", small + begun(1) + sent(1, 9000) * 3 + bytes([COMPLETE, 1, RESUME, RESUME])
    wider = framed(SETTINGS, 0, 0, b"\0\4\0\1\0\0") + update(0, 2**20)
    yield "streamed", strict + closed_window + begun(1) * 2 + sent(1, 7) + sent(3, 7) + wider
    yield "untaken", generous + begun(1) + message(1, 2) * 9 + bytes([READ, 1]) + message(1, 2)
    yield "too-slow", small + begun(1) + sent(1, 9000) * 2 + bytes([DRAIN, WAIT, 5, TICK, TICK])
    yield "drained", strict + begun(1) + bytes([DRAIN]) + begun(1) + bytes([COMPLETE, 1])
