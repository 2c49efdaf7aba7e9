"""The HTTP front: a listening socket, its connections, and how they end."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.server import ServerState

from gateway.errors import StartupError
from gateway.front.http_app import build_app, build_metrics_app
from gateway.front.http_context import AccessLog, Dispatcher, HttpContext, HttpLimits
from gateway.front.http_control import Service
from gateway.front.http_fast import InferenceProtocol
from gateway.front.wire_json import SharedMemory

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("gateway.access")

#: Longest pause between two sweeps over the connections, in seconds; also the clock of ``Date``.
_SWEEP_S: Final = 1.0


class _Listener:
    """Accepts connections for one ASGI application on uvicorn's protocol machinery.

    It lives on the running event loop, installs no signal handlers and runs no task of its own.
    """

    def __init__(self, host: str, port: int, option: str) -> None:
        self.host: Final = host
        self.port = port
        self._option = option
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(self, app: ASGIApp, context: HttpContext) -> None:
        """Bind and accept. Raises ``StartupError`` where the address cannot be had."""
        self._context = context
        config = Config(app, log_config=None, lifespan="off", ws="none", access_log=False)
        config.load()
        state = self._state
        try:
            self._server = await context.loop.create_server(
                lambda: InferenceProtocol(context, config, state),
                self.host,
                self.port,
                backlog=config.backlog,
            )
        except (OSError, OverflowError) as error:
            raise StartupError(
                f"cannot listen on {self.host}:{self.port}: {_reason(error)}; "
                f"choose another address with {self._option}"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweep()

    def _sweep(self) -> None:
        context = self._context
        context.heads.tick()
        self._state.default_headers = [(b"date", context.heads.date)]
        now = context.loop.time()
        for connection in list(self._state.connections):
            assert isinstance(connection, InferenceProtocol)
            connection.sweep(now)
        limits = context.limits
        pause = min(_SWEEP_S, limits.keep_alive_timeout_s / 4, limits.read_timeout_s / 4)
        self._sweeper = context.loop.call_later(pause, self._sweep)

    def stop_accepting(self) -> None:
        """Close the listening socket; the connections stay."""
        if self._server is not None:
            self._server.close()

    async def close(self, grace_s: float) -> None:
        """Let what is in flight finish for up to ``grace_s`` seconds, then end every connection."""
        if self._server is None:
            return
        self.stop_accepting()
        self._context.draining = True
        for connection in list(self._state.connections):
            connection.shutdown()
        end = self._context.loop.time() + grace_s
        while self._state.connections and self._context.loop.time() < end:
            await asyncio.sleep(0.01)
        if self._state.connections:
            logger.warning("ending %d connections after the grace period", len(self._state.connections))
        for connection in list(self._state.connections):
            connection.transport.abort()
        while self._state.connections:
            await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._server = None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class HttpFront:
    """Serves the protocol over HTTP/1.1; lives on the event loop's thread.

    Attributes:
        port: the bound port, once started.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        service: Service,
        shared_memory: SharedMemory,
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
        self._dispatcher = dispatcher
        self._service = service
        self._shared_memory = shared_memory
        self._metrics = metrics
        self._limits = limits or HttpLimits()
        self._access_log = write_access_log if access_log else None
        self._listener = _Listener(host, port, "--http-port")

    @property
    def port(self) -> int:
        """The port that was asked for, and the bound one once started."""
        return self._listener.port
