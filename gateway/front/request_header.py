"""What the JSON document of an inference request says, checked and in the project's types."""

from typing import Any, Final, TypeAlias

from gateway.errors import InvalidTensor, MalformedRequest
from gateway.front.json_document import parse_json, shown
from gateway.front.wire_values import tensor_from_json
from gateway.types import (
    DATATYPES,
    MAX_TIMEOUT_US,
    Array,
    DataType,
    Parameters,
    RequestedOutput,
)

#: A stretch of shared memory: the region's name, the offset in it and the size, in bytes.
Extent: TypeAlias = tuple[str, int, int]


class TensorHeader:
    """One input of the document. Exactly one of the last three attributes is not ``None``.

    Attributes:
        binary_size: bytes in the binary section that follows the document; not checked against
            the shape.
        region: the stretch of shared memory that holds the tensor.
        values: the tensor itself, from the document.
    """

    __slots__ = ("binary_size", "datatype", "name", "region", "shape", "values")

    def __init__(self, item: Any) -> None:
        if type(item) is not dict:
            raise MalformedRequest("each of 'inputs' must be an object")
        name = item.get("name")
        if type(name) is not str:
            raise MalformedRequest("each of 'inputs' must have a 'name', a string")
        self.name: Final[str] = name
        self.datatype: Final = _datatype(name, item.get("datatype"))
        self.shape: Final = _shape(name, item.get("shape"))
        parameters = _parameters(f"input '{name}'", item)
        self.binary_size: Final = _size(
            f"input '{name}': binary_data_size", parameters.get("binary_data_size")
        )
        self.region: Final = _extent(f"input '{name}'", parameters)
        places = (self.binary_size is not None) + (self.region is not None) + ("data" in item)
        if places != 1:
            raise MalformedRequest(
                f"input '{name}' must have its data in exactly one of 'data', "
                "parameters.binary_data_size and parameters.shared_memory_region; "
                f"it has {places or 'none'} of them"
            )
        values: Array | None = None
        if "data" in item:
            values = tensor_from_json(name, self.datatype, self.shape, item["data"])
        self.values: Final = values


class OutputForm:
    """In which form the caller wants an output: JSON, binary, or binary in shared memory."""

    __slots__ = ("binary", "region")

    def __init__(self, binary: bool, region: Extent | None = None) -> None:
        self.binary: Final = binary
        self.region: Final = region


_JSON: Final = OutputForm(binary=False)
_BINARY: Final = OutputForm(binary=True)


class ResponseForm:
    """The form of a response: one for each output that the caller named, one for the others.

    Attributes:
        all_binary: whether all outputs follow the document as binary data; the document then
            depends on nothing but the names and shapes of the outputs, and the codec keeps the
            last one in ``kept_document`` for the outputs ``kept_key``.
    """

    __slots__ = ("all_binary", "by_name", "default", "kept_document", "kept_key")

    def __init__(self, default: OutputForm, by_name: dict[str, OutputForm]) -> None:
        self.default: Final = default
        self.by_name: Final = by_name
        forms = by_name.values() or [default]
        self.all_binary: Final = all(form is _BINARY for form in forms)
        self.kept_key: list[object] | None = None
        self.kept_document = b""

    def of(self, name: str) -> OutputForm:
        """The form of the output ``name``."""
        return self.by_name.get(name, self.default)


def all_binary() -> ResponseForm:
    """A new form of responses whose outputs are all binary."""
    return ResponseForm(_BINARY, {})


