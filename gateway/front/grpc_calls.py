"""What all gRPC calls share: their limits, their errors, and the wire's end of a call."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import grpc.aio

from gateway.clock import Clock, monotonic_ns
from gateway.errors import GatewayError, RequestTooLarge
from gateway.front.status import status_of

#: The server's end of a call whose messages stay bytes.
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
UnaryHandler: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]

#: Bytes over a small limit up to which a message is read, only to be refused in our words.
_READ_OVER_LIMIT: Final = 16 << 20

_logger: Final = logging.getLogger("gateway.front.grpc")
_access: Final = logging.getLogger("gateway.access")


def status_and_details(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """The gRPC status of ``error``. What is no ``GatewayError`` is logged, and its class told."""
    code: grpc.StatusCode = grpc.StatusCode[status_of(error)[1]]
    if isinstance(error, GatewayError):
        return code, str(error)
    _logger.error("a gRPC call failed unexpectedly", exc_info=error)
    return code, f"the server failed on this call ({type(error).__name__}); its log tells why"


async def abort(context: Context, error: BaseException) -> NoReturn:
    """End the call with the status of ``error``."""
    await context.abort(*status_and_details(error))


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

    async def call(data: bytes, context: Context) -> bytes:
        start_ns = clock()
        answer = b""
        try:
            answer = await handler(data, context)
        finally:
            _log_call(method, context, len(data), len(answer), clock() - start_ns)
        return answer

    return call


def _log_call(method: str, context: Any, received: int, sent: int, took_ns: int) -> None:
    task = asyncio.current_task()
    cancelled = task is not None and task.cancelling() > 0
    code = context.code() or grpc.StatusCode.OK
    _access.info(
        method,
        extra={
            "client": context.peer(),
            "code": "CANCELLED" if cancelled else getattr(code, "name", str(code)),
            "received_bytes": received,
            "sent_bytes": sent,
            "duration_us": took_ns // 1000,
        },
    )
