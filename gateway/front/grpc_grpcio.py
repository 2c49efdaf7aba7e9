"""The gRPC front on grpcio's own server."""

from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeAlias

import grpc
import grpc.aio

from gateway.errors import StartupError
from gateway.front.grpc_calls import (
    MessageLimit,
    Metadata,
    Method,
    StreamHandler,
    UnaryHandler,
    UnaryMethod,
    error_metadata,
    status_and_details,
)
from gateway.front.grpc_control import ControlService
from gateway.front.grpc_infer import Dispatcher
from gateway.front.grpc_options import GrpcOptions, TlsFiles
from gateway.front.grpc_service import GrpcService, SharedMemoryRegions
from gateway.front.grpc_tls import read_file, server_context
from gateway.front.live_feed import LiveStream
from gateway.front.unix_socket import claim

#: grpcio's end of a call whose messages stay bytes.
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class GrpcioFront:
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
        self._limit: Final = MessageLimit(options.max_message_bytes)
        self._service: Final = GrpcService(
            dispatcher,
            service,
            shared_memory,
            self._limit,
            access_log=options.access_log,
            live=live,
        )
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Bind and serve. Raises ``StartupError`` where an address or a file cannot be had."""
        options = self._options
        server = grpc.aio.server(options=self._channel_arguments())
        server.add_generic_rpc_handlers((_Methods(self._service.methods),))
        credentials = _credentials(options.tls) if options.tls else None
        host = f"[{options.host}]" if ":" in options.host else options.host
        bound = _bind(server, f"{host}:{self.port}", credentials, _NO_PORT)
        if options.unix_socket:
            claim(options.unix_socket, "--grpc-unix-socket")
            _bind(server, f"unix:{options.unix_socket}", credentials, _NO_UNIX_SOCKET)
        await server.start()
        self.port = bound
        self._server = server

    def stop_accepting(self) -> None:
        """Refuse new inference, tell health's watchers, and let open streams run out."""
        self._service.drain()

    async def close(self, grace_s: float) -> None:
        """Close the port, wait up to ``grace_s`` seconds for open calls, then cancel them."""
        self.stop_accepting()
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    def _channel_arguments(self) -> list[tuple[str, int]]:
        options = self._options
        return [
            ("grpc.max_receive_message_length", self._limit.transport_bytes),
            ("grpc.max_send_message_length", -1),
            # One limit, not two: between its two grpcio refuses by chance.
            ("grpc.max_metadata_size", options.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", options.max_metadata_bytes),
            ("grpc.max_concurrent_streams", options.max_concurrent_streams),
            ("grpc.keepalive_time_ms", _milliseconds(options.keepalive_time_s)),
            ("grpc.keepalive_timeout_ms", _milliseconds(options.keepalive_timeout_s)),
            # A ping that is not answered at all has a timeout of its own, else of a minute.
            ("grpc.http2.ping_timeout_ms", _milliseconds(options.keepalive_timeout_s)),
            # Two servers on one port would share its calls by chance: a taken port is an error.
            ("grpc.so_reuseport", 0),
            # Clients may ask whether an idle connection lives, as often as once a second.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ]


class _GrpcioCall:
    """A ``Call`` over grpcio's context."""

    __slots__ = ("_context", "_trailing")

    def __init__(self, context: Context) -> None:
        self._context: Final = context
        self._trailing: Metadata = ()

    @property
    def metadata(self) -> Metadata:
        return tuple(self._context.invocation_metadata() or ())

    @property
    def peer(self) -> str:
        return self._context.peer()

    def time_remaining(self) -> float | None:
        return self._context.time_remaining()

    async def read(self) -> bytes | None:
        message = await self._context.read()
        # The end is grpc.aio.EOF, which the type stubs do not know.
        return message if isinstance(message, bytes) else None

    async def write(self, message: bytes) -> None:
        await self._context.write(message)

    def set_trailing_metadata(self, pairs: Metadata) -> None:
        self._trailing = tuple(pairs)
        self._context.set_trailing_metadata(self._trailing)

    async def abort(self, error: Exception) -> NoReturn:
        """End the call with the status of ``error``."""
        code, details = status_and_details(error)
        metadata = (*self._trailing, *error_metadata(error))
        await self._context.abort(grpc.StatusCode[code], details, metadata)


class _Methods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """The service's methods as grpcio asks for them: by path, and ``None`` for an unknown one."""

    def __init__(self, methods: dict[str, Method]) -> None:
        self._handlers: Final = {path: _handler(method) for path, method in methods.items()}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        return self._handlers.get(handler_call_details.method)


def _handler(method: Method) -> "grpc.RpcMethodHandler[bytes, bytes]":
    if isinstance(method, UnaryMethod):
        return grpc.unary_unary_rpc_method_handler(_unary(method.handler))
    return grpc.stream_stream_rpc_method_handler(_stream(method.handler))


def _unary(handler: UnaryHandler) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def serve(data: bytes, context: Context) -> bytes:
        call = _GrpcioCall(context)
        try:
            return await handler(data, call)
        except Exception as error:
            await call.abort(error)

    return serve


def _stream(handler: StreamHandler) -> Callable[[object, Context], Awaitable[None]]:
    async def serve(_: object, context: Context) -> None:
        call = _GrpcioCall(context)
        try:
            await handler(call)
        except grpc.aio.BaseError:
            # The transport's own: the client is gone, which grpcio deals with itself.
            raise
        except Exception as error:
            await call.abort(error)

    return serve


def _bind(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None, advice: str
) -> int:
    """The port that was bound. Raises ``StartupError``, with ``advice``, where none could be."""
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise StartupError(f"cannot listen for gRPC on {address}: {advice} ({error})") from None


_NO_PORT: Final = (
    "the port is taken or the host is not this machine's; choose others with --grpc-port and --host"
)
_NO_UNIX_SOCKET: Final = (
    "the directory is missing or may not be written to, or the path has over 107 bytes; choose "
    "another with --grpc-unix-socket"
)


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    # grpcio calls wrong files a failure to bind: Python's TLS says what is wrong with them.
    server_context(files)
    pair = (
        read_file(files.key, "--grpc-tls-key"),
        read_file(files.certificate, "--grpc-tls-certificate"),
    )
    if not files.client_ca:
        return grpc.ssl_server_credentials([pair])
    client_ca = read_file(files.client_ca, "--grpc-tls-client-ca")
    return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=True)


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
