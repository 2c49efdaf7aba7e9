"""One inference request on a connection, from its head to its response."""

import logging
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING

from gateway.errors import GatewayError, MalformedRequest, RequestTooLarge
from gateway.front.http_coding import (
    COMPRESS_FROM,
    INLINE_BYTES,
    choose_coding,
    compress,
    decompress,
)
from gateway.front.status import status_of
from gateway.types import InferResponse

if TYPE_CHECKING:
    from gateway.front.http_context import Pending
    from gateway.front.http_fast import InferenceProtocol

logger = logging.getLogger(__name__)


class Exchange:
    """Decodes its request, submits it, and renders its response for the connection to write.

    Attributes:
        target: the names of the model and the version.
        fields: the request's headers by lower-case name.
        body: the first piece of the body, and ``size`` bytes in all once there are more.
        keep_alive: whether the connection may go on after the response.
        waiting: whether the request is complete but not submitted yet.
        response: the rendered response, until the connection writes it in its turn.
    """

    __slots__ = (
        "_chunks", "_form", "_pending", "_received_ns", "body", "fields", "keep_alive", "protocol",
        "response", "size", "status", "target", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        protocol: "InferenceProtocol",
        target: tuple[str, str],
        fields: dict[bytes, bytes],
        keep_alive: bool,
    ) -> None:
        self.protocol = protocol
        self.target = target
        self.fields = fields
        self.keep_alive = keep_alive
        self.waiting = False
        self.response: bytes | None = None
        self.status = 200
        self.body = b""
        self._chunks: list[bytes] | None = None
        self._pending: Pending | None = None
        self._received_ns = 0

    def add_body(self, data: bytes) -> None:
        """Take a further piece of the body, after ``body``."""
        if self._chunks is None:
            self._chunks = [self.body]
            self.size = len(self.body)
        self._chunks.append(data)
        self.size += len(data)

    def submit(self) -> None:
        """Decode the complete request and submit it; whatever is wrong becomes the response."""
        self._received_ns = monotonic_ns()
        body = self.body if self._chunks is None else b"".join(self._chunks)
        # What the request does not refer to must not live as long as it.
        self.body, self._chunks = b"", None
        try:
            coding = self.fields.get(b"content-encoding")
            if coding is None:
                self._submit(body)
            else:
                self._submit_compressed(coding, body)
        except GatewayError as error:
            self.fail(error)
        except Exception:
            self._fail_unexpectedly()

    def _submit(self, body: bytes) -> None:
        context = self.protocol.context
        length = self.fields.get(b"inference-header-content-length")
        if length is None:
            header_length = None
        elif length.isdigit() and len(length) < 20:
            header_length = int(length)
        else:
            raise MalformedRequest(
                "Inference-Header-Content-Length must be the size of the JSON in bytes; "
                f"got {length.decode('ascii', 'replace')!r}"
            )
        model, version = self.target
        request, self._form = context.codec.decode(
            model, version, body, header_length, self._received_ns
        )
        request.metadata = self.fields
        self._pending = context.dispatcher.submit(request, self._reply)

    def _submit_compressed(self, coding: bytes, body: bytes) -> None:
        limit = self.protocol.context.limits.max_request_bytes
        try:
            plain = decompress(coding, body, min(limit, INLINE_BYTES))
        except RequestTooLarge:
            if limit <= INLINE_BYTES:
                raise
            self._in_thread(self._submit, lambda: decompress(coding, body, limit))
        else:
            self._submit(plain)

    def _in_thread(self, then: Callable[[bytes], None], work: Callable[[], bytes]) -> None:
        """Run ``work`` on a thread and ``then`` on its result back on the loop."""
        loop = self.protocol.context.loop

        def done() -> None:
            if self.protocol.lost:
                if not future.cancelled():
                    future.exception()
                return
            try:
                then(future.result())
            except GatewayError as error:
                self.fail(error)
            except Exception:
                self._fail_unexpectedly()

        future = loop.run_in_executor(None, work)
        future.add_done_callback(lambda _: done())

    def _reply(self, answer: InferResponse | GatewayError) -> None:
        """Render the answer; called by the dispatcher, once, unless the request was cancelled."""
        self._pending = None
        if isinstance(answer, GatewayError):
            self.fail(answer)
            return
        context = self.protocol.context
        try:
            document, buffers = context.codec.encode(answer, self._form)
        except GatewayError as error:
            self.fail(error)
            return
        except Exception:
            self._fail_unexpectedly()
            return
        fields = self.fields
        if b"accept-encoding" in fields:
            coding = choose_coding(fields[b"accept-encoding"])
            if coding is not None:
                body = b"".join((document, *buffers))  # type: ignore[arg-type]
                if len(body) >= COMPRESS_FROM:
                    self._compress(coding, len(document) if buffers else None, body)
                    return
        heads = context.heads
        if b"connection" in fields or not self.keep_alive or context.draining:
            response = heads.inference(document, buffers, self.protocol.keeps_alive(self))
        else:
            # Without the header the client knows that the connection goes on.
            response = heads.plain_inference(document, buffers)
        self.protocol.finish(self, response)

    def _compress(self, coding: bytes, header_length: int | None, body: bytes) -> None:
        def finish(compressed: bytes) -> None:
            keep_alive = self.protocol.keeps_alive(self)
            heads = self.protocol.context.heads
            response = heads.encoded(coding, header_length, compressed, keep_alive)
            self.protocol.finish(self, response)

        if len(body) <= INLINE_BYTES:
            finish(compress(coding, body))
        else:
            self._in_thread(finish, lambda: compress(coding, body))

    def fail(self, error: GatewayError, status: int | None = None) -> None:
        """Answer with ``error``; ``status`` where HTTP has one of its own for it."""
        self.status = status or status_of(error)[0]
        heads = self.protocol.context.heads
        keep_alive = self.protocol.keeps_alive(self)
        self.protocol.finish(self, heads.error(error, keep_alive, self.status))

    def _fail_unexpectedly(self) -> None:
        logger.exception("unexpected error in an inference request for model %r", self.target[0])
        self.fail(GatewayError("internal error; the server's log has the details"))

    def cancel(self) -> None:
        """Drop the request: the client has left, and nothing is written any more."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    @property
    def elapsed_ns(self) -> int:
        """Nanoseconds since the request was complete."""
        return monotonic_ns() - self._received_ns if self._received_ns else 0
