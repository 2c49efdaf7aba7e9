"""The inference documents: JSON, or JSON followed by binary tensors, to and from the types.

A request is a JSON document; with an ``Inference-Header-Content-Length`` the document is that many
bytes and the binary tensors follow it, in the order of the inputs that have ``binary_data_size``.
With a length of 0 there is no document (see ``wire_raw``). A response has the same two forms.

A client that sends binary tensors sends the same document again and again, so a decoded document
(``RequestHeader``) is kept and found again by its bytes; so is the document of the answer.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import orjson

from gateway._native.bytes_tensor import encode_bytes_tensor
from gateway.errors import MalformedRequest
from gateway.front.request_header import (
    OutputForm,
    RequestHeader,
    ResponseForm,
    TensorHeader,
    all_binary,
)
from gateway.front.wire_binary import bytes_tensor_from_binary
from gateway.front.wire_raw import decode_raw_request
from gateway.front.wire_values import values_to_json
from gateway.types import BYTES, Array, InferInput, InferOutput, InferRequest, InferResponse

#: What follows the JSON of a response: anything with a contiguous buffer.
Buffer: TypeAlias = bytes | Array

#: Below this size a tensor's bytes are copied out of the body: cheaper than a view.
_COPY_BELOW: Final = 2048
#: Documents that are kept, and the longest that is.
_MAX_KEPT: Final = 512
_MAX_KEPT_BYTES: Final = 2048
#: The metadata of a model and version, in the protocol's JSON form; raises ``GatewayError``.
Describe: TypeAlias = Callable[[str, str], dict[str, Any]]


class SharedMemory(Protocol):
    """The regions that a request may name; ``SharedMemoryRegions`` is one."""

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """Return a copy of ``byte_size`` bytes of the region."""

    def write(self, name: str, offset: int, byte_size: int, data: bytes | memoryview) -> None:
        """Copy ``data``, which must not be larger than ``byte_size``, into the region."""


class InferenceCodec:
    """Decodes inference requests and encodes their responses; for one thread."""

    __slots__ = ("_describe", "_headers", "_shared_memory")

    def __init__(self, shared_memory: SharedMemory, describe: Describe) -> None:
        self._shared_memory = shared_memory
        self._describe = describe
        self._headers: dict[bytes, RequestHeader] = {}

    def decode(
        self, model: str, version: str, body: bytes, header_length: int | None, received_ns: int
    ) -> tuple[InferRequest, ResponseForm]:
        """Decode the body of an inference request.

        ``header_length`` is the value of ``Inference-Header-Content-Length``, ``None`` where the
        body is JSON alone, 0 where it is the only input alone. The inputs may be views of ``body``,
        and the request shares its ``outputs`` with others: nobody may change those. Raises
        ``MalformedRequest`` for what does not parse and ``InvalidTensor`` for values that do not
        fit; naming a shared memory region raises what reading it raises, and a body without a
        document what describing the model raises.
        """
        if header_length is None:
            header = RequestHeader(body)
            position = len(body)
        elif not header_length:
            metadata = self._describe(model, version)
            return decode_raw_request(model, version, body, metadata, received_ns), all_binary()
        else:
            if header_length > len(body):
                raise MalformedRequest(
                    f"Inference-Header-Content-Length is {header_length}, "
                    f"but the body has {len(body)} bytes"
                )
            document = body[:header_length]
            found = self._headers.get(document)
            header = found if found is not None else self._parse(document)
            position = header_length
        inputs = []
        for tensor in header.inputs:
            size = tensor.binary_size
            if size is None:
                inputs.append(self._elsewhere(tensor))
                continue
            end = position + size
            if size < _COPY_BELOW:
                data: bytes | memoryview = body[position:end]
            else:
                data = memoryview(body)[position:end]
            if len(data) < size or header_length is None:
                raise _missing_bytes(tensor, len(data), header_length)
            position = end
            if tensor.datatype is BYTES:
                elements = bytes_tensor_from_binary(tensor.name, tensor.shape, data)
                inputs.append(InferInput(tensor.name, BYTES, tensor.shape, elements))
            else:
                inputs.append(InferInput(tensor.name, tensor.datatype, tensor.shape, data))
        if position != len(body):
            start = header_length or 0
            raise MalformedRequest(
                f"the body has {len(body) - start} bytes of binary data, but the inputs' "
                f"binary_data_size add up to {position - start}"
            )
        request = InferRequest(
            model,
            version,
            header.id,
            inputs,
            header.outputs,
            header.parameters.copy(),
            received_ns + header.timeout_ns if header.timeout_ns else 0,
            received_ns,
        )
        return request, header.form

    def _parse(self, document: bytes) -> RequestHeader:
        header = RequestHeader(document)
        if len(document) <= _MAX_KEPT_BYTES and all(
            tensor.binary_size is not None for tensor in header.inputs
        ):
            if len(self._headers) >= _MAX_KEPT:
                self._headers.clear()
            self._headers[document] = header
        return header

    def _elsewhere(self, tensor: TensorHeader) -> InferInput:
        """The input whose data is not in the binary section."""
        if tensor.values is not None:
            return InferInput(tensor.name, tensor.datatype, tensor.shape, tensor.values)
        assert tensor.region is not None
        view = self._shared_memory.read(*tensor.region)
        if tensor.datatype is BYTES:
            elements = bytes_tensor_from_binary(tensor.name, tensor.shape, view)
            return InferInput(tensor.name, BYTES, tensor.shape, elements)
        return InferInput(tensor.name, tensor.datatype, tensor.shape, view)

    def encode(self, response: InferResponse, form: ResponseForm) -> tuple[bytes, Sequence[Buffer]]:
        """Encode a response: its JSON document, and the binary tensors that follow it.

        The buffers are the response's own arrays where that is possible. Outputs that go to shared
        memory are written there. Raises ``InvalidTensor`` for an output that has no JSON form, and
        what writing to shared memory raises.
        """
        if not form.all_binary:
            return self._encode(response, form)
        key: list[object] = [response.model, response.version]
        buffers: list[Buffer] = []
        for output in response.outputs:
            array = output.array
            if output.datatype is BYTES:
                return self._encode(response, form)
            key += (output.name, output.datatype, array.shape)
            buffers.append(array)
        if form.kept_key == key:
            return form.kept_document, buffers
        document, buffers_again = self._encode(response, form)
        form.kept_key, form.kept_document = key, document
        return document, buffers_again

    def _encode(self, response: InferResponse, form: ResponseForm) -> tuple[bytes, list[Buffer]]:
        buffers: list[Buffer] = []
        document: dict[str, Any] = {
            "model_name": response.model,
            "model_version": response.version,
        }
        if response.id:
            document["id"] = response.id
        document["outputs"] = [
            self._encode_output(output, form.of(output.name), buffers)
            for output in response.outputs
        ]
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), buffers

    def _encode_output(
        self, output: InferOutput, form: OutputForm, buffers: list[Buffer]
    ) -> dict[str, Any]:
        array = output.array
        encoded: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype.name,
            "shape": array.shape,
        }
        if not form.binary:
            encoded["data"] = values_to_json(output.name, output.datatype, array.reshape(-1))
            return encoded
        data = encode_bytes_tensor(array) if output.datatype is BYTES else array
        if form.region is None:
            size = len(data) if isinstance(data, bytes) else data.nbytes
            encoded["parameters"] = {"binary_data_size": size}
            buffers.append(data)
            return encoded
        view = data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8).data
        name, offset, byte_size = form.region
        self._shared_memory.write(name, offset, byte_size, view)
        encoded["parameters"] = {
            "shared_memory_region": name,
            "shared_memory_offset": offset,
            "shared_memory_byte_size": byte_size,
        }
        return encoded


def _missing_bytes(tensor: TensorHeader, left: int, header_length: int | None) -> MalformedRequest:
    if header_length is None:
        return MalformedRequest(
            f"input '{tensor.name}' has binary_data_size, but the request has no "
            "Inference-Header-Content-Length header to say where the JSON ends"
        )
    return MalformedRequest(
        f"input '{tensor.name}': binary_data_size is {tensor.binary_size}, "
        f"but {left} bytes of binary data are left in the body"
    )
