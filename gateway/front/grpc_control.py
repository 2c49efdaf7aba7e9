"""Every RPC of the protocol but inference: protobuf in and out of the control service's JSON."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from gateway.errors import InvalidRequest, MalformedRequest, Unsupported
from gateway.front.grpc_calls import Call, MessageLimit, UnaryHandler
from gateway.protos import POOL, SERVICE, message

#: A message of the protocol in proto3's JSON form, with the fields' original names.
Json: TypeAlias = dict[str, Any]


class ControlService(Protocol):
    """The control plane's answers, in the protocol's JSON form. All raise ``GatewayError``."""

    def is_live(self) -> bool:
        """Whether the process answers."""

    def is_ready(self) -> bool:
        """Whether all that should serve does."""

    def is_model_ready(self, name: str, version: str = "") -> bool:
        """Whether a model, or one version of it, serves now."""

    def server_metadata(self) -> Json:
        """A ServerMetadataResponse."""

    def model_metadata(self, name: str, version: str = "") -> Json:
        """A ModelMetadataResponse."""

    def model_config(self, name: str, version: str = "") -> Json:
        """A ModelConfig."""

    def statistics(self, name: str = "", version: str = "") -> Json:
        """A ModelStatisticsResponse."""

    def repository_index(self, ready_only: bool) -> list[dict[str, str]]:
        """The ``models`` of a RepositoryIndexResponse."""

    async def load_model(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a model."""

    async def unload_model(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Unload a model."""

    def log_settings(self, update: Mapping[str, Any] | None) -> Json:
        """The log's settings, changed first where ``update`` is given."""


class SharedMemoryRegistry(Protocol):
    """The shared memory regions that clients register. All raise ``GatewayError``."""

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make a region known."""

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all of them."""

    def status(self, name: str = "") -> list[Json]:
        """The regions: ``name``, ``key``, ``offset``, ``byte_size``."""


class ControlCalls:
    """The RPCs. Each method takes the request's message and gives the response's JSON form."""

    def __init__(self, service: ControlService, shared_memory: SharedMemoryRegistry) -> None:
        self._service: Final = service
        self._shared_memory: Final = shared_memory

    def table(self) -> dict[str, Callable[[Any], Json | Awaitable[Json]]]:
        """The method of each RPC, by the RPC's name."""
        service = self._service
        return {
            "ServerLive": lambda _: {"live": service.is_live()},
            "ServerReady": lambda _: {"ready": service.is_ready()},
            "ModelReady": lambda r: {"ready": service.is_model_ready(r.name, r.version)},
            "ServerMetadata": lambda _: service.server_metadata(),
            "ModelMetadata": lambda r: service.model_metadata(r.name, r.version),
            "ModelConfig": lambda r: {"config": service.model_config(r.name, r.version)},
            "ModelStatistics": lambda r: service.statistics(r.name, r.version),
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._regions,
            "SystemSharedMemoryRegister": self._register_region,
            "SystemSharedMemoryUnregister": self._unregister_region,
            # Nothing can be registered, so there is nothing to tell and nothing to forget; a
            # client that clears all regions before it starts must not fail at that.
            "CudaSharedMemoryStatus": lambda _: {},
            "CudaSharedMemoryRegister": _no_cuda_shared_memory,
            "CudaSharedMemoryUnregister": lambda _: {},
            "TraceSetting": _no_tracing,
            "LogSettings": self._log_settings,
        }

    def _repository_index(self, request: Any) -> Json:
        if request.repository_name:
            raise Unsupported(_ONE_REPOSITORY.format(request.repository_name))
        return {"models": self._service.repository_index(request.ready)}

    async def _load(self, request: Any) -> Json:
        await self._service.load_model(_model_named_by(request), _values(request.parameters))
        return {}

    async def _unload(self, request: Any) -> Json:
        await self._service.unload_model(_model_named_by(request), _values(request.parameters))
        return {}

    def _regions(self, request: Any) -> Json:
        regions = self._shared_memory.status(request.name)
        return {"regions": {region["name"]: region for region in regions}}

    def _register_region(self, request: Any) -> Json:
        self._shared_memory.register(request.name, request.key, request.offset, request.byte_size)
        return {}

    def _unregister_region(self, request: Any) -> Json:
        self._shared_memory.unregister(request.name)
        return {}

    def _log_settings(self, request: Any) -> Json:
        settings = self._service.log_settings(_values(request.settings) or None)
        return {"settings": {key: {_log_field(value): value} for key, value in settings.items()}}


_ONE_REPOSITORY: Final = (
    "this server has one model repository, which has no name; "
    'leave repository_name ("{}") and give model_name'
)


def _model_named_by(request: Any) -> str:
    """The model that a load or unload request names.

    KServe's protocol has the model's name as field 1, where Triton's has the repository's.
    """
    name: str = request.model_name or request.repository_name
    if not name:
        raise InvalidRequest("the request names no model; give model_name")
    if request.model_name and request.repository_name:
        raise Unsupported(_ONE_REPOSITORY.format(request.repository_name))
    return name


def _values(entries: Any) -> dict[str, Any]:
    """A map of one-of messages as plain values; an entry without a value is left out."""
    values = {}
    for key, entry in entries.items():
        for _, value in entry.ListFields():
            values[key] = value
    return values


def _log_field(value: object) -> str:
    if isinstance(value, bool):
        return "bool_param"
    return "uint32_param" if isinstance(value, int) else "string_param"


def _no_cuda_shared_memory(_: Any) -> Json:
    raise Unsupported(
        "CUDA shared memory is not offered; use system shared memory, or send the tensors' bytes"
    )


def _no_tracing(_: Any) -> Json:
    raise Unsupported("trace settings are not offered; /metrics has the latency by stage")


def control_handlers(calls: ControlCalls, limit: MessageLimit) -> dict[str, UnaryHandler]:
    """The handlers of the RPCs, bytes to bytes, by the RPC's name."""
    methods = POOL.FindServiceByName(SERVICE).methods_by_name
    return {
        name: _handler(methods[name].input_type.name, methods[name].output_type.name, call, limit)
        for name, call in calls.table().items()
    }


def _handler(
    request_name: str,
    response_name: str,
    call: Callable[[Any], Json | Awaitable[Json]],
    limit: MessageLimit,
) -> UnaryHandler:
    request_class, response_class = message(request_name), message(response_name)

    async def handle(data: bytes, _: Call) -> bytes:
        limit.check(data)
        try:
            request = request_class.FromString(data)
        except DecodeError as error:
            raise MalformedRequest(f"the bytes are no {request_name}: {error}") from None
        answer = call(request)
        if not isinstance(answer, dict):
            answer = await answer
        # HTTP's JSON may say more than the protobuf message has fields for.
        response = json_format.ParseDict(answer, response_class(), ignore_unknown_fields=True)
        encoded: bytes = response.SerializeToString()
        return encoded

    return handle
