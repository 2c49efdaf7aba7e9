"""The V1 prediction documents: ``{"instances": [...]}`` to ``{"predictions": [...]}``.

Each instance is one row. A model with one input takes its values directly or by name; a model with
several takes an object of values by input name. An element of a BYTES input is a string, or any
bytes as ``{"b64": "<base64>"}``. Predictions have the same form, but for ``b64``.
"""

import base64
from time import monotonic_ns
from typing import Any, Final

import orjson

from gateway.errors import InvalidRequest, InvalidTensor, MalformedRequest
from gateway.front.wire_values import tensor_from_json, values_to_json
from gateway.types import BYTES, DATATYPES, InferInput, InferOutput, InferRequest, InferResponse

#: The key of an element's bytes in base64.
_BINARY: Final = "b64"


def decode_instances(
    model: str, document: dict[str, Any], metadata: dict[str, Any]
) -> InferRequest:
    """Decode a V1 request by the model's metadata. Raises ``InvalidRequest``."""
    instances = document.get("instances")
    if not isinstance(instances, list) or not instances:
        raise MalformedRequest("the request must have 'instances', a list of at least one row")
    specs = metadata["inputs"]
    names = [spec["name"] for spec in specs]
    by_name = all(isinstance(row, dict) for row in instances) and (
        _BINARY in names or not any(_is_binary(row) for row in instances)
    )
    if not by_name and len(specs) != 1:
        raise InvalidTensor(
            f"each instance must be an object with the inputs {', '.join(names)}: "
            "the model has more than one"
        )
    inputs = []
    for spec in specs:
        name = spec["name"]
        rows = [_value(row, name, names) for row in instances] if by_name else instances
        datatype = DATATYPES[spec["datatype"]]
        if datatype is BYTES:
            rows = _with_bytes(name, rows)
        shape = _shape(name, rows)
        values = tensor_from_json(name, datatype, shape, rows)
        inputs.append(InferInput(name, datatype, shape, values))
    return InferRequest(model, "", "", inputs, None, {}, 0, monotonic_ns())


def _value(row: dict[str, Any], name: str, names: list[str]) -> Any:
    if row.keys() != set(names):
        raise InvalidTensor(
            f"each instance must have the inputs {', '.join(names)}; got {', '.join(row) or 'none'}"
        )
    return row[name]


def _is_binary(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {_BINARY}


def _with_bytes(name: str, values: list[Any]) -> list[Any]:
    """The nested ``values`` with the bytes of each element that came in base64."""
    return [_with_bytes(name, v) if isinstance(v, list) else _element(name, v) for v in values]


def _element(name: str, value: Any) -> Any:
    if not _is_binary(value):
        return value
    try:
        return base64.b64decode(value[_BINARY], validate=True)
    except (TypeError, ValueError) as error:
        raise InvalidTensor(f"input '{name}': an element's b64 is not base64: {error}") from None


def _shape(name: str, rows: list[Any]) -> tuple[int, ...]:
    """The shape of nested lists, which must be rectangular."""
    shape = [len(rows)]
    level = rows
    while any(isinstance(item, list) for item in level):
        sizes = {len(item) if isinstance(item, list) else None for item in level}
        if len(sizes) != 1:
            raise InvalidTensor(
                f"input '{name}': the instances are ragged at depth {len(shape)}; "
                "all rows must have one shape"
            )
        shape.append(len(level[0]))
        level = [value for item in level for value in item]
    return tuple(shape)


def encode_predictions(response: InferResponse, rows: int) -> bytes:
    """Encode the outputs, each with ``rows`` rows, as predictions. Raises ``InvalidRequest``."""
    for output in response.outputs:
        if output.array.ndim == 0 or len(output.array) != rows:
            raise InvalidRequest(
                f"output '{output.name}' of shape {list(output.shape)} does not have one row for "
                f"each of {rows} instances; use /v2/models/{response.model}/infer"
            )
    if len(response.outputs) == 1:
        (output,) = response.outputs
        predictions = values_to_json(output.name, output.datatype, output.array)
    else:
        columns = {output.name: _column(output) for output in response.outputs}
        predictions = [
            {name: column[row] for name, column in columns.items()} for row in range(rows)
        ]
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)


def _column(output: InferOutput) -> list[Any]:
    """One JSON value for each row."""
    name, datatype, array = output.name, output.datatype, output.array
    if array.ndim > 1:
        return [values_to_json(name, datatype, row) for row in array]
    text = orjson.dumps(
        values_to_json(name, datatype, array.reshape(-1, 1)), option=orjson.OPT_SERIALIZE_NUMPY
    )
    if array.dtype == object:
        return [row[0] for row in orjson.loads(text)]
    return [orjson.Fragment(value) for value in text[2:-2].split(b"],[")] if len(array) else []
