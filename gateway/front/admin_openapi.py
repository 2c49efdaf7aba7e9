"""The OpenAPI 3.1 description of the admin port."""

from typing import Any, Final

from gateway.front.admin_alerts import ALERT_SCHEMAS
from gateway.front.admin_drift import DRIFT_SCHEMAS, drift_paths
from gateway.front.admin_schemas import REASON, SCHEMAS
from gateway.front.openapi_parts import (
    ANY_OBJECT,
    Schema,
    array_of,
    document_of,
    integer,
    object_of,
    operation_of,
    ref,
    text,
)

_ERRORS: Final = {
    400: "the request is wrong, or the version cannot be served; the message says where and why",
    403: "the Host header names another server",
    404: "no such model, version or label, or no canary or shadow to tell of",
    409: "not possible as things stand, or no predictions are kept to join labels with",
    412: "the verdict keeps the gate shut; the message is the reason",
    413: "the body is larger than 1 MiB, or than 16 MiB of labels",
    415: "the Content-Type is another",
    500: "internal error",
    503: "not now: not ready, too many subscribers or requests wait, or shutting down",
}
_READ: Final = (403, 404, 500)
_CHANGE: Final = (400, 403, 404, 409, 413, 415, 500, 503)
_LABELLED: Final = _CHANGE
_SHARE: Final[Schema] = {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 1}

_ACTOR: Final[Schema] = {
    "name": "X-Actor",
    "in": "header",
    "schema": text("who does it; the client's address where it is missing"),
}


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _read(tag: str, summary: str, answer: Schema) -> Schema:
    return operation_of(tag, summary, answer, _READ)


def _change(tag: str, summary: str, answer: Schema, body: Schema, required: bool = True) -> Schema:
    operation = operation_of(tag, summary, answer, _CHANGE, body)
    operation["requestBody"]["required"] = required
    operation["parameters"] = [_ACTOR]
    return operation


def _end(tag: str, summary: str) -> Schema:
    operation = operation_of(tag, summary, ref("ModelStatus"), (400, 403, 404, 409, 500, 503))
    operation["parameters"] = [_ACTOR, _query("reason", REASON)]
    return operation


def _model_paths(model: str) -> dict[str, Schema]:
    status, why = ref("ModelStatus"), ref("Reason")
    golden = _change("Models", "Record live requests", array_of(ANY_OBJECT), ref("Golden"))
    golden["parameters"] = []
    golden["description"] = (
        "Answers with one document for each request: its inputs, and the outputs as expected ones."
    )
    return {
        "/admin/models": {"get": _read("Models", "What serves, of all models", array_of(status))},
        model: {"get": _read("Models", "What serves", status)},
        f"{model}/promote": {
            "post": _change("Models", "Make a version the stable one", status, ref("Promotion"))
        },
        f"{model}/rollback": {
            "post": _change(
                "Models", "End the canary, or go back to the previous version", status, why
            )
        },
        f"{model}/follow-latest": {
            "post": _change("Models", "Serve the highest version, whichever it is", status, why)
        },
        f"{model}/labels/{{label}}": {
            "put": _change("Models", "Give a version a label", status, ref("Label")),
            "delete": _end("Models", "Remove a label"),
        },
        f"{model}/golden": {"post": golden},
    }


def _canary_paths(canary: str) -> dict[str, Schema]:
    status, why = ref("ModelStatus"), ref("Reason")
    verdict = _read("Canary", "The verdict", ref("CanaryVerdict"))
    verdict["description"] = (
        "Of the canary that is, or of the last one. Argo Rollouts' web metric reads it: "
        "jsonPath {$.result}, successCondition result == 'Successful', "
        "failureCondition result == 'Failed'; any other result is inconclusive."
    )
    gate = _change("Canary", "Flagger's webhook", ref("CanaryVerdict"), ref("FlaggerHook"))
    gate["parameters"] = []
    gate["responses"]["412"] = {"$ref": "#/components/responses/412"}
    gate["description"] = (
        "Shut while the verdict is fail, or, with metadata.require pass, while it is not pass. "
        "For hooks of the types confirm-rollout, rollout, confirm-traffic-increase and "
        "confirm-promotion; not for rollback, where Flagger takes success for a wish to go back."
    )
    return {
        canary: {
            "get": verdict,
            "put": _change("Canary", "Begin a canary", status, ref("CanaryPlan")),
            "delete": _end("Canary", "Abort the canary"),
        },
        f"{canary}/pause": {"post": _change("Canary", "Hold the canary at its step", status, why)},
        f"{canary}/resume": {"post": _change("Canary", "Let the canary go on", status, why)},
        f"{canary}/gate": {"post": gate},
    }


def _shadow_paths(shadow: str) -> dict[str, Schema]:
    status = ref("ModelStatus")
    return {
        shadow: {
            "get": _read("Shadow", "How alike the answers are", ref("ShadowReport")),
            "put": _change("Shadow", "Copy traffic to a shadow", status, ref("ShadowPlan")),
            "delete": _end("Shadow", "Stop the shadow"),
        },
        f"{shadow}/worst": {
            "get": _read("Shadow", "The pairs that disagree most", array_of(ref("Disagreement")))
        },
    }


