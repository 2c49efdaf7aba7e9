"""The OpenAPI 3.1 description of the HTTP front."""

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
from gateway.types import DATATYPES

_SHAPE: Final = array_of(integer())
_DATATYPE: Final = {"type": "string", "enum": list(DATATYPES)}
_REGION: Final = {
    "shared_memory_region": text("a registered region that holds the tensor"),
    "shared_memory_byte_size": integer("bytes of the tensor in the region"),
    "shared_memory_offset": integer("where in the region the tensor begins"),
}
_DATA: Final = {
    "type": "array",
    "description": "the elements in row-major order, flat or nested; not for FP16 and BF16",
    "items": {},
}

_SCHEMAS: Final[dict[str, Schema]] = {
    "Error": error_schema(),
    "RequestInput": object_of(
        ["name", "shape", "datatype"],
        name=text(),
        shape=_SHAPE,
        datatype=_DATATYPE,
        data=_DATA,
        parameters=object_of(
            [],
            binary_data_size=integer("bytes of this tensor in the binary section of the body"),
            **_REGION,
        ),
    ),
    "RequestOutput": object_of(
        ["name"],
        name=text(),
        parameters=object_of(
            [],
            binary_data=FLAG,
            classification=integer("answer the k largest values as 'value:index[:label]'"),
            **_REGION,
        ),
    ),
    "InferenceRequest": object_of(
        ["inputs"],
        id=text("echoed in the response"),
        inputs=array_of(ref("RequestInput")),
        outputs=array_of(ref("RequestOutput")),
        parameters={
            "type": "object",
            "properties": {
                "timeout": integer("microseconds after which the answer is no longer wanted"),
                "priority": integer("1 is the most urgent; 0 takes the model's default"),
                "binary_data_output": FLAG,
            },
            "additionalProperties": {"type": ["boolean", "number", "string"]},
        },
    ),
    "ResponseOutput": object_of(
        ["name", "shape", "datatype"],
        name=text(),
        shape=_SHAPE,
        datatype=_DATATYPE,
        data={
            **_DATA,
            "description": "the elements, flat, in row-major order; a number that is not finite is "
            "written as NaN, Infinity or -Infinity",
        },
        parameters=object_of([], binary_data_size=integer(), **_REGION),
    ),
    "InferenceResponse": object_of(
        ["model_name", "model_version", "outputs"],
        model_name=text(),
        model_version=text(),
        id=text(),
        outputs=array_of(ref("ResponseOutput")),
    ),
    "TensorMetadata": object_of(
        ["name", "datatype", "shape"],
        name=text(),
        datatype=_DATATYPE,
        shape=array_of(integer("-1 where any size goes", minimum=-1)),
    ),
    "ModelMetadata": object_of(
        ["name", "versions", "platform", "inputs", "outputs"],
        name=text(),
        versions=array_of(text()),
        platform=text(),
        inputs=array_of(ref("TensorMetadata")),
        outputs=array_of(ref("TensorMetadata")),
    ),
    "ServerMetadata": object_of(
        ["name", "version", "extensions"],
        name=text(),
        version=text(),
        extensions=array_of(text()),
    ),
    "ModelReady": object_of(["name", "ready"], name=text(), ready=FLAG),
    "ModelNames": object_of(["models"], models=array_of(text())),
    "Statistics": object_of(["model_stats"], model_stats=array_of(ANY_OBJECT)),
    "IndexEntry": object_of(
        ["name", "version", "state", "reason"],
        name=text(),
        version=text(),
        state=text(),
        reason=text(),
    ),
    "Region": object_of(
        ["name", "key", "offset", "byte_size"],
        name=text(),
        key=text(),
        offset=integer(),
        byte_size=integer(),
    ),
    "RegionRegistration": object_of(
        ["key", "byte_size"],
        key=text("the name of the POSIX shared memory object"),
        offset=integer(),
        byte_size=integer(minimum=1),
    ),
    "Instances": object_of(
        ["instances"],
        instances=array_of(
            {"description": "one row: the value of the only input, or an object of values by name"}
        ),
    ),
    "Predictions": object_of(["predictions"], predictions=array_of({})),
}


_ERRORS: Final = {
    400: "the request is wrong; the message says where",
    404: "no such model, version or region",
    409: "the name is taken",
    413: "the body is over the limit; --max-request-bytes raises it",
    500: "the model itself failed",
    501: "this server does not offer it",
    503: "not now: not ready, the queue is full, or shutting down; see Retry-After",
    504: "the request's deadline passed",
}


def _inference() -> Schema:
    operation = operation_of(
        "Inference",
        "Run a model",
        ref("InferenceResponse"),
        (400, 404, 413, 500, 503, 504),
        ref("InferenceRequest"),
    )
    binary = {"schema": {"type": "string", "format": "binary"}}
    operation["description"] = (
        "The body is JSON, or JSON followed by the inputs' binary tensors in their order; "
        "Inference-Header-Content-Length is then the size of the JSON. BYTES elements are each a "
        "4-byte little-endian length and the bytes. The response has the same two forms. Bodies "
        "may be gzip or deflate."
    )
    operation["parameters"] = [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "schema": integer("size of the JSON in bytes, where binary tensors follow it"),
        }
    ]
    operation["requestBody"]["required"] = True
    operation["requestBody"]["content"]["application/octet-stream"] = binary
    answer = operation["responses"]["200"]
    answer["content"]["application/octet-stream"] = binary
    answer["headers"] = {"Inference-Header-Content-Length": {"schema": integer()}}
    return operation


