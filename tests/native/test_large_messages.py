"""Large messages on their way in: where they are received, where they lie, and that they are right.

``tests/http2/test_large_messages.py`` sends them over a socket; here the bytes are cut by the test,
and what the connection holds of them can be looked at.
"""

import ctypes
import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from gateway._native.arena import Arena, live_bytes
from gateway._native.grpc import GrpcConnection
from gateway._native.grpc_infer import InferConnection
from gateway._native.grpc_receiver import ReceiveBudget
from gateway._native.http2_limits import Http2Limits
from gateway._native.http2_protocol import ReceiveBuffer, Scheduler
from gateway._native.infer_template import InferTemplate
from gateway._native.oip_head import split
from gateway._native.queue import Batch, BatchQueue
from gateway._native.ticket import Group, Ticket, live_tickets
from gateway.protos import message
from gateway.serving.binder import Layout
from gateway.serving.onnx.session import open_session
from gateway.serving.onnx.slot import Slot
from gateway.serving.settings import ModelSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import DATATYPES
from tests.http2 import frames
from tests.http2.calls import prefixed
from tests.serving import models

BUFFER = ReceiveBuffer()
LIMITS = Http2Limits(stream_window=1 << 24, connection_window=1 << 28, nuisances_per_s=10**6)
LARGEST_FRAME = LIMITS.max_frame_bytes
MIB = 1 << 20
#: What is received at a time from a peer whose frames are large, where a frame may begin.
START_BYTES = 1 << 15


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    """Though a connection, its calls and its lane know one another."""
    gc.collect()
    before = live_tickets(), live_bytes()
    yield
    gc.collect()
    assert (live_tickets(), live_bytes()) == before


class Loop:
    """Nothing is due while a test looks."""

    def call_soon(self, callback: Any) -> None:
        pass

    def call_later(self, delay_s: float, callback: Any, *arguments: Any) -> None:
        raise AssertionError("no deadline was given, and there is no socket to wait on")


class Transport:
    def get_extra_info(self, name: str) -> None:
        """It has no socket."""

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        pass


class Call:
    """Keeps the messages of a call."""

    def __init__(self, connection: GrpcConnection, stream: Any) -> None:
        self.messages: list[bytes] = []
        self.ended = self.cancelled = False
        self._connection, self._stream = connection, stream

    def receive(self, message: bytes, compressed: bool) -> None:
        self.messages.append(message)
        self._connection.release(self._stream, len(message))

    def end(self) -> None:
        self.ended = True

    def cancel(self) -> None:
        self.cancelled = True

    def drained(self) -> None:
        pass


class Calls(GrpcConnection):
    """A connection whose calls keep what they are sent."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        super().__init__(
            LIMITS,
            Scheduler(Loop()),
            BUFFER,
            {b"/s/m": "m"},
            1 << 24,
            ReceiveBudget(1 << 26),
        )
        self.connection_made(Transport())

    def begin(self, stream: Any) -> None:
        stream.endless = True
        stream.call = self.calls[stream.id] = Call(self, stream)


def begun(stream: int) -> bytes:
    """A call's HEADERS, without the dynamic table."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/m"),
              (b"te", b"trailers"), (b"content-type", b"application/grpc")]  # fmt: skip
    block = b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields
    )
    return frames.headers(stream, block)


OPENED = frames.PREFACE + frames.settings()


def deliver(connection: Any, octets: bytes, cuts: Any) -> list[int]:
    """Receive ``octets`` as asyncio would, in reads of up to ``next(cuts)`` bytes.

    Returns the sizes of the rooms that the connection received into.
    """
    left, rooms = memoryview(octets), []
    while left:
        room = connection.get_buffer(-1)
        part = left[: min(len(room), next(cuts))]
        room[: len(part)] = part
        rooms.append(len(room))
        connection.buffer_updated(len(part))
        left = left[len(part) :]
    return rooms


def forever(size: int) -> Any:
    while True:
        yield size


def pattern(size: int, seed: int) -> bytes:
    """Bytes of which no two stretches are alike."""
    return np.random.default_rng(seed).bytes(size)


# -- where they are received ------------------------------------------------------------------


