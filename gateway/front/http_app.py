"""The Starlette application: everything over HTTP but the inference path."""

from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import GatewayError, Unavailable
from gateway.front.docs_page import render_docs_page
from gateway.front.http_context import AccessLog, Dispatcher
from gateway.front.http_control import (
    ControlEndpoints,
    Service,
    SharedMemoryControl,
    json_response,
    read_json_object,
)
from gateway.front.http_heads import error_body, retry_after
from gateway.front.openapi import openapi_document
from gateway.front.status import status_of
from gateway.front.wire_v1 import decode_instances, encode_predictions

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def build_app(
    dispatcher: Dispatcher,
    service: Service,
    shared_memory: SharedMemoryControl,
    metrics: Callable[[], bytes],
    max_request_bytes: int,
    access_log: AccessLog | None,
) -> ASGIApp:
    """Build the application of the HTTP front; ``metrics`` gives the body of ``/metrics``."""
    predictions = _PredictEndpoints(dispatcher, service, max_request_bytes)
    routes = [
        *ControlEndpoints(service, shared_memory, max_request_bytes).routes(),
        *predictions.routes(),
        *_inference_routes(),
        _metrics_route(metrics),
        *docs_routes(openapi_document(service.server_metadata()["version"])),
    ]
    return application_of(routes, access_log)


def build_metrics_app(metrics: Callable[[], bytes], access_log: AccessLog | None) -> ASGIApp:
    """Build an application of ``/metrics`` alone, for a port of its own."""
    return application_of([_metrics_route(metrics)], access_log)


def _inference_routes() -> list[Route]:
    """The inference path for other methods; a POST never gets here."""

    async def post_only(request: Request) -> Response:
        raise HTTPException(405, headers={"Allow": "POST"})

    methods = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return [
        Route(f"/v2/models/{{model}}{version}/infer", post_only, methods=methods)
        for version in ("", "/versions/{version}")
    ]


def _metrics_route(metrics: Callable[[], bytes]) -> Route:
    async def endpoint(request: Request) -> Response:
        return Response(metrics(), media_type=_METRICS_TYPE)

    return Route("/metrics", endpoint)


def docs_routes(document: dict[str, Any]) -> list[Route]:
    """The OpenAPI ``document``, and the page that shows it."""
    page = render_docs_page(document)

    async def openapi(request: Request) -> Response:
        return json_response(document)

    async def docs(request: Request) -> Response:
        return HTMLResponse(page)

    return [Route("/openapi.json", openapi), Route("/docs", docs)]


def application_of(
    routes: list[Route], access_log: AccessLog | None, middleware: Sequence[Middleware] = ()
) -> ASGIApp:
    """An application of ``routes`` that answers every error in the protocol's form."""
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={
            GatewayError: _gateway_error,
            HTTPException: _http_exception,
            Exception: _unexpected_error,
        },
    )
    # A path is right or wrong: a redirect would send a POST on as a GET.
    app.router.redirect_slashes = False
    return app if access_log is None else _AccessLogged(app, access_log)


class _PredictEndpoints:
    """The V1 protocol."""

    def __init__(self, dispatcher: Dispatcher, service: Service, max_request_bytes: int) -> None:
        self._dispatcher = dispatcher
        self._service = service
        self._limit = max_request_bytes

    def routes(self) -> list[Route]:
        return [
            Route("/", self.alive),
            Route("/v1/models", self.models),
            Route("/v1/models/{model}:predict", self.predict, methods=["POST"]),
            Route("/v1/models/{model}", self.model),
        ]

    async def alive(self, request: Request) -> Response:
        live = self._service.is_live()
        return json_response({"status": "alive" if live else "dead"}, 200 if live else 503)

    async def models(self, request: Request) -> Response:
        return json_response({"models": self._service.model_names()})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        ready = self._service.is_model_ready(name)
        return json_response({"name": name, "ready": ready}, 200 if ready else 503)

    async def predict(self, request: Request) -> Response:
        name = request.path_params["model"]
        metadata = self._service.model_metadata(name)
        document = await read_json_object(request, self._limit)
        infer_request = decode_instances(name, document, metadata)
        infer_request.metadata = dict(request.headers.raw)
        response = await self._dispatcher.infer(infer_request)
        body = encode_predictions(response, len(document["instances"]))
        return Response(body, media_type="application/json")


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    headers = {}
    if isinstance(error, Unavailable) and error.retry_after_s is not None:
        headers["retry-after"] = retry_after(error.retry_after_s).decode()
    status, _ = status_of(error)
    return Response(error_body(error), status, headers, media_type="application/json")


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = error.detail
    if error.status_code == 404:
        message = f"there is nothing at {request.url.path}; /docs lists what there is"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "other methods")
        message = f"{request.url.path} takes {allowed}, not {request.method}"
    response = json_response({"error": message}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _unexpected_error(request: Request, error: Exception) -> Response:
    # The server logs the traceback.
    return json_response({"error": "internal error; the server's log has the details"}, 500)


class _AccessLogged:
    """Writes one line of the access log for each request."""

    def __init__(self, app: ASGIApp, access_log: AccessLog) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_ns = monotonic_ns()
        status = 0
        size = 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            client = "{}:{}".format(*scope["client"]) if scope["client"] else ""
            elapsed_ns = monotonic_ns() - started_ns
            self._access_log(client, scope["method"], scope["path"], status, size, elapsed_ns)
