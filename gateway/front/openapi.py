"""The OpenAPI 3.1 description of the HTTP front."""

from typing import Any, Final, TypeAlias

from gateway.types import DATATYPES

Schema: TypeAlias = dict[str, Any]


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _text(description: str = "") -> Schema:
    return {"type": "string", "description": description} if description else {"type": "string"}


def _integer(description: str = "", minimum: int | None = 0) -> Schema:
    schema: Schema = {"type": "integer"}
    if minimum is not None:
        schema["minimum"] = minimum
    if description:
        schema["description"] = description
    return schema


_FLAG: Final = {"type": "boolean"}
_SHAPE: Final = _list(_integer())
_ANY_OBJECT: Final = {"type": "object"}
_DATATYPE: Final = {"type": "string", "enum": list(DATATYPES)}
_REGION: Final = {
    "shared_memory_region": _text("a registered region that holds the tensor"),
    "shared_memory_byte_size": _integer("bytes of the tensor in the region"),
    "shared_memory_offset": _integer("where in the region the tensor begins"),
}
_DATA: Final = {
    "type": "array",
    "description": "the elements in row-major order, flat or nested; not for FP16 and BF16",
    "items": {},
}

_SCHEMAS: Final[dict[str, Schema]] = {
    "Error": _object(["error"], error=_text("what was expected, what was given, how to mend it")),
    "RequestInput": _object(
        ["name", "shape", "datatype"],
        name=_text(),
        shape=_SHAPE,
        datatype=_DATATYPE,
        data=_DATA,
        parameters=_object(
            [],
            binary_data_size=_integer("bytes of this tensor in the binary section of the body"),
            **_REGION,
        ),
    ),
    "RequestOutput": _object(
        ["name"],
        name=_text(),
        parameters=_object(
            [],
            binary_data=_FLAG,
            classification=_integer("answer the k largest values as 'value:index[:label]'"),
            **_REGION,
        ),
    ),
    "InferenceRequest": _object(
        ["inputs"],
        id=_text("echoed in the response"),
        inputs=_list(_ref("RequestInput")),
        outputs=_list(_ref("RequestOutput")),
        parameters={
            "type": "object",
            "properties": {
                "timeout": _integer("microseconds after which the answer is no longer wanted"),
                "priority": _integer("1 is the most urgent; 0 takes the model's default"),
                "binary_data_output": _FLAG,
            },
            "additionalProperties": {"type": ["boolean", "number", "string"]},
        },
    ),
    "ResponseOutput": _object(
        ["name", "shape", "datatype"],
        name=_text(),
        shape=_SHAPE,
        datatype=_DATATYPE,
        data={
            **_DATA,
            "description": "the elements, flat, in row-major order; a number that is not finite is "
            "written as NaN, Infinity or -Infinity",
        },
        parameters=_object([], binary_data_size=_integer(), **_REGION),
    ),
    "InferenceResponse": _object(
        ["model_name", "model_version", "outputs"],
        model_name=_text(),
        model_version=_text(),
        id=_text(),
        outputs=_list(_ref("ResponseOutput")),
    ),
    "TensorMetadata": _object(
        ["name", "datatype", "shape"],
        name=_text(),
        datatype=_DATATYPE,
        shape=_list(_integer("-1 where any size goes", minimum=-1)),
    ),
    "ModelMetadata": _object(
        ["name", "versions", "platform", "inputs", "outputs"],
        name=_text(),
        versions=_list(_text()),
        platform=_text(),
        inputs=_list(_ref("TensorMetadata")),
        outputs=_list(_ref("TensorMetadata")),
    ),
    "ServerMetadata": _object(
        ["name", "version", "extensions"],
        name=_text(),
        version=_text(),
        extensions=_list(_text()),
    ),
    "ModelReady": _object(["name", "ready"], name=_text(), ready=_FLAG),
    "ModelNames": _object(["models"], models=_list(_text())),
    "Statistics": _object(["model_stats"], model_stats=_list(_ANY_OBJECT)),
    "IndexEntry": _object(
        ["name", "version", "state", "reason"],
        name=_text(),
        version=_text(),
        state=_text(),
        reason=_text(),
    ),
    "Region": _object(
        ["name", "key", "offset", "byte_size"],
        name=_text(),
        key=_text(),
        offset=_integer(),
        byte_size=_integer(),
    ),
    "RegionRegistration": _object(
        ["key", "byte_size"],
        key=_text("the name of the POSIX shared memory object"),
        offset=_integer(),
        byte_size=_integer(minimum=1),
    ),
    "Instances": _object(
        ["instances"],
        instances=_list(
            {"description": "one row: the value of the only input, or an object of values by name"}
        ),
    ),
    "Predictions": _object(["predictions"], predictions=_list({})),
}


def _content(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _operation(
    tag: str,
    summary: str,
    answer: Schema,
    errors: tuple[int, ...] = (),
    body: Schema | None = None,
) -> Schema:
    operation: Schema = {
        "tags": [tag],
        "summary": summary,
        "responses": {"200": {"description": "done", "content": _content(answer)}},
    }
    for status in errors:
        operation["responses"][str(status)] = {"$ref": f"#/components/responses/{status}"}
    if body is not None:
        operation["requestBody"] = {"content": _content(body)}
    return operation


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
    operation = _operation(
        "Inference",
        "Run a model",
        _ref("InferenceResponse"),
        (400, 404, 413, 500, 503, 504),
        _ref("InferenceRequest"),
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
            "schema": _integer("size of the JSON in bytes, where binary tensors follow it"),
        }
    ]
    operation["requestBody"]["required"] = True
    operation["requestBody"]["content"]["application/octet-stream"] = binary
    answer = operation["responses"]["200"]
    answer["content"]["application/octet-stream"] = binary
    answer["headers"] = {"Inference-Header-Content-Length": {"schema": _integer()}}
    return operation


