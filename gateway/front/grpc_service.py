"""The gRPC front on grpcio: the protocol's service, health and reflection on one port."""

import logging
from typing import Final, Protocol

import grpc
import grpc.aio

from gateway.errors import StartupError
from gateway.front.grpc_calls import MessageLimit, logged
from gateway.front.grpc_control import (
    ControlCalls,
    ControlService,
    SharedMemoryRegistry,
    control_handlers,
)
from gateway.front.grpc_health import Health, add_health, add_reflection
from gateway.front.grpc_infer import Dispatcher, Inference
from gateway.front.grpc_stream import InferStreams
from gateway.front.wire_proto import SharedMemory
from gateway.protos import SERVICE

_logger: Final = logging.getLogger(__name__)


class SharedMemoryRegions(SharedMemory, SharedMemoryRegistry, Protocol):
    """Shared memory regions: registered by clients, read and written by requests."""


class GrpcFront:
    """The gRPC server. For the event loop's thread only.

    Attributes:
        port: the bound port once ``start`` has returned; 0 asks it for any free one.

    Args:
        host: a name or address to listen on, IPv6 without brackets.
        max_message_bytes: the largest request message.
        access_log: whether each call is logged to ``gateway.access``, one line when it ends.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        service: ControlService,
        shared_memory: SharedMemoryRegions,
        *,
        host: str,
        port: int,
        max_message_bytes: int,
        access_log: bool,
    ) -> None:
        self.port = port
        self._host: Final = host
        self._limit: Final = MessageLimit(max_message_bytes)
        self._access_log: Final = access_log
        self._inference: Final = Inference(dispatcher, shared_memory, self._limit)
        self._streams: Final = InferStreams(self._inference)
        self._control: Final = ControlCalls(service, shared_memory)
        self._health: Final = Health(service)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Bind the port and serve. Raises ``StartupError`` where the port cannot be had."""
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers((self._handlers(),))
        add_health(server, self._health)
        add_reflection(server)
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            bound = server.add_insecure_port(f"{host}:{self.port}")
        except RuntimeError as error:
            raise StartupError(
                f"cannot listen for gRPC on {host}:{self.port}: the port is taken or the host is "
                f"not this machine's; choose others with --grpc-port and --host ({error})"
            ) from None
        await server.start()
        self.port = bound
        self._server = server

    def stop_accepting(self) -> None:
        """Refuse new inference, tell health's watchers, and let open streams run out."""
        self._inference.draining = True
        self._health.drain()
        self._streams.drain()

    async def close(self, grace_s: float) -> None:
        """Close the port, wait up to ``grace_s`` seconds for open calls, then cancel them."""
        self.stop_accepting()
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    def _handlers(self) -> "grpc.GenericRpcHandler[bytes, bytes]":
        unary = control_handlers(self._control, self._limit)
        unary["ModelInfer"] = self._inference.infer
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                logged(name, handler) if self._access_log else handler
            )
            for name, handler in unary.items()
        }
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._streams.serve)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_receive_message_length", self._limit.transport_bytes),
            ("grpc.max_send_message_length", -1),
            # Two servers on one port would share its calls by chance: a taken port is an error.
            ("grpc.so_reuseport", 0),
            # Clients may ask whether an idle connection lives, as often as once a second.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ]
