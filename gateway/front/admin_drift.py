"""What the monitors have found, over the admin port."""

from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.front.admin_request import read_query
from gateway.front.http_control import json_response
from gateway.front.openapi_parts import (
    Schema,
    array_of,
    integer,
    object_of,
    operation_of,
    ref,
    text,
)
from gateway.tables import Check, wrong

#: Most windows of one answer.
MAX_WINDOWS: Final = 1000


class DriftReports(Protocol):
    """What the monitors have found; ``Monitors`` is the real one."""

    def drift(self, model: str, windows: int = 1) -> dict[str, Any]:
        """The last ``windows`` reports of each version. Raises ``NotFound``."""


class DriftEndpoints:
    """The handlers, each named by what it does."""

    def __init__(self, reports: DriftReports) -> None:
        self._reports: Final = reports

    def routes(self) -> list[Route]:
        """The routes of all handlers."""
        return [Route("/admin/models/{model}/drift", self.drift, methods=["GET"])]

    async def drift(self, request: Request) -> Response:
        """The last windows of each version of a model."""
        query = read_query(request, _QUERY)
        return json_response(
            self._reports.drift(request.path_params["model"], query.get("windows", 1))
        )


def _windows(where: str, value: Any) -> int:
    digits = value.isascii() and value.isdigit() and len(value) < 20
    if not digits or int(value) > MAX_WINDOWS:
        raise wrong(where, f"a whole number from 0 to {MAX_WINDOWS}", value)
    return int(value)


_QUERY: Final[dict[str, Check]] = {"windows": _windows}


# -- how it is described ----------------------------------------------------------------------


def drift_paths(model: str) -> dict[str, Schema]:
    """The paths of the OpenAPI document, under the path of ``model``."""
    operation = operation_of(
        "Monitors",
        "What the monitors have found, version by version",
        ref("Drift"),
        (400, 403, 404, 500),
    )
    windows = integer("how many of the last windows of each version, the newest first")
    operation["parameters"] = [
        {
            "name": "windows",
            "in": "query",
            "schema": {**windows, "maximum": MAX_WINDOWS, "default": 1},
        }
    ]
    return {f"{model}/drift": {"get": operation}}


_LEVEL: Final[Schema] = {"type": "string", "enum": ["no data", "ok", "warning", "drifted"]}


def _number(description: str) -> Schema:
    return {"type": ["number", "null"], "description": description}


DRIFT_SCHEMAS: Final[dict[str, Schema]] = {
    "Finding": object_of(
        ["subject", "test", "value", "p_value", "threshold", "level", "detail"],
        subject=text("the feature or output; empty for the model as a whole"),
        test=text("the measure, as psi"),
        value=_number("the figure; null where there was too little data, or where it is infinite"),
        p_value=_number("corrected for the number of features; null where the test has none"),
        threshold=_number("what value, or p_value, is held against to be drifted"),
        level=_LEVEL,
        detail=text("a sentence for people"),
    ),
    "WindowReport": object_of(
        ["number", "began", "ended", "rows", "level", "findings"],
        number=integer("counts the windows of the version from 0"),
        began=_number("when its first prediction was answered, Unix seconds"),
        ended=_number("when its last one was"),
        rows=integer("predictions in it"),
        level=_LEVEL,
        findings=array_of(ref("Finding")),
    ),
    "VersionDrift": object_of(
        ["version", "state", "reason", "level", "windows", "rows", "reports"],
        version=text(),
        state={
            "type": "string",
            "enum": ["starting", "watching", "collecting", "outdated", "failed", "unloaded"],
            "description": "collecting: the first predictions become the reference; outdated: "
            "watched, but not as its files say now",
        },
        reason=text("why it is outdated or failed"),
        level=_LEVEL,
        reference={
            "type": ["object", "null"],
            "description": "where the reference is from: name, rows, made, digest",
        },
        rows_to_collect=integer("predictions that the reference still needs"),
        window={"type": "object", "description": "rows, seconds, step and min_rows of a window"},
        correction=text("of p-values, for the number of features"),
        windows=integer("how many there were"),
        rows=integer("predictions that were looked at"),
        unlike_rows=integer("predictions that are unlike the reference, and were not"),
        reports=array_of(ref("WindowReport")),
    ),
    "Drift": object_of(["model", "versions"], model=text(), versions=array_of(ref("VersionDrift"))),
}
