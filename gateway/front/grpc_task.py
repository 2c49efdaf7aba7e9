"""A call on the native gRPC front that a task serves: everything but inference."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from gateway._native.grpc_infer import InferStream
from gateway.clock import monotonic_ns
from gateway.errors import RequestCancelled, Unsupported
from gateway.front.grpc_calls import Metadata, StreamMethod, UnaryMethod
from gateway.front.grpc_metadata import decode_metadata, encode_metadata
from gateway.front.http_coding import COMPRESS_FROM, compress, decompress

if TYPE_CHECKING:
    from gateway.front.grpc_connection import NativeConnection

#: Messages that wait to be read, their bytes, and bytes that wait to be sent, before the other side
#: waits, too.
_MOST_UNREAD: Final = 16
_MOST_UNREAD_BYTES: Final = 1 << 16
_MOST_UNSENT: Final = 1 << 16


class TaskCall:
    """One call, from both sides: a ``Call`` to its handler, a receiver of messages to the core.

    For the event loop's thread only.
    """

    __slots__ = (
        "_connection", "_done", "_ended", "_stream", "_task", "_trailing", "_unread",
        "_unread_bytes", "_wakeup",
    )  # fmt: skip

    def __init__(self, connection: "NativeConnection", stream: InferStream) -> None:
        self._connection: Final = connection
        self._stream: Final = stream
        stream.endless = isinstance(stream.method, StreamMethod)
        self._unread: Final[deque[tuple[bytes, bool]]] = deque()
        self._unread_bytes = 0
        self._ended = False
        self._done = False
        self._wakeup: asyncio.Future[None] | None = None
        self._trailing: Metadata = ()
        self._task: Final = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        method = self._stream.method
        try:
            if isinstance(method, UnaryMethod):
                await self._answer(method.handler(await self._only_message(), self))
            else:
                await method.handler(self)
            trailing = encode_metadata(self._trailing)
        except asyncio.CancelledError:
            # Where the core did it the caller is gone; a handler's own doing is told to it.
            self._done = True
            self._connection.end_with(self._stream, RequestCancelled("the call was given up"))
            raise
        except Exception as error:
            self._done = True
            self._connection.end_with(self._stream, error, self._trailing)
        else:
            self._done = True
            self._connection.complete_call(self._stream, trailing)

    async def _only_message(self) -> bytes:
        message = await self.read()
        if message is None:
            raise Unsupported("the method takes one message, and none came")
        if await self.read() is not None:
            raise Unsupported("the method takes one message, and a second one came")
        return message

    async def _answer(self, answer: Awaitable[bytes]) -> None:
        self._send(await answer)

    def _send(self, message: bytes) -> None:
        encoding = self._stream.reply_encoding
        if encoding is not None and len(message) >= COMPRESS_FROM:
            self._connection.send_message(self._stream, compress(encoding, message), True)
        else:
            self._connection.send_message(self._stream, message)

    # What the handler sees

    @property
    def metadata(self) -> Metadata:
        """What the client sent with the call."""
        return decode_metadata(self._stream.head)

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._connection.peer

    def time_remaining(self) -> float | None:
        """Seconds to the call's deadline, ``None`` where it has none."""
        deadline_ns = self._stream.deadline_ns
        return (deadline_ns - monotonic_ns()) / 1e9 if deadline_ns else None

    async def read(self) -> bytes | None:
        """The next message, ``None`` once the client has ended its side."""
        while not self._unread:
            if self._ended:
                return None
            await self._event()
        message, compressed = self._unread.popleft()
        self._unread_bytes -= len(message)
        self._connection.release(self._stream, len(message))
        if not self._is_full():
            self._connection.unthrottle(self._stream)
        if compressed:
            encoding, limit = self._stream.head.encoding, self._connection.max_message_bytes
            assert encoding is not None, "the core has seen to that"
            return await asyncio.to_thread(decompress, encoding, message, limit)
        return message

    async def write(self, message: bytes) -> None:
        """Send a message; returns when the client has taken enough of those before it."""
        self._send(message)
        while self._stream.waiting_bytes > _MOST_UNSENT:
            await self._event()

    def set_trailing_metadata(self, pairs: Metadata) -> None:
        """Send ``pairs`` when the call ends, whatever its status."""
        self._trailing = pairs

    def _is_full(self) -> bool:
        return len(self._unread) >= _MOST_UNREAD or self._unread_bytes >= _MOST_UNREAD_BYTES

    async def _event(self) -> None:
        """Wait until something has come, or has been sent."""
        self._wakeup = asyncio.get_running_loop().create_future()
        await self._wakeup

    # What the core calls

    def receive(self, message: bytes, compressed: bool) -> None:
        """A message has come."""
        self._unread.append((message, compressed))
        self._unread_bytes += len(message)
        if self._is_full():
            self._connection.throttle(self._stream)
        self.drained()

    def end(self) -> None:
        """The client has ended its side."""
        self._ended = True
        self.drained()

    def drained(self) -> None:
        """Nothing waits to be sent any more; or, as in the two above, something has come."""
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def cancel(self) -> None:
        """Nobody waits any more."""
        if not self._done:
            self._task.cancel()