class RequestHeader:
    """The parsed document of an inference request; nothing in it changes once it is made.

    Attributes:
        id: the caller's request id, ``""`` where there is none.
        parameters: the request's parameters but ``binary_data_output``.
        timeout_ns: the ``timeout`` parameter in nanoseconds, 0 for none.
    """

    __slots__ = ("form", "id", "inputs", "outputs", "parameters", "timeout_ns")

    def __init__(self, document: bytes) -> None:
        """Parse ``document``. Raises ``MalformedRequest`` and ``InvalidTensor``."""
        parsed = parse_json(document)
        if type(parsed) is not dict:
            raise MalformedRequest("the request must be a JSON object")
        id = parsed.get("id")
        if id is not None and type(id) is not str:
            raise MalformedRequest(f"'id' must be a string; got {shown(id)}")
        self.id: Final[str] = id or ""
        inputs = parsed.get("inputs")
        if type(inputs) is not list:
            raise MalformedRequest(f"'inputs' must be a list of tensors; got {shown(inputs)}")
        self.inputs: Final = [TensorHeader(item) for item in inputs]
        self.parameters: Final = _parameters("the request", parsed)
        default = _JSON
        if _flag("'binary_data_output'", self.parameters.pop("binary_data_output", False)):
            default = _BINARY
        self.timeout_ns: Final = _check_parameters(self.parameters)
        forms: dict[str, OutputForm] = {}
        outputs = parsed.get("outputs")
        if outputs is not None and type(outputs) is not list:
            raise MalformedRequest(f"'outputs' must be a list; got {shown(outputs)}")
        requested = [_requested_output(item, default, forms) for item in outputs or ()]
        self.outputs: Final[list[RequestedOutput] | None] = requested or None
        self.form: Final = ResponseForm(default, forms)


def _requested_output(
    item: Any, default: OutputForm, forms: dict[str, OutputForm]
) -> RequestedOutput:
    """Read one of the requested outputs and note its form in ``forms``."""
    if type(item) is not dict or type(item.get("name")) is not str:
        raise MalformedRequest("each of 'outputs' must be an object with a 'name', a string")
    name = item["name"]
    what = f"output '{name}'"
    parameters = _parameters(what, item)
    region = _extent(what, parameters)
    if region is not None:
        forms[name] = OutputForm(True, region)
    else:
        binary = _flag(f"{what}: 'binary_data'", parameters.get("binary_data", default.binary))
        forms[name] = _BINARY if binary else _JSON
    classes = _size(f"{what}: classification", parameters.get("classification"))
    return RequestedOutput(name, classes or 0)


def _datatype(name: str, datatype: Any) -> DataType:
    found = DATATYPES.get(datatype) if type(datatype) is str else None
    if found is None:
        raise InvalidTensor(
            f"input '{name}': 'datatype' must be one of {', '.join(DATATYPES)}; "
            f"got {shown(datatype)}"
        )
    return found


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    if type(shape) is list and all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        return tuple(shape)
    raise InvalidTensor(
        f"input '{name}': 'shape' must be a list of sizes of at least 0; got {shown(shape)}"
    )


def _parameters(what: str, item: dict[str, Any]) -> dict[str, Any]:
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise MalformedRequest(f"{what}: 'parameters' must be an object; got {shown(parameters)}")
    return parameters


def _check_parameters(parameters: Parameters) -> int:
    """Check the request's parameters and return their timeout in nanoseconds."""
    for key, value in parameters.items():
        if type(value) not in (bool, int, float, str):
            raise MalformedRequest(
                f"parameter '{key}' must be a boolean, a number or a string; got {shown(value)}"
            )
    timeout_us = _size("parameter 'timeout' (microseconds)", parameters.get("timeout")) or 0
    return min(timeout_us, MAX_TIMEOUT_US) * 1000


def _extent(what: str, parameters: dict[str, Any]) -> Extent | None:
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    if type(region) is not str:
        raise MalformedRequest(f"{what}: shared_memory_region must be a string")
    offset = _size(f"{what}: shared_memory_offset", parameters.get("shared_memory_offset", 0))
    size = _size(f"{what}: shared_memory_byte_size", parameters.get("shared_memory_byte_size"))
    if size is None:
        raise MalformedRequest(f"{what}: shared_memory_region needs shared_memory_byte_size")
    return region, offset or 0, size


def _size(what: str, value: Any) -> int | None:
    if value is None or (type(value) is int and 0 <= value < 1 << 63):
        return value
    raise MalformedRequest(f"{what} must be an integer of at least 0; got {shown(value)}")


def _flag(what: str, value: Any) -> bool:
    if type(value) is bool:
        return value
    raise MalformedRequest(f"{what} must be true or false; got {shown(value)}")
