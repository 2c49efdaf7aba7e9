"""What all gRPC calls share, whichever server carries them: their ends, limits, errors and log.

A handler is free of any server. It gets messages as bytes, gives messages as bytes, and *raises*
what goes wrong; the front that carries the call turns the error into a status
(``status_and_details``) and its trailing metadata (``error_metadata``).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from gateway.clock import Clock, monotonic_ns
from gateway.errors import GatewayError, RequestTooLarge, Unavailable
from gateway.front.status import status_of

#: Pairs of a call's metadata; the values of keys that end with ``-bin`` are bytes.
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

#: Trailing metadata that tells a client after how many milliseconds it may retry.
RETRY_PUSHBACK: Final = "grpc-retry-pushback-ms"

#: Bytes over a small limit up to which a message is read, only to be refused in our words.
_READ_OVER_LIMIT: Final = 16 << 20

_logger: Final = logging.getLogger("gateway.front.grpc")
_access: Final = logging.getLogger("gateway.access")


class Call(Protocol):
    """The server's end of one RPC. For the event loop's thread only.

    The task that a handler runs in is cancelled when the caller leaves or its deadline passes.
    """

    @property
    def metadata(self) -> Metadata:
        """What the client sent with the call."""

    @property
    def peer(self) -> str:
        """The client's address."""

    def time_remaining(self) -> float | None:
        """Seconds to the call's deadline, ``None`` where it has none."""

    async def read(self) -> bytes | None:
        """The next message of a streaming method.

        ``None`` once the client has ended its side; a client that leaves may seem to do so first.
        """

    async def write(self, message: bytes) -> None:
        """Send a message of a streaming method; returns when the next one may be written."""

    def set_trailing_metadata(self, pairs: Metadata) -> None:
        """Send ``pairs`` when the call ends, whatever its status."""


UnaryHandler: TypeAlias = Callable[[bytes, Call], Awaitable[bytes]]
StreamHandler: TypeAlias = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """One message in, one message out."""

    handler: UnaryHandler


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A handler that reads and writes as many messages as it wants; its return ends the call."""

    handler: StreamHandler


Method: TypeAlias = UnaryMethod | StreamMethod


def status_and_details(error: BaseException) -> tuple[str, str]:
    """The name of the gRPC code of ``error`` and the words that go with it.

    What is no ``GatewayError`` is logged, and its class told.
    """
    _, code = status_of(error)
    if isinstance(error, GatewayError):
        return code, str(error)
    _logger.error("a gRPC call failed unexpectedly", exc_info=error)
    return code, f"the server failed on this call ({type(error).__name__}); its log tells why"


def error_metadata(error: BaseException) -> tuple[tuple[str, str], ...]:
    """The trailing metadata of ``error``: when to come back, where that is known."""
    if isinstance(error, Unavailable) and error.retry_after_s is not None:
        return ((RETRY_PUSHBACK, str(round(error.retry_after_s * 1000))),)
    return ()


class MessageLimit:
    """The largest message that is taken, in bytes."""

    __slots__ = ("max_bytes",)

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes: Final = max_bytes

    @property
    def transport_bytes(self) -> int:
        """Where the transport itself refuses a message, unread and in words of its own.

        Well above the limit: up to there the message is read, so that ``check`` can say which
        option raises the limit.
        """
        return min(max(2 * self.max_bytes, self.max_bytes + _READ_OVER_LIMIT), 2**31 - 1)

    def check(self, data: bytes) -> None:
        """Raise ``RequestTooLarge`` for a message over the limit."""
        if len(data) > self.max_bytes:
            raise RequestTooLarge(
                f"the message has {len(data)} bytes; the most is {self.max_bytes} "
                "(--max-request-bytes)"
            )


def logged(method: str, handler: UnaryHandler, clock: Clock = monotonic_ns) -> UnaryHandler:
    """``handler`` with one line in the access log for each call."""

    async def handle(data: bytes, call: Call) -> bytes:
        start_ns = clock()
        code, answer = "OK", b""
        try:
            answer = await handler(data, call)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            _, code = status_of(error)
            raise
        finally:
            log_call(method, call.peer, code, len(data), len(answer), clock() - start_ns)
        return answer

    return handle


def log_call(method: str, peer: str, code: str, received: int, sent: int, took_ns: int) -> None:
    """Write one call to the access log.

    Args:
        method: the RPC's name, without its service.
        code: the name of the gRPC code that the call ended with.
        received: bytes of the request's message.
        sent: bytes of the answer's message, 0 for an error.
    """
    _access.info(
        method,
        extra={
            "client": peer,
            "code": code,
            "received_bytes": received,
            "sent_bytes": sent,
            "duration_us": took_ns // 1000,
        },
    )
