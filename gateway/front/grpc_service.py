"""The gRPC service: every RPC that a gRPC front offers, free of any server."""

from typing import Final, Protocol

from gateway.front.grpc_calls import MessageLimit, Method, StreamMethod, UnaryMethod, logged
from gateway.front.grpc_control import (
    ControlCalls,
    ControlService,
    SharedMemoryRegistry,
    control_handlers,
)
from gateway.front.grpc_health import Health, Reflection
from gateway.front.grpc_infer import Dispatcher, Inference
from gateway.front.grpc_predictions import PredictionCalls
from gateway.front.grpc_stream import InferStreams
from gateway.front.live_feed import LiveStream
from gateway.front.wire_proto import SharedMemory
from gateway.protos import SERVICE, STREAM_SERVICE


class SharedMemoryRegions(SharedMemory, SharedMemoryRegistry, Protocol):
    """Shared memory regions: registered by clients, read and written by requests."""


class GrpcService:
    """The protocol's service, health and reflection. For the event loop's thread only.

    Attributes:
        methods: the RPCs by their full path, ``/inference.GRPCInferenceService/ModelInfer``.
        inference: what ``ModelInfer`` is made of, for a front that needs no task for a call.

    Args:
        access_log: whether each unary call of the protocol's service is logged to
            ``gateway.access``, one line when it ends.
        live: the predictions that clients may watch; ``None`` where they may not.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        service: ControlService,
        shared_memory: SharedMemoryRegions,
        limit: MessageLimit,
        *,
        access_log: bool = False,
        live: LiveStream | None = None,
    ) -> None:
        self.inference: Final = Inference(dispatcher, shared_memory, limit)
        self._streams: Final = InferStreams(self.inference)
        self._health: Final = Health(service)
        unary = control_handlers(ControlCalls(service, shared_memory), limit)
        unary["ModelInfer"] = self.inference.infer
        methods: dict[str, Method] = {
            f"/{SERVICE}/{name}": UnaryMethod(logged(name, handler) if access_log else handler)
            for name, handler in unary.items()
        }
        methods[f"/{SERVICE}/ModelStreamInfer"] = StreamMethod(self._streams.serve)
        methods |= self._health.methods()
        if live is not None:
            methods |= PredictionCalls(live).methods()
        reflection = Reflection([STREAM_SERVICE] if live is not None else [])
        self.methods: Final = methods | reflection.methods()

    def drain(self) -> None:
        """Refuse new inference, tell health's watchers, and let open streams run out."""
        self.inference.draining = True
        self._health.drain()
        self._streams.drain()