def test_what_is_left_of_a_large_frame_is_received_where_it_stays() -> None:
    connection, sent = Calls(), pattern(200_000, 1)
    deliver(connection, OPENED + begun(1), forever(MIB))
    (first,) = deliver(connection, frames.data(1, prefixed(sent))[:40_000], forever(MIB))
    assert first == len(BUFFER.view)
    room = connection.get_buffer(-1)
    assert len(room) == 200_000 - (40_000 - 9 - 5)
    room[:] = sent[-len(room) :]
    connection.buffer_updated(len(room))
    assert connection.calls[1].messages == [sent]


def test_nothing_beyond_its_frame_is_received_into_a_message() -> None:
    """Behind the frame may come anything."""
    connection, sent = Calls(), pattern(400_000, 2)
    body = prefixed(sent)
    deliver(connection, OPENED + begun(1), forever(MIB))
    deliver(connection, frames.data(1, body[:200_000])[:50_000], forever(MIB))
    assert len(connection.get_buffer(-1)) == 200_000 + 9 - 50_000
    deliver(connection, frames.data(1, body[:200_000])[50_000:], forever(MIB))
    assert len(connection.get_buffer(-1)) == START_BYTES
    deliver(connection, frames.ping() + frames.data(1, body[200_000:]), forever(MIB))
    assert connection.calls[1].messages == [sent]


def test_a_peer_of_small_frames_fills_the_buffer() -> None:
    connection, body = Calls(), prefixed(pattern(600_000, 3))
    octets = OPENED + begun(1)
    for at in range(0, len(body), 16_384):
        octets += frames.data(1, body[at : at + 16_384])
    assert set(deliver(connection, octets, forever(MIB))) == {len(BUFFER.view)}
    assert connection.calls[1].messages == [body[5:]]


def test_padding_is_not_received_into_a_message() -> None:
    connection, sent = Calls(), pattern(100_000, 4)
    octets = OPENED + begun(1) + frames.data(1, prefixed(sent), pad=255)
    deliver(connection, octets, forever(30_000))
    assert connection.calls[1].messages == [sent]


def test_memory_grows_with_what_came() -> None:
    """A message that says that it is large is given 32 times what came of it."""
    connection = Calls()
    octets = (
        OPENED + begun(1) + frames.data(1, (b"\0" + (1 << 23).to_bytes(4, "big")).ljust(99_999))
    )
    deliver(connection, octets[: len(octets) - 89_999], forever(MIB))
    assert connection.held_bytes == 32 * 9_995
    deliver(connection, octets[-89_999:], forever(MIB))
    assert connection.held_bytes < MIB


def test_a_call_that_ends_while_it_is_received_into_holds_nothing() -> None:
    connection = Calls()
    octets = OPENED + begun(1) + frames.data(1, prefixed(bytes(200_000)))
    deliver(connection, octets[:100_000], forever(MIB))
    room = connection.get_buffer(-1)
    connection.fail_call(connection.streams[1], 13, "given up")
    room[:50_000] = bytes(50_000)
    connection.buffer_updated(50_000)
    assert connection.calls[1].cancelled
    assert connection.held_bytes == 0
    assert len(connection.get_buffer(-1)) == START_BYTES
    rest = octets[150_000:] + begun(3) + frames.data(3, prefixed(b"after"))
    deliver(connection, rest, forever(MIB))
    assert connection.calls[3].messages == [b"after"]


# -- that they are right ----------------------------------------------------------------------

SIZES = st.one_of(
    st.integers(0, 100),
    st.sampled_from([16_383, 16_384, 32_767, 32_768, 65_536, 262_139, 262_144]),
    st.integers(30_000, 700_000),
)
FRAME_SIZES = st.one_of(
    st.sampled_from([1000, 16_384, 16_385, 65_536, LARGEST_FRAME - 256]),
    st.integers(10_000, LARGEST_FRAME - 256),
)


