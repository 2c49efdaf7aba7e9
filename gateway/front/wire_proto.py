"""Inference requests and answers between the protocol's protobuf bytes and ``gateway.types``."""

from math import prod
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import numpy as np

from gateway._native.bytes_tensor import DecodeError, decode_bytes_tensor, encode_bytes_tensor
from gateway._native.oip_decode import decode_infer_request
from gateway._native.oip_encode import encode_infer_response
from gateway.errors import InvalidTensor, MalformedRequest
from gateway.types import (
    BYTES,
    DATATYPES,
    MAX_TIMEOUT_US,
    Array,
    InferInput,
    InferRequest,
    InferResponse,
    Parameters,
    RequestedOutput,
)

if TYPE_CHECKING:  # the forms have names in the stub alone
    from gateway._native.oip_decode import DecodedInput, DecodedOutput
    from gateway._native.oip_encode import EncodedOutput

#: Where an output goes instead of the answer: the region's name, offset and size in bytes.
Extent: TypeAlias = tuple[str, int, int]

REGION: Final = "shared_memory_region"
BYTE_SIZE: Final = "shared_memory_byte_size"
OFFSET: Final = "shared_memory_offset"


class SharedMemory(Protocol):
    """The regions that a request may name."""

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """A copy of ``byte_size`` bytes of the region."""

    def write(self, name: str, offset: int, byte_size: int, data: bytes | memoryview) -> None:
        """Copy ``data``, which must not be larger than ``byte_size``, into the region."""


def decode_request(
    data: bytes, deadline_ns: int, received_ns: int, shared_memory: SharedMemory
) -> tuple[InferRequest, dict[str, Extent]]:
    """The request in the bytes of a ModelInferRequest, and which outputs go to shared memory.

    Its inputs may be views of ``data``. Its deadline is the earlier of
    ``deadline_ns`` (the call's own; 0 for none) and ``received_ns`` plus the request's ``timeout``
    parameter, which is in microseconds.

    Raises:
        MalformedRequest: the bytes are no ModelInferRequest.
        InvalidTensor: a datatype is unknown, the elements of a BYTES tensor do not fit its shape,
            or a tensor's parameters make no sense.
        GatewayError: what reading a shared memory region raises.
    """
    try:
        model, version, id, parameters, inputs, outputs = decode_infer_request(data)
    except DecodeError as error:
        raise MalformedRequest(f"the bytes are no ModelInferRequest: {error}") from None
    placed: dict[str, Extent] = {}
    request = InferRequest(
        model,
        version,
        id,
        [_input(tensor, shared_memory) for tensor in inputs],
        [_requested_output(output, placed) for output in outputs] or None,
        parameters or {},
        deadline_ns,
        received_ns,
    )
    if parameters is not None and "timeout" in parameters:
        timeout_us = _whole_number("the request", "timeout", parameters, 0)
        if timeout_us:
            own_ns = received_ns + min(timeout_us, MAX_TIMEOUT_US) * 1000
            request.deadline_ns = min(deadline_ns, own_ns) if deadline_ns else own_ns
    return request, placed


def encode_response(
    response: InferResponse,
    placed: dict[str, Extent],
    shared_memory: SharedMemory,
    *,
    parameters: Parameters | None = None,
    stream: bool = False,
) -> bytes:
    """The bytes of a ModelInferResponse, in a ModelStreamInferResponse where ``stream`` says so.

    The outputs named by ``placed`` are written to shared memory, the others are copied into the
    bytes: the response's arrays are not needed afterwards. Raises what writing to shared memory
    raises.
    """
    outputs: list[EncodedOutput] = []
    for output in response.outputs:
        array = output.array
        data = encode_bytes_tensor(array) if output.datatype is BYTES else array
        extent = placed.get(output.name)
        if extent is None:
            outputs.append((output.name, output.datatype.name, array.shape, data, None))
            continue
        name, offset, byte_size = extent
        flat = data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8).data
        shared_memory.write(name, offset, byte_size, flat)
        where: Parameters = {REGION: name, OFFSET: offset, BYTE_SIZE: byte_size}
        outputs.append((output.name, output.datatype.name, array.shape, None, where))
    return encode_infer_response(
        response.model, response.version, response.id, parameters, outputs, stream=stream
    )


def _input(tensor: "DecodedInput", shared_memory: SharedMemory) -> InferInput:
    name, type_name, shape, parameters, data = tensor
    datatype = DATATYPES.get(type_name)
    if datatype is None:
        raise InvalidTensor(
            f'input "{name}" has the unknown datatype "{type_name}"; known are '
            + ", ".join(DATATYPES)
        )
    # Two of them would make up a right number of elements.
    if shape and min(shape) < 0:
        raise InvalidTensor(f'input "{name}" has a negative dimension: {list(shape)}')
    if data is None:
        assert parameters is not None, "an input without data is in shared memory"
        data = shared_memory.read(*_extent(f'input "{name}"', parameters))
    if datatype is BYTES:
        return InferInput(name, datatype, shape, _bytes_array(name, shape, data))
    assert not isinstance(data, list), "only BYTES have a list of elements"
    return InferInput(name, datatype, shape, data)


def _bytes_array(
    name: str, shape: tuple[int, ...], data: bytes | memoryview | list[bytes]
) -> Array:
    count = prod(shape)
    if isinstance(data, list) and len(data) != count:
        raise InvalidTensor(
            f'input "{name}" of shape {list(shape)} has {count} elements, '
            f"but its bytes_contents hold {len(data)}"
        )
    try:
        elements = data if isinstance(data, list) else decode_bytes_tensor(data, count)
        array = np.empty(count, np.object_)
        array[:] = elements
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:  # no such elements, or no such shape
        raise InvalidTensor(
            f'input "{name}" of shape {list(shape)}: the data is no BYTES tensor: {error}'
        ) from None


def _requested_output(output: "DecodedOutput", placed: dict[str, Extent]) -> RequestedOutput:
    name, parameters = output
    if parameters is None:
        return RequestedOutput(name)
    what = f'output "{name}"'
    if REGION in parameters:
        placed[name] = _extent(what, parameters)
    return RequestedOutput(name, _whole_number(what, "classification", parameters, 0))


def _extent(what: str, parameters: Parameters) -> Extent:
    region = parameters[REGION]
    if not isinstance(region, str):
        raise InvalidTensor(f"{what}: the parameter {REGION} is a string, not {region!r}")
    if BYTE_SIZE not in parameters:
        raise InvalidTensor(f"{what}: the parameter {BYTE_SIZE} must accompany {REGION}")
    return (
        region,
        _whole_number(what, OFFSET, parameters, 0),
        _whole_number(what, BYTE_SIZE, parameters, 0),
    )


def _whole_number(what: str, key: str, parameters: Parameters, default: int) -> int:
    value = parameters.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidTensor(f"{what}: the parameter {key} is a whole number, not {value!r}")
    return value
