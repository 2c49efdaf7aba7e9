"""The admin port: what serves, what is tried, and who changed it, over HTTP.

Every change goes through ``Admin``, which the control plane's rollouts are; here are its calls as
routes, and what a route's body may hold. ``admin_openapi.py`` describes all of it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import orjson
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import MalformedRequest
from gateway.front.admin_openapi import admin_document
from gateway.front.admin_request import (
    HostCheck,
    actor,
    read_document,
    read_fields,
    read_object,
    read_query,
    read_reason,
    reason,
)
from gateway.front.http_app import application_of, docs_routes
from gateway.front.http_context import HttpLimits
from gateway.front.http_control import Handler, json_response
from gateway.front.http_heads import ResponseHeads
from gateway.front.http_server import Listener, write_access_log
from gateway.tables import Check, integer, number, version, wrong

Table: TypeAlias = dict[str, Any]
_ModelCall: TypeAlias = Callable[..., Awaitable[Table]]

#: Most entries of one answer of ``/admin/history``, and how many there are unless told otherwise.
MAX_HISTORY: Final = 1000
DEFAULT_HISTORY: Final = 100
#: Most golden requests of one recording, and the seconds that one may wait for them.
MAX_GOLDEN: Final = 1000
MAX_GOLDEN_WAIT_S: Final = 600.0
DEFAULT_GOLDEN_WAIT_S: Final = 60.0

#: Of a canary's verdict: a gate is shut, in the words of HTTP a precondition that does not hold.
_GATE_SHUT: Final = 412


class Admin(Protocol):
    """What the admin port can do; the control plane's ``Rollouts`` is the real one.

    ``by`` is who asks, ``reason`` why; both are recorded. Plans and declarations are plain tables,
    read where they are used. Each call raises a ``GatewayError``, which tells the caller what is
    wrong, and then has changed nothing.
    """

    async def promote(self, model: str, version: str, *, by: str, reason: str = "") -> Table: ...  # noqa: D102
    async def rollback(self, model: str, *, by: str, reason: str = "") -> Table: ...  # noqa: D102
    async def follow_latest(self, model: str, *, by: str, reason: str = "") -> Table: ...  # noqa: D102
    async def start_canary(  # noqa: D102
        self, model: str, plan: Mapping[str, Any], *, by: str, reason: str = ""
    ) -> Table: ...
    async def pause_canary(self, model: str, *, by: str, reason: str = "") -> Table: ...  # noqa: D102
    async def resume_canary(self, model: str, *, by: str, reason: str = "") -> Table: ...  # noqa: D102
    async def abort_canary(self, model: str, *, by: str, reason: str = "") -> Table: ...  # noqa: D102
    async def start_shadow(  # noqa: D102
        self, model: str, plan: Mapping[str, Any], *, by: str, reason: str = ""
    ) -> Table: ...
    async def stop_shadow(self, model: str, *, by: str, reason: str = "") -> Table: ...  # noqa: D102
    async def set_label(  # noqa: D102
        self, model: str, label: str, version: str, *, by: str, reason: str = ""
    ) -> Table: ...
    async def remove_label(  # noqa: D102
        self, model: str, label: str, *, by: str, reason: str = ""
    ) -> Table: ...
    def status(self, model: str) -> Table: ...  # noqa: D102
    def statuses(self) -> list[Table]: ...  # noqa: D102
    def canary_verdict(self, model: str) -> Table: ...  # noqa: D102
    async def shadow_report(self, model: str) -> Table: ...  # noqa: D102
    async def shadow_worst(self, model: str) -> list[Table]: ...  # noqa: D102
    async def history(  # noqa: D102
        self, model: str = "", *, limit: int = 100, before: int = 0
    ) -> list[Table]: ...
    async def verify_journal(self) -> Table: ...  # noqa: D102
    async def diff(self, tables: Mapping[str, Any]) -> list[Table]: ...  # noqa: D102
    async def apply(self, tables: Mapping[str, Any], *, by: str, reason: str = "") -> Table: ...  # noqa: D102
    async def record_golden(  # noqa: D102
        self, model: str, count: int, *, version: str = "", timeout_s: float
    ) -> list[Table]: ...


def _no_stream() -> Table:
    return {"served": [], "sinks": []}


class AdminFront:
    """Serves ``Admin`` on a port of its own; lives on the event loop's thread."""

    def __init__(
        self,
        admin: Admin,
        *,
        version: str,
        host: str,
        port: int,
        allowed_hosts: Sequence[str] = (),
        limits: HttpLimits | None = None,
        access_log: bool = False,
        more: Sequence[Route] = (),
        stream: Callable[[], Table] = _no_stream,
    ) -> None:
        """Prepare a front on ``host``:``port``; port 0 takes any free one.

        Args:
            admin: what is served.
            version: the server's, for the OpenAPI document.
            host: the address or name to listen on; clients may ask for it by that name.
            port: see above.
            allowed_hosts: further names that clients may ask for it by, see ``HostCheck``.
            limits: what a silent client may hold; bodies have limits of their own.
            access_log: whether each request is logged.
            more: routes of other parts.
            stream: what became of the predictions.
        """
        self._limits: Final = limits or HttpLimits()
        self._app: Final = application_of(
            [*AdminEndpoints(admin, stream).routes(), *more, *docs_routes(admin_document(version))],
            write_access_log if access_log else None,
            [Middleware(HostCheck, names=(host, *allowed_hosts))],
        )
        self._listener: Final = Listener(
            host, port, "--admin-port", ResponseHeads(), "--admin-host"
        )

    @property
    def port(self) -> int:
        """The port that was asked for, and the bound one once started."""
        return self._listener.port

    async def start(self) -> None:
        """Bind and serve on the running loop. Raises ``StartupError`` where the port is taken."""
        await self._listener.listen_bounded(self._app, self._limits)

    def stop_accepting(self) -> None:
        """Take no new connections; those that are open go on."""
        self._listener.stop_accepting()

    async def close(self, grace_s: float) -> None:
        """Finish what is in flight within ``grace_s`` seconds, and end every connection."""
        await self._listener.close(grace_s)


