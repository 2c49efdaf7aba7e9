"""An HTTP front on an event loop in a thread of its own, and a client that sends exact bytes."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

import orjson
import uvloop

from gateway.front.http_context import HttpLimits
from gateway.front.http_server import HttpFront
from gateway.front.shared_memory import SharedMemoryRegions
from tests.front.http_backend import EchoDispatcher, SmallService

T = TypeVar("T")
DEADLINE_S = 10.0


def until(condition: Callable[[], T]) -> T:
    """Poll until ``condition`` is true; fail after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.002)
    raise AssertionError("the condition did not become true in time")


class RunningFront:
    def __init__(self, limits: HttpLimits | None = None, access_log: bool = False) -> None:
        self.dispatcher = EchoDispatcher()
        self.service = SmallService()
        self.shared_memory = SharedMemoryRegions()
        self.front = HttpFront(
            self.dispatcher,
            self.service,
            self.shared_memory,
            host="127.0.0.1",
            port=0,
            metrics=lambda: b"up 1\n",
            limits=limits,
            access_log=access_log,
        )
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.closed = False

    def __enter__(self) -> "RunningFront":
        self._thread.start()
        self.run(self.front.start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.closed:
            self.run(self.front.close(0))
        self.shared_memory.unregister()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        return self.front.port

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on the loop's thread."""

        async def called() -> T:
            return function(*arguments)

        return self.run(called())

    def connect(self) -> "Wire":
        return Wire(self.port)


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json()["error"])


class Wire:
    """A connection that sends exact bytes and reads one response after the other."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> "Wire":
        self.socket.sendall(data)
        return self

    def receive(self) -> Answer:
        status_line = self._file.readline()
        assert status_line.startswith(b"HTTP/1.1 "), status_line
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        body = self._file.read(int(headers.get("content-length", 0)))
        return Answer(int(status_line.split()[1]), headers, body)

    def ask(self, data: bytes) -> Answer:
        return self.send(data).receive()

    def is_closed(self) -> bool:
        """Wait for the server's end of the connection; ``False`` if more data comes."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    """The bytes of a POST with a right Content-Length."""
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def infer_json(value: float = 1.0, id: str = "") -> bytes:
    document: dict[str, Any] = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [value, 2.0]}]
    }
    if id:
        document["id"] = id
    return orjson.dumps(document)


def infer(model: str = "echo", id: str = "", *headers: str) -> bytes:
    return post(f"/v2/models/{model}/infer", infer_json(id=id), *headers)
