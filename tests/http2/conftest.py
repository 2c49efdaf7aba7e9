"""A running gRPC front, and what tests need around it.

Everything that depends on which front it is, and on how its options are called, is in this file.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from gateway.front.grpc_native import NativeFront as Front
from tests.front.grpc_server import GrpcServer, running
from tests.http2.peer import Peer

Serve = Callable[..., GrpcServer]


@contextmanager
def started(**options: Any) -> Iterator[GrpcServer]:
    """A server with ``options``."""
    with running(Front, **options) as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[GrpcServer]:
    with started() as server:
        yield server


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server of the test's own, with the options that it is given."""
    with ExitStack() as stack:

        def start(**options: Any) -> GrpcServer:
            return stack.enter_context(started(**options))

        yield start


@pytest.fixture(scope="module")
def impatient() -> Iterator[GrpcServer]:
    """A server that waits 0.3 s for its clients to go on, whatever they are in the midst of."""
    with started(read_timeout_s=0.3) as server:
        yield server


@pytest.fixture
def peer(server: GrpcServer) -> Iterator[Peer]:
    with Peer(server.front.port) as peer:
        yield peer


@pytest.fixture
def held(server: GrpcServer) -> Iterator[GrpcServer]:
    """Inference requests wait until the test answers them."""
    server.on_loop(lambda: setattr(server.dispatcher, "held", True))
    yield server
    server.on_loop(lambda: setattr(server.dispatcher, "held", False))
    server.on_loop(server.dispatcher.answer)
