"""Watching predictions and telling the truth about them, on the admin port."""

import math
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.front.admin_request import media_type, read_body, read_query
from gateway.front.event_stream import EventStream
from gateway.front.http_control import json_response
from gateway.front.live_feed import LiveStream, Pace
from gateway.tables import Check, wrong

#: Largest body of labels, in bytes.
MAX_LABELS_BYTES: Final = 16 << 20

#: The media types that labels may come as.
LABEL_KINDS: Final = (
    "application/json",
    "application/x-ndjson",
    "text/csv",
    "application/vnd.apache.parquet",
)


class Truth(Protocol):
    """Takes labels. Raises ``GatewayError``."""

    async def submit(self, model: str, kind: str, body: bytes) -> dict[str, Any]:
        """Take the labels in ``body``; how many ended how."""

    def report(self, model: str) -> dict[str, Any]:
        """How many labels were received, and how they ended."""


class Models(Protocol):
    """Knows which models there are."""

    def status(self, model: str) -> Any:
        """What serves. Raises ``ModelNotFound``."""


class WatchEndpoints:
    """The handlers, each named by what it does."""

    def __init__(self, models: Models, live: LiveStream, truth: Truth) -> None:
        self._models: Final = models
        self._live: Final = live
        self._truth: Final = truth
        self._pace: Final = Pace()

    def routes(self) -> list[Route]:
        """The routes of all handlers."""
        model = "/admin/models/{model}"
        return [
            Route(f"{model}/stream", self.stream, methods=["GET"]),
            Route(f"{model}/labels", self.labels, methods=["GET"]),
            Route(f"{model}/labels", self.label, methods=["POST"]),
        ]

    async def stream(self, request: Request) -> Response:
        """Predictions from now on, as server-sent events."""
        query = read_query(request, _STREAM)
        name = self._model(request)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        feed = self._live.open(
            "events", [_literal(name)], query.get("sample", 1.0), query.get("fields", ())
        )
        return _Streaming(EventStream(feed, self._pace, query.get("limit", 0)))

    async def labels(self, request: Request) -> Response:
        """How many labels were received, and how they ended."""
        return json_response(self._truth.report(self._model(request)))

    async def label(self, request: Request) -> Response:
        """Take labels."""
        kind = media_type(request, *LABEL_KINDS)
        name = self._model(request)
        body = await read_body(request, MAX_LABELS_BYTES)
        return json_response(await self._truth.submit(name, kind, body))

    def _model(self, request: Request) -> str:
        name: str = request.path_params["model"]
        self._models.status(name)
        return name


class _Streaming(Response):
    """A response that an application of its own writes."""

    def __init__(self, app: EventStream) -> None:
        super().__init__()
        self._app: Final = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _literal(name: str) -> str:
    """A pattern that matches this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _share(where: str, value: Any) -> float:
    try:
        share = float(value)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise wrong(where, "a share above 0 and at most 1", value)
    return share


def _fields(where: str, value: Any) -> tuple[str, ...]:
    fields = tuple(field for field in str(value).split(",") if field)
    if not fields or len(fields) > 1000:
        raise wrong(where, "names of tensors and features with commas between them", value)
    return fields


def _limit(where: str, value: Any) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 16 and int(value) > 0):
        raise wrong(where, "a whole number of predictions above 0", value)
    return int(value)


_STREAM: Final[dict[str, Check]] = {"sample": _share, "fields": _fields, "limit": _limit}