def _alert_paths(alerts: str) -> dict[str, Schema]:
    answer, why = ref("ModelAlerts"), ref("Reason")
    end = _end("Alerts", "End a silence before its time")
    end["responses"]["200"]["content"]["application/json"]["schema"] = answer
    return {
        "/admin/alerts": {
            "get": _read("Alerts", "How the alerts stand, of all models", array_of(answer))
        },
        alerts: {"get": _read("Alerts", "How the alerts stand", answer)},
        f"{alerts}/acknowledge": {
            "post": _change("Alerts", "Say that you know of the open episode", answer, why)
        },
        f"{alerts}/silence": {
            "put": _change("Alerts", "Tell nobody for some time", answer, ref("Silence")),
            "delete": end,
        },
    }


def _record_paths() -> dict[str, Schema]:
    history = operation_of(
        "Record", "What was changed, the newest first", array_of(ref("HistoryEntry")), (400, 403)
    )
    history["parameters"] = [
        _query("model", text("only this model's")),
        _query("limit", {**integer("entries at most", minimum=1), "maximum": 1000, "default": 100}),
        _query("before", integer("only entries with a lower number; 0 for all")),
    ]
    verify = operation_of(
        "Record", "Whether the record is as it was written", ref("Verification"), (403, 500)
    )
    diff = _change(
        "Declared", "What apply would change", array_of(ref("Change")), ref("Declaration")
    )
    diff["parameters"] = []
    apply = _change("Declared", "Bring about what is declared", ref("Changes"), ref("Declaration"))
    apply["parameters"] = [
        _ACTOR,
        _query("reason", text("why; for a body of TOML, which has no key for it")),
    ]
    for operation in (diff, apply):
        operation["requestBody"]["content"]["application/toml"] = {"schema": text()}
    return {
        "/admin/stream": {
            "get": operation_of("Stream", "What became of the predictions", ref("Stream"), (403,))
        },
        "/admin/diff": {"post": diff},
        "/admin/apply": {"post": apply},
        "/admin/history": {"get": history},
        "/admin/history/verify": {"get": verify},
    }


def _watch_paths(model: str) -> dict[str, Schema]:
    stream = operation_of("Predictions", "Watch predictions go by", {}, (400, 403, 404, 500, 503))
    stream["responses"]["200"]["content"] = {
        "text/event-stream": {
            "schema": text(
                "server-sent events, data in JSON: columns (names of features) before the first "
                "prediction of a version, prediction for each request, dropped (how many were "
                "lost on the way to this client since the last such event), end"
            )
        }
    }
    stream["parameters"] = [
        _query("sample", {**_SHARE, "description": "of the requests that is wanted; 1 for all"}),
        _query("fields", text("tensors and features that are wanted, with commas; all else")),
        _query("limit", integer("predictions after which it ends; without, it does not", 1)),
    ]
    take = operation_of(
        "Predictions", "Tell what was true", ref("LabelOutcomes"), _LABELLED, ref("Labels")
    )
    take["description"] = (
        "Labels are joined with predictions by the request's id, whichever comes first. As CSV and "
        "Parquet they are columns: id, value, and maybe row and time. Sending them again does no "
        "harm."
    )
    for kind in ("application/x-ndjson", "text/csv", "application/vnd.apache.parquet"):
        take["requestBody"]["content"][kind] = {"schema": text()}
    return {
        f"{model}/stream": {"get": stream},
        f"{model}/labels": {
            "get": _read("Predictions", "What became of labels", ref("LabelReport")),
            "post": take,
        },
    }


def _own_paths() -> dict[str, Schema]:
    page = operation_of("Server", "This document for people", {})
    page["responses"]["200"]["content"] = {"text/html": {"schema": text()}}
    return {
        "/healthz": {
            "get": operation_of(
                "Server", "Whether this port answers", object_of(["status"], status=text()), (403,)
            )
        },
        "/openapi.json": {"get": operation_of("Server", "This document", ANY_OBJECT)},
        "/docs": {"get": page},
    }


def admin_document(version: str) -> dict[str, Any]:
    """Return the description of every endpoint, for the server's ``version``."""
    model = "/admin/models/{model}"
    paths = {
        **_model_paths(model),
        **_canary_paths(f"{model}/canary"),
        **_shadow_paths(f"{model}/shadow"),
        **_alert_paths(f"{model}/alerts"),
        **drift_paths(model),
        **_record_paths(),
        **_watch_paths(model),
        **_own_paths(),
    }
    return document_of(
        version,
        "onnx-gateway admin",
        "Which version of a model serves, which is tried, and who changed it",
        paths,
        {**SCHEMAS, **ALERT_SCHEMAS, **DRIFT_SCHEMAS},
        _ERRORS,
    )
