"""An HTTP/2 connection without a socket: its rations, its windows, its memory, its end.

``tests/http2`` has the protocol, over a socket; this is what needs a clock to be moved by hand, or
a look at what the connection holds.
"""

import gc
from typing import Any

import pytest
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from gateway._native.http2 import Http2Connection
from gateway._native.http2_limits import Http2Limits
from gateway._native.http2_stream import Http2Stream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MILLISECOND = 1_000_000
SECOND = 1000 * MILLISECOND
BURST = 20


class Handler:
    """Keeps the streams that were begun, and those that came to nothing."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.lost: list[Any] = []

    def request_begun(self, stream: Any, head: Any) -> None:
        self.begun.append(stream)

    def data_received(self, stream: Any, data: bytes) -> None:
        pass

    def request_ended(self, stream: Any) -> None:
        pass

    def stream_lost(self, stream: Any) -> None:
        self.lost.append(stream)


class Client:
    """Says frames to a connection, and hears its own."""

    def __init__(self, **limits: Any) -> None:
        self.now = SECOND
        self.handler = Handler()
        self.connection = Http2Connection(
            Http2Limits(burst=BURST, resets_per_s=1, nuisances_per_s=1, **limits),
            self.now,
            self.handler,
        )
        self._encoder = Encoder()
        self._next = 1
        self.connection.receive(PREFACE, self.now)
        self.say(SettingsFrame(0))
        self.hear()

    def say(self, *frames: Frame) -> None:
        for frame in frames:
            self.connection.receive(frame.serialize(), self.now)

    def hear(self) -> list[Frame]:
        data = memoryview(self.connection.out.take())
        frames = []
        while data:
            frame, length = Frame.parse_frame_header(data[:9])
            frame.parse_body(data[9 : 9 + length])
            frames.append(frame)
            data = data[9 + length :]
        return frames

    def ask(self, *, end: bool = True) -> Any:
        """Begin a request; its stream, or ``None`` where it was refused."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "x")]
        frame = HeadersFrame(self._next, self._encoder.encode(fields), flags=["END_HEADERS"])
        if end:
            frame.flags.add("END_STREAM")
        self._next += 2
        before = len(self.handler.begun)
        self.say(frame)
        return self.handler.begun[before] if len(self.handler.begun) > before else None

    def answer(self, stream: Any, data: bytes = b"") -> None:
        self.connection.respond(stream, [(b":status", b"200")])
        self.connection.send(stream, data)
        self.connection.finish(stream, [(b"x", b"y")])

    def tick(self, seconds: float = 0) -> None:
        self.now += int(seconds * SECOND)
        self.connection.tick(self.now)

    @property
    def goaway(self) -> GoAwayFrame | None:
        return next((f for f in self.hear() if isinstance(f, GoAwayFrame)), None)


def assert_calmed(client: Client) -> None:
    """The connection ended with ENHANCE_YOUR_CALM."""
    goaway = client.goaway
    assert goaway is not None
    assert goaway.error_code == 11
    assert client.connection.failed


# -- rations ----------------------------------------------------------------------------------


def test_pings_into_silence_are_rationed() -> None:
    client = Client()
    for _ in range(BURST + 1):
        client.say(PingFrame(0, b"8 octets"))
    assert_calmed(client)


def test_a_ration_is_filled_again_in_time() -> None:
    client = Client()
    for _ in range(BURST):
        client.say(PingFrame(0, b"8 octets"))
    for _ in range(3 * BURST):
        client.now += SECOND
        client.say(PingFrame(0, b"8 octets"))
    assert not client.connection.failed


def test_a_ping_for_each_answer_is_free() -> None:
    """As clients send it that measure the way to us."""
    client = Client()
    for _ in range(10 * BURST):
        client.answer(client.ask(), b"data")
        client.say(PingFrame(0, b"8 octets"))
    assert not client.connection.failed


def test_streams_that_are_reset_at_once_are_rationed() -> None:
    client = Client()
    for _ in range(BURST + 1):
        client.say(RstStreamFrame(client.ask().id, 8))
    assert_calmed(client)
    assert len(client.handler.lost) == BURST + 1


def test_resets_among_as_many_answers_are_free() -> None:
    """The ration limits the share of what is begun in vain, not its rate."""
    client = Client()
    for _ in range(10 * BURST):
        client.answer(client.ask())
        client.say(RstStreamFrame(client.ask().id, 8))
    assert not client.connection.failed


def test_giving_up_after_a_while_is_free() -> None:
    client = Client()
    for _ in range(10 * BURST):
        stream = client.ask()
        client.now += 25 * MILLISECOND
        client.say(RstStreamFrame(stream.id, 8))
    assert not client.connection.failed
    assert len(client.handler.lost) == 10 * BURST


def test_resets_that_errors_make_us_send_are_rationed() -> None:
    """CVE-2025-8671: the request is given up, and the error counts."""
    client = Client()
    for _ in range(BURST + 1):
        stream = client.ask()
        client.say(DataFrame(stream.id, b"after the end"))
    assert_calmed(client)
    assert client.handler.lost


def test_being_refused_is_no_fault() -> None:
    client = Client(max_concurrent_streams=1)
    client.ask()
    for _ in range(10 * BURST):
        assert client.ask() is None
    assert {f.error_code for f in client.hear() if isinstance(f, RstStreamFrame)} == {7}
    assert not client.connection.failed


