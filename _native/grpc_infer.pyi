from typing import Any

from gateway._native.grpc import GrpcConnection
from gateway._native.grpc_receiver import GrpcStream, ReceiveBudget
from gateway._native.http2_limits import Http2Limits
from gateway._native.http2_protocol import ReceiveBuffer, Scheduler

class InferStream(GrpcStream):
    errors_as_status: bool
    last_words: Exception | None

class InferConnection(GrpcConnection):
    streams: dict[int, InferStream]  # type: ignore[assignment]  # those that it makes itself
    def __init__(
        self,
        limits: Http2Limits,
        scheduler: Scheduler,
        buffer: ReceiveBuffer,
        methods: dict[bytes, Any],
        max_message_bytes: int,
        budget: ReceiveBudget,
        now_ns: int | None = None,
        *,
        dispatcher: Any,
        infer_method: Any,
        stream_method: Any,
    ) -> None: ...
    def expect(self, stream: InferStream, pending: Any) -> int: ...
    def forget(self, stream: InferStream, pending: Any) -> int: ...
    def settle(self, stream: InferStream) -> int: ...
    def drain_inference(self, error: Exception) -> None: ...
    def drain_stream(self, stream: InferStream, error: Exception) -> None: ...
    def infer_unknown(
        self, stream: InferStream, message: bytes, compressed: bool, head: bytes | None
    ) -> None: ...
    def infer_failed(self, stream: InferStream, id: bytes, error: Exception) -> None: ...
    def end_with(self, stream: InferStream, error: Exception) -> None: ...
