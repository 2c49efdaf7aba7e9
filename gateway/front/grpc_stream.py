"""ModelStreamInfer: many requests in flight over one call."""

import asyncio
from typing import Final

from gateway.errors import GatewayError, ShuttingDown
from gateway.front.grpc_calls import Call, Metadata, status_and_details
from gateway.front.grpc_infer import CallMetadata, Inference, Pending
from gateway.protos import message
from gateway.types import InferResponse, Parameters

#: Requests of one stream that may wait for their answer, or whose answer waits to be sent; the
#: stream is read no further before there is room.
MAX_IN_FLIGHT: Final = 1024

#: Metadata by which a client asks that an error ends the stream with a status.
ERRORS_AS_STATUS: Final = "triton_grpc_error"

#: The request parameter that asks to be told which answer is a request's last.
WANTS_FINAL_FLAG: Final = "triton_enable_empty_final_response"
FINAL_FLAG: Final = "triton_final_response"

_StreamResponse: Final = message("ModelStreamInferResponse")


class InferStream:
    """One ModelStreamInfer call. For the event loop's thread only.

    A task reads requests and submits them; replies put their bytes, ready to be sent, into a
    queue; ``run`` sends them. The stream ends when the client has ended its side and everything
    has been answered.
    """

    def __init__(self, inference: Inference, call: Call) -> None:
        self._inference: Final = inference
        self._call: Final = call
        self._errors_as_status: Final = asks_for_status(call.metadata)
        self._room: Final = asyncio.Semaphore(MAX_IN_FLIGHT)
        # What is to be sent: an answer; or the end, with an error where it is one.
        self._outbox: Final[asyncio.Queue[bytes | Exception | None]] = asyncio.Queue()
        self._waiting: Final[dict[int, Pending]] = {}
        self._count = 0
        self._last_words: ShuttingDown | None = None
        self._reader: asyncio.Task[None] | None = None
        self._reading = True

    async def run(self) -> None:
        """Serve the call to its end; raises what ends it with a status."""
        self._reader = asyncio.create_task(self._read())
        try:
            while (answer := await self._outbox.get()) is not None:
                if isinstance(answer, Exception):
                    raise answer
                await self._call.write(answer)
                self._room.release()
        finally:
            self._reader.cancel()
            for pending in self._waiting.values():
                pending.cancel()
            self._waiting.clear()

    def drain(self) -> None:
        """Read no further; the stream ends as UNAVAILABLE once what it has read is answered."""
        self._last_words = ShuttingDown("the server is shutting down; what was read is answered")
        if self._reader is not None:
            self._reader.cancel()
        self._finish_reading()

    async def _read(self) -> None:
        try:
            while True:
                await self._room.acquire()
                data = await self._call.read()
                if data is None:
                    break
                self._submit(data)
        except Exception as error:
            self._outbox.put_nowait(error)
            return
        self._finish_reading()

    def _finish_reading(self) -> None:
        self._reading = False
        self._end_when_answered()

    def _end_when_answered(self) -> None:
        if not self._reading and not self._waiting:
            self._outbox.put_nowait(self._last_words)

    def _submit(self, data: bytes) -> None:
        id = ""
        try:
            deadline_ns = self._inference.deadline_ns(self._call)
            request, placed = self._inference.decode(data, deadline_ns, CallMetadata(self._call))
            id = request.id
            final: Parameters | None = None
            if request.parameters.get(WANTS_FINAL_FLAG) is True:
                final = {FINAL_FLAG: True}
            self._count += 1
            number = self._count

            def reply(answer: InferResponse | GatewayError) -> None:
                encoded = self._inference.encode(answer, placed, parameters=final, stream=True)
                del self._waiting[number]
                if isinstance(encoded, bytes):
                    self._outbox.put_nowait(encoded)
                else:
                    self._fail(id, encoded)
                self._end_when_answered()

            self._waiting[number] = self._inference.submit(request, reply)
        except Exception as error:
            self._fail(id, error)

    def _fail(self, id: str, error: Exception) -> None:
        if self._errors_as_status:
            self._outbox.put_nowait(error)
            return
        self._outbox.put_nowait(stream_error(id, error))


class InferStreams:
    """All ModelStreamInfer calls that are open. For the event loop's thread only."""

    def __init__(self, inference: Inference) -> None:
        self._inference: Final = inference
        self._open: Final[set[InferStream]] = set()

    async def serve(self, call: Call) -> None:
        """Serve one call to its end."""
        stream = InferStream(self._inference, call)
        self._open.add(stream)
        try:
            if self._inference.draining:
                stream.drain()
            await stream.run()
        finally:
            self._open.discard(stream)

    def drain(self) -> None:
        """Have every open stream end once what it has read is answered."""
        for stream in self._open:
            stream.drain()


def asks_for_status(metadata: Metadata) -> bool:
    """Whether the client wants an error to end the stream with a status."""
    return any(key == ERRORS_AS_STATUS and value == "true" for key, value in metadata)


def stream_error(id: str, error: BaseException) -> bytes:
    """The message that tells of ``error``, the answer to the request ``id``, among others."""
    _, details = status_and_details(error)
    encoded: bytes = _StreamResponse(
        error_message=details, infer_response={"id": id}
    ).SerializeToString()
    return encoded
