"""A client's end of a connection on a raw socket, which holds the server to the rules.

It sends whatever it is told to. It keeps the books of both directions' flow control, of streams and
of HPACK, and raises ``AssertionError`` for anything that the server has no right to send.
"""

import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import hpack

from tests.http2 import frames
from tests.http2.answer import Answer
from tests.http2.calls import Fields
from tests.http2.frames import Frame, Setting, Type

HOST = "127.0.0.1"

#: How long the server may take for what it owes.
DEADLINE_S = 5.0


def connect(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port), DEADLINE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def heard_until_closed(connection: socket.socket, within_s: float = DEADLINE_S) -> bytes:
    """All that the server says before it closes ``connection``, with nothing said to it.

    Raises ``TimeoutError`` where it is quiet for ``within_s`` and does not close.
    """
    connection.settimeout(within_s)
    said = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 16):
            said += chunk
    return said


class Closed(Exception):
    """The server has closed the connection."""


class Connection:
    """One connection.

    Attributes:
        settings: the server's.
        answers: what came on each stream, by its number.
        goaways: ``(last stream, code)`` of each GOAWAY that came.
        credit: whether what arrives is given back to the server's windows at once.
        unacked: the SETTINGS of ours that the server has yet to acknowledge.
        pongs: the opaque data of each PING that was answered.
        log: every frame that came.
    """

    def __init__(
        self, port: int, settings: Mapping[int, int] | None = None, *, preface: bool = True
    ) -> None:
        self.socket = connect(port)
        self.settings: dict[int, int] = {}
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []
        self.credit = True
        self.unacked: list[Mapping[int, int]] = []
        self.pongs: list[bytes] = []
        self.log: list[Frame] = []
        self.encoder = hpack.Encoder()
        self.closed = False
        self._decoder = hpack.Decoder()
        self._buffer = bytearray()
        self._block: tuple[int, bytearray, bool] | None = None
        self._next_stream = 1
        self._barriers = 0
        self._max_frame_size = frames.DEFAULT_FRAME_SIZE
        self._initial_window = frames.DEFAULT_WINDOW
        # What the server may still send: on the connection, and on each stream.
        self._window = frames.DEFAULT_WINDOW
        self._windows: dict[int, int] = {}
        # What the server has given to us in the same way.
        self.given = frames.DEFAULT_WINDOW
        self.given_to: dict[int, int] = {}
        if preface:
            self.send(frames.PREFACE)
            self.send_settings(settings or {})
            self.until(lambda: self.settings_came, "the server's SETTINGS")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    # ---- sending ----

    def send(self, *parts: bytes) -> None:
        """Send ``parts``. A server that has closed already is noticed when it is listened to."""
        with suppress(ConnectionResetError, BrokenPipeError):
            self.socket.sendall(b"".join(parts))

    def send_settings(self, values: Mapping[int, int]) -> None:
        self.unacked.append(dict(values))
        # The server may use what it gains as soon as it has read of it, and may use what it loses
        # until it has acknowledged that.
        if values.get(Setting.INITIAL_WINDOW_SIZE, 0) > self._initial_window:
            self._change_initial_window(values[Setting.INITIAL_WINDOW_SIZE])
        if values.get(Setting.MAX_FRAME_SIZE, 0) > self._max_frame_size:
            self._max_frame_size = values[Setting.MAX_FRAME_SIZE]
        self.send(frames.settings(values))

    def _change_initial_window(self, size: int) -> None:
        for stream in self._windows:
            self._windows[stream] += size - self._initial_window
        self._initial_window = size

    def change_settings(self, values: Mapping[int, int]) -> None:
        """Send SETTINGS and wait for their acknowledgement."""
        self.send_settings(values)
        self.until(lambda: not self.unacked, "the acknowledgement of our SETTINGS")

    def grant(self, stream: int, increment: int) -> None:
        """Send WINDOW_UPDATE."""
        if stream:
            self._windows[stream] += increment
        else:
            self._window += increment
        self.send(frames.window_update(stream, increment))

    def stream(self) -> int:
        """The next stream's number, and its books opened."""
        return self.open(self._next_stream)

    def open(self, stream: int) -> int:
        """Open the books of ``stream``, which the test chose; later ones are above it."""
        self.answers[stream] = Answer(stream)
        self._windows[stream] = self._initial_window
        self.given_to[stream] = self.settings.get(
            Setting.INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW
        )
        self._next_stream = max(self._next_stream, stream + stream % 2 + 1)
        return stream

    def block(self, fields: Fields, *, huffman: bool = True) -> bytes:
        """``fields`` as the connection's next header block; it has to be sent."""
        return self.encoder.encode(fields, huffman=huffman)

    def spend(self, stream: int, octets: int) -> None:
        """Book ``octets`` of payload as sent; only ``upload`` does so by itself."""
        self.given -= octets
        self.given_to[stream] -= octets

    # ---- listening ----

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Read frames until ``condition`` holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            try:
                self._read(deadline)
            except Closed:
                raise AssertionError(
                    f"the server closed the connection before {what} came; {self._heard()}"
                ) from None
            except TimeoutError:
                raise AssertionError(f"{what} did not come; {self._heard()}") from None

    def until_closed(self, within_s: float = DEADLINE_S) -> None:
        """Read all that comes until the server closes the connection."""
        deadline = time.monotonic() + within_s
        try:
            while True:
                self._read(deadline)
        except Closed:
            pass
        except TimeoutError:
            raise AssertionError(
                f"the server did not close the connection; {self._heard()}"
            ) from None

    def listen(self, wait_s: float = 0) -> None:
        """Book what has come; where nothing has, wait up to ``wait_s`` for something to come."""
        with suppress(Closed):
            while self._buffer or select.select([self.socket], [], [], wait_s)[0]:
                self._read(time.monotonic() + DEADLINE_S)
                wait_s = 0

    @property
    def settings_came(self) -> bool:
        return any(f.type == Type.SETTINGS and not f.has(frames.ACK) for f in self.log)

    def _heard(self) -> str:
        return f"its last frames: {self.log[-8:]}, its GOAWAY: {self.goaways}"

    def _read(self, deadline: float) -> None:
        """Read one frame and book it."""
        length = int.from_bytes(self._octets(9, deadline)[:3], "big")
        octets = self._octets(9 + length, deadline)
        del self._buffer[: 9 + length]
        number = struct.unpack(">I", octets[5:9])[0]
        self._book(Frame(octets[3], octets[4], number & frames.MAX_WINDOW, octets[9:]))

    def _octets(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                received = self.socket.recv(1 << 16)
            except ConnectionResetError:
                received = b""
            finally:
                self.socket.settimeout(DEADLINE_S)
            if not received:
                self.closed = True
                raise Closed
            self._buffer += received
        return bytes(self._buffer[:count])

    # ---- what the server may do ----

    def _book(self, frame: Frame) -> None:
        assert len(frame.payload) <= self._max_frame_size, f"{frame} is too large (section 4.2)"
        if not self.log:
            assert frame.type == Type.SETTINGS, f"{frame} came first (section 3.4)"
            assert not frame.has(frames.ACK), f"{frame} came first (section 3.4)"
        if self._block is not None:
            assert frame.type == Type.CONTINUATION, f"{frame} inside a header block (section 6.2)"
        self.log.append(frame)
        match frame.type:
            case Type.SETTINGS:
                self._book_settings(frame)
            case Type.PING:
                if frame.has(frames.ACK):
                    self.pongs.append(frame.payload)
                else:
                    self.send(frames.ping(frame.payload, ack=True))
            case Type.GOAWAY:
                last, code = struct.unpack(">II", frame.payload[:8])
                self.goaways.append((last, code))
            case Type.WINDOW_UPDATE:
                self._book_window(frame)
            case Type.RST_STREAM:
                self._answer_of(frame).reset = struct.unpack(">I", frame.payload)[0]
            case Type.DATA:
                self._book_data(frame)
            case Type.HEADERS | Type.CONTINUATION:
                self._book_block(frame)
            case Type.PUSH_PROMISE | Type.PRIORITY:
                raise AssertionError(f"{frame} came from a server")

    def _answer_of(self, frame: Frame) -> Answer:
        assert frame.stream in self.answers, f"{frame} came on a stream that is idle"
        return self.answers[frame.stream]

    def _book_settings(self, frame: Frame) -> None:
        if frame.has(frames.ACK):
            assert self.unacked, "an acknowledgement of SETTINGS that were not sent"
            ours = self.unacked.pop(0)
            self._max_frame_size = ours.get(Setting.MAX_FRAME_SIZE, self._max_frame_size)
            self._change_initial_window(ours.get(Setting.INITIAL_WINDOW_SIZE, self._initial_window))
            if Setting.HEADER_TABLE_SIZE in ours:
                self._decoder.max_allowed_table_size = ours[Setting.HEADER_TABLE_SIZE]
            return
        values = dict(struct.iter_unpack(">HI", frame.payload))
        assert values.get(Setting.ENABLE_PUSH, 0) == 0, "a server cannot be pushed to"
        initial = values.get(Setting.INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW)
        before = self.settings.get(Setting.INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW)
        if Setting.INITIAL_WINDOW_SIZE in values:
            for stream in self.given_to:
                self.given_to[stream] += initial - before
        self.settings.update(values)
        if Setting.HEADER_TABLE_SIZE in values:
            self.encoder.header_table_size = min(4096, values[Setting.HEADER_TABLE_SIZE])
        self.send(frames.settings(ack=True))

    def _book_window(self, frame: Frame) -> None:
        (increment,) = struct.unpack(">I", frame.payload)
        assert increment > 0, f"{frame} gives nothing (section 6.9)"
        if frame.stream:
            self._answer_of(frame)
            self.given_to[frame.stream] += increment
        else:
            self.given += increment

    def _book_data(self, frame: Frame) -> None:
        answer = self._answer_of(frame)
        size = len(frame.payload)
        payload = frame.payload
        if frame.has(frames.PADDED):
            payload = payload[1 : size - payload[0]]
        self._window -= size
        self._windows[frame.stream] -= size
        if size:
            assert self._window >= 0, f"{frame} is over the connection's window"
            assert self._windows[frame.stream] >= 0, f"{frame} is over the stream's window"
        answer.add_data(payload, frame.has(frames.END_STREAM))
        if self.credit and size:
            self.grant(0, size)
            if not answer.over:
                self.grant(frame.stream, size)

    def _book_block(self, frame: Frame) -> None:
        if frame.type == Type.HEADERS:
            self._answer_of(frame)
            payload = frame.payload
            if frame.has(frames.PADDED):
                payload = payload[1 : len(payload) - payload[0]]
            if frame.has(frames.PRIORITIZED):
                payload = payload[5:]
            self._block = (frame.stream, bytearray(payload), frame.has(frames.END_STREAM))
        else:
            assert self._block is not None, f"{frame} continues nothing"
            assert self._block[0] == frame.stream, f"{frame} continues another stream's block"
            self._block[1].extend(frame.payload)
        if frame.has(frames.END_HEADERS):
            stream, block, end = self._block
            self._block = None
            fields = [(bytes(n), bytes(v)) for n, v in self._decoder.decode(bytes(block), raw=True)]
            self.answers[stream].add_block(fields, end)