def _model_paths(prefix: str) -> dict[str, Schema]:
    return {
        prefix: {"get": _operation("Models", "Metadata", _ref("ModelMetadata"), (404, 503))},
        f"{prefix}/ready": {
            "get": _operation("Models", "Whether it answers", _ref("ModelReady"), (404, 503))
        },
        f"{prefix}/config": {
            "get": _operation("Models", "Settings, in Triton's form", _ANY_OBJECT, (404, 503))
        },
        f"{prefix}/stats": {"get": _operation("Models", "Statistics", _ref("Statistics"), (404,))},
        f"{prefix}/infer": {"post": _inference()},
    }


def _server_paths() -> dict[str, Schema]:
    log = _operation("Server", "Log settings", _ANY_OBJECT)
    update = _operation("Server", "Change log settings", _ANY_OBJECT, (400,), _ANY_OBJECT)
    trace = _operation("Server", "Trace settings: not offered", _ref("Error"), (501,))
    del trace["responses"]["200"]
    metrics = _operation("Server", "Metrics for Prometheus", {})
    metrics["responses"]["200"]["content"] = {"text/plain": {"schema": _text()}}
    live = _operation("Server", "Whether the process serves", _object(["live"], live=_FLAG))
    ready = _operation(
        "Server", "Whether inference may be sent", _object(["ready"], ready=_FLAG), (503,)
    )
    return {
        "/v2": {"get": _operation("Server", "Metadata", _ref("ServerMetadata"))},
        "/v2/health/live": {"get": live},
        "/v2/health/ready": {"get": ready},
        "/v2/logging": {"get": log, "post": update},
        "/v2/trace/setting": {"get": trace, "post": trace},
        "/v2/models/{model}/trace/setting": {"get": trace, "post": trace},
        "/metrics": {"get": metrics},
    }


def _repository_paths() -> dict[str, Schema]:
    index = _operation(
        "Repository",
        "All models and their states",
        _list(_ref("IndexEntry")),
        (400,),
        _object([], ready={**_FLAG, "description": "only those that answer"}),
    )
    body = _object([], parameters=_ANY_OBJECT)
    load = _operation("Repository", "Load a model", _ANY_OBJECT, (400, 404, 503), body)
    unload = _operation("Repository", "Unload a model", _ANY_OBJECT, (400, 404, 503), body)
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
        regions = _list(_ref("Region"))
        if offered:
            register = _operation(
                tag, "Register a region", _ANY_OBJECT, (400, 409), _ref("RegionRegistration")
            )
        else:
            register = _operation(tag, "Register a region: not offered", _ref("Error"), (501,))
            del register["responses"]["200"]
        forget = _operation(tag, "Forget a region", _ANY_OBJECT)
        paths |= {
            f"{prefix}/status": {"get": _operation(tag, "All regions", regions)},
            f"{prefix}/unregister": {"post": _operation(tag, "Forget all regions", _ANY_OBJECT)},
            f"{prefix}/region/{{region}}/status": {
                "get": _operation(tag, "One region", regions, (404,) if offered else ())
            },
            f"{prefix}/region/{{region}}/register": {"post": register},
            f"{prefix}/region/{{region}}/unregister": {"post": forget},
        }
    return paths


def _v1_paths() -> dict[str, Schema]:
    predict = _operation(
        "V1",
        "Run a model on rows",
        _ref("Predictions"),
        (400, 404, 413, 500, 503, 504),
        _ref("Instances"),
    )
    alive = _operation(
        "V1", "Whether the process serves", _object(["status"], status={"const": "alive"}), (503,)
    )
    return {
        "/": {"get": alive},
        "/v1/models": {"get": _operation("V1", "The models' names", _ref("ModelNames"))},
        "/v1/models/{model}": {
            "get": _operation("V1", "Whether a model answers", _ref("ModelReady"), (404, 503))
        },
        "/v1/models/{model}:predict": {"post": predict},
    }


def _with_path_parameters(paths: dict[str, Schema]) -> dict[str, Schema]:
    for path, item in paths.items():
        names = [part.split("}")[0] for part in path.split("{")[1:]]
        if names:
            item["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": _text()} for name in names
            ]
    return paths


def openapi_document(version: str) -> dict[str, Any]:
    """Return the description of every endpoint, for the server's ``version``."""
    names = _operation("Models", "The models' names", _ref("ModelNames"))
    statistics = _operation("Models", "Statistics of all models", _ref("Statistics"))
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
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "onnx-gateway",
            "version": version,
            "summary": "ONNX models over the Open Inference Protocol",
        },
        "paths": _with_path_parameters(paths),
        "components": {
            "schemas": _SCHEMAS,
            "responses": {
                str(status): {"description": text, "content": _content(_ref("Error"))}
                for status, text in _ERRORS.items()
            },
        },
    }
