"""Inference over gRPC: requests with known heads, from a message's bytes to a batch and back.

The input is a script, as ``grpc_session`` and ``http2_peer`` read it, with steps for the batches.
Behind the connection are a real queue and arena: what a ticket says lies in a message is copied
from there, wherever that is by then.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from gateway._native.arena import Arena
from gateway._native.grpc_infer import InferConnection
from gateway._native.infer_template import InferTemplate
from gateway._native.oip_head import split
from gateway._native.queue import Batch, BatchQueue
from gateway._native.ticket import Group, Ticket, live_tickets
from gateway.protos import message
from tests.fuzz.fuzz_oip_decode import with_everything, written
from tests.fuzz.grpc_session import (
    CUT,
    DRAIN,
    JOIN,
    PAUSE,
    RESUME,
    SECOND,
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
    FRAME,
    MESSAGE,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WHOLE,
    WINDOW_UPDATE,
    Heard,
)
from tests.fuzz.script import Script
from tests.native.oip_oracle import ModelInferRequest

ModelInferResponse = message("ModelInferResponse")
ModelStreamInferResponse = message("ModelStreamInferResponse")

TAKE, GIVE, ANSWER, DRAIN_STREAMS = range(SESSION_STEPS, SESSION_STEPS + 4)
STEPS = SESSION_STEPS + 4
# What becomes of a batch.
OUTPUTS, LONGER_OUTPUTS, TORN_OUTPUTS, FAILURE = range(4)

INFER, STREAM, OTHER = "infer", "stream", "other"
METHODS = {f"/s/{name}".encode(): name for name in (INFER, STREAM, OTHER)}
AS_STATUS = (b"errors", b"as-status")
REQUESTS = (
    request(b"/s/infer"),
    request(b"/s/stream"),
    request(b"/s/stream", AS_STATUS),
    request(b"/s/other"),
    request(b"/s/infer", (b"grpc-timeout", b"5m")),
    request(b"/s/stream", (b"grpc-timeout", b"5m")),
    request(b"/s/infer", (b"grpc-encoding", b"gzip")),
    request(b"/s/stream", (b"grpc-encoding", b"gzip")),
)
OUTPUT_NAMES = ("y", "z")
#: So large that it is aligned in its message, and run there.
LARGE = b"large " * 8000


def infer_request(inputs: int = 1, **fields: Any) -> Any:
    made = ModelInferRequest(model_name="m", **fields)
    for index in range(inputs):
        made.inputs.add(name=f"x{index}", datatype="FP32", shape=[1, 2])
        made.raw_input_contents.append(bytes([index]) * 8)
    return made


def messages() -> Iterator[bytes]:
    """What the client sends: the first two are requests that are known, and so is the last."""
    yield written(infer_request())
    yield written(infer_request(inputs=3))
    yield written(infer_request(id="id"))
    yield written(infer_request(id="i" * 300))
    yield written(infer_request(id="é"))
    yield written(infer_request(inputs=3, id="three"))
    wrong = infer_request()
    wrong.raw_input_contents[0] = bytes(7)
    yield written(wrong)
    wrong.raw_input_contents[:] = [bytes(8)] * 2
    yield written(wrong)
    yield written(infer_request(model_version="1"))
    yield written(with_everything())
    yield b""
    yield b"\xff"
    large = infer_request()
    large.inputs[0].shape[:] = [1, len(LARGE) // 4]
    large.raw_input_contents[0] = LARGE
    yield written(large)


MESSAGES = tuple(messages())


class Dispatcher:
    """Known heads, and the queue that their requests wait in; it is the templates' lane as well.

    Attributes:
        taken: batches that were taken and have not been answered.
    """

    def __init__(self) -> None:
        self.inflight = 0
        self.templates: dict[bytes, InferTemplate] = {}
        self.taken: list[Batch] = []
        self._queue = BatchQueue(4, 16)
        self._arena = Arena(3, len(LARGE))
        self._count = 0
        for known, timeout_ns, outputs in (
            (MESSAGES[0], 0, 1),
            (MESSAGES[1], SECOND, 2),
            (MESSAGES[-1], 0, 1),
        ):
            head, _, raws = split(known)
            inputs = len(raws)
            self.templates[head] = InferTemplate(
                None,
                self,
                Group([(1, len(raw), "batched") for raw in raws]),
                1,
                0,
                timeout_ns,
                0,
                model="m",
                version="1",
                sizes=[len(raw) for raw in raws],
                raw_of_input=list(reversed(range(inputs))),
                outputs=[
                    (index, name, "FP32") for index, name in enumerate(OUTPUT_NAMES[:outputs])
                ],
            )

    # The connection's side

    def submit_known(self, template: InferTemplate, ticket: Ticket, now_ns: int) -> None:
        self._count += 1
        if self._count % 8 == 7 or not self._queue.put(ticket, now_ns):
            raise RuntimeError("full")
        self.inflight += 1

    def cancel(self, ticket: Ticket) -> None:
        if self._queue.cancel(ticket):
            ticket.release()

    # The script's side

    def take(self, now_ns: int) -> None:
        for ticket in self._queue.expire(now_ns):
            self._tell(ticket, FAILURE)
        batch = self._queue.poll(self._arena, now_ns)
        if batch is not None:
            assert batch.gathered
            self.taken.append(batch)

    def give(self, what: int) -> None:
        if self.taken:
            batch = self.taken.pop(0)
            if batch.in_place:
                (address,) = batch.addresses()
                assert ctypes.string_at(address, len(LARGE)) == LARGE
            for ticket in batch.expired:
                self._tell(ticket, FAILURE)
            for ticket in batch.tickets:
                self._tell(ticket, what)

    def _tell(self, ticket: Ticket, what: int) -> None:
        if not ticket.cancelled:
            if what == FAILURE:
                ticket.sink.fail(RuntimeError("failed"))
            else:
                array = np.zeros((1, 300 if what == LONGER_OUTPUTS else 4), np.float32)
                # Rows that do not lie side by side are no buffer.
                array = array[:, ::2] if what == TORN_OUTPUTS else array
                ticket.sink.complete([array] * len(OUTPUT_NAMES))
        ticket.release()


class Pending:
    """A request that took the long way: the script answers it."""

    def __init__(self, connection: "Connection", stream: Any) -> None:
        self.stream = stream
        self.cancelled = False
        self._connection = connection

    def cancel(self) -> None:
        assert not self.cancelled
        self._connection.pending.remove(self)
        self.cancelled = True

    def answer(self) -> None:
        connection, stream = self._connection, self.stream
        connection.pending.remove(self)
        connection.forget(stream, self)
        response = ModelInferResponse(model_name="m", model_version="1")
        if stream.method == STREAM:
            response = ModelStreamInferResponse(infer_response=response)
        connection.send_message(stream, response.SerializeToString())
        if stream.method == INFER:
            connection.complete_call(stream)
        connection.settle(stream)
        assert not self.cancelled


class OtherCall:
    """A call of another method, which fails when it has been heard out."""

    def __init__(self, connection: "Connection", stream: Any) -> None:
        self._connection = connection
        self._stream = stream

    def receive(self, message: bytes, compressed: bool) -> None:
        self._connection.release(self._stream, len(message))
        self._connection.throttle(self._stream)
        self._connection.unthrottle(self._stream)

    def end(self) -> None:
        self._connection.fail_call(self._stream, 5, "not found")

    def cancel(self) -> None:
        self._connection = None

    def drained(self) -> None:
        assert self._connection is not None


class Connection(InferConnection):
    """What is done in Python, done shortly."""

    def __init__(self, **arguments: Any) -> None:
        self.pending: list[Pending] = []
        self.behind = Dispatcher()
        super().__init__(
            methods=METHODS,
            dispatcher=self.behind,
            infer_method=METHODS[b"/s/infer"],
            stream_method=METHODS[b"/s/stream"],
            **arguments,
        )

    def begin(self, stream: Any) -> None:
        if stream.method == STREAM:
            stream.errors_as_status = AS_STATUS in stream.head.metadata()
        else:
            stream.call = OtherCall(self, stream)

    def infer_unknown(
        self, stream: Any, message: bytes, compressed: bool, head: bytes | None
    ) -> None:
        assert not stream.answered
        assert head is None or not compressed
        if compressed or len(message) % 4 == 3:
            self.infer_failed(stream, b"", ValueError("not understood"))
        else:
            pending = Pending(self, stream)
            self.pending.append(pending)
            self.expect(stream, pending)

    def infer_failed(self, stream: Any, id: bytes, error: Exception) -> None:
        assert id.isascii()
        if stream.method == STREAM and not stream.errors_as_status:
            told = ModelStreamInferResponse(error_message=f"{id.decode()}: {error}")
            self.send_message(stream, told.SerializeToString())
        else:
            self.end_with(stream, error)

    def end_with(self, stream: Any, error: Exception) -> None:
        self.fail_call(stream, 13, str(error))

    def message_too_large(self, stream: Any, size: int) -> None:
        self.fail_call(stream, 8, "")


def one_input(data: bytes) -> None:
    before = live_tickets()
    script = Script(data)
    session = GrpcSession(script, Connection, REQUESTS, MESSAGES)
    connection, heads = session.connection, {}
    dispatcher = connection.behind
    while script and not session.transport.closed:
        step = script.number() % STEPS
        if step < SESSION_STEPS:
            session.step(step, script)
        elif step == TAKE:
            dispatcher.take(session.now_ns)
        elif step == GIVE:
            dispatcher.give(script.number() % 4)
        elif step == ANSWER:
            chosen = script.number()
            if connection.pending:
                connection.pending[chosen % len(connection.pending)].answer()
        else:
            connection.drain_inference(RuntimeError("leaving"))
        session.check()
        for number, stream in connection.streams.items():
            heads[number] = stream.head
        assert dispatcher.inflight >= 0
    session.lose()
    assert dispatcher.inflight == 0
    assert not connection.pending
    while dispatcher.taken:
        dispatcher.give(OUTPUTS)
    assert dispatcher.inflight == 0
    for number, heard in session.peer.heard.items():
        if heard.ended:
            status_of(heard)
        head = heads.get(number)
        if head is not None and head.path in METHODS:
            check_answers(METHODS[head.path], heard)
    # The templates and their lane know one another.
    dispatcher.templates.clear()
    assert live_tickets() == before


def check_answers(method: str, heard: Heard) -> None:
    """Whether what was sent says what it should."""
    answers = messages_of(heard)
    if method == OTHER:
        assert not answers
    if method == INFER:
        assert len(answers) <= 1
        if heard.ended:
            assert len(answers) == (status_of(heard)[0] == 0)
    for compressed, answer in answers:
        assert not compressed
        if method == STREAM:
            wrapped = ModelStreamInferResponse.FromString(answer)
            response = wrapped.infer_response
            assert bool(wrapped.error_message) != wrapped.HasField("infer_response")
            if wrapped.error_message:
                continue
        else:
            response = ModelInferResponse.FromString(answer)
        assert (response.model_name, response.model_version) == ("m", "1")
        assert len(response.outputs) == len(response.raw_output_contents) <= len(OUTPUT_NAMES)
        for name, output, raw in zip(
            OUTPUT_NAMES, response.outputs, response.raw_output_contents, strict=False
        ):
            assert (output.name, output.datatype) == (name, "FP32")
            assert len(raw) == 4 * int(np.prod(output.shape))


def seeds() -> Iterator[tuple[str, bytes]]:
    strict, generous = b"\0\1", b"\1\1"

    def begun(what: int, how: int = 0) -> bytes:
        return bytes([REQUEST, what, how])

    def sent(stream: int, what: int, flags: int = 0) -> bytes:
        return bytes([MESSAGE, stream, flags, 0, what])

    def framed(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
        return bytes([FRAME, kind, flags, stream, len(payload)]) + payload

    def given(what: int = OUTPUTS) -> bytes:
        return bytes([TAKE, GIVE, what])

    end = framed(DATA, END_STREAM, 1)
    closed_window = framed(SETTINGS, 0, 0, b"\0\4\0\0\0\0")
    wider = framed(WINDOW_UPDATE, 0, 1, b"\0\0\1\0")
    reset = framed(RST_STREAM, 0, 1, bytes(4))
    for what in range(len(MESSAGES)):
        for method in (0, 1):
            yield (
                f"{'unary' if method == 0 else 'stream'}-{what:02}",
                strict
                + begun(method)
                + sent(1, what, END_STREAM)
                + given()
                + bytes([ANSWER, 0])
                + given(LONGER_OUTPUTS),
            )
    for method in range(len(REQUESTS)):
        yield f"request-{method}", strict + begun(method) + sent(1, 0) + given() + end + given()
        yield f"compressed-{method}", strict + begun(method) + sent(1, 0, 2) + end
        yield f"failed-{method}", strict + begun(method) + sent(1, 0, 1) + given(FAILURE)
    for method in (1, 2):
        many = sent(1, 0) + sent(1, 2) + sent(1, 1)
        yield f"many-{method}", strict + begun(method) + many + given() + given() + end
        yield (
            f"many-that-fail-{method}",
            strict + begun(method) + many + given(FAILURE) + given() + end,
        )
        yield (
            f"many-with-torn-outputs-{method}",
            strict + begun(method) + many + end + given(TORN_OUTPUTS) + given(),
        )
        yield f"full-{method}", strict + begun(method) + sent(1, 0) * 20 + given() * 8 + end
    yield (
        "one-after-another",
        strict + b"".join(begun(0) + sent(stream, 0, 1) + given() for stream in (1, 3, 5)),
    )
    yield (
        "table-sizes",
        strict
        + begun(0)
        + sent(1, 0, 1)
        + given()
        + framed(SETTINGS, 0, 0, b"\0\1\0\0\0\0")
        + begun(0)
        + sent(3, 0, 1)
        + given()
        + framed(SETTINGS, 0, 0, b"\0\1\0\0\x10\0")
        + begun(0)
        + sent(5, 0, 1)
        + given()
        + begun(0)
        + sent(7, 0, 1)
        + given(),
    )
    for cut in (0, 1, 250):
        yield (
            f"large-{cut}",
            generous
            + bytes([CUT, cut])
            + (begun(0) + sent(1, len(MESSAGES) - 1, WHOLE | END_STREAM))
            + begun(1)
            + sent(3, len(MESSAGES) - 1, WHOLE) * 2
            + given() * 3,
        )
    yield (
        "large-reset",
        generous + begun(0) + sent(1, len(MESSAGES) - 1, WHOLE) + reset + given() + begun(0),
    )
    yield "two-messages", strict + begun(0) + sent(1, 0) * 2
    yield (
        "shapes",
        strict
        + begun(1)
        + b"".join(sent(1, 0) + given(each) for each in (OUTPUTS, LONGER_OUTPUTS)),
    )
    yield "none", strict + begun(0) + end
    yield "reset-in-the-queue", strict + begun(0) + sent(1, 0, 1) + reset + given()
    yield "reset-in-a-batch", strict + begun(0) + sent(1, 0, 1) + bytes([TAKE]) + reset + given()
    yield "reset-many", strict + begun(1) + sent(1, 0) * 2 + bytes([TAKE]) + sent(1, 9) + reset
    yield "expired", strict + begun(4) + sent(1, 0, 1) + bytes([WAIT, 2]) + given() + bytes([TICK])
    yield "expired-in-a-stream", strict + begun(5) + sent(1, 1) * 2 + bytes([WAIT, 5, TICK, TAKE])
    yield (
        "no-window",
        strict + closed_window + begun(0) + sent(1, 1, 1) + given(LONGER_OUTPUTS) + wider * 10,
    )
    yield (
        "no-window-for-a-stream",
        generous + closed_window + begun(1) + sent(1, 1) * 2 + given(LONGER_OUTPUTS) + wider * 20,
    )
    yield (
        "paused",
        strict + begun(0) + sent(1, 0, 1) + bytes([PAUSE]) + given() + bytes([RESUME]),
    )
    yield "small", b"\3\1" + begun(1) + sent(1, 0) * 2 + given(LONGER_OUTPUTS) + bytes([RESUME])
    yield "drained", strict + begun(0) + sent(1, 0, 1) + bytes([DRAIN]) + given()
    yield "streams-drained", strict + begun(1) + sent(1, 0) + bytes([DRAIN_STREAMS]) + given()
    yield (
        "together",
        strict
        + bytes([JOIN, 6])
        + (begun(0) + sent(1, 0, 1)) * 2
        + begun(1)
        + sent(5, 0)
        + given(),
    )
