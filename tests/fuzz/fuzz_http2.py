"""An HTTP/2 connection: a client that does anything at all, and a handler that answers.

The input is a script. Its first bytes choose the limits, what the handler does by itself, and
whether the client's preface is said for it; then come steps, the client's and the server's.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from gateway._native.http2 import Http2Connection
from gateway._native.http2_limits import Http2Limits
from tests.fuzz.http2_peer import (
    ACK,
    CLIENT_STEPS,
    CONTINUATION,
    CONTINUED,
    DATA,
    END_HEADERS,
    END_STREAM,
    FILLER,
    FRAME,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RAW,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    TRAILERS,
    WINDOW_UPDATE,
    Fields,
    Heard,
    Http2Peer,
    frame,
    pieces,
)
from tests.fuzz.script import Script

SECOND = 1_000_000_000
WAITS = (0, SECOND // 1000, SECOND // 50, SECOND, 11 * SECOND, 61 * SECOND)

# The server's steps, behind the client's.
CUT, JOIN, WAIT, TICK, PAUSE, RESUME, HOLD, DRAIN, LEAVE, RESPOND, SEND, FINISH, RESET = range(
    CLIENT_STEPS, CLIENT_STEPS + 13
)
STEPS = CLIENT_STEPS + 13
# What the handler does by itself.
ANSWERS, ECHOES, GREETS, GIVES_UP = 0x1, 0x2, 0x4, 0x8

LIMITS = (
    Http2Limits(
        max_concurrent_streams=3,
        max_header_bytes=600,
        stream_window=1000,
        connection_window=70_000,
        max_waiting_bytes=4000,
        read_timeout_ns=10 * SECOND,
        keepalive_time_ns=60 * SECOND,
        keepalive_timeout_ns=5 * SECOND,
        burst=4,
    ),
    Http2Limits(max_concurrent_streams=100, max_header_bytes=20_000, stream_window=1 << 17),
)

POST: Fields = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a"),
    (b":authority", b"localhost"),
]
REQUESTS: tuple[Fields, ...] = (
    POST,
    [*POST, (b"te", b"trailers"), (b"content-length", b"5"), (b"x", b"y")],
    [(b":method", b"CONNECT"), (b":authority", b"localhost")],
    [*POST, (b"connection", b"close")],
    [*POST, (b"Upper", b"case")],
    [*POST, (b"v", b"v" * 400), (b"w", b"w" * 300)],
    [(b"x-trailer", b"1")],
    [],
)


class Handler:
    """Answers requests, and remembers what the client has to hear.

    Attributes:
        open: the streams that are neither lost nor over.
        said: what was sent on each stream.
    """

    def __init__(self, policy: int) -> None:
        self.open: dict[int, Any] = {}
        self.said: defaultdict[int, Heard] = defaultdict(Heard)
        self.connection: Any = None
        self._policy = policy
        self._ended: set[int] = set()
        self._count = 0

    # The connection's side

    def request_begun(self, stream: Any, head: Any) -> None:
        assert not self.connection.failed
        assert stream.id not in self.said
        assert head.method
        limit = self.connection.limits.max_header_bytes
        assert sum(len(name) + len(value) + 32 for name, value in head.fields) <= limit
        head.metadata()
        self.open[stream.id] = stream
        self.said[stream.id] = Heard()
        if self._policy & GREETS:
            self.respond(stream)
        if self._policy & GIVES_UP and stream.id % 4 == 3:
            self.connection.reset_stream(stream, 8)

    def data_received(self, stream: Any, data: bytes) -> None:
        assert self.open[stream.id] is stream
        assert stream.id not in self._ended
        assert data
        if self._policy & ECHOES:
            self.send(stream, data)

    def request_ended(self, stream: Any) -> None:
        assert self.open[stream.id] is stream
        assert stream.id not in self._ended
        assert stream.remote_closed
        self._ended.add(stream.id)
        if self._policy & ANSWERS:
            self.send(stream, b"answer")
            self.finish(stream)

    def stream_lost(self, stream: Any) -> None:
        assert stream.gone
        assert stream.waiting_bytes == 0
        # One whose head was too large has never begun.
        self.open.pop(stream.id, None)

    # The script's side; a stream may have been lost meanwhile, as it may for any handler

    def respond(self, stream: Any) -> None:
        said = self.said[stream.id]
        if said.blocks or said.ended:
            return
        self._count += 1
        fields = [(b":status", b"200"), (b"x-count", b"%d" % (self._count % 9))]
        if self._count % 5 == 0:
            fields.append((b"x-long", b"l" * 9000 * (self._count % 4)))
        said.blocks.append(fields)
        self.connection.respond(stream, [(*pair, "index") for pair in fields])

    def send(self, stream: Any, data: bytes) -> None:
        self.respond(stream)
        said = self.said[stream.id]
        if not said.ended:
            said.data += data
            self.connection.send(stream, data)

    def finish(self, stream: Any) -> None:
        said = self.said[stream.id]
        if said.ended:
            return
        self._count += 1
        fields = [(b"x-trailer", b"%d" % (self._count % 9))]
        if not said.blocks:
            fields.insert(0, (b":status", b"404"))
        said.blocks.append(fields)
        said.ended = True
        self.connection.finish(stream, [(*pair, "index") for pair in fields])


class Session:
    """A connection, its handler and its client, which checks them all the time."""

    def __init__(self, script: Script) -> None:
        limits = LIMITS[script.number() % len(LIMITS)]
        self.handler = Handler(script.number())
        self.now_ns = SECOND
        self.connection = Http2Connection(limits, self.now_ns, self.handler)
        self.handler.connection = self.connection
        self.peer = Http2Peer(REQUESTS)
        self._cut = 0
        self._joining = 0
        self._joined = b""
        self._held = False
        if script.number() % 4:
            self.receive(PREFACE + frame(SETTINGS, 0, 0, b""))

    def step(self, script: Script) -> None:
        step = script.number() % STEPS
        if step < CLIENT_STEPS:
            self._joined += self.peer.say(step, script)
            self._joining -= 1
            if self._joining <= 0:
                joined, self._joined = self._joined, b""
                for piece in pieces(joined, self._cut):
                    self.receive(piece)
        elif step == CUT:
            self._cut = script.number()
        elif step == JOIN:
            self._joining = script.number() % 16
        elif step == WAIT:
            self.now_ns += WAITS[script.number() % len(WAITS)]
        elif step == TICK:
            self.connection.tick(self.now_ns)
        elif step == PAUSE:
            self.connection.pause_writing()
        elif step == RESUME:
            self.connection.resume_writing()
        elif step == HOLD:
            self._held = not self._held
        elif step == DRAIN:
            self.connection.drain(self.now_ns)
        elif step == LEAVE:
            self.connection.leave()
        else:
            self.answer(step, script)
        self.check()

    def answer(self, step: int, script: Script) -> None:
        stream = self.handler.open.get(script.number())
        if step == RESET:
            code = script.number() % 14
            if stream is not None:
                self.connection.reset_stream(stream, code)
        elif step == SEND:
            size = script.number(2)
            if stream is not None:
                self.handler.send(stream, bytes([size & 0xFF]) * size)
        elif stream is not None:
            (self.handler.respond if step == RESPOND else self.handler.finish)(stream)

    def receive(self, piece: bytes) -> None:
        self.peer.spoke(piece)
        self.connection.receive(piece, self.now_ns)
        self.check()

    def check(self) -> None:
        """Hear what is to be sent, and look at what must always hold."""
        connection = self.connection
        while connection.out.size and not self._held:
            self.peer.hear(connection.out.take(), connection.last_stream)
            if not connection.write_paused:
                connection.resume_writing()
        streams = connection.streams
        assert connection.waiting_bytes == sum(each.waiting_bytes for each in streams.values())
        assert len(streams) <= connection.limits.max_concurrent_streams
        assert all(number == stream.id for number, stream in streams.items())
        assert not any(stream.gone for stream in streams.values())
        # Those that were answered in full are over without a word to the handler.
        over = [number for number, stream in self.handler.open.items() if stream.gone]
        for number in over:
            assert self.handler.open.pop(number).local_closed
        assert self.handler.open == streams
        if connection.failed:
            assert not streams
            assert connection.done
        elif not self._held:
            assert self.peer.allowed()
            assert self.peer.window(0) <= max(connection.limits.connection_window, 65535)
            assert all(
                self.peer.window(each) <= connection.limits.stream_window for each in streams
            )

    def lose(self) -> None:
        """The connection is lost; what was heard must be what was said."""
        self._held = False
        self.check()
        self.connection.lose()
        self.check()
        assert not self.handler.open
        assert self.connection.waiting_bytes == 0
        for number, heard in self.peer.heard.items():
            said = self.handler.said[number]
            assert heard.blocks == said.blocks[: len(heard.blocks)]
            assert said.data.startswith(heard.data)
            if heard.ended:
                assert (heard.blocks, heard.data, True) == (said.blocks, said.data, said.ended)


def one_input(data: bytes) -> None:
    script = Script(data)
    session = Session(script)
    while script:
        session.step(script)
    session.lose()
    # The handler, the connection and its streams know one another.
    session.handler.connection = None


def seeds() -> Iterator[tuple[str, bytes]]:
    strict, answers, all_of_it = b"\0\0\1", b"\0\1\1", b"\1\7\1"

    def framed(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return bytes([FRAME, kind, flags, stream, len(payload)]) + payload

    def request(what: int, how: int) -> bytes:
        return bytes([REQUEST, what, how])

    def filler(stream: int, flags: int, size: int) -> bytes:
        return bytes([FILLER, stream, flags]) + size.to_bytes(2, "big")

    def update(stream: int, more: int) -> bytes:
        return framed(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))

    def setting(name: int, value: int) -> bytes:
        return framed(SETTINGS, 0, 0, name.to_bytes(2, "big") + value.to_bytes(4, "big"))

    def sent(stream: int, size: int) -> bytes:
        return bytes([SEND, stream]) + size.to_bytes(2, "big")

    def raw(data: bytes) -> bytes:
        return bytes([RAW, len(data)]) + data

    whole = request(0, END_STREAM)
    opened = request(0, 0)
    yield "http1", b"\0\0\0" + raw(b"GET / HTTP/1.1\r\n\r\n")
    yield "not-http2", b"\0\0\0" + raw(b"\x16\x03\x01")
    yield "preface-in-pieces", b"\0\0\0" + bytes([CUT, 1]) + raw(PREFACE + frame(4, 0, 0, b""))
    yield "request", answers + whole + request(1, 0) + filler(3, END_STREAM, 5)
    yield "in-pieces", all_of_it + bytes([CUT, 1]) + opened + filler(1, 0, 20) + filler(1, 1, 0)
    yield "continued", answers + request(1, END_STREAM | CONTINUED | PADDED | HAS_PRIORITY)
    yield "malformed", answers + b"".join(request(what, END_STREAM) for what in range(2, 8))
    yield "trailers", answers + opened + request(6, END_STREAM | TRAILERS) + b"\1"
    yield "trailers-that-end-nothing", answers + opened + request(6, TRAILERS) + b"\1"
    yield "too-many-streams", strict + opened * 5
    yield "too-large-a-head", strict + opened + request(5, END_STREAM) + opened
    yield "stream-window", strict + opened + filler(1, 0, 999) + filler(1, 0, 999) * 3
    yield "connection-window", strict + (opened + filler(1, 0, 16384)) * 5
    yield "padding", answers + opened + framed(DATA, PADDED | END_STREAM, 1, b"\3abc\0\0\0")
    much = framed(DATA, PADDED, 1, bytes([200]) + bytes(250))
    yield "padding-is-granted", strict + opened + much * 8
    yield "too-much-padding", answers + opened + framed(DATA, PADDED, 1, b"\4abc")
    yield (
        "no-window",
        strict
        + setting(4, 10)
        + opened
        + sent(1, 100)
        + update(1, 50)
        + bytes([FINISH, 1])
        + setting(4, 100),
    )
    yield "window-overflow", strict + opened + update(1, 2**31 - 1) + update(0, 2**31 - 1)
    yield "window-of-nothing", strict + opened + update(1, 0) + update(0, 0)
    yield (
        "in-turns",
        all_of_it
        + setting(5, 16385)
        + update(0, 2**20)
        + setting(4, 2**20)
        + opened * 3
        + bytes([HOLD])
        + b"".join(sent(stream, 60_000) for stream in (1, 3, 5, 1, 3, 5))
        + bytes([HOLD, FINISH, 1]),
    )
    yield (
        "paused",
        strict + opened + bytes([PAUSE]) + sent(1, 10) + bytes([FINISH, 1, RESUME]),
    )
    yield (
        "two-that-wait-for-windows",
        strict
        + setting(4, 0)
        + opened * 2
        + sent(1, 9)
        + bytes([FINISH, 1])
        + sent(3, 9)
        + bytes([FINISH, 3])
        + update(3, 9)
        + update(1, 9),
    )
    yield "drain", answers + opened + bytes([DRAIN]) + framed(PING, ACK, 0, b"draining") + opened
    yield "leave", strict + opened + bytes([LEAVE]) + opened + bytes([FINISH, 1])
    yield (
        "beyond-the-last",
        strict + opened + bytes([LEAVE]) + opened + request(6, END_STREAM | TRAILERS) + b"\3",
    )
    yield "error-after-leave", strict + opened + bytes([LEAVE]) + opened + update(0, 0)
    yield "goaway", strict + opened + framed(GOAWAY, 0, 0, bytes(8)) + bytes([FINISH, 1])
    yield "reset", strict + (opened + framed(RST_STREAM, 0, 1, b"\0\0\0\x08")) * 2
    yield "given-up", b"\0\x0a\1" + opened * 3 + bytes([RESET, 1, 8]) + filler(1, 0, 9)
    yield "given-up-together", b"\0\x09\1" + bytes([JOIN, 12]) + whole * 12
    yield "ping", strict + framed(PING, 0, 0, b"12345678") * 6
    yield "pings-together", strict + bytes([JOIN, 8]) + framed(PING, 0, 0, b"12345678") * 7 + opened
    yield "others", strict + framed(PRIORITY, 0, 1, bytes(5)) + framed(99, 0, 0, b"x")
    yield "priority-cut-short", strict + opened + framed(PRIORITY, 0, 1, b"x")
    yield "push", strict + framed(PUSH_PROMISE, END_HEADERS, 1, bytes(4))
    yield "continuation-alone", strict + framed(CONTINUATION, END_HEADERS, 1)
    yield (
        "continuations",
        strict + framed(HEADERS, 0, 1) + framed(CONTINUATION, 0, 1, bytes(200)) * 4,
    )
    yield "settings", strict + setting(1, 100) + setting(2, 1) + setting(6, 9) + setting(4, 2**31)
    yield "late-frame", strict + raw(b"\0\0") + bytes([WAIT, 4, TICK])
    yield "late-body", strict + opened + bytes([WAIT, 4, TICK])
    yield "late-ping", strict + bytes([WAIT, 5, TICK, WAIT, 4, TICK])
