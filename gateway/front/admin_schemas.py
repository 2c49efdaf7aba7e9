"""The bodies and answers of the admin port, as schemas of its OpenAPI document."""

from typing import Final

from gateway.front.openapi_parts import (
    ANY_OBJECT,
    FLAG,
    Schema,
    array_of,
    error_schema,
    integer,
    object_of,
    ref,
    text,
)

_VERSION: Final = text("a version, or a label of one")
REASON: Final = text("why; it is recorded")
_VERDICTS: Final[Schema] = {
    "type": "string",
    "enum": ["pass", "fail", "inconclusive", "running"],
}
_NUMBER: Final[Schema] = {"type": "number"}


#: ``received`` is the sum of the others.
_OUTCOMES: Final[dict[str, Schema]] = {
    "received": integer("labels"),
    "joined": integer("brought together with their prediction"),
    "corrected": integer("took the place of an earlier label with another value"),
    "duplicate": integer("said the same again; ignored"),
    "late": integer("their prediction is not held any more"),
    "row_missing": integer("their request has several rows, and they name none"),
    "unmatched": integer("no such prediction came in time"),
    "waiting": integer("for their prediction"),
}


def _share(description: str) -> Schema:
    return {"type": "number", "minimum": 0, "maximum": 1, "description": description}


def _percent(description: str) -> Schema:
    return {"type": "number", "exclusiveMinimum": 0, "maximum": 100, "description": description}


