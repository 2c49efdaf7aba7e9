"""Clients that ask without a pause, or at a constant rate, and keep every answer."""

import asyncio
import contextlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2_grpc

from tests.fronts import (
    CHANNEL_OPTIONS,
    Array,
    HttpBinary,
    HttpFront,
    HttpJson,
    Request,
    Tensor,
    decode_grpc,
    decode_http,
    grpc_message,
    infer_path,
)
from tests.server import HOST, GatewayProcess

#: What an answer says: which version gave it, and its output.
Said = tuple[str, Array]

#: Rows of the requests, in turn. The last are more than the models' batches may have.
ROWS = (1, 2, 1, 3, 1, 20)


@dataclass(frozen=True)
class Exchange:
    """A request and its answer; times are ``time.monotonic``'s.

    ``version`` and ``y`` are the answer's; where it was an error it is ``error``.
    """

    by: str
    model: str
    x: Array
    sent_s: float
    answered_s: float
    version: str = ""
    y: Array | None = None
    error: str = ""


class Connection(ABC):
    """One connection of one protocol, with one request at a time."""

    name: str

    @abstractmethod
    async def ask(self, request: Request) -> Said:
        """What the gateway answers; raises whatever goes wrong."""

    @abstractmethod
    async def close(self) -> None: ...


class HttpConnection(Connection):
    """HTTP/1.1, kept alive; never opened twice, so a connection that breaks is seen."""

    front_class: type[HttpFront]

    def __init__(self, gateway: GatewayProcess) -> None:
        self._front = self.front_class(gateway)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> Said:
        if self._streams is None:
            port = self._front.gateway.http_port
            self._streams = await asyncio.open_connection(HOST, port)
        reader, writer = self._streams
        body, headers = self._front.encode(request)
        fields = {"Host": HOST, "Content-Length": str(len(body)), **headers}
        lines = [
            f"POST {infer_path(request)} HTTP/1.1",
            *(f"{name}: {value}" for name, value in fields.items()),
        ]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        status, *answer_lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in answer_lines if line)
        answer_headers = {name.lower(): value for name, value in pairs}
        answer = await reader.readexactly(int(answer_headers["content-length"]))
        assert status.split(" ")[1] == "200", f"{status}: {answer!r}"
        size = int(answer_headers.get("inference-header-content-length", len(answer)))
        version = json.loads(answer[:size])["model_version"]
        return version, decode_http(answer, answer_headers)["y"]

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


class HttpJsonConnection(HttpConnection):
    name = HttpJson.name
    front_class = HttpJson


class HttpBinaryConnection(HttpConnection):
    name = HttpBinary.name
    front_class = HttpBinary


class GrpcConnection(Connection):
    """Unary calls on a channel of its own."""

    name = "gRPC"

    def __init__(self, gateway: GatewayProcess) -> None:
        self._channel = grpc.aio.insecure_channel(gateway.grpc_url, CHANNEL_OPTIONS)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def ask(self, request: Request) -> Said:
        answer = await self.stub.ModelInfer(grpc_message(request), timeout=30)
        return answer.model_version, decode_grpc(answer)["y"]

    async def close(self) -> None:
        await self._channel.close()


class GrpcStreamConnection(GrpcConnection):
    """One stream for all of its requests: it is as old as the first version that served."""

    name = "gRPC stream"

    def __init__(self, gateway: GatewayProcess) -> None:
        super().__init__(gateway)
        self._call: Any = None

    async def ask(self, request: Request) -> Said:
        if self._call is None:
            self._call = self.stub.ModelStreamInfer()
        await self._call.write(grpc_message(request))
        answer = await self._call.read()
        assert answer is not grpc.aio.EOF, "the stream has ended"
        assert not answer.error_message, answer.error_message
        response = answer.infer_response
        return response.model_version, decode_grpc(response)["y"]

    async def close(self) -> None:
        if self._call is not None:
            self._call.cancel()
        await super().close()


#: Every way to ask.
KINDS: tuple[type[Connection], ...] = (
    HttpJsonConnection,
    HttpBinaryConnection,
    GrpcConnection,
    GrpcStreamConnection,
)


class Clients:
    """Load on some models from several clients: closed loops, and open loops.

    A closed loop asks again as soon as it is answered. An open loop asks at its rate, however long
    the answers take. A context manager: at its end every request has been answered.
    """

    def __init__(self, gateway: GatewayProcess, models: Sequence[str]) -> None:
        self.exchanges: list[Exchange] = []
        self._gateway = gateway
        self._models = models
        self._rng = np.random.default_rng(0)
        self._count = 0
        self._last: dict[str, str] = {}
        self._answered = asyncio.Condition()
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: list[Connection] = []

    def closed_loop(self, kind: type[Connection]) -> None:
        """Another client that asks one model after the other over a connection of its own."""
        connection = self._connect(kind)

        async def run() -> None:
            turn = 0
            while not self._stopping:
                await self._exchange(connection, self._models[turn % len(self._models)])
                turn += 1

        self._start(run())

    def open_loop(self, kind: type[Connection], per_s: float) -> None:
        """Another client, that opens a connection for a request that finds none of its own free."""
        free: list[Connection] = []

        async def one(model: str) -> None:
            connection = free.pop() if free else self._connect(kind)
            await self._exchange(connection, model)
            free.append(connection)

        async def run() -> None:
            began, turn = time.monotonic(), 0
            while not self._stopping:
                await asyncio.sleep(began + turn / per_s - time.monotonic())
                self._start(one(self._models[turn % len(self._models)]))
                turn += 1

        self._start(run())

    async def until_answered_by(self, model: str, version: str) -> None:
        """Wait for an answer of that version."""
        async with asyncio.timeout(30), self._answered:
            await self._answered.wait_for(lambda: self._last.get(model) == version)

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stopping = True
        while self._tasks:
            await asyncio.wait(self._tasks, timeout=60)
        for connection in self._connections:
            await connection.close()

    def _connect(self, kind: type[Connection]) -> Connection:
        connection = kind(self._gateway)
        self._connections.append(connection)
        return connection

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _exchange(self, connection: Connection, model: str) -> None:
        """One request that no other one equals, and its answer."""
        self._count += 1
        rows = ROWS[self._count % len(ROWS)]
        x = self._rng.standard_normal((rows, 4), np.float32)
        request = Request(model, (Tensor.of("x", x),), id=str(self._count))
        told: dict[str, Any] = {}
        sent_s = time.monotonic()
        try:
            async with asyncio.timeout(30):
                version, y = await connection.ask(request)
            told = {"version": version, "y": y}
        except Exception as error:
            told = {"error": repr(error)}
        answered_s = time.monotonic()
        self.exchanges.append(Exchange(connection.name, model, x, sent_s, answered_s, **told))
        if told.get("version"):
            self._last[model] = told["version"]
            async with self._answered:
                self._answered.notify_all()
        else:
            # A client that is refused at once would else keep the others from their turn.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