class AdminEndpoints:
    """The handlers, each named by what it does."""

    def __init__(self, admin: Admin, stream: Callable[[], Table]) -> None:
        self._admin: Final = admin
        self._stream: Final = stream

    def routes(self) -> list[Route]:
        """The routes of all handlers."""
        admin = self._admin
        model = "/admin/models/{model}"
        canary, shadow, label = f"{model}/canary", f"{model}/shadow", f"{model}/labels/{{label}}"
        handlers: list[tuple[str, str, Handler]] = [
            ("GET", "/healthz", self.health),
            ("GET", "/admin/models", self.statuses),
            ("GET", model, self.status),
            ("POST", f"{model}/promote", self.promote),
            ("POST", f"{model}/rollback", _posted(admin.rollback)),
            ("POST", f"{model}/follow-latest", _posted(admin.follow_latest)),
            ("GET", canary, self.canary_verdict),
            ("PUT", canary, _planned(admin.start_canary)),
            ("DELETE", canary, _deleted(admin.abort_canary)),
            ("POST", f"{canary}/pause", _posted(admin.pause_canary)),
            ("POST", f"{canary}/resume", _posted(admin.resume_canary)),
            ("POST", f"{canary}/gate", self.canary_gate),
            ("GET", shadow, self.shadow_report),
            ("PUT", shadow, _planned(admin.start_shadow)),
            ("DELETE", shadow, _deleted(admin.stop_shadow)),
            ("GET", f"{shadow}/worst", self.shadow_worst),
            ("PUT", label, self.set_label),
            ("DELETE", label, _deleted(admin.remove_label)),
            ("POST", f"{model}/golden", self.record_golden),
            ("GET", "/admin/stream", self.stream),
            ("GET", "/admin/history", self.history),
            ("GET", "/admin/history/verify", self.verify_journal),
            ("POST", "/admin/diff", self.diff),
            ("POST", "/admin/apply", self.apply),
        ]
        return [Route(path, handler, methods=[method]) for method, path, handler in handlers]

    async def health(self, request: Request) -> Response:
        """Whether this port answers; ``/v2/health/ready`` of the HTTP port tells of the models."""
        return json_response({"status": "ok"})

    # What stands

    async def statuses(self, request: Request) -> Response:
        """All models: what serves, what is tried, which versions there are."""
        return json_response(self._admin.statuses())

    async def status(self, request: Request) -> Response:
        """The same of one model."""
        return json_response(self._admin.status(_model(request)))

    async def canary_verdict(self, request: Request) -> Response:
        """How the canary that is, or the last one, stands."""
        return json_response(self._admin.canary_verdict(_model(request)))

    async def shadow_report(self, request: Request) -> Response:
        """How alike the shadow's answers are."""
        return json_response(await self._admin.shadow_report(_model(request)))

    async def shadow_worst(self, request: Request) -> Response:
        """The pairs that disagree most, with their inputs."""
        return await _tensor_response(await self._admin.shadow_worst(_model(request)))

    async def history(self, request: Request) -> Response:
        """What was changed, the newest first."""
        query = read_query(request, _HISTORY)
        entries = await self._admin.history(
            query.get("model", ""),
            limit=query.get("limit", DEFAULT_HISTORY),
            before=query.get("before", 0),
        )
        return json_response(entries)

    async def verify_journal(self, request: Request) -> Response:
        """Whether the record of changes is as it was written."""
        return json_response(await self._admin.verify_journal())

    async def stream(self, request: Request) -> Response:
        """What became of the predictions: how each sink fares, and its account of each model."""
        return json_response(self._stream())

    async def diff(self, request: Request) -> Response:
        """What ``apply`` would change."""
        document, _ = await read_document(request)
        return json_response(await self._admin.diff(document))

    # What is changed

    async def promote(self, request: Request) -> Response:
        """Make a version the stable one; answers once no new request meets another."""
        body = await read_fields(request, {"version": version, "reason": reason}, "version")
        status = await self._admin.promote(
            _model(request), body["version"], by=actor(request), reason=body.get("reason", "")
        )
        return json_response(status)

    async def set_label(self, request: Request) -> Response:
        """Give a version a name."""
        body = await read_fields(request, {"version": version, "reason": reason}, "version")
        status = await self._admin.set_label(
            _model(request),
            request.path_params["label"],
            body["version"],
            by=actor(request),
            reason=body.get("reason", ""),
        )
        return json_response(status)

    async def apply(self, request: Request) -> Response:
        """Bring the models' traffic to what is declared."""
        document, why = await read_document(request)
        return json_response(await self._admin.apply(document, by=actor(request), reason=why))

    async def record_golden(self, request: Request) -> Response:
        """Wait for live requests and give them, with their answers, as golden documents."""
        body = await read_fields(request, _GOLDEN, "count")
        documents = await self._admin.record_golden(
            _model(request),
            body["count"],
            version=body.get("version", ""),
            timeout_s=body.get("timeout_s", DEFAULT_GOLDEN_WAIT_S),
        )
        return await _tensor_response(documents)

    async def canary_gate(self, request: Request) -> Response:
        """Flagger's webhook: whether the canary may go on.

        Flagger goes on at a status of 2xx and shows the body of any other. Keys of its body that
        are not known here are its own affair and let pass.
        """
        body = await read_object(request)
        metadata = body.get("metadata") or {}
        wanted = metadata.get("require", "not-fail") if isinstance(metadata, dict) else None
        if wanted not in ("not-fail", "pass"):
            raise MalformedRequest(
                "metadata must be an object, and its 'require' one of 'not-fail' and 'pass'"
            )
        verdict = self._admin.canary_verdict(_model(request))
        found = verdict["verdict"]
        if found == "fail" or (wanted == "pass" and found != "pass"):
            message = f"version {verdict['version']} of {verdict['model']}: {found}"
            if verdict["reason"]:
                message += f"; {verdict['reason']}"
            return json_response({"error": message}, _GATE_SHUT)
        return json_response(verdict)


