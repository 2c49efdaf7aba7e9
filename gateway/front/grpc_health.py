"""The services that every gRPC server is expected to have: health and reflection."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.errors import InvalidRequest, MalformedRequest, NotFound
from gateway.front.grpc_calls import Call, Method, StreamMethod, UnaryMethod
from gateway.front.grpc_control import ControlService
from gateway.protos import FILES, SERVICE

HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = "grpc.reflection.v1alpha.ServerReflection"
#: The same messages and the same call under the name that newer clients ask for first.
REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"

#: Seconds between two looks at a state that is watched.
WATCH_INTERVAL_S: Final = 0.2

_Status: Final = health_pb2.HealthCheckResponse


class Health:
    """``grpc.health.v1``: the state as it is at each look, never a copy that could be stale.

    The service names are ``""`` and the protocol's own service for the server, and each model's
    name for that model.
    """

    def __init__(self, service: ControlService) -> None:
        self._service: Final = service
        self._draining: Final = asyncio.Event()

    def methods(self) -> dict[str, Method]:
        """The service's methods by their full path."""
        return {
            f"/{HEALTH}/Check": UnaryMethod(self.check),
            f"/{HEALTH}/Watch": StreamMethod(self.watch),
        }

    def drain(self) -> None:
        """Not serving from now on; watchers are told, and their calls end."""
        self._draining.set()

    async def check(self, data: bytes, _: Call) -> bytes:
        """Whether the server, or a model, serves. Raises ``NotFound`` for an unknown name."""
        request = _parse(health_pb2.HealthCheckRequest, data)
        return _told(_Status.SERVING if self._serves(request.service) else _Status.NOT_SERVING)

    async def watch(self, call: Call) -> None:
        """Send the state now, and each change of it, until the server drains."""
        data = await call.read()
        if data is None:
            raise InvalidRequest("Watch takes one HealthCheckRequest; got none")
        request = _parse(health_pb2.HealthCheckRequest, data)
        told = None
        while True:
            draining = self._draining.is_set()
            try:
                status = _Status.SERVING if self._serves(request.service) else _Status.NOT_SERVING
            except NotFound:
                status = _Status.SERVICE_UNKNOWN
            if status != told:
                told = status
                await call.write(_told(status))
            if draining:
                return
            try:
                await asyncio.wait_for(self._draining.wait(), WATCH_INTERVAL_S)
            except TimeoutError:
                continue

    def _serves(self, name: str) -> bool:
        """Raises ``NotFound`` for a name that nothing here has."""
        if self._draining.is_set():
            return False
        if name in ("", SERVICE, HEALTH):
            return self._service.is_ready()
        return self._service.is_model_ready(name)


class Reflection:
    """``grpc.reflection``, v1alpha and v1: the descriptors of all services that are offered."""

    def __init__(self, more: Sequence[str] = ()) -> None:
        """Tell of the protocol's service, of health, and of the services ``more``."""
        pool = DescriptorPool()
        for file in FILES:
            pool.Add(file)
        for module in (health_pb2, reflection_pb2):
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        self._servicer: Final = reflection.aio.ReflectionServicer(  # type: ignore[attr-defined]  # untyped
            [SERVICE, HEALTH, REFLECTION, *more], pool
        )

    def methods(self) -> dict[str, Method]:
        """The services' methods by their full path."""
        method = StreamMethod(self.serve)
        return {f"/{name}/ServerReflectionInfo": method for name in (REFLECTION, REFLECTION_V1)}

    async def serve(self, call: Call) -> None:
        """Answer each question of one call."""
        async for answer in self._servicer.ServerReflectionInfo(_questions(call), None):
            await call.write(answer.SerializeToString())


async def _questions(call: Call) -> AsyncIterator[Any]:
    while (data := await call.read()) is not None:
        yield _parse(reflection_pb2.ServerReflectionRequest, data)


def _parse(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        name = message.DESCRIPTOR.name
        raise MalformedRequest(f"the bytes are no {name}: {error}") from None


def _told(status: Any) -> bytes:
    encoded: bytes = _Status(status=status).SerializeToString()
    return encoded
