"""Bare servers that answer a request with its own body: what a front costs before it does anything.

``python -m loadtests.echo {httptools,starlette,grpc.aio} PORT``, on 127.0.0.1.
"""

import argparse
import asyncio
from typing import cast

import grpc
import grpc.aio
import httptools
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loadtests.payloads import GRPC_PATH


class EchoProtocol(asyncio.Protocol):
    """HTTP/1.1 with nothing but httptools' parser: no routing, no limits."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )


async def serve_httptools(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(EchoProtocol, "127.0.0.1", port)
    await server.serve_forever()


async def serve_starlette(port: int) -> None:
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    config = uvicorn.Config(
        app, "127.0.0.1", port, loop="none", http="httptools", access_log=False, log_level="warning"
    )
    await uvicorn.Server(config).serve()


async def serve_grpc(port: int) -> None:
    async def echo(request: bytes, context: object) -> bytes:
        return request

    service, method = GRPC_PATH.strip("/").split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(echo)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


SERVERS = {"httptools": serve_httptools, "starlette": serve_starlette, "grpc.aio": serve_grpc}


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer every request with its own body.")
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("port", type=int)
    arguments = parser.parse_args()
    uvloop.run(SERVERS[arguments.server](arguments.port))


if __name__ == "__main__":
    main()
