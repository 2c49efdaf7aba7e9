"""A gRPC front on a loop of its own, for tests that speak to it from outside."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop

from gateway.front.grpc_grpcio import GrpcioFront
from gateway.front.grpc_native import NativeFront
from gateway.front.grpc_options import GrpcOptions
from tests.front.numpy_dispatcher import MappedRegions, NumpyDispatcher, NumpyService

HOST = "127.0.0.1"
T = TypeVar("T")

#: The fronts that one suite of behaviour is run over.
IMPLEMENTATIONS = (NativeFront, GrpcioFront)
Front = type[NativeFront] | type[GrpcioFront]


class GrpcServer:
    """A running front; the parts behind it may be touched through ``on_loop`` only."""

    def __init__(self, implementation: Front, **options: Any) -> None:
        self.dispatcher = NumpyDispatcher()
        self.service = NumpyService()
        self.regions = MappedRegions()
        self._implementation = implementation
        self._options = GrpcOptions(
            **{"host": HOST, "port": 0, "max_message_bytes": 1 << 20, **options}
        )
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def url(self) -> str:
        return f"{HOST}:{self.front.port}"

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    async def _start(self) -> None:
        self.front = self._implementation(
            self.dispatcher, self.service, self.regions, self._options
        )
        await self.front.start()

    def close(self, grace_s: float = 0) -> None:
        asyncio.run_coroutine_threadsafe(self.front.close(grace_s), self._loop).result(30)

    def stop(self) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def on_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds on the loop; fails after 20 seconds."""
        deadline = time.monotonic() + 20
        while not self.on_loop(condition):
            assert time.monotonic() < deadline, "the condition did not come to hold"
            time.sleep(0.005)


@contextmanager
def running(implementation: Front, **options: Any) -> Iterator[GrpcServer]:
    server = GrpcServer(implementation, **options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
