"""The HTTP fronts: a listening socket, its connections, and how they end."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.errors import StartupError
from gateway.front.http_app import build_app, build_metrics_app
from gateway.front.http_bounded import BoundedProtocol
from gateway.front.http_context import Dispatcher, HttpContext, HttpLimits
from gateway.front.http_control import Service
from gateway.front.http_fast import InferenceProtocol
from gateway.front.http_heads import ResponseHeads
from gateway.front.shared_memory import SharedMemoryRegions

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("gateway.access")

#: Longest and shortest pause between two ticks, in seconds.
_TICK_S: Final = 1.0
_SHORTEST_TICK_S: Final = 0.01


class Listener:
    """Accepts connections on uvicorn's protocol machinery.

    It lives on the running event loop, installs no signal handlers and runs no task of its own.
    """

    def __init__(
        self, host: str, port: int, option: str, heads: ResponseHeads, host_option: str = "--host"
    ) -> None:
        """Prepare to listen on ``host``:``port``; ``option`` and ``host_option`` set them."""
        self.port = port
        self.connections: Final = ServerState()
        self._host: Final = host
        self._option: Final = option
        self._host_option: Final = host_option
        self._heads: Final = heads
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.TimerHandle | None = None

    async def listen(
        self,
        app: ASGIApp,
        protocol: Callable[[Config, ServerState], HttpToolsProtocol],
        tick_s: float = _TICK_S,
    ) -> None:
        """Bind and accept. Raises ``StartupError`` where the address cannot be had."""
        config = Config(app, log_config=None, lifespan="off", ws="none", access_log=False)
        config.load()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: protocol(config, self.connections),
                self._host,
                self.port,
                backlog=config.backlog,
            )
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StartupError(
                f"cannot listen on {self._host}:{self.port}: {reason}; "
                f"choose another port with {self._option}, "
                f"or another address with {self._host_option}"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]
        self._tick(loop, min(max(tick_s, _SHORTEST_TICK_S), _TICK_S))

    async def listen_bounded(self, app: ASGIApp, limits: HttpLimits) -> None:
        """``listen`` for requests that are all the application's, under ``limits``."""
        await self.listen(
            app,
            lambda config, state: BoundedProtocol(limits, config, state),
            limits.shortest_s / 4,
        )

    def _tick(self, loop: asyncio.AbstractEventLoop, pause_s: float) -> None:
        """Renew the ``Date`` header and look for connections whose client is silent."""
        self._heads.tick()
        self.connections.default_headers = [(b"date", self._heads.date)]
        for connection in list(self.connections.connections):
            if isinstance(connection, InferenceProtocol | BoundedProtocol):
                connection.sweep(loop.time())
        self._ticker = loop.call_later(pause_s, self._tick, loop, pause_s)

    def stop_accepting(self) -> None:
        """Close the listening socket; the connections stay."""
        if self._server is not None:
            self._server.close()

    async def close(self, grace_s: float) -> None:
        """Let what is in flight finish for up to ``grace_s`` seconds, then end what is left."""
        self.stop_accepting()
        connections = self.connections.connections
        for connection in list(connections):
            connection.shutdown()
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        while connections and loop.time() < end:
            await asyncio.sleep(0.01)
        if connections:
            logger.warning("ending %d connections after the grace period", len(connections))
        for connection in list(connections):
            assert isinstance(connection, HttpToolsProtocol)
            connection.transport.abort()
        while connections:
            await asyncio.sleep(0)
        if self._ticker is not None:
            self._ticker.cancel()


class HttpFront:
    """Serves the protocol over HTTP/1.1; lives on the event loop's thread."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        service: Service,
        shared_memory: SharedMemoryRegions,
        *,
        host: str,
        port: int,
        metrics: Callable[[], bytes],
        limits: HttpLimits | None = None,
        access_log: bool = False,
    ) -> None:
        """Prepare a front on ``host``:``port``; port 0 takes any free one.

        ``metrics`` gives the body of ``/metrics``.
        """
        self._limits: Final = limits or HttpLimits()
        log = write_access_log if access_log else None
        self._context: Final = HttpContext(
            dispatcher, shared_memory, service.model_metadata, self._limits, log
        )
        self._listener: Final = Listener(host, port, "--http-port", self._context.heads)
        self._app: Final = build_app(
            dispatcher, service, shared_memory, metrics, self._limits.max_request_bytes, log
        )

    @property
    def port(self) -> int:
        """The port that was asked for, and the bound one once started."""
        return self._listener.port

    async def start(self) -> None:
        """Bind and serve on the running loop. Raises ``StartupError`` where the port is taken."""
        context = self._context
        context.loop = asyncio.get_running_loop()
        await self._listener.listen(
            self._app,
            lambda config, state: InferenceProtocol(context, config, state),
            self._limits.shortest_s / 4,
        )

    def stop_accepting(self) -> None:
        """Take no new connections; those that are open go on."""
        self._listener.stop_accepting()

    async def close(self, grace_s: float) -> None:
        """Finish what is in flight within ``grace_s`` seconds, and end every connection."""
        self._context.draining = True
        await self._listener.close(grace_s)


class MetricsFront:
    """Serves ``/metrics`` alone, on a port of its own; lives on the event loop's thread."""

    def __init__(
        self,
        metrics: Callable[[], bytes],
        *,
        host: str,
        port: int,
        limits: HttpLimits | None = None,
        access_log: bool = False,
    ) -> None:
        self._limits: Final = limits or HttpLimits()
        log = write_access_log if access_log else None
        self._app: Final = build_metrics_app(metrics, log)
        self._listener: Final = Listener(host, port, "--metrics-port", ResponseHeads())

    @property
    def port(self) -> int:
        """The port that was asked for, and the bound one once started."""
        return self._listener.port

    async def start(self) -> None:
        """Bind and serve on the running loop. Raises ``StartupError`` where the port is taken."""
        await self._listener.listen_bounded(self._app, self._limits)

    def stop_accepting(self) -> None:
        """Take no new connections; those that are open go on."""
        self._listener.stop_accepting()

    async def close(self, grace_s: float) -> None:
        """Finish what is in flight within ``grace_s`` seconds, and end every connection."""
        await self._listener.close(grace_s)


def write_access_log(
    client: str, method: str, path: str, status: int, size: int, elapsed_ns: int
) -> None:
    """Write one request to the logger ``gateway.access``; its fields are the record's ``http``."""
    access_logger.info(
        "%s %s %s %d %d bytes %.3f ms",
        client or "-",
        method,
        path,
        status,
        size,
        elapsed_ns / 1e6,
        extra={
            "http": {
                "client": client,
                "method": method,
                "path": path,
                "status": status,
                "bytes": size,
                "ms": elapsed_ns / 1e6,
            }
        },
    )
