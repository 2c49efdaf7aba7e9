"""The services that every gRPC server is expected to have: health and reflection."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.errors import NotFound
from gateway.front.grpc_control import ControlService
from gateway.protos import FILES, SERVICE

HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = "grpc.reflection.v1alpha.ServerReflection"
#: The same messages and the same call under the name that newer clients ask for first.
REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"

#: Seconds between two looks at a state that is watched.
WATCH_INTERVAL_S: Final = 0.2

_Status: Final = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # untyped
    """``grpc.health.v1``: the state as it is at each look, never a copy that could be stale.

    The service names are ``""`` and the protocol's own service for the server, and each model's
    name for that model.
    """

    def __init__(self, service: ControlService) -> None:
        self._service: Final = service
        self._draining: Final = asyncio.Event()

    def drain(self) -> None:
        """Not serving from now on; watchers are told, and their calls end."""
        self._draining.set()

    def _serves(self, name: str) -> bool:
        """Raises ``NotFound`` for a name that nothing here has."""
        if self._draining.is_set():
            return False
        if name in ("", SERVICE, HEALTH):
            return self._service.is_ready()
        return self._service.is_model_ready(name)

    async def Check(  # noqa: N802 - the RPC's name
        self, request: Any, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> Any:
        """Whether the server, or a model, serves; NOT_FOUND for an unknown name."""
        try:
            serves = self._serves(request.service)
        except NotFound as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return _Status(status=_Status.SERVING if serves else _Status.NOT_SERVING)

    async def Watch(  # noqa: N802 - the RPC's name
        self, request: Any, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[Any]:
        """The state now, and each change of it, until the caller leaves or the server drains."""
        told = None
        while True:
            draining = self._draining.is_set()
            try:
                status = _Status.SERVING if self._serves(request.service) else _Status.NOT_SERVING
            except NotFound:
                status = _Status.SERVICE_UNKNOWN
            if status != told:
                told = status
                yield _Status(status=status)
            if draining:
                return
            try:
                await asyncio.wait_for(self._draining.wait(), WATCH_INTERVAL_S)
            except TimeoutError:
                continue


def add_health(server: grpc.aio.Server, health: Health) -> None:
    """Offer ``health`` on ``server``."""
    health_pb2_grpc.add_HealthServicer_to_server(health, server)


def add_reflection(server: grpc.aio.Server) -> None:
    """Offer reflection, v1alpha and v1, of all services that the server has."""
    pool = DescriptorPool()
    for file in FILES:
        pool.Add(file)
    for module in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    servicer = reflection.aio.ReflectionServicer(  # type: ignore[attr-defined]  # untyped
        [SERVICE, HEALTH, REFLECTION], pool
    )
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (REFLECTION, REFLECTION_V1):
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}),)
        )