def _model_paths(prefix: str) -> dict[str, Schema]:
    return {
        prefix: {"get": operation_of("Models", "Metadata", ref("ModelMetadata"), (404, 503))},
        f"{prefix}/ready": {
            "get": operation_of("Models", "Whether it answers", ref("ModelReady"), (404, 503))
        },
        f"{prefix}/config": {
            "get": operation_of("Models", "Settings, in Triton's form", ANY_OBJECT, (404, 503))
        },
        f"{prefix}/stats": {"get": operation_of("Models", "Statistics", ref("Statistics"), (404,))},
        f"{prefix}/infer": {"post": _inference()},
    }


def _server_paths() -> dict[str, Schema]:
    log = operation_of("Server", "Log settings", ANY_OBJECT)
    update = operation_of("Server", "Change log settings", ANY_OBJECT, (400,), ANY_OBJECT)
    trace = operation_of("Server", "Trace settings: not offered", ref("Error"), (501,))
    del trace["responses"]["200"]
    metrics = operation_of("Server", "Metrics for Prometheus", {})
    metrics["responses"]["200"]["content"] = {"text/plain": {"schema": text()}}
    live = operation_of("Server", "Whether the process serves", object_of(["live"], live=FLAG))
    ready = operation_of(
        "Server", "Whether inference may be sent", object_of(["ready"], ready=FLAG), (503,)
    )
    return {
        "/v2": {"get": operation_of("Server", "Metadata", ref("ServerMetadata"))},
        "/v2/health/live": {"get": live},
        "/v2/health/ready": {"get": ready},
        "/v2/logging": {"get": log, "post": update},
        "/v2/trace/setting": {"get": trace, "post": trace},
        "/v2/models/{model}/trace/setting": {"get": trace, "post": trace},
        "/metrics": {"get": metrics},
    }


def _repository_paths() -> dict[str, Schema]:
    index = operation_of(
        "Repository",
        "All models and their states",
        array_of(ref("IndexEntry")),
        (400,),
        object_of([], ready={**FLAG, "description": "only those that answer"}),
    )
    body = object_of([], parameters=ANY_OBJECT)
    load = operation_of("Repository", "Load a model", ANY_OBJECT, (400, 404, 503), body)
    unload = operation_of("Repository", "Unload a model", ANY_OBJECT, (400, 404, 503), body)
    return {
        "/v2/repository/index": {
            "get": {key: value for key, value in index.items() if key != "requestBody"},
            "post": index,
        },
        "/v2/repository/models/{model}/load": {"post": load},
        "/v2/repository/models/{model}/unload": {"post": unload},
    }


def _memory_paths() -> dict[str, Schema]:
    paths: dict[str, Schema] = {}
    for kind, offered in (("system", True), ("cuda", False)):
        tag = f"{kind.capitalize() if offered else kind.upper()} shared memory"
        prefix = f"/v2/{kind}sharedmemory"
        regions = array_of(ref("Region"))
        if offered:
            register = operation_of(
                tag, "Register a region", ANY_OBJECT, (400, 409), ref("RegionRegistration")
            )
        else:
            register = operation_of(tag, "Register a region: not offered", ref("Error"), (501,))
            del register["responses"]["200"]
        forget = operation_of(tag, "Forget a region", ANY_OBJECT)
        paths |= {
            f"{prefix}/status": {"get": operation_of(tag, "All regions", regions)},
            f"{prefix}/unregister": {"post": operation_of(tag, "Forget all regions", ANY_OBJECT)},
            f"{prefix}/region/{{region}}/status": {
                "get": operation_of(tag, "One region", regions, (404,) if offered else ())
            },
            f"{prefix}/region/{{region}}/register": {"post": register},
            f"{prefix}/region/{{region}}/unregister": {"post": forget},
        }
    return paths


def _v1_paths() -> dict[str, Schema]:
    predict = operation_of(
        "V1",
        "Run a model on rows",
        ref("Predictions"),
        (400, 404, 413, 500, 503, 504),
        ref("Instances"),
    )
    alive = operation_of(
        "V1", "Whether the process serves", object_of(["status"], status={"const": "alive"}), (503,)
    )
    return {
        "/": {"get": alive},
        "/v1/models": {"get": operation_of("V1", "The models' names", ref("ModelNames"))},
        "/v1/models/{model}": {
            "get": operation_of("V1", "Whether a model answers", ref("ModelReady"), (404, 503))
        },
        "/v1/models/{model}:predict": {"post": predict},
    }


def openapi_document(version: str) -> dict[str, Any]:
    """Return the description of every endpoint, for the server's ``version``."""
    names = operation_of("Models", "The models' names", ref("ModelNames"))
    statistics = operation_of("Models", "Statistics of all models", ref("Statistics"))
    paths = {
        **_model_paths("/v2/models/{model}"),
        **_model_paths("/v2/models/{model}/versions/{version}"),
        "/v2/models": {"get": names},
        "/v2/models/stats": {"get": statistics},
        **_v1_paths(),
        **_repository_paths(),
        **_server_paths(),
        **_memory_paths(),
    }
    return document_of(
        version,
        "onnx-gateway",
        "ONNX models over the Open Inference Protocol",
        paths,
        _SCHEMAS,
        _ERRORS,
    )
