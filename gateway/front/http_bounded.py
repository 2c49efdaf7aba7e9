"""uvicorn's HTTP protocol, with bounds on what a silent client may hold.

For the ports that answer no inference requests; ``http_fast.py`` has bounds of its own.
"""

from asyncio import BaseTransport
from typing import Final

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.front.http_context import HttpLimits

#: Connections of one port that are open at once; further ones are closed unread.
MAX_CONNECTIONS: Final = 256


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a port for operators. All methods run on the event loop's thread.

    A response that nobody takes may end it: ``scope["state"]["abort"]``.
    """

    def __init__(self, limits: HttpLimits, config: Config, server_state: ServerState) -> None:
        super().__init__(config, server_state, {"abort": self._abort})
        self.timeout_keep_alive = limits.keep_alive_timeout_s  # type: ignore[assignment]
        self._limits: Final = limits
        self._head_since: float | None = None
        self._head_bytes = 0
        self._quiet_since = self.loop.time()
        self._unsent = 0

    def connection_made(self, transport: BaseTransport) -> None:
        """Take the connection, if it is not one too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > MAX_CONNECTIONS:
            self.transport.abort()

    def _abort(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless a head has grown too large."""
        if self.transport.is_closing():
            return
        self._quiet_since = self.loop.time()
        super().data_received(data)
        if self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_header_bytes:
                self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        """Start a head."""
        self._head_since, self._head_bytes = self.loop.time(), 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._head_since = None
        super().on_headers_complete()

    def sweep(self, now: float) -> None:
        """Close the connection if its client has been silent for too long; called every second.

        ``now`` is the loop's time. A request that is being answered takes as long as it takes.
        """
        limits, cycle = self._limits, self.cycle
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._quiet_since = now
        self._unsent = unsent
        quiet = now - self._quiet_since
        if self._head_since is not None:
            over = now - self._head_since > limits.read_timeout_s
        elif unsent:
            over = quiet > limits.read_timeout_s
        elif cycle is None or cycle.response_complete:
            over = quiet > limits.keep_alive_timeout_s
        elif cycle.more_body and not self.flow.read_paused:
            over = quiet > limits.read_timeout_s
        else:
            self._quiet_since, over = now, False
        if over:
            self.transport.abort()
