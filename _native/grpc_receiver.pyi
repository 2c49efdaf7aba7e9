from collections.abc import Iterable
from typing import Any

from gateway._native.http2_fields import RequestHead
from gateway._native.http2_limits import Http2Limits
from gateway._native.http2_protocol import Http2Protocol, ReceiveBuffer, Scheduler
from gateway._native.http2_stream import Http2Stream

class ReceiveBudget:
    held_bytes: int
    max_bytes: int
    def __init__(self, max_bytes: int) -> None: ...

class GrpcStream(Http2Stream):
    head: RequestHead
    method: Any
    deadline_ns: int
    call: Any
    answered: bool
    endless: bool
    @property
    def reply_encoding(self) -> bytes | None: ...

class GrpcReceiver(Http2Protocol):
    budget: ReceiveBudget
    max_message_bytes: int
    held_bytes: int
    def __init__(
        self,
        limits: Http2Limits,
        scheduler: Scheduler,
        buffer: ReceiveBuffer,
        max_message_bytes: int,
        budget: ReceiveBudget,
        now_ns: int | None = None,
    ) -> None: ...
    def throttle(self, stream: GrpcStream) -> None: ...
    def unthrottle(self, stream: GrpcStream) -> None: ...
    def release(self, stream: GrpcStream, size: int) -> int: ...
    def fail_call(
        self,
        stream: GrpcStream,
        code: int,
        details: str,
        metadata: Iterable[tuple[bytes, bytes]] = (),
    ) -> int: ...
    def message_too_large(self, stream: Any, size: int) -> None: ...
