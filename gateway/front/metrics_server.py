"""Prometheus metrics on a port of their own, apart from the traffic they measure."""

import asyncio
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.server import ServerState

from gateway.metrics import CONTENT_TYPE


class MetricsServer:
    """Answers ``GET /metrics``, and nothing else. Event loop's thread only.

    Attributes:
        port: the bound port, once started.
    """

    def __init__(self, exposition: Callable[[], bytes], *, host: str, port: int) -> None:
        """Serve what ``exposition`` gives at each scrape; ``port`` 0 binds any free one."""
        self.port = port
        self._host = host
        self._exposition = exposition
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and listen.

        Raises:
            OSError: the address cannot be bound.
        """
        app = Starlette(routes=[Route("/metrics", self._answer)])
        config = uvicorn.Config(
            app, http="httptools", lifespan="off", log_config=None, access_log=False
        )
        config.load()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self._state, app_state={}, _loop=loop
            ),
            self._host,
            self.port,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and close the connections."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._server.wait_closed()

    async def _answer(self, _: Request) -> Response:
        return Response(self._exposition(), headers={"Content-Type": CONTENT_TYPE})
