"""The gRPC front on the core's own HTTP/2: its listeners, its connections, and how they end."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway._native.grpc_receiver import ReceiveBudget
from gateway._native.http2_limits import Http2Limits
from gateway._native.http2_protocol import ReceiveBuffer, Scheduler
from gateway.clock import monotonic_ns
from gateway.errors import StartupError
from gateway.front.grpc_calls import MessageLimit
from gateway.front.grpc_connection import Dispatcher, NativeConnection, Shared
from gateway.front.grpc_control import ControlService
from gateway.front.grpc_options import GrpcOptions
from gateway.front.grpc_service import GrpcService, SharedMemoryRegions
from gateway.front.grpc_tls import server_context
from gateway.front.live_feed import LiveStream
from gateway.front.unix_socket import claim

_logger: Final = logging.getLogger("gateway.front.grpc")

#: Longest and shortest pause between two looks at what takes too long, in seconds.
_TICK_S: Final = 1.0
_SHORTEST_TICK_S: Final = 0.01
#: Messages of the largest size that may be half received at a time, over all connections.
_MESSAGES_IN_PART: Final = 4
#: How long a client may take to answer the PING that goes with the first GOAWAY.
_LEAVE_AFTER_S: Final = 1.0


class NativeFront:
    """The gRPC server. For the event loop's thread only.

    Attributes:
        port: the bound port once ``start`` has returned; 0 asks it for any free one.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        service: ControlService,
        shared_memory: SharedMemoryRegions,
        options: GrpcOptions,
        live: LiveStream | None = None,
    ) -> None:
        self.port = options.port
        self._options: Final = options
        self._service: Final = GrpcService(
            dispatcher,
            service,
            shared_memory,
            MessageLimit(options.max_message_bytes),
            access_log=options.access_log,
            live=live,
        )
        self._dispatcher: Final = dispatcher
        self._connections: Final[set[NativeConnection]] = set()
        self._servers: list[asyncio.Server] = []
        self._ticker: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Bind and serve. Raises ``StartupError`` where an address or a file cannot be had."""
        options = self._options
        loop = asyncio.get_running_loop()
        tls = server_context(options.tls) if options.tls else None
        connect = self._connector(loop)
        try:
            server = await loop.create_server(connect, options.host, self.port, ssl=tls)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StartupError(
                f"cannot listen for gRPC on {options.host}:{self.port}: {reason}; choose another "
                "port with --grpc-port, or another address with --host"
            ) from None
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]
        if options.unix_socket:
            claim(options.unix_socket, "--grpc-unix-socket")
            try:
                unix = await loop.create_unix_server(connect, options.unix_socket, ssl=tls)
            except OSError as error:
                raise StartupError(
                    f"cannot listen for gRPC on unix:{options.unix_socket}: {error}; choose "
                    "another path with --grpc-unix-socket"
                ) from None
            self._servers.append(unix)
        pause_s = min(_TICK_S, max(options.read_timeout_s / 4, _SHORTEST_TICK_S))
        self._tick(loop, pause_s)

    def _connector(self, loop: asyncio.AbstractEventLoop) -> Callable[[], NativeConnection]:
        options = self._options
        shared = Shared(
            service=self._service,
            methods={path.encode(): method for path, method in self._service.methods.items()},
            dispatcher=self._dispatcher,
            limits=Http2Limits(
                max_concurrent_streams=options.max_concurrent_streams,
                max_header_bytes=options.max_metadata_bytes,
                read_timeout_ns=int(options.read_timeout_s * 1e9),
                keepalive_time_ns=int(options.keepalive_time_s * 1e9),
                keepalive_timeout_ns=int(options.keepalive_timeout_s * 1e9),
            ),
            scheduler=Scheduler(loop),
            buffer=ReceiveBuffer(),
            budget=ReceiveBudget(_MESSAGES_IN_PART * options.max_message_bytes),
            max_message_bytes=options.max_message_bytes,
            access_log=options.access_log,
            connections=self._connections,
        )
        return lambda: NativeConnection(shared)

    def _tick(self, loop: asyncio.AbstractEventLoop, pause_s: float) -> None:
        """Look for what takes too long, on every connection."""
        now_ns = monotonic_ns()
        for connection in list(self._connections):
            try:
                connection.tick(now_ns)
            except Exception:
                _logger.exception("a connection from %s is given up", connection.peer)
                connection.abort()
        self._ticker = loop.call_later(pause_s, self._tick, loop, pause_s)

    def stop_accepting(self) -> None:
        """Refuse new inference, tell health's watchers, and let open streams run out."""
        self._service.drain()
        for connection in list(self._connections):
            connection.refuse_inference()

    async def close(self, grace_s: float) -> None:
        """Close the listeners, wait up to ``grace_s`` seconds for open calls, then cancel them."""
        for server in self._servers:
            server.close()
        self.stop_accepting()
        for connection in list(self._connections):
            connection.drain(monotonic_ns())
            connection.flush()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        left = False
        while self._connections and loop.time() < begun + grace_s:
            await asyncio.sleep(0.01)
            if not left and loop.time() > begun + _LEAVE_AFTER_S:
                left = True
                for connection in list(self._connections):
                    connection.leave()
                    connection.flush()
        if self._connections:
            _logger.warning("ending %d connections after the grace period", len(self._connections))
        for connection in list(self._connections):
            connection.abort()
        while self._connections:
            await asyncio.sleep(0)
        if self._ticker is not None:
            self._ticker.cancel()
        if len(self._servers) > 1:
            Path(self._options.unix_socket).unlink(missing_ok=True)
        self._servers.clear()