# -- windows ----------------------------------------------------------------------------------


def test_padding_is_granted_again() -> None:
    client = Client(stream_window=1000)
    stream = client.ask(end=False)
    for _ in range(10):
        client.say(DataFrame(stream.id, b"x", pad_length=200, flags=["PADDED"]))
    granted = sum(f.window_increment for f in client.hear() if f.stream_id == stream.id)
    assert granted > 1000
    assert not stream.gone


def test_the_last_of_several_window_sizes_counts() -> None:
    client = Client()
    stream = client.ask()
    sizes = b"".join(b"\0\x04" + size.to_bytes(4, "big") for size in (1, 70_000, 5))
    client.connection.receive(b"\0\0\x12\x04\0\0\0\0\0" + sizes, client.now)
    client.answer(stream, b"ten octets")
    assert [len(f.data) for f in client.hear() if isinstance(f, DataFrame)] == [5]


@pytest.mark.parametrize("sizes", [(1 << 31,), (1 << 31, 1)])
def test_each_window_size_is_proven(sizes: tuple[int, ...]) -> None:
    client = Client()
    body = b"".join(b"\0\x04" + size.to_bytes(4, "big") for size in sizes)
    client.connection.receive(len(body).to_bytes(3, "big") + b"\x04\0\0\0\0\0" + body, client.now)
    goaway = client.goaway
    assert goaway is not None
    assert goaway.error_code == 3


def living_streams() -> int:
    return sum(type(thing) is Http2Stream for thing in gc.get_objects())


# -- memory -----------------------------------------------------------------------------------


def test_streams_that_are_gone_are_not_kept() -> None:
    """Though each had an answer that waited for a window when its client left."""
    client = Client()
    gc.collect()
    before = living_streams()
    client.answer(client.ask(), bytes(65_535))
    client.hear()
    for _ in range(100):
        stream = client.ask()
        client.answer(stream, b"waits")
        client.now += 25 * MILLISECOND
        client.say(RstStreamFrame(stream.id, 8))
    assert client.connection.waiting_bytes == 0
    client.handler.begun.clear()
    client.handler.lost.clear()
    del stream
    gc.collect()
    assert living_streams() <= before


# -- time -------------------------------------------------------------------------------------


def test_a_slow_reader_is_patiently_served() -> None:
    """Though the transport is full whenever anybody looks."""
    client = Client(read_timeout_ns=5 * SECOND)
    for _ in range(30):
        client.connection.pause_writing()
        client.tick(1)
        client.connection.resume_writing()
    assert not client.connection.failed


def test_a_reader_that_has_stopped_is_given_up() -> None:
    client = Client(read_timeout_ns=5 * SECOND)
    client.tick(1)
    client.connection.pause_writing()
    for _ in range(7):
        client.tick(1)
    assert client.connection.failed


def test_an_answer_that_nobody_takes_is_given_up() -> None:
    client = Client(read_timeout_ns=5 * SECOND)
    stream = client.ask()
    client.answer(stream, bytes(70_000))
    client.tick(6)
    assert stream.gone
    assert client.handler.lost == [stream]
    assert not client.connection.failed


# -- the end ----------------------------------------------------------------------------------


def test_a_connection_that_has_said_nothing_ends_at_once() -> None:
    connection = Http2Connection(Http2Limits(), SECOND, Handler())
    connection.drain(SECOND)
    assert connection.done


def test_a_drained_connection_ends_with_its_last_stream() -> None:
    client = Client()
    stream = client.ask()
    client.connection.drain(client.now)
    first, ping = client.hear()
    assert (first.last_stream_id, first.error_code) == (2**31 - 1, 0)
    late = client.ask()
    client.say(PingFrame(0, ping.opaque_data, flags=["ACK"]))
    (second,) = client.hear()
    assert second.last_stream_id == late.id
    assert client.ask() is None, "beyond the last"
    client.answer(stream)
    assert not client.connection.done
    client.answer(late)
    assert client.connection.done


def test_trailers_of_a_stream_beyond_the_last_are_passed_over() -> None:
    client = Client()
    stream = client.ask()
    client.connection.leave()
    beyond = stream.id + 2
    assert client.ask(end=False) is None
    client.say(
        DataFrame(beyond, b"data"),
        HeadersFrame(beyond, Encoder().encode([("x", "y")]), flags=["END_HEADERS", "END_STREAM"]),
    )
    assert not client.connection.failed
    client.answer(stream)
    assert client.connection.done


def test_an_error_names_no_stream_beyond_the_last() -> None:
    """What a GOAWAY has said, a later one may not take back."""
    client = Client()
    last = client.ask()
    client.connection.leave()
    client.ask()
    client.say(RstStreamFrame(99))
    left, failed = (f for f in client.hear() if isinstance(f, GoAwayFrame))
    assert (left.error_code, failed.error_code) == (0, 1)
    assert left.last_stream_id == failed.last_stream_id == last.id


def test_what_goes_wrong_above_fails_the_connection_and_is_told() -> None:
    client = Client()
    client.handler.request_begun = None  # type: ignore[method-assign,assignment]
    with pytest.raises(TypeError):
        client.ask()
    goaway = client.goaway
    assert goaway is not None
    assert goaway.error_code == 2
