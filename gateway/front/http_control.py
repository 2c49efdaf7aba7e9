"""Every endpoint of the protocol but inference, over ``ControlService``'s JSON."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import (
    MalformedRequest,
    RequestCancelled,
    RequestTooLarge,
    Unsupported,
)
from gateway.front.http_coding import decompress
from gateway.front.json_document import parse_json

Json: TypeAlias = dict[str, Any] | list[Any]
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class Service(Protocol):
    """Every protocol call but inference; ``control.service.ControlService`` is the real one."""

    def is_live(self) -> bool: ...  # noqa: D102
    def is_ready(self) -> bool: ...  # noqa: D102
    def server_metadata(self) -> dict[str, Any]: ...  # noqa: D102
    def model_names(self) -> list[str]: ...  # noqa: D102
    def is_model_ready(self, name: str, version: str = "") -> bool: ...  # noqa: D102
    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]: ...  # noqa: D102
    def model_config(self, name: str, version: str = "") -> dict[str, Any]: ...  # noqa: D102
    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]: ...  # noqa: D102
    def repository_index(self, ready_only: bool) -> list[dict[str, Any]]: ...  # noqa: D102
    async def load_model(self, name: str, parameters: dict[str, Any]) -> None: ...  # noqa: D102
    async def unload_model(self, name: str, parameters: dict[str, Any]) -> None: ...  # noqa: D102
    def log_settings(self, update: dict[str, Any] | None) -> dict[str, Any]: ...  # noqa: D102


class SharedMemoryControl(Protocol):
    """Registration of shared memory; ``SharedMemoryRegions`` is the real one."""

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None: ...  # noqa: D102
    def unregister(self, name: str = "") -> None: ...  # noqa: D102
    def status(self, name: str = "") -> list[dict[str, Any]]: ...  # noqa: D102


def json_response(content: Json, status: int = 200) -> Response:
    """A response of ``content`` as JSON."""
    return Response(orjson.dumps(content), status, media_type="application/json")


async def read_json_object(request: Request, limit: int) -> dict[str, Any]:
    """Read the body, a JSON object of at most ``limit`` bytes; an empty body is an empty object.

    Raises ``MalformedRequest``, ``RequestTooLarge``, or ``RequestCancelled`` where the client left.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise RequestTooLarge(
                    f"the request body is larger than {limit} bytes; "
                    "--max-request-bytes raises the limit"
                )
    except ClientDisconnect:
        raise RequestCancelled("the client left before its request was complete") from None
    coding = request.headers.get("content-encoding")
    content = bytes(body) if coding is None else decompress(coding.encode(), bytes(body), limit)
    if not content.strip():
        return {}
    document = parse_json(content)
    if not isinstance(document, dict):
        raise MalformedRequest("the request must be a JSON object")
    return document