SCHEMAS: Final[dict[str, Schema]] = {
    "Error": error_schema(),
    "Reason": object_of([], reason=REASON),
    "Promotion": object_of(["version"], version=_VERSION, reason=REASON),
    "Label": object_of(["version"], version=_VERSION, reason=REASON),
    "VersionState": object_of(
        ["version", "state", "reason", "digest"],
        version=text(),
        state=text(),
        reason=text("why it does not serve"),
        digest=text("SHA-256 of the model's file; empty where it is not loaded"),
    ),
    "ModelStatus": object_of(
        ["model", "serving", "traffic", "labels", "versions"],
        model=text(),
        serving={
            "type": ["string", "null"],
            "description": "the version that answers requests which name none",
        },
        traffic={**ANY_OBJECT, "description": "what was decided: stable, labels, canary, shadow"},
        labels={"type": "object", "additionalProperties": text("the version that it names")},
        versions=array_of(ref("VersionState")),
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
        reason=REASON,
    ),
    "Gate": object_of(
        ["gate", "verdict", "difference", "low", "high", "limit"],
        gate=text("errors, latency, or outputs: and the output's name"),
        verdict=_VERDICTS,
        difference={**_NUMBER, "description": "candidate minus stable"},
        category=text("of the outputs, the one whose shares differ most"),
        stable=_share("of the stable version"),
        candidate=_share("of the candidate"),
        stable_trials=integer("what the share is out of"),
        candidate_trials=integer("what the share is out of"),
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
            "steps",
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
        steps=integer("how many there are"),
        percent={**_NUMBER, "description": "of the traffic that the candidate gets now"},
        verdict=_VERDICTS,
        result={
            "type": "string",
            "enum": ["Successful", "Failed", "Inconclusive", "Running"],
            "description": "the verdict in Argo Rollouts' words",
        },
        reason=text(),
        evidence={
            "type": ["string", "null"],
            "description": "what the gates say together; null where no canary is at work",
        },
        gates=array_of(ref("Gate")),
        requests=ref("BothCounts"),
        errors=ref("BothCounts"),
    ),
    "BothCounts": object_of(["stable", "candidate"], stable=integer(), candidate=integer()),
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
        reason=REASON,
    ),
    "Share": object_of(
        ["count", "of", "share", "low", "high"],
        count=integer(),
        of=integer(),
        share=_share("what was seen"),
        low=_share("the true share is surely not below"),
        high=_share("the true share is surely not above"),
    ),
    "ShadowReport": object_of(
        [
            "model",
            "primary",
            "shadow",
            "plan",
            "requests",
            "verdict",
            "reasons",
            "pairs",
            "agreement",
            "argmax_flips",
            "errors",
            "latency",
            "outputs",
        ],
        model=text(),
        primary=text("the version that answers"),
        shadow=object_of(["model", "version"], model=text(), version=text()),
        plan=ref("ShadowPlan"),
        requests={**ANY_OBJECT, "description": "what became of each: sent, paired, or left out"},
        verdict=_VERDICTS,
        reasons=array_of(text()),
        pairs=integer("that were compared"),
        agreement=ref("Share"),
        argmax_flips=ref("Share"),
        errors={**ANY_OBJECT, "description": "how many failed on either side, or on both"},
        latency={**ANY_OBJECT, "description": "milliseconds of either side, and the difference"},
        outputs=array_of({**ANY_OBJECT, "description": "the comparison of one output"}),
    ),
    "Disagreement": object_of(
        ["inputs", "primary", "shadow", "distance"],
        inputs=array_of(ANY_OBJECT),
        primary=array_of(ANY_OBJECT),
        shadow=array_of(ANY_OBJECT),
        distance={**_NUMBER, "description": "how much they disagree; the worst comes first"},
    ),
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
    "HistoryEntry": object_of(
        [
            "seq",
            "time",
            "by",
            "verb",
            "model",
            "version",
            "outcome",
            "reason",
            "digest",
            "before",
            "after",
            "evidence",
            "lineage",
            "previous",
            "hash",
        ],
        seq=integer("counts from 1", minimum=1),
        time=text("UTC, ISO 8601"),
        by=text("who asked; gateway for what follows by itself"),
        verb=text(),
        model=text(),
        version=text(),
        outcome={"type": "string", "enum": ["ok", "refused", "failed"]},
        reason=text(),
        digest=text("of the model's file"),
        before={"type": ["object", "null"], "description": "the traffic, where it changed"},
        after={"type": ["object", "null"], "description": "the traffic, where it changed"},
        evidence={"type": ["object", "null"], "description": "what it was decided on"},
        lineage={"type": ["object", "null"], "description": "where the version comes from"},
        previous=text("the hash of the entry before"),
        hash=text("SHA-256 of all of the above as canonical JSON"),
    ),
    "Verification": object_of(
        ["entries", "intact", "first_broken", "reason"],
        entries=integer(),
        intact=FLAG,
        first_broken={"type": ["integer", "null"]},
        reason=text("what shows that it is not"),
        head=text("the hash of the last entry that holds; note it elsewhere"),
    ),
    "Declaration": object_of(
        ["models"],
        models={"type": "object", "additionalProperties": ANY_OBJECT},
        reason=REASON,
    ),
    "Change": object_of(
        ["model", "field"], **{"model": text(), "field": text(), "from": {}, "to": {}}
    ),
    "Changes": object_of(["changes"], changes=array_of(ref("Change"))),
    "TrueLabel": object_of(
        ["id", "value"],
        id=text("the request's"),
        value={"description": "a number, true or false, text, or a list of numbers"},
        row=integer("the place of the row in the request; for one of several rows"),
        time={"description": "when it became known: Unix seconds or ISO 8601"},
    ),
    "Labels": object_of(["labels"], labels=array_of(ref("TrueLabel"))),
    "LabelOutcomes": object_of(list(_OUTCOMES), **_OUTCOMES),
    "LabelReport": object_of(
        ["model", "settings", *_OUTCOMES, "held", "too_late"],
        model=text(),
        settings={
            "type": ["object", "null"],
            "description": "how predictions are kept, [labels] of model.toml; null where not",
        },
        **_OUTCOMES,
        held=integer("predictions (rows) that are kept for labels"),
        too_late={
            "type": "object",
            "additionalProperties": integer(),
            "description": "joined rows whose window was closed already, by who says so",
        },
    ),
}
