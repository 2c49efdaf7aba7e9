"""The OpenAPI 3.1 description of the admin port."""

from typing import Any, Final

from gateway.front.openapi_parts import (
    ANY_OBJECT,
    FLAG,
    Schema,
    array_of,
    document_of,
    error_schema,
    integer,
    object_of,
    operation_of,
    ref,
    text,
)

_VERSION: Final = text("a version, or a label of one")
_REASON: Final = text("why; it is recorded")
_VERDICTS: Final[Schema] = {
    "type": "string",
    "enum": ["pass", "fail", "inconclusive", "running"],
}
_NUMBER: Final[Schema] = {"type": "number"}


def _share(description: str) -> Schema:
    return {"type": "number", "minimum": 0, "maximum": 1, "description": description}


def _percent(description: str) -> Schema:
    return {"type": "number", "exclusiveMinimum": 0, "maximum": 100, "description": description}


_SCHEMAS: Final[dict[str, Schema]] = {
    "Error": error_schema(),
    "Reason": object_of([], reason=_REASON),
    "Promotion": object_of(["version"], version=_VERSION, reason=_REASON),
    "Label": object_of(["version"], version=_VERSION, reason=_REASON),
    "VersionState": object_of(
        ["version", "state", "reason"],
        version=text(),
        state=text(),
        reason=text("why it does not serve"),
        digest=text("SHA-256 of the model's file"),
    ),
    "ModelStatus": object_of(
        ["model", "traffic", "serving", "versions", "labels"],
        model=text(),
        traffic={**ANY_OBJECT, "description": "what was decided: stable, labels, canary, shadow"},
        serving=text("the version that answers requests which name none"),
        versions=array_of(ref("VersionState")),
        labels={"type": "object", "additionalProperties": text("the version that it names")},
    ),
    "CanaryStep": object_of(
        ["percent"],
        percent=_percent("of the traffic that the candidate gets"),
        hold_s={**_NUMBER, "description": "seconds that the step lasts at least"},
        min_requests=integer("answers of the candidate that it lasts at least"),
    ),
    "CanaryGates": object_of(
        [],
        alpha=_share("chance that a candidate within all limits is rolled back"),
        max_error_increase=_share("limit for the share of failed requests, candidate minus stable"),
        max_latency_ratio={
            **_NUMBER,
            "description": "a request is slow beyond this many times the stable version's quantile",
        },
        latency_quantile=_share("the quantile of the stable version's latency"),
        max_slow_increase=_share("limit for the share of slow requests, candidate minus stable"),
        max_output_shift=_share("limit for a shift of the answers; 1 compares none"),
    ),
    "CanaryPlan": object_of(
        ["version"],
        version=text("the candidate"),
        steps=array_of(ref("CanaryStep")),
        sticky_header=text("HTTP header or gRPC metadata key whose value decides who answers"),
        sticky_parameter=text("a request parameter that does the same; goes after the header"),
        auto_promote={**FLAG, "description": "promote when all gates hold at the end"},
        gates=ref("CanaryGates"),
        reason=_REASON,
    ),
    "Gate": object_of(
        ["gate", "verdict", "difference", "low", "high", "limit"],
        gate=text("errors, latency, or outputs: and the output's name"),
        verdict=_VERDICTS,
        difference={**_NUMBER, "description": "candidate minus stable"},
        low={**_NUMBER, "description": "the difference is surely not below"},
        high={**_NUMBER, "description": "the difference is surely not above"},
        limit={**_NUMBER, "description": "what the difference may be at most"},
    ),
    "CanaryVerdict": object_of(
        [
            "model",
            "version",
            "stable",
            "phase",
            "step",
            "percent",
            "verdict",
            "result",
            "reason",
            "gates",
        ],
        model=text(),
        version=text("the candidate"),
        stable=text("what it is compared with"),
        phase={
            "type": "string",
            "enum": [
                "running",
                "paused",
                "inconclusive",
                "passed",
                "promoted",
                "rolled_back",
                "aborted",
            ],
        },
        step=integer("index of the step"),
        percent={**_NUMBER, "description": "of the traffic that the candidate gets now"},
        verdict=_VERDICTS,
        result={
            "type": "string",
            "enum": ["Successful", "Failed", "Inconclusive", "Running"],
            "description": "the verdict in Argo Rollouts' words",
        },
        reason=text(),
        gates=array_of(ref("Gate")),
        requests=ANY_OBJECT,
    ),
    "FlaggerHook": object_of(
        [],
        name=text(),
        namespace=text(),
        phase=text(),
        metadata=object_of(
            [],
            require={
                "type": "string",
                "enum": ["not-fail", "pass"],
                "default": "not-fail",
                "description": "pass: shut until every gate surely holds",
            },
        ),
    ),
    "ShadowPlan": object_of(
        ["version"],
        version=text("the shadow"),
        model=text("the model that it is a version of, where it is another"),
        percent=_percent("of the traffic that is copied"),
        relative_tolerance=_NUMBER,
        absolute_tolerance=_NUMBER,
        min_agreement=_share("least share of pairs that agree in every value"),
        max_flips=_share("largest share of pairs whose highest score is at another index"),
        keep_worst=integer("pairs that disagree most, which are kept"),
        reason=_REASON,
    ),
    "ShadowReport": ANY_OBJECT,
    "Golden": object_of(
        ["count"],
        count={**integer("requests", minimum=1), "maximum": 1000},
        version=text("the version that answers them; empty for the stable one"),
        timeout_s={
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 600,
            "default": 60,
            "description": "seconds to wait for so many; there may be fewer then",
        },
    ),
    "HistoryEntry": ANY_OBJECT,
    "Verification": object_of(
        ["entries", "intact", "first_broken", "reason"],
        entries=integer(),
        intact=FLAG,
        first_broken={"type": ["integer", "null"]},
        reason=text(),
    ),
    "Declaration": object_of(
        ["models"],
        models={"type": "object", "additionalProperties": ANY_OBJECT},
        reason=_REASON,
    ),
    "Change": object_of(
        ["model", "field"], **{"model": text(), "field": text(), "from": {}, "to": {}}
    ),
    "Changes": object_of(["changes"], changes=array_of(ref("Change"))),
}

_ERRORS: Final = {
    400: "the request is wrong, or the version cannot be served; the message says where and why",
    403: "the Host header names another server",
    404: "no such model, version or label, or no canary or shadow to tell of",
    409: "not possible as things stand",
    412: "the verdict keeps the gate shut; the message is the reason",
    413: "the body is larger than 1 MiB",
    415: "the Content-Type is another",
    500: "internal error",
    503: "not now: not ready, or shutting down",
}
_READ: Final = (403, 404, 500)
_CHANGE: Final = (400, 403, 404, 409, 413, 415, 500, 503)

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
    operation["parameters"] = [_ACTOR, _query("reason", _REASON)]
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
            "get": _read("Shadow", "The pairs that disagree most", array_of(ANY_OBJECT))
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
        "/admin/diff": {"post": diff},
        "/admin/apply": {"post": apply},
        "/admin/history": {"get": history},
        "/admin/history/verify": {"get": verify},
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
        **_record_paths(),
        **_own_paths(),
    }
    return document_of(
        version,
        "onnx-gateway admin",
        "Which version of a model serves, which is tried, and who changed it",
        paths,
        _SCHEMAS,
        _ERRORS,
    )