class ControlEndpoints:
    """The handlers, each named by what it answers."""

    def __init__(
        self, service: Service, shared_memory: SharedMemoryControl, max_request_bytes: int
    ) -> None:
        self._service: Final = service
        self._shared_memory: Final = shared_memory
        self._limit: Final = max_request_bytes

    def routes(self) -> list[Route]:
        """The routes of all handlers."""
        model, repository = "/v2/models/{model}", "/v2/repository"
        memory, cuda = "/v2/systemsharedmemory", "/v2/cudasharedmemory"
        get: list[tuple[str, Handler]] = [
            ("/v2", self.server_metadata),
            ("/v2/", self.server_metadata),
            ("/v2/health/live", self.live),
            ("/v2/health/ready", self.ready),
            ("/v2/models", self.models),
            ("/v2/models/stats", self.statistics),
            ("/v2/logging", self.log_settings),
            (f"{memory}/status", self.memory_status),
            (f"{memory}/region/{{region}}/status", self.memory_status),
            (f"{cuda}/status", self.cuda_status),
            (f"{cuda}/region/{{region}}/status", self.cuda_status),
        ]
        for prefix in (model, f"{model}/versions/{{version}}"):
            get += (
                (prefix, self.model_metadata),
                (f"{prefix}/ready", self.model_ready),
                (f"{prefix}/config", self.model_config),
                (f"{prefix}/stats", self.statistics),
            )
        post: list[tuple[str, Handler]] = [
            (f"{repository}/models/{{model}}/load", self.load),
            (f"{repository}/models/{{model}}/unload", self.unload),
            (f"{repository}/{{repository}}/models/{{model}}/load", self.load),
            (f"{repository}/{{repository}}/models/{{model}}/unload", self.unload),
            ("/v2/logging", self.update_log_settings),
            (f"{memory}/region/{{region}}/register", self.memory_register),
            (f"{memory}/region/{{region}}/unregister", self.memory_unregister),
            (f"{memory}/unregister", self.memory_unregister),
            (f"{cuda}/region/{{region}}/register", self.cuda_register),
            (f"{cuda}/region/{{region}}/unregister", self.cuda_unregister),
            (f"{cuda}/unregister", self.cuda_unregister),
        ]
        both: list[tuple[str, Handler]] = [
            (f"{repository}/index", self.repository_index),
            (f"{repository}/{{repository}}/index", self.repository_index),
            ("/v2/trace/setting", self.trace_settings),
            (f"{model}/trace/setting", self.trace_settings),
        ]
        return [
            Route(path, handler, methods=methods)
            for methods, handlers in ((["GET"], get), (["POST"], post), (["GET", "POST"], both))
            for path, handler in handlers
        ]

    # Server

    async def live(self, request: Request) -> Response:
        """Whether the process serves."""
        live = self._service.is_live()
        return json_response({"live": live}, 200 if live else 503)

    async def ready(self, request: Request) -> Response:
        """Whether inference may be sent: 503 where not."""
        ready = self._service.is_ready()
        return json_response({"ready": ready}, 200 if ready else 503)

    async def server_metadata(self, request: Request) -> Response:
        """The server's name, version and extensions."""
        return json_response(self._service.server_metadata())

    async def log_settings(self, request: Request) -> Response:
        """The log settings."""
        return json_response(self._service.log_settings(None))

    async def update_log_settings(self, request: Request) -> Response:
        """Change log settings; answers with all of them."""
        return json_response(self._service.log_settings(await self._body(request)))

    async def trace_settings(self, request: Request) -> Response:
        """Not offered."""
        raise Unsupported("this server has no trace settings")

    # Models

    async def models(self, request: Request) -> Response:
        """The names of the models."""
        return json_response({"models": self._service.model_names()})

    async def model_metadata(self, request: Request) -> Response:
        """The inputs and outputs of a model."""
        return json_response(self._service.model_metadata(*_model(request)))

    async def model_ready(self, request: Request) -> Response:
        """Whether a model answers: 503 where not, as the protocol's ``ready`` of the server."""
        name, version = _model(request)
        ready = self._service.is_model_ready(name, version)
        return json_response({"name": name, "ready": ready}, 200 if ready else 503)

    async def model_config(self, request: Request) -> Response:
        """The settings of a model, in Triton's form."""
        return json_response(self._service.model_config(*_model(request)))

    async def statistics(self, request: Request) -> Response:
        """The statistics of one model or of all."""
        return json_response(self._service.statistics(*_model(request)))

    # Repository

    async def repository_index(self, request: Request) -> Response:
        """All models of the repository and their states."""
        _check_repository(request)
        body = await self._body(request) if request.method == "POST" else {}
        ready = body.get("ready", False)
        if not isinstance(ready, bool):
            raise MalformedRequest("'ready' must be true or false")
        return json_response(self._service.repository_index(ready))

    async def load(self, request: Request) -> Response:
        """Load or reload a model; answers once it serves."""
        _check_repository(request)
        parameters = _parameters(await self._body(request))
        await self._service.load_model(request.path_params["model"], parameters)
        return json_response({})

    async def unload(self, request: Request) -> Response:
        """Unload a model; answers once it takes no more requests."""
        _check_repository(request)
        parameters = _parameters(await self._body(request))
        await self._service.unload_model(request.path_params["model"], parameters)
        return json_response({})

    # Shared memory

    async def memory_status(self, request: Request) -> Response:
        """One registered region, or all."""
        return json_response(self._shared_memory.status(request.path_params.get("region", "")))

    async def memory_register(self, request: Request) -> Response:
        """Register a POSIX shared memory object under a name."""
        body = await self._body(request)
        key, offset, size = body.get("key"), body.get("offset", 0), body.get("byte_size")
        if not isinstance(key, str):
            raise MalformedRequest("'key' must be the name of a shared memory object")
        if type(offset) is not int or type(size) is not int:
            raise MalformedRequest("'offset' and 'byte_size' must be integers")
        self._shared_memory.register(request.path_params["region"], key, offset, size)
        return json_response({})

    async def memory_unregister(self, request: Request) -> Response:
        """Forget one region, or all."""
        self._shared_memory.unregister(request.path_params.get("region", ""))
        return json_response({})

    async def cuda_status(self, request: Request) -> Response:
        """No CUDA region is ever registered."""
        return json_response([])

    async def cuda_register(self, request: Request) -> Response:
        """Not offered."""
        raise Unsupported("this server does not read CUDA shared memory; use system shared memory")

    async def cuda_unregister(self, request: Request) -> Response:
        """Nothing to forget; clients call it to start from a clean state."""
        return json_response({})

    async def _body(self, request: Request) -> dict[str, Any]:
        return await read_json_object(request, self._limit)


def _model(request: Request) -> tuple[str, str]:
    return request.path_params.get("model", ""), request.path_params.get("version", "")


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise MalformedRequest("'parameters' must be an object")
    return parameters


def _check_repository(request: Request) -> None:
    repository = request.path_params.get("repository", "")
    if repository:
        raise Unsupported(
            f"'{repository}' names a repository, but this server has one without a name; "
            "leave it out of the path"
        )
