"""One connection of the native gRPC front: what the core leaves to Python.

The core serves a ModelInfer whose head it knows by itself. Here the others are served: a ModelInfer
for the first time, a request that fails, and, each in a task of its own, every other method.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway._native.grpc_infer import InferConnection, InferStream
from gateway._native.grpc_receiver import ReceiveBudget
from gateway._native.http2_limits import Http2Limits
from gateway._native.http2_protocol import ReceiveBuffer, Scheduler
from gateway._native.infer_template import InferTemplate
from gateway._native.ticket import Ticket
from gateway.errors import GatewayError, RequestTooLarge, ShuttingDown
from gateway.front import grpc_infer
from gateway.front.grpc_calls import Metadata, Method, error_metadata, status_and_details
from gateway.front.grpc_metadata import decode_metadata, encode_metadata
from gateway.front.grpc_service import GrpcService
from gateway.front.grpc_stream import (
    FINAL_FLAG,
    WANTS_FINAL_FLAG,
    asks_for_status,
    stream_error,
)
from gateway.front.grpc_task import TaskCall
from gateway.front.http_coding import COMPRESS_FROM, INLINE_BYTES, compress, decompress
from gateway.front.status import GRPC_CODES
from gateway.protos import SERVICE
from gateway.types import InferRequest, InferResponse, Parameters

_INFER: Final = f"/{SERVICE}/ModelInfer".encode()
_STREAM: Final = f"/{SERVICE}/ModelStreamInfer".encode()
#: In the head of a request that names a region: the tensors are not in the message.
_SHARED_MEMORY: Final = b"shared_memory_region"


class Dispatcher(grpc_infer.Dispatcher, Protocol):
    """Where requests go, and what it knows of them by their heads.

    Attributes:
        templates: the known heads.
        inflight: requests accepted and not yet answered.
    """

    templates: dict[bytes, InferTemplate]
    inflight: int

    def learn(self, head: bytes, request: InferRequest) -> None:
        """Remember what requests with this head have in common with ``request``."""

    def submit_known(self, template: InferTemplate, ticket: Ticket, now_ns: int) -> None:
        """Accept a request that is proven; raises as ``submit`` does."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a front share.

    Attributes:
        methods: the service's, by their path as it is on the wire.
        connections: those that are open.
    """

    service: GrpcService
    methods: dict[bytes, Method]
    dispatcher: Dispatcher
    limits: Http2Limits
    scheduler: Scheduler
    buffer: ReceiveBuffer
    budget: ReceiveBudget
    max_message_bytes: int
    access_log: bool
    connections: "set[NativeConnection]"


class NativeConnection(InferConnection):
    """A connection, and its protocol in asyncio's sense. For the event loop's thread only."""

    def __init__(self, shared: Shared) -> None:
        methods = shared.methods
        super().__init__(
            shared.limits,
            shared.scheduler,
            shared.buffer,
            methods,
            shared.max_message_bytes,
            shared.budget,
            dispatcher=shared.dispatcher,
            # A call that is to be logged takes the way on which that is done.
            infer_method=None if shared.access_log else methods[_INFER],
            stream_method=methods[_STREAM],
        )
        self._shared: Final = shared
        self._inference: Final = shared.service.inference
        self._stream_method: Final = methods[_STREAM]
        self._loop: Final = asyncio.get_running_loop()
        if self._inference.draining:
            self.drain_inference(_draining())

    # The connection

    def connection_made(self, transport: Any) -> None:
        """Asyncio's; a TLS connection must have agreed on HTTP/2."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            transport.close()
        self._shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's: what is in flight is cancelled."""
        self._shared.connections.discard(self)
        super().connection_lost(exc)

    @property
    def peer(self) -> str:
        """The client's address, as grpcio writes it."""
        address = self.transport.get_extra_info("peername") if self.transport else None
        if not isinstance(address, tuple):
            return "unix:"
        host, port = address[:2]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    # Calls in tasks

    def begin(self, stream: InferStream) -> None:
        """The core's: a call begins that it does not serve by itself."""
        if stream.method is self._stream_method:
            stream.errors_as_status = asks_for_status(decode_metadata(stream.head))
            if self._inference.draining:
                self.drain_stream(stream, _draining())
        else:
            stream.call = TaskCall(self, stream)

    def end_with(self, stream: InferStream, error: BaseException, trailing: Metadata = ()) -> None:
        """The core's: end the call with the status of ``error``."""
        code, details = status_and_details(error)
        metadata = encode_metadata((*trailing, *error_metadata(error)))
        self.fail_call(stream, GRPC_CODES[code], details, metadata)

    def message_too_large(self, stream: InferStream, size: int) -> None:
        """The core's: a message of ``size`` bytes is announced, which is over the limit."""
        self.end_with(
            stream,
            RequestTooLarge(
                f"the message has {size} bytes; the most is {self.max_message_bytes} "
                "(--max-request-bytes)"
            ),
        )

    def refuse_inference(self) -> None:
        """Refuse new requests; a ModelStreamInfer ends once what it has read is answered."""
        self.drain_inference(_draining())

    # Inference

    def infer_unknown(
        self, stream: InferStream, message: bytes, compressed: bool, head: bytes | None
    ) -> None:
        """The core's: serve a request whose head it does not know, and learn from it."""
        if compressed:
            encoding = stream.head.encoding
            assert encoding is not None, "the core has seen to that"
            limit = self.max_message_bytes
            if len(message) <= INLINE_BYTES // 8:
                try:
                    message = decompress(encoding, message, min(limit, INLINE_BYTES))
                except RequestTooLarge:
                    pass
                except GatewayError as error:
                    self.infer_failed(stream, b"", error)
                    return
                else:
                    self._infer(stream, message, None)
                    return
            self._in_thread(
                stream,
                lambda: decompress(encoding, message, limit),
                lambda plain: self._infer(stream, plain, None),
            )
            return
        self._infer(stream, message, head)

    def _infer(self, stream: InferStream, message: bytes, head: bytes | None) -> None:
        inference = self._inference
        streaming = stream.method is self._stream_method
        id = ""
        try:
            request, placed = inference.decode(message, stream.deadline_ns, stream.head)
            id = request.id
            final: Parameters | None = None
            if streaming and request.parameters.get(WANTS_FINAL_FLAG) is True:
                final = {FINAL_FLAG: True}

            def reply(answer: InferResponse | GatewayError) -> None:
                self.forget(stream, pending)
                encoded = inference.encode(answer, placed, parameters=final, stream=streaming)
                if isinstance(encoded, bytes):
                    self._send(stream, encoded)
                else:
                    self.infer_failed(stream, id.encode(), encoded)
                self.settle(stream)

            pending = inference.submit(request, reply)
        except Exception as error:
            self.infer_failed(stream, id.encode(), error)
            return
        self.expect(stream, pending)
        if head is not None and _SHARED_MEMORY not in head:
            self._shared.dispatcher.learn(head, request)

    def infer_failed(self, stream: InferStream, id: bytes, error: Exception) -> None:
        """The core's: tell the caller what became of the request ``id``."""
        if stream.method is self._stream_method and not stream.errors_as_status:
            self.send_message(stream, stream_error(id.decode(), error))
        else:
            self.end_with(stream, error)

    def _send(self, stream: InferStream, message: bytes) -> None:
        """Send an answer, coded as the request was where the client takes that."""
        encoding = stream.reply_encoding
        if encoding is None or len(message) < COMPRESS_FROM:
            self._finish(stream, message, False)
        elif len(message) <= INLINE_BYTES:
            self._finish(stream, compress(encoding, message), True)
        else:
            self._in_thread(
                stream,
                lambda: compress(encoding, message),
                lambda coded: self._finish(stream, coded, True),
            )

    def _finish(self, stream: InferStream, message: bytes, compressed: bool) -> None:
        self.send_message(stream, message, compressed)
        if stream.method is not self._stream_method:
            self.complete_call(stream)

    def _in_thread(
        self, stream: InferStream, work: Callable[[], bytes], then: Callable[[bytes], None]
    ) -> None:
        """Run ``work`` on a thread and ``then`` on its result; the request is pending meanwhile."""
        future = self._loop.run_in_executor(None, work)

        def done(_: object) -> None:
            if future.cancelled():
                return
            self.forget(stream, future)
            try:
                then(future.result())
            except Exception as error:
                self.infer_failed(stream, b"", error)
            self.settle(stream)

        self.expect(stream, future)
        future.add_done_callback(done)


def _draining() -> ShuttingDown:
    return ShuttingDown("the server is shutting down; what was read is answered")
