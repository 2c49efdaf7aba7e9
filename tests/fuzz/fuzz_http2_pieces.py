"""HTTP/2 as it comes: what is made of the bytes does not depend on how they were cut.

The first byte of the input is the size of the pieces, 0 for a client whose preface is not said for
it. The rest is what the client sends.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from gateway._native.hpack import Encoder
from gateway._native.http2 import Http2Connection
from gateway._native.http2_limits import Http2Limits
from tests.fuzz.http2_peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    pieces,
)

NOW_NS = 1_000_000_000
LIMITS = Http2Limits(max_concurrent_streams=4, max_header_bytes=1000, stream_window=100, burst=50)
SETTLED = PREFACE + frame(SETTINGS, 0, 0, b"")


class Events:
    """A handler that answers nothing and notes everything; data by stream, however it was cut."""

    def __init__(self) -> None:
        self.noted: list[tuple[Any, ...]] = []

    def request_begun(self, stream: Any, head: Any) -> None:
        self.noted.append(("begun", stream.id, [tuple(field) for field in head.fields]))

    def data_received(self, stream: Any, data: bytes) -> None:
        last = self.noted[-1]
        if last[:2] == ("data", stream.id):
            self.noted[-1] = (*last[:2], last[2] + data)
        else:
            self.noted.append(("data", stream.id, data))

    def request_ended(self, stream: Any) -> None:
        self.noted.append(("ended", stream.id))

    def stream_lost(self, stream: Any) -> None:
        self.noted.append(("lost", stream.id))


def one_input(data: bytes) -> None:
    if not data:
        return
    size, said = data[0], memoryview(data)[1:]
    assert outcome([said], begun=size > 0) == outcome(pieces(said, size or 1), begun=size > 0)


def outcome(parts: Iterable[memoryview], begun: bool) -> Any:
    """What the layer above is told, and what is left."""
    events = Events()
    connection = Http2Connection(LIMITS, NOW_NS, events)
    if begun:
        connection.receive(SETTLED, NOW_NS)
    for part in parts:
        connection.receive(part, NOW_NS)
    left = {number: stream.remote_closed for number, stream in connection.streams.items()}
    return events.noted, left, connection.last_stream, connection.failed, connection.done


def seeds() -> Iterator[tuple[str, bytes]]:
    encoder = Encoder()

    def block(*more: tuple[bytes, bytes]) -> bytes:
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), *more]
        return encoder.encode([(*field, "index") for field in fields])

    whole = END_STREAM | END_HEADERS
    yield "preface", b"\0" + SETTLED
    yield "http1", b"\0GET / HTTP/1.1\r\n\r\n"
    yield "half-a-preface", b"\0" + PREFACE[:10] + b"?"
    yield "request", b"\1" + frame(HEADERS, whole, 1, block())
    yield (
        "request-with-data",
        b"\3" + frame(HEADERS, END_HEADERS, 1, block()) + frame(DATA, END_STREAM, 1, b"data" * 9),
    )
    yield (
        "padded",
        b"\1"
        + frame(HEADERS, END_HEADERS | PADDED | HAS_PRIORITY, 1, b"\2" + bytes(5) + block() + b"00")
        + frame(DATA, PADDED, 1, b"\3abc\0\0\0")
        + frame(DATA, PADDED | END_STREAM, 1, b"\0"),
    )
    headers = block((b"x", b"y"), (b"content-length", b"4"))
    yield (
        "continued",
        b"\2"
        + frame(HEADERS, 0, 1, headers[:3])
        + frame(CONTINUATION, 0, 1, headers[3:6])
        + frame(CONTINUATION, END_HEADERS, 1, headers[6:])
        + frame(DATA, 0, 1, b"da")
        + frame(DATA, END_STREAM, 1, b"ta"),
    )
    yield (
        "too-much-data",
        b"\7"
        + frame(HEADERS, END_HEADERS, 1, block())
        + frame(DATA, 0, 1, bytes(101))
        + frame(HEADERS, whole, 3, block()),
    )
    yield "too-large-a-frame", b"\1\x00\x40\x01" + bytes(9)
    yield (
        "control",
        b"\5"
        + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0")
        + frame(SETTINGS, ACK, 0, b"")
        + frame(PING, 0, 0, b"12345678")
        + frame(HEADERS, END_HEADERS, 1, block())
        + frame(PRIORITY, 0, 1, bytes(5))
        + frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1")
        + frame(RST_STREAM, 0, 1, bytes(4))
        + frame(99, 0xFF, 9, b"?" * 20)
        + frame(GOAWAY, 0, 0, bytes(8)),
    )
