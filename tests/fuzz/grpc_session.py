"""A connection of gRPC with a loop, a transport and a client, all of which a script moves."""

import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

from gateway._native.grpc_receiver import ReceiveBudget
from gateway._native.http2_limits import Http2Limits
from gateway._native.http2_protocol import ReceiveBuffer, Scheduler
from tests.fuzz.http2_peer import (
    CLIENT_STEPS,
    PREFACE,
    SETTINGS,
    Fields,
    Heard,
    Http2Peer,
    frame,
    pieces,
)
from tests.fuzz.script import Script

SECOND = 1_000_000_000
WAITS = (0, SECOND // 1000, SECOND // 50, SECOND, 11 * SECOND, 61 * SECOND)
LIMITS = (
    Http2Limits(
        max_concurrent_streams=8,
        max_header_bytes=1000,
        stream_window=2000,
        max_waiting_bytes=10_000,
        read_timeout_ns=10 * SECOND,
        keepalive_time_ns=60 * SECOND,
        keepalive_timeout_ns=5 * SECOND,
        burst=10,
    ),
    Http2Limits(stream_window=1 << 17),
)
MOST_MESSAGE_BYTES = 300_000
MOST_HELD_BYTES = 400_000
#: What a connection may hold beside the budget.
OWN_BYTES = 1 << 16

# The server's steps, behind the client's.
CUT, JOIN, WAIT, TICK, PAUSE, RESUME, DRAIN, LEAVE = range(CLIENT_STEPS, CLIENT_STEPS + 8)
SESSION_STEPS = CLIENT_STEPS + 8

#: One for all connections, as it is in a server: each piece overwrites the one before.
BUFFER = ReceiveBuffer(1 << 18)


def request(path: bytes, *more: tuple[bytes, bytes]) -> Fields:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


class Loop:
    """Keeps what is to be called until the script has it called."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []
        self.timers: list[Timer] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def call_later(self, delay_s: float, callback: Callable[..., object]) -> "Timer":
        assert 0 <= delay_s <= 86400
        timer = Timer(self, callback)
        self.timers.append(timer)
        return timer

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()


class Timer:
    def __init__(self, loop: Loop, callback: Callable[..., object]) -> None:
        self._loop = loop
        self._callback = callback

    def cancel(self) -> None:
        self._loop.timers.remove(self)

    def fire(self, now_ns: int) -> None:
        self._loop.timers.remove(self)
        self._callback(now_ns)


class Transport:
    """Hands what is written to the client.

    Attributes:
        small: whether it is full after each large write, as a socket's is whose peer is slow.
    """

    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self.closed = False
        self.aborted = False
        self.reading = True
        self.small = False
        self.protocol: Any = None
        self._hear = hear

    def get_extra_info(self, name: str) -> None:
        """It has no socket."""

    def write(self, data: bytes) -> None:
        if self.aborted:
            return
        assert not self.closed
        assert not self.protocol.write_paused
        assert data
        self._hear(data)
        if self.small and len(data) > 1000:
            self.protocol.pause_writing()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class GrpcSession:
    """A connection under test.

    Args:
        script: what happens; its first bytes choose the limits and the transport, and whether the
            client's preface is said for it.
        connect: makes the connection of its arguments, as ``GrpcConnection`` has them, the methods
            left out.
        requests, messages: what the client may send.
    """

    def __init__(
        self,
        script: Script,
        connect: Callable[..., Any],
        requests: Sequence[Fields],
        messages: Sequence[bytes],
    ) -> None:
        self.loop = Loop()
        self.peer = Http2Peer(requests, messages)
        self.transport = Transport(self._hear)
        self.budget = ReceiveBudget(MOST_HELD_BYTES)
        self.begun_ns = self.now_ns = time.monotonic_ns()
        chosen = script.number()
        self.transport.small = bool(chosen & 2)
        self.connection = connect(
            limits=LIMITS[chosen & 1],
            scheduler=Scheduler(self.loop),
            buffer=BUFFER,
            max_message_bytes=MOST_MESSAGE_BYTES,
            budget=self.budget,
            now_ns=self.now_ns,
        )
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)
        self._cut = 0
        self._joining = 0
        self._joined = b""
        if script.number() % 4:
            self.receive(PREFACE + frame(SETTINGS, 0, 0, b""))

    def _hear(self, data: bytes) -> None:
        self.peer.hear(data, self.connection.last_stream)

    def step(self, step: int, script: Script) -> None:
        """One of the ``SESSION_STEPS``."""
        connection = self.connection
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
            for timer in list(self.loop.timers):
                timer.fire(self.now_ns)
            connection.tick(self.now_ns)
        elif step == PAUSE:
            connection.pause_writing()
        elif step == RESUME:
            connection.resume_writing()
        elif step == DRAIN:
            connection.drain(self.now_ns)
        else:
            connection.leave()

    def receive(self, piece: bytes) -> None:
        """Let the connection have a piece, unless it wants none."""
        if self.transport.closed or not self.transport.reading or not piece:
            return
        self.peer.spoke(piece)
        if self.now_ns == self.begun_ns:
            left = memoryview(piece)
            while left:
                room = self.connection.get_buffer(-1)
                part = left[: len(room)]
                room[: len(part)] = part
                self.connection.buffer_updated(len(part))
                left = left[len(part) :]
        else:
            self.connection.receive(piece, self.now_ns)
        self.check()

    def check(self) -> None:
        """Let what is due happen, and look at what must always hold."""
        connection, streams = self.connection, self.connection.streams
        self.loop.turn()
        assert connection.waiting_bytes == sum(each.waiting_bytes for each in streams.values())
        assert len(streams) <= connection.limits.max_concurrent_streams
        assert not any(stream.gone for stream in streams.values())
        assert 0 <= self.budget.held_bytes <= MOST_HELD_BYTES
        assert self.budget.held_bytes == max(connection.held_bytes - OWN_BYTES, 0)
        assert streams or not connection.held_bytes
        assert len(self.loop.timers) <= 1
        if connection.failed:
            assert not streams
        elif self.transport.reading and not connection.write_paused:
            assert self.peer.allowed()
            assert self.peer.window(0) <= connection.limits.connection_window
            assert all(self.peer.window(number) < 2**31 for number in streams)
            # What waits does so for a window.
            assert not connection.out.size or not self.peer.began

    def lose(self) -> None:
        """The connection is lost."""
        self.connection.connection_lost(None)
        self.transport.protocol = None
        self.loop.turn()
        assert self.connection.waiting_bytes == 0
        assert self.connection.held_bytes == 0
        assert self.budget.held_bytes == 0
        assert not self.connection.streams
        assert not self.loop.timers
        self.loop.turn()
        assert not self.loop.soon


def status_of(heard: Heard) -> tuple[int, str] | None:
    """The status that ended a call, and its message; ``None`` for no gRPC, where HTTP has one."""
    assert heard.ended
    head, *_, trailers = [*heard.blocks, heard.blocks[-1]]
    if dict(head)[b":status"] != b"200":
        assert not heard.data
        return None
    assert dict(head)[b"content-type"] == b"application/grpc"
    codes = [value for name, value in trailers if name == b"grpc-status"]
    assert len(codes) == 1
    details = dict(trailers).get(b"grpc-message", b"")
    assert all(0x20 <= byte < 0x7F for byte in details)
    return int(codes[0]), unquote(details.decode())


def messages_of(heard: Heard) -> list[tuple[bool, bytes]]:
    """The messages that came: whether it is compressed, and its bytes."""
    data, messages = bytes(heard.data), []
    while len(data) >= 5:
        size = int.from_bytes(data[1:5], "big")
        if len(data) < 5 + size:
            break
        assert data[0] <= 1
        messages.append((data[0] == 1, data[5 : 5 + size]))
        data = data[5 + size :]
    assert not (heard.ended and data), "the call ended within a message"
    return messages
