"""The HTTP/1.1 protocol that answers inference requests itself.

It is uvicorn's httptools protocol: whatever is not an inference request goes to the ASGI
application through uvicorn's own request cycle. Inference requests never become an ASGI scope or a
task: the parser's callbacks fill an ``Exchange`` (a request that comes whole, with a head that the
parser has read before, fills it without them), the dispatcher calls it back, and its response is
one ``transport.write``.

Responses leave in the order of the requests. Pipelined inference requests run at the same time, up
to ``max_pipelined`` of them, so that they can share a batch; a request to the application waits
until those before it are answered, and those behind it wait for it.

An end of file from the client means that it has left: what it asked for is cancelled. An
``Upgrade`` is ignored, as HTTP allows: the request is served as if it had not been asked for.
"""

import logging
from collections import deque
from typing import Any, Final

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.errors import GatewayError, MalformedRequest, RequestTooLarge
from gateway.front.http_context import HttpContext
from gateway.front.http_exchange import Exchange

logger = logging.getLogger(__name__)

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
#: How long a connection that is closed over an unread body is read, so that the client gets the
#: response: closing a socket with unread data resets it.
_LINGER_S: Final = 2.0


class _AppRequest:
    """A request to the ASGI application, in its turn among the others."""

    __slots__ = ("app", "cycle", "started")

    def __init__(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.cycle = cycle
        self.app = app
        self.started = False


class InferenceProtocol(HttpToolsProtocol):
    """One connection. All methods run on the event loop's thread."""

    def __init__(self, context: HttpContext, config: Config, server_state: ServerState) -> None:
        # The parser calls the dict itself, without a Python frame for each header. A repeated
        # header keeps its last value; the parser refuses those where that would matter.
        self._raw_fields: dict[bytes, bytes] = {}
        self.on_header = self._raw_fields.__setitem__  # type: ignore[assignment,method-assign]
        super().__init__(config, server_state, {}, context.loop)
        self.context = context
        self.lost = False
        self._queue: deque[Exchange | _AppRequest] = deque()
        self._receiving: Exchange | None = None
        self._between_messages = True
        self._head_data: bytes | None = None
        self._in_head = False
        self._head_bytes = 0
        self._head_since = 0.0
        self._ignoring_input = False
        self._lingering = False
        self._upgrade_fields: dict[bytes, bytes] | None = None
        self._advancing = False
        # The sweep looks at these; the hot path only sets a flag.
        self._touched = True
        self._quiet_since = context.loop.time()
        self._unsent = 0

    # The connection

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is in flight: nobody is left to answer."""
        self.lost = True
        for entry in self._queue:
            if isinstance(entry, Exchange):
                entry.cancel()
            else:
                entry.cycle.disconnected = True
                entry.cycle.message_event.set()
        self._queue.clear()
        self._receiving = None
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection as soon as nothing is in flight; ``context.draining`` is set."""
        if not self._queue and not self._receiving:
            self.transport.close()
        for entry in self._queue:
            if isinstance(entry, _AppRequest):
                entry.cycle.keep_alive = False

    def pause_writing(self) -> None:
        """Read no further requests while the client does not take the responses."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Read on, unless too many requests wait."""
        super().resume_writing()
        self._resume_reading()

    def _resume_reading(self) -> None:
        if (
            self.flow.read_paused
            and not self.flow.write_paused
            and len(self._queue) <= self.context.limits.max_pipelined
            and not self.transport.is_closing()
        ):
            self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; its callbacks do the rest."""
        self._touched = True
        if self._ignoring_input:
            return
        if self._between_messages:
            if not self._queue:
                known = self.context.known_heads.find(data)
                if known is not None:
                    head, body = known
                    exchange = Exchange(self, head.target, head.fields, True)
                    exchange.body = body
                    self._queue.append(exchange)
                    exchange.submit()
                    return
            self._head_data = data
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._parse_failed(error)
        if self._in_head:
            self._check_head(len(data))
        if len(self._queue) > self.context.limits.max_pipelined:
            self.flow.pause_reading()

    def _ignore_upgrade(self, rest: memoryview) -> None:
        """Parse the request again without its ``Upgrade``, then ``rest``.

        The parser takes what follows such a head for another protocol; Java's client asks for h2c
        by default and sends its body nevertheless.
        """
        try:
            while True:
                if self._upgrade_fields is None:
                    self._reject(MalformedRequest("this server is no proxy: no CONNECT"))
                    return
                head = [self.parser.get_method(), b" ", self.url, b" HTTP/1.1\r\n"]
                for name, value in (self._upgrade_fields or {}).items():
                    if name != b"upgrade":
                        head += (name, b": ", value, b"\r\n")
                head.append(b"\r\n")
                self._upgrade_fields = None
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(b"".join(head))
                try:
                    self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as upgrade:
                    rest = rest[upgrade.args[0] :]
                else:
                    return
        except httptools.HttpParserError as error:
            self._parse_failed(error)

    def _parse_failed(self, error: Exception) -> None:
        if isinstance(error, httptools.HttpParserCallbackError):
            logger.error("unexpected error in an HTTP request", exc_info=error)
            self._reject(GatewayError("internal error; the server's log has the details"))
        elif not self._ignoring_input:
            self._reject(MalformedRequest(f"malformed HTTP request: {error}"))

    def _check_head(self, size: int) -> None:
        """Bound the size of a head that comes in several pieces, after one of ``size`` bytes."""
        if not self._head_bytes:
            # The first piece may hold whole requests before this head: it counts as one byte.
            self._head_since = self.context.loop.time()
            size = 1
        self._head_bytes += size
        limit = self.context.limits.max_header_bytes
        if self._head_bytes > limit:
            self._reject(RequestTooLarge(f"the request's head is larger than {limit} bytes"), 431)

    def _reject(self, error: GatewayError, status: int | None = None) -> None:
        """Answer the request that is being received with ``error``, in its turn; read no more."""
        if self._ignoring_input:
            return
        self._ignoring_input = True
        self._in_head = False
        if self._receiving is None and self._app_waits_for_body():
            self._disconnect_app()
        exchange = self._receiving
        self._receiving = None
        if exchange is None:
            exchange = Exchange(self, ("", ""), {}, False)
            self._queue.append(exchange)
        exchange.keep_alive = False
        self._lingering = True
        exchange.fail(error, status)

    def _app_waits_for_body(self) -> bool:
        last = self._queue[-1] if self._queue else None
        return isinstance(last, _AppRequest) and last.cycle.more_body

    def _disconnect_app(self) -> None:
        """Tell the application, which reads a body that will not come, that the client left."""
        request = self._queue.pop()
        assert isinstance(request, _AppRequest)
        request.cycle.disconnected = True
        request.cycle.message_event.set()
        if request.cycle.response_started:
            self.transport.close()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Start a head."""
        self._between_messages = False
        self.url = b""
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Decide who answers: an exchange or the application."""
        self._in_head = False
        self._head_bytes = 0
        fields = {name.lower(): value for name, value in self._raw_fields.items()}
        count = len(self._raw_fields)
        self._raw_fields.clear()
        data, self._head_data = self._head_data, None
        if self._ignoring_input:
            return
        parser = self.parser
        if b"upgrade" in fields and parser.should_upgrade():
            self._upgrade_fields = fields
            return
        context = self.context
        try:
            target = context.inference_targets.get(self.url) or context.parse_target(self.url)
        except MalformedRequest as error:
            self._reject(error)
            return
        length = fields.get(b"content-length")
        if length is not None and len(length) >= context.length_digits:
            limit = context.limits.max_request_bytes
            if int(length) > limit:
                self._reject(_body_too_large(limit, length.decode()))
                return
        if target is None or parser.get_method() != b"POST":
            self._to_app(fields)
            return
        exchange = Exchange(self, target, fields, parser.should_keep_alive())
        if data is not None and exchange.keep_alive:
            context.known_heads.learn(data, target, fields, count)
        self._receiving = exchange
        self._queue.append(exchange)
        if b"expect" in fields and self._queue[0] is exchange:
            self._continue(exchange)

    def _continue(self, exchange: Exchange) -> None:
        """Send the interim response that the client waits for before it sends the body."""
        if not exchange.body and exchange.fields.get(b"expect", b"").lower() == b"100-continue":
            self.transport.write(_CONTINUE)

    def _to_app(self, fields: dict[bytes, bytes]) -> None:
        url = self.url
        super().on_message_begin()
        self.headers += fields.items()
        self.url = url
        self.expect_100_continue = fields.get(b"expect", b"").lower() == b"100-continue"
        # The order of requests is kept here, so each looks like the first one to uvicorn.
        self.cycle = None  # type: ignore[assignment]
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._queue.append(_AppRequest(cycle, app))
        self._advance()

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body to the request that is being received."""
        exchange = self._receiving
        if exchange is not None:
            if not exchange.body:
                exchange.body = body
                return
            exchange.add_body(body)
            limit = self.context.limits.max_request_bytes
            if exchange.size > limit:
                self._reject(_body_too_large(limit, "more"))
        elif not self._ignoring_input:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Submit the request, or queue it where others are before it."""
        self._between_messages = True
        exchange = self._receiving
        if exchange is not None:
            self._receiving = None
            if not exchange.keep_alive:
                self._ignoring_input = True
            if len(self._queue) == 1:
                exchange.submit()
            else:
                exchange.waiting = True
                self._advance()
        elif not self._ignoring_input and self._upgrade_fields is None:
            self._ignoring_input = not self.parser.should_keep_alive()
            super().on_message_complete()

    # Responses

    def keeps_alive(self, exchange: Exchange) -> bool:
        """Whether the connection goes on after the response of ``exchange``."""
        return exchange.keep_alive and not (self.context.draining and len(self._queue) == 1)

    def finish(self, exchange: Exchange, response: bytes) -> None:
        """Write the response of ``exchange``, or keep it until those before it are written."""
        queue = self._queue
        if len(queue) == 1 and not self._advancing and not self.transport.is_closing():
            queue.popleft()
            self._write(exchange, response)
            if self.flow.read_paused:
                self._resume_reading()
            return
        exchange.response = response
        if not self._advancing and queue[0] is exchange:
            self._advance()

    def _advance(self) -> None:
        """Write, start and submit all that is due, in order."""
        if self._advancing:
            return
        self._advancing = True
        queue = self._queue
        try:
            while queue and not self.transport.is_closing():
                head = queue[0]
                if isinstance(head, _AppRequest):
                    if not head.started:
                        head.started = True
                        super()._start_asgi_task(head.cycle, head.app)
                    break
                if head.response is not None:
                    queue.popleft()
                    self._write(head, head.response)
                elif head is self._receiving and len(queue) == 1:
                    self._continue(head)
                    break
                elif not self._submit_waiting():
                    break
        finally:
            self._advancing = False
        self._resume_reading()

    def _submit_waiting(self) -> bool:
        """Submit the first request that waits and may go; whether there was one."""
        for index, entry in enumerate(self._queue):
            if isinstance(entry, _AppRequest) or index >= self.context.limits.max_pipelined:
                return False
            if entry.waiting:
                entry.waiting = False
                entry.submit()
                return True
        return False

    def _write(self, exchange: Exchange, response: bytes) -> None:
        self.transport.write(response)
        context = self.context
        if context.access_log is not None:
            self._log(exchange, len(response))
        if exchange.keep_alive and not (context.draining and not self._queue):
            return
        if self._lingering and self.transport.can_write_eof():
            self._quiet_since = self.context.loop.time()
            self._touched = False
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def _log(self, exchange: Exchange, size: int) -> None:
        assert self.context.access_log is not None
        client = "{}:{}".format(*self.client) if self.client else ""
        model, version = exchange.target
        path = f"/v2/models/{model}{version and '/versions/'}{version}/infer" if model else "-"
        self.context.access_log(client, "POST", path, exchange.status, size, exchange.elapsed_ns)

    def on_response_complete(self) -> None:
        """Go on after the application has answered."""
        if self._queue:
            self._queue.popleft()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._advance()
        if self.context.draining and not self._queue and not self._receiving:
            self.transport.close()

    # Timeouts

    def sweep(self, now: float) -> None:
        """Close the connection if its client has been silent for too long; called every second.

        ``now`` is the loop's time. A request in flight has its own deadline, so only idle
        connections, unfinished requests and responses that are not taken end here.
        """
        limits = self.context.limits
        if self._in_head and self._head_bytes and now - self._head_since > limits.read_timeout_s:
            self._time_out()
        unsent = self.transport.get_write_buffer_size()
        if self._lingering and not self._queue:
            if now - self._quiet_since > _LINGER_S:
                self.transport.abort()
            return
        if self._touched or unsent < self._unsent:
            self._touched = False
            self._quiet_since = now
        self._unsent = unsent
        quiet = now - self._quiet_since
        if unsent:
            if quiet > limits.read_timeout_s:
                self.transport.abort()
        elif self._receiving is not None or (
            self._app_waits_for_body() and not self.flow.read_paused
        ):
            if quiet > limits.read_timeout_s:
                self._time_out()
        elif self._queue:
            self._quiet_since = now
        elif not self._in_head and quiet > limits.keep_alive_timeout_s:
            self.transport.close()

    def _time_out(self) -> None:
        limit = self.context.limits.read_timeout_s
        self._reject(
            MalformedRequest(f"the rest of the request did not come within {limit:g} s"), 408
        )


def _body_too_large(limit: int, size: str) -> RequestTooLarge:
    return RequestTooLarge(
        f"the request body may have {limit} bytes, got {size}; --max-request-bytes raises the limit"
    )