@settings(max_examples=60)
@given(data=st.data())
def test_however_frames_and_reads_are_cut_the_messages_are_the_same(data: st.DataObject) -> None:
    """Of streams whose frames come between each other's, padded or not, with PINGs among them."""
    count = data.draw(st.integers(1, 3))
    sent = {
        1 + 2 * index: [
            pattern(size, index * 10 + number)
            for number, size in enumerate(data.draw(st.lists(SIZES, min_size=1, max_size=3)))
        ]
        for index in range(count)
    }
    left = {stream: b"".join(map(prefixed, parts)) for stream, parts in sent.items()}
    octets = OPENED + b"".join(map(begun, sent))
    while left:
        stream = data.draw(st.sampled_from(sorted(left)))
        size = data.draw(FRAME_SIZES)
        part, left[stream] = left[stream][:size], left[stream][size:]
        over = not left[stream]
        pad = data.draw(st.sampled_from([None, None, 0, 1, 255]))
        octets += frames.data(stream, part, end=over, pad=pad)
        if data.draw(st.booleans()):
            octets += frames.ping()
        if over:
            del left[stream]
    whole, cut = Calls(), Calls()
    whole.receive(octets, 1)
    # Near the ends of rooms, of frames' heads and of the buffer, and anywhere.
    sizes = data.draw(
        st.lists(
            st.one_of(
                st.integers(1, 30),
                st.integers(1000, 300_000),
                st.just(MIB),
            ),
            min_size=1,
            max_size=30,
        )
    )
    cuts = (sizes[at] if at < len(sizes) else MIB for at in range(1 << 30))
    deliver(cut, octets, cuts)
    for connection in (whole, cut):
        assert {stream: call.messages for stream, call in connection.calls.items()} == sent
        assert all(call.ended for call in connection.calls.values())
        assert connection.held_bytes == 0
        assert not connection.failed


# -- where their tensors lie ------------------------------------------------------------------

ROW = 30_000
Request = message("ModelInferRequest")


def infer_message(values: Any, id: str = "", model: str = "m") -> bytes:
    made = Request(model_name=model, id=id)
    made.inputs.add(name="x", datatype="FP32", shape=np.shape(values))
    made.raw_input_contents.append(np.asarray(values, "<f4").tobytes())
    return bytes(made.SerializeToString())


class Lane:
    """The queue of one model, whose requests have known heads; it dispatches them, too."""

    def __init__(self, known: bytes, arena: Arena) -> None:
        self.inflight = 0
        self._queue, self._arena = BatchQueue(4, 16), arena
        head, _, (raw,) = split(known)
        self.group = Group([(1, len(raw), "batched")], shapes=Layout(((ROW,),), (0,)))
        self.templates = {
            head: InferTemplate(
                None, self, self.group, 1, 0, 0, 0,
                model="m", version="1", sizes=[len(raw)], raw_of_input=[0],
                outputs=[(0, "y", "FP32")],
            )
        }  # fmt: skip

    def submit_known(self, template: Any, ticket: Ticket, now_ns: int) -> None:
        assert self._queue.put(ticket, now_ns)
        self.inflight += 1

    def cancel(self, ticket: Ticket) -> None:
        self._queue.cancel(ticket)

    def take(self) -> Batch:
        batch = self._queue.poll(self._arena, 1)
        assert batch is not None
        assert batch.gathered
        return batch


class Inference(InferConnection):
    """A connection whose requests go to a ``Lane``; of unknown ones the messages are kept."""

    def __init__(self, lane: Lane) -> None:
        self.unknown: list[bytes] = []
        super().__init__(
            LIMITS, Scheduler(Loop()), BUFFER, {b"/s/m": "m"}, 1 << 24, ReceiveBudget(1 << 26),
            dispatcher=lane, infer_method="m", stream_method="other",
        )  # fmt: skip
        self.connection_made(Transport())

    def infer_unknown(self, stream: Any, message: bytes, compressed: bool, head: Any) -> None:
        self.unknown.append(message)


