"""The alerts on the admin port: how they stand, who knows of them, what is silenced."""

from typing import Any, Final, Protocol, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.front.admin_request import actor, read_fields, read_reason, reason
from gateway.front.http_control import Handler, json_response
from gateway.front.openapi_parts import (
    ANY_OBJECT,
    Schema,
    array_of,
    integer,
    object_of,
    ref,
    text,
)
from gateway.tables import Check, number, wrong

Table: TypeAlias = dict[str, Any]

#: Longest silence, in seconds.
MAX_SILENCE_S: Final = 30 * 86_400.0


class Alerts(Protocol):
    """What the admin port can do about alerts; the monitors' ``Alerting`` is the real one.

    Each call raises a ``GatewayError``, which tells the caller what is wrong.
    """

    def alerts(self, model: str) -> Table: ...  # noqa: D102
    def all_alerts(self) -> list[Table]: ...  # noqa: D102
    async def acknowledge(self, model: str, *, by: str, reason: str = "") -> Table: ...  # noqa: D102
    async def silence(  # noqa: D102
        self, model: str, for_s: float, *, by: str, reason: str = ""
    ) -> Table: ...
    async def end_silence(self, model: str, *, by: str, reason: str = "") -> Table: ...  # noqa: D102


class AlertEndpoints:
    """The handlers, each named by what it does."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts: Final = alerts

    def routes(self) -> list[Route]:
        """The routes of all handlers."""
        path = "/admin/models/{model}/alerts"
        handlers: list[tuple[str, str, Handler]] = [
            ("GET", "/admin/alerts", self.all_alerts),
            ("GET", path, self.alerts),
            ("POST", f"{path}/acknowledge", self.acknowledge),
            ("PUT", f"{path}/silence", self.silence),
            ("DELETE", f"{path}/silence", self.end_silence),
        ]
        return [Route(path, handler, methods=[method]) for method, path, handler in handlers]

    async def all_alerts(self, request: Request) -> Response:
        """How the alerts of every model stand."""
        return json_response(self._alerts.all_alerts())

    async def alerts(self, request: Request) -> Response:
        """The same of one model."""
        return json_response(self._alerts.alerts(_model(request)))

    async def acknowledge(self, request: Request) -> Response:
        """Say that somebody knows of the model's episode."""
        body = await read_fields(request, {"reason": reason})
        why = body.get("reason", "")
        return json_response(
            await self._alerts.acknowledge(_model(request), by=actor(request), reason=why)
        )

    async def silence(self, request: Request) -> Response:
        """Tell nobody anything of the model, for some time."""
        body = await read_fields(request, _SILENCE, "for_s")
        why = body.get("reason", "")
        return json_response(
            await self._alerts.silence(
                _model(request), body["for_s"], by=actor(request), reason=why
            )
        )

    async def end_silence(self, request: Request) -> Response:
        """End it before its time."""
        why = await read_reason(request)
        return json_response(
            await self._alerts.end_silence(_model(request), by=actor(request), reason=why)
        )


def _model(request: Request) -> str:
    name: str = request.path_params["model"]
    return name


def _seconds(where: str, value: Any) -> float:
    if not 0 < number(where, value) <= MAX_SILENCE_S:
        raise wrong(where, f"seconds above 0 and at most {MAX_SILENCE_S:.0f}, 30 days", value)
    return float(value)


_SILENCE: Final[dict[str, Check]] = {"for_s": _seconds, "reason": reason}

_REASON: Final = text("why; it is recorded")
_NUMBER_OR_NULL: Final[Schema] = {"type": ["number", "null"]}
_STATES: Final[Schema] = {"type": "string", "enum": ["no data", "ok", "warning", "drifted"]}

#: What the answers above look like, for the OpenAPI document.
ALERT_SCHEMAS: Final[dict[str, Schema]] = {
    "Silence": object_of(
        ["for_s"],
        for_s={
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": MAX_SILENCE_S,
            "description": "seconds for which nobody is told and no episode begins",
        },
        reason=_REASON,
    ),
    "Alert": object_of(
        ["kind", "alert", "state", "finding"],
        kind={"type": "string", "enum": ["subject", "test", "rule"]},
        alert=text("the feature or output, the measure of the whole model, or the rule"),
        state=_STATES,
        finding={
            "description": "the last one, the worst of its window, as a Finding, in which a number "
            "that is not finite is text; null before the first"
        },
    ),
    "VersionAlerts": object_of(
        ["version", "state", "window", "alerts"],
        version=text(),
        state={**_STATES, "description": "the worst of tests and rules"},
        window={"type": ["integer", "null"], "description": "number of the last window"},
        alerts=array_of(ref("Alert")),
    ),
    "Firing": object_of(
        ["action", "phase", "attempts", "next_at", "result"],
        action=text(),
        phase={
            "type": "string",
            "enum": ["pending", "running", "succeeded", "failed", "cancelled"],
        },
        attempts=integer(),
        next_at={"type": "number", "description": "Unix seconds of the next attempt; 0 for now"},
        result=text("what the last attempt came to"),
    ),
    "Episode": object_of(
        ["id", "model", "version", "began", "alerts", "evidence", "firings", "acknowledged"],
        id=text("the idempotency key of its actions"),
        model=text(),
        version=text("that has drifted"),
        began={"type": "number", "description": "Unix seconds"},
        alerts=array_of(text("kind:name of an alert that was drifted")),
        evidence={**ANY_OBJECT, "description": "the window that made it begin, its findings"},
        firings=array_of(ref("Firing")),
        acknowledged=text("who knows of it"),
        ended={**_NUMBER_OR_NULL, "description": "Unix seconds; null while it is open"},
        ended_by=text("the version that took its place; empty where the drift went away"),
    ),
    "ModelAlerts": object_of(
        ["model", "serving", "versions", "episode", "silence", "recent"],
        model=text(),
        serving={"type": ["string", "null"]},
        versions=array_of(ref("VersionAlerts")),
        episode={"description": "the open Episode, or null"},
        silence={"description": "until when, by whom and why, or null"},
        recent=array_of(ref("Episode")),
    ),
}
