from collections.abc import Iterable
from typing import Any

from gateway._native.grpc_receiver import GrpcReceiver, GrpcStream, ReceiveBudget
from gateway._native.http2_limits import Http2Limits
from gateway._native.http2_protocol import ReceiveBuffer, Scheduler

class GrpcConnection(GrpcReceiver):
    methods: dict[bytes, Any]
    def __init__(
        self,
        limits: Http2Limits,
        scheduler: Scheduler,
        buffer: ReceiveBuffer,
        methods: dict[bytes, Any],
        max_message_bytes: int,
        budget: ReceiveBudget,
        now_ns: int | None = None,
    ) -> None: ...
    def expire(self, now_ns: int | None = None) -> None: ...
    def send_message(self, stream: GrpcStream, message: bytes, compressed: bool = False) -> int: ...
    def complete_call(
        self, stream: GrpcStream, metadata: Iterable[tuple[bytes, bytes]] = ()
    ) -> int: ...