def memory(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


@pytest.mark.parametrize("frame", [16_384, 50_000, LARGEST_FRAME])
@pytest.mark.parametrize("first_read", [1, 20, 100, 5_000, MIB])
@pytest.mark.parametrize("id", ["", "a", "id", "an id of many letters"])
def test_a_large_tensor_lies_aligned_and_is_not_gathered(
    frame: int, first_read: int, id: str
) -> None:
    """Wherever the head ends, but where too little of it came at first to know it."""
    values = np.random.default_rng(5).normal(size=(1, ROW)).astype("<f4")
    lane = Lane(infer_message(values), Arena(1, 1))
    connection = Inference(lane)
    body = prefixed(infer_message(values, id))
    deliver(connection, OPENED + begun(1), forever(MIB))
    octets = b"".join(
        frames.data(1, body[at : at + frame], end=at + frame >= len(body))
        for at in range(0, len(body), frame)
    )
    deliver(connection, octets[: 14 + first_read], forever(MIB))
    deliver(connection, octets[14 + first_read :], forever(MIB))
    batch = lane.take()
    # The head has some 40 octets.
    if first_read >= 100:
        (address,) = batch.addresses()
        assert batch.in_place
        assert address % 64 == 0
        assert memory(address, values.nbytes) == values.tobytes()
    else:
        assert not batch.in_place


def test_requests_that_share_a_batch_are_gathered() -> None:
    values = np.ones((1, ROW), "<f4")
    arena = Arena(1, 1)
    lane = Lane(infer_message(values), arena)
    connection = Inference(lane)
    deliver(connection, OPENED, forever(MIB))
    for stream, value in ((1, 1.0), (3, 2.0)):
        body = prefixed(infer_message(value * values))
        deliver(connection, begun(stream) + frames.data(stream, body, end=True), forever(MIB))
    batch = lane.take()
    assert batch.rows == 2
    assert not batch.in_place
    seen = np.frombuffer(memory(arena.ensure(0, 0), 2 * values.nbytes), "<f4").reshape(2, ROW)
    assert seen[:, 0].tolist() == [1.0, 2.0]


def test_small_requests_are_gathered() -> None:
    values = np.ones((1, ROW), "<f4")
    lane = Lane(infer_message(values), Arena(1, values.nbytes + 1))
    connection = Inference(lane)
    body = prefixed(infer_message(values))
    deliver(connection, OPENED + begun(1) + frames.data(1, body, end=True), forever(MIB))
    assert not lane.take().in_place


def test_what_others_may_write_to_is_gathered() -> None:
    """A ticket made in Python, of memory that happens to be aligned."""
    block = np.zeros(ROW + 16, np.float32)
    values = block[(-block.ctypes.data % 64) // 4 :][:ROW]
    group, queue = Group([(1, values.nbytes, "batched")]), BatchQueue(4, 16)
    ticket = Ticket(group, 1, [values], None)
    assert queue.put(ticket, 1)
    assert not queue.poll(Arena(1, 1), 1).in_place


def test_a_message_that_turns_out_otherwise_is_handed_on_as_it_was_sent() -> None:
    """Its head is known, what follows is not what its shape takes."""
    lane = Lane(infer_message(np.ones((1, ROW))), Arena(1, 1))
    connection = Inference(lane)
    wrong = Request.FromString(infer_message(np.ones((1, ROW))))
    wrong.raw_input_contents[0] = pattern(4 * ROW - 1, 6)
    sent = wrong.SerializeToString()
    octets = OPENED + begun(1) + frames.data(1, prefixed(sent), end=True)
    deliver(connection, octets, forever(MIB))
    assert connection.unknown == [sent]


def test_a_session_runs_on_what_lies_in_place_and_on_what_was_gathered_by_turns() -> None:
    x, y = (TensorSpec(name, DATATYPES["FP32"], (-1, ROW), batch_axis=0) for name in "xy")
    signature = Signature((x,), (y,), 4)
    model = models.identity(TensorProto.FLOAT, ("N", ROW))
    slot = Slot(open_session(model.SerializeToString(), ModelSettings(), size_bytes=1), signature)
    rows = [np.full((1, ROW), value, "<f4") for value in range(9)]
    lane = Lane(infer_message(rows[0]), slot.arena)
    connection = Inference(lane)
    deliver(connection, OPENED, forever(MIB))
    stream = 1
    # So that no message comes to lie where another one lay.
    kept: list[Any] = []
    # A request of whose head too little comes at first to know it is gathered, though it is alone.
    for expected, first_read in (
        ([0], MIB), ([1], MIB), ([2, 3], MIB), ([4], 20), ([5], MIB), ([6], 20), ([7, 8], MIB)
    ):  # fmt: skip
        for value in expected:
            body = prefixed(infer_message(rows[value]))
            octets = frames.data(stream, body, end=True)
            deliver(connection, begun(stream), forever(MIB))
            deliver(connection, octets[:first_read], forever(MIB))
            deliver(connection, octets[first_read:], forever(MIB))
            stream += 2
        batch = lane.take()
        assert batch.in_place == (len(expected) == 1 and first_read == MIB)
        (result,) = slot.run(batch)
        assert result[:, 0].tolist() == expected
        assert result[:, -1].tolist() == expected
        for ticket in batch.tickets:
            kept.append(ticket.inputs)
            ticket.release()
    slot.close()
