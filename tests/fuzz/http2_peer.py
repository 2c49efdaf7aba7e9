"""A client that says what a script tells it to, and holds the server to RFC 9113.

It need not be right in what it says; the server has to be in what it answers: whole frames and no
others, header blocks that HPACK decodes, nothing on a stream that has ended, no more DATA than was
allowed, no GOAWAY that takes an earlier one back, and none after one that names an error.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from gateway._native.hpack import Decoder, Encoder
from tests.fuzz.script import Script

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
LARGEST_WINDOW = 2**31 - 1
MOST_PIECES = 64

# The steps of a script that a client speaks in.
FRAME, REQUEST, FILLER, MESSAGE, RAW = range(5)
CLIENT_STEPS = 5
# How a REQUEST is to be written, besides END_STREAM, PADDED and HAS_PRIORITY.
CONTINUED, TRAILERS = 0x2, 0x4
# How a MESSAGE is, besides END_STREAM and compressed: in one frame, however large it is.
WHOLE = 0x4

Fields = list[tuple[bytes, bytes]]
Data = TypeVar("Data", bytes, memoryview)


@dataclass
class Heard:
    """What came on one stream."""

    blocks: list[Fields] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: bool = False


class Frames:
    """Cuts one direction of a connection into frames; ``rest`` is what has come of the next."""

    def __init__(self) -> None:
        self.rest = b""

    def cut(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """The whole frames: type, flags, stream, payload."""
        self.rest += data
        while len(self.rest) >= 9:
            size = int.from_bytes(self.rest[:3], "big")
            if len(self.rest) < 9 + size:
                return
            kind, flags = self.rest[3:5]
            stream = int.from_bytes(self.rest[5:9], "big") & LARGEST_WINDOW
            payload, self.rest = self.rest[9 : 9 + size], self.rest[9 + size :]
            yield kind, flags, stream, payload


class Http2Peer:
    """The client.

    Args:
        requests: the header lists that it may begin a stream with, or end one.
        messages: what it may send as gRPC's messages.

    Attributes:
        heard: by stream.
        goaway: the last stream that the server's last GOAWAY named, and its error code.
    """

    def __init__(self, requests: Sequence[Fields], messages: Sequence[bytes] = (b"",)) -> None:
        self.heard: defaultdict[int, Heard] = defaultdict(Heard)
        self.goaway: tuple[int, int] | None = None
        self._requests = requests
        self._messages = messages
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._last_stream = -1
        self._said = Frames()
        self._heard = Frames()
        self._spoken = b""
        self._settled = False
        self._block = b""
        self._block_of = (0, 0)
        # Upper bounds of what the server may send, and what it lets us send.
        self._frame_size = 16384
        self._first_window = 65535
        self._windows: defaultdict[int, int] = defaultdict(int)
        self._sent: defaultdict[int, int] = defaultdict(int)
        self._granted: defaultdict[int, int] = defaultdict(int)
        self._data_said: defaultdict[int, int] = defaultdict(int)
        self._window_said = 65535

    # What is said

    def say(self, step: int, script: Script) -> bytes:
        """The bytes of one step."""
        if step == FRAME:
            kind, flags, stream = script.number(), script.number(), script.number()
            return frame(kind, flags, stream, script.take(script.number()))
        if step == REQUEST:
            return self._say_request(script)
        if step == RAW:
            return script.take(script.number())
        stream, flags, size = script.number(), script.number(), script.number(2)
        if step == FILLER:
            return frame(DATA, flags & ~PADDED, stream, bytes(size % 16385))
        message = self._messages[size % len(self._messages)]
        compressed = flags >> 1 & 1
        payload = bytes([compressed]) + len(message).to_bytes(4, "big") + message
        if not flags & WHOLE:
            payload = payload[:16384]
        return frame(DATA, flags & END_STREAM, stream, payload)

    def _say_request(self, script: Script) -> bytes:
        fields = self._requests[script.number() % len(self._requests)]
        how = script.number()
        if how & TRAILERS:
            stream = script.number()
        else:
            stream = self._last_stream = self._last_stream + 2
        block = self._encoder.encode([(name, value, "index") for name, value in fields])
        first = block[: len(block) // 2] if how & CONTINUED else block
        flags = how & (END_STREAM | PADDED | HAS_PRIORITY)
        priority = bytes(5) if how & HAS_PRIORITY else b""
        payload = b"\x03" + priority + first + bytes(3) if how & PADDED else priority + first
        if not how & CONTINUED:
            return frame(HEADERS, flags | END_HEADERS, stream, payload)
        rest = block[len(first) :]
        return frame(HEADERS, flags, stream, payload) + frame(
            CONTINUATION, END_HEADERS, stream, rest
        )

    def spoke(self, data: bytes) -> None:
        """The server is given ``data``."""
        missing = len(PREFACE) - len(self._spoken)
        self._spoken += data[:missing]
        if self._spoken != PREFACE:
            return
        for kind, _, stream, payload in self._said.cut(data[missing:] if missing > 0 else data):
            if kind == WINDOW_UPDATE and len(payload) == 4:
                self._windows[stream] += int.from_bytes(payload, "big") & LARGEST_WINDOW
            elif kind == SETTINGS:
                for name, value in settings(payload):
                    if name == INITIAL_WINDOW_SIZE:
                        self._first_window = max(self._first_window, value)
                    elif name == MAX_FRAME_SIZE:
                        self._frame_size = max(self._frame_size, value)
            elif kind == DATA:
                self._data_said[0] += len(payload)
                self._data_said[stream] += len(payload)

    # What is heard

    def hear(self, data: bytes, last_stream: int) -> None:
        """Take what the server sends, which has seen streams up to ``last_stream``."""
        if data.startswith(b"HTTP/1.1 400 "):
            assert not PREFACE.startswith(self._spoken)
            return
        for kind, flags, stream, payload in self._heard.cut(data):
            assert self.goaway is None or self.goaway[1] == 0, "frames after an error"
            assert len(payload) <= self._frame_size
            if self._block_of[0]:
                assert (kind, stream) == (CONTINUATION, self._block_of[0])
            if not self._settled:
                assert (kind, flags) == (SETTINGS, 0)
                self._settled = True
            if kind in (SETTINGS, PING, GOAWAY):
                assert stream == 0
            elif kind != WINDOW_UPDATE or stream:
                assert stream <= last_stream
            self._hear_frame(kind, flags, stream, payload)
        assert not self._heard.rest, "half a frame"

    def _hear_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (HEADERS, CONTINUATION):
            assert flags & ~(END_STREAM | END_HEADERS) == 0
            if kind == HEADERS:
                self._block, self._block_of = b"", (stream, flags & END_STREAM)
            self._block += payload
            if flags & END_HEADERS:
                self._hear_block()
        elif kind == DATA:
            heard = self.open_stream(stream)
            assert heard.blocks, "DATA before the head"
            assert flags == 0
            heard.data += payload
            for number, first in ((0, 65535), (stream, self._first_window)):
                self._sent[number] += len(payload)
                assert self._sent[number] <= first + self._windows[number], "no window for it"
        elif kind == RST_STREAM:
            assert stream
            assert len(payload) == 4
            self.heard[stream].reset = True
        elif kind == SETTINGS:
            assert len(payload) % 6 == 0 if flags == 0 else (flags, payload) == (ACK, b"")
            self._window_said = dict(settings(payload)).get(INITIAL_WINDOW_SIZE, self._window_said)
        elif kind == PING:
            assert len(payload) == 8
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            assert len(payload) == 4
            assert 0 < more <= LARGEST_WINDOW
            self._granted[stream] += more
        else:
            assert kind == GOAWAY, f"a frame of type {kind} from a server"
            last = int.from_bytes(payload[:4], "big")
            assert self.goaway is None or last <= self.goaway[0], "a GOAWAY is taken back"
            self.goaway = last, int.from_bytes(payload[4:8], "big")

    def open_stream(self, stream: int) -> Heard:
        """What came on a stream, which must not have ended."""
        heard = self.heard[stream]
        assert stream & 1
        assert not heard.ended
        assert not heard.reset
        return heard

    def _hear_block(self) -> None:
        (stream, end), self._block_of = self._block_of, (0, 0)
        heard = self.open_stream(stream)
        fields = [(name, value) for name, value in self._decoder.decode(self._block)]
        names = [name for name, _ in fields]
        assert (b":status" in names) == (not heard.blocks)
        assert end or not heard.blocks, "a head in the middle"
        heard.blocks.append(fields)
        heard.ended = bool(end)

    @property
    def began(self) -> bool:
        """Whether any of the preface has been said."""
        return bool(self._spoken)

    def allowed(self) -> bool:
        """Whether the DATA that was said so far was within the connection's window."""
        return self._data_said[0] <= 65535 + self._granted[0]

    def window(self, stream: int) -> int:
        """The most that may be said now on a stream, or with 0 on the connection."""
        begun = self._said.rest
        of = (0, int.from_bytes(begun[5:9], "big") & LARGEST_WINDOW)
        coming = 0
        if len(begun) >= 9 and begun[3] == DATA and stream in of:
            coming = int.from_bytes(begun[:3], "big")
        first = self._window_said if stream else 65535
        return first + self._granted[stream] - self._data_said[stream] - coming


def settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The names and values of a SETTINGS."""
    for at in range(0, len(payload) - 5, 6):
        name, value = payload[at : at + 2], payload[at + 2 : at + 6]
        yield int.from_bytes(name, "big"), int.from_bytes(value, "big")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def pieces(data: Data, size: int) -> Iterator[Data]:
    """``data`` in pieces of ``size`` bytes, larger where they were too many; in one for 0."""
    size = max(size or len(data), len(data) // MOST_PIECES, 1)
    for at in range(0, len(data), size):
        yield data[at : at + size]