def _model(request: Request) -> str:
    name: str = request.path_params["model"]
    return name


async def _tensor_response(documents: list[Table]) -> Response:
    """A response of documents that hold tensors, which may be large: a thread writes them."""

    def encode() -> bytes:
        return b"[" + b",".join(map(_encode_tensors, documents)) + b"]"

    return Response(await asyncio.to_thread(encode), media_type="application/json")


def _encode_tensors(document: Table) -> bytes:
    """``document`` as JSON in which a number that is not finite is NaN or Infinity."""
    encoded = orjson.dumps(document)
    # orjson writes such numbers as null; Python's own encoder is slow, so it is the exception.
    return json.dumps(document).encode() if b"null" in encoded else encoded


def _posted(call: _ModelCall) -> Handler:
    """A handler of a change that needs nothing but its model."""

    async def handle(request: Request) -> Response:
        body = await read_fields(request, {"reason": reason})
        status = await call(_model(request), by=actor(request), reason=body.get("reason", ""))
        return json_response(status)

    return handle


def _planned(call: _ModelCall) -> Handler:
    """A handler of a change that is described by a plan; the plan's keys are the callee's."""

    async def handle(request: Request) -> Response:
        plan = await read_object(request)
        why = reason("reason", plan.pop("reason", ""))
        return json_response(await call(_model(request), plan, by=actor(request), reason=why))

    return handle


def _deleted(call: _ModelCall) -> Handler:
    """A handler of what ends something: a model's canary or shadow, or one of its labels."""

    async def handle(request: Request) -> Response:
        why = await read_reason(request)
        names = request.path_params.values()
        return json_response(await call(*names, by=actor(request), reason=why))

    return handle


def _whole_number(least: int, most: int) -> Check:
    """A check of a query parameter: the digits of a number from ``least`` to ``most``."""

    def check(where: str, value: Any) -> int:
        digits = value.isascii() and value.isdigit() and len(value) < 20
        if not digits or not least <= int(value) <= most:
            raise wrong(where, f"a whole number from {least} to {most}", value)
        return int(value)

    return check


def _any_text(where: str, value: Any) -> Any:
    return value


def _count(where: str, value: Any) -> int:
    if integer(1)(where, value) > MAX_GOLDEN:
        raise wrong(where, f"an integer from 1 to {MAX_GOLDEN}", value)
    return int(value)


def _wait(where: str, value: Any) -> float:
    if not 0 < number(where, value) <= MAX_GOLDEN_WAIT_S:
        raise wrong(where, f"seconds above 0 and at most {MAX_GOLDEN_WAIT_S:g}", value)
    return float(value)


_HISTORY: Final[dict[str, Check]] = {
    "model": _any_text,
    "limit": _whole_number(1, MAX_HISTORY),
    "before": _whole_number(0, 2**63 - 1),
}
_GOLDEN: Final[dict[str, Check]] = {
    "count": _count,
    "version": version,
    "timeout_s": _wait,
}
