"""ModelInfer: one request, one answer."""

import asyncio
from typing import Final, Protocol

from gateway.clock import Clock, monotonic_ns
from gateway.errors import GatewayError, ShuttingDown
from gateway.front.grpc_calls import Call, MessageLimit
from gateway.front.wire_proto import Extent, SharedMemory, decode_request, encode_response
from gateway.types import InferRequest, InferResponse, Metadata, Parameters, Reply


class Pending(Protocol):
    """A request that was accepted and not yet answered."""

    def cancel(self) -> None:
        """Nobody waits any more: the reply is not called after this."""


class Dispatcher(Protocol):
    """Where requests go."""

    def submit(self, request: InferRequest, reply: Reply) -> Pending:
        """Accept a request; ``reply`` is called once, later, with its answer or error."""


class CallMetadata:
    """A call's metadata by name, looked up when somebody asks."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def get(self, name: bytes, /) -> bytes | None:
        """The first value under ``name``; ``None`` where there is none."""
        wanted = name.decode("latin-1")
        for key, value in self._call.metadata:
            if key == wanted:
                return value if isinstance(value, bytes) else value.encode("latin-1")
        return None


class Inference:
    """The two inference calls' way to the dispatcher. For the event loop's thread only.

    Attributes:
        draining: set at shutdown, from when on new requests are refused.
    """

    __slots__ = ("_clock", "_dispatcher", "_limit", "_shared_memory", "draining")

    def __init__(
        self,
        dispatcher: Dispatcher,
        shared_memory: SharedMemory,
        limit: MessageLimit,
        clock: Clock = monotonic_ns,
    ) -> None:
        self._dispatcher: Final = dispatcher
        self._shared_memory: Final = shared_memory
        self._limit: Final = limit
        self._clock: Final = clock
        self.draining = False

    def decode(
        self, data: bytes, deadline_ns: int, metadata: Metadata
    ) -> tuple[InferRequest, dict[str, Extent]]:
        """The request in ``data``; ``deadline_ns`` is the call's own deadline, 0 for none.

        ``metadata`` is the call's own.

        Raises ``GatewayError`` where there is none, or the server takes no more.
        """
        if self.draining:
            raise ShuttingDown("the server is shutting down and takes no new requests")
        self._limit.check(data)
        decoded = decode_request(data, deadline_ns, self._clock(), self._shared_memory)
        decoded[0].metadata = metadata
        return decoded

    def deadline_ns(self, call: Call) -> int:
        """When the caller of ``call`` stops waiting, monotonic nanoseconds; 0 for never."""
        remaining_s = call.time_remaining()
        return 0 if remaining_s is None else self._clock() + int(remaining_s * 1e9)

    def submit(self, request: InferRequest, reply: Reply) -> Pending:
        """Hand ``request`` to the dispatcher; raises ``GatewayError`` where it is refused."""
        return self._dispatcher.submit(request, reply)

    def encode(
        self,
        answer: InferResponse | GatewayError,
        placed: dict[str, Extent],
        *,
        parameters: Parameters | None = None,
        stream: bool = False,
    ) -> bytes | Exception:
        """The answer's bytes, or what became of it. Raises nothing: it runs inside a reply."""
        if isinstance(answer, GatewayError):
            return answer
        try:
            return encode_response(
                answer, placed, self._shared_memory, parameters=parameters, stream=stream
            )
        except Exception as error:
            return error

    async def infer(self, data: bytes, call: Call) -> bytes:
        """Serve one ModelInfer call: the bytes of its answer."""
        request, placed = self.decode(data, self.deadline_ns(call), CallMetadata(call))
        done: asyncio.Future[bytes | Exception] = asyncio.get_running_loop().create_future()

        def reply(answer: InferResponse | GatewayError) -> None:
            encoded = self.encode(answer, placed)
            # The call may have been cancelled in this very turn of the loop.
            if not done.done():
                done.set_result(encoded)

        pending = self.submit(request, reply)
        try:
            result = await done
        except asyncio.CancelledError:
            pending.cancel()
            raise
        if not isinstance(result, bytes):
            raise result
        return result
