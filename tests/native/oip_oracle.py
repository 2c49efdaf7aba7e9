"""ModelInferRequest and ModelInferResponse as the protobuf library reads them.

What the codecs make of the same bytes is compared with it, by the property tests and in fuzzing.
"""

import math
import struct

from gateway._native.bytes_tensor import DecodeError
from gateway._native.oip_decode import decode_infer_request
from gateway.protos import message

ModelInferRequest = message("ModelInferRequest")

TYPED_FORMS = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    "BYTES": ("bytes_contents", None),
}


class RefusedError(Exception):
    """One of the codec's stricter rules refuses what protobuf accepts."""


def parameters_of(entries):
    values = {
        key: getattr(value, value.WhichOneof("parameter_choice"))
        for key, value in entries.items()
        if value.WhichOneof("parameter_choice")
    }
    return values or None


def typed_data_of(tensor):
    field, code = TYPED_FORMS.get(tensor.datatype, (None, None))
    if any(name.name != field for name, _ in tensor.contents.ListFields()):
        raise RefusedError
    if field is None:
        return b""
    elements = list(getattr(tensor.contents, field))
    if code is None:
        return elements
    if code in "fd" and elements:
        # As protobuf keeps them: a signalling NaN would not survive being a float of Python's.
        tensor.contents.DiscardUnknownFields()
        return tensor.contents.SerializeToString()[-len(elements) * struct.calcsize(code) :]
    try:
        return struct.pack(f"<{len(elements)}{code}", *elements)
    except struct.error as error:
        raise RefusedError from error


def reference(data: bytes):
    """What protobuf makes of ``data``, in the codec's form."""
    request = ModelInferRequest.FromString(data)
    raw = list(request.raw_input_contents)
    inputs = []
    for tensor in request.inputs:
        parameters = parameters_of(tensor.parameters)
        typed = bool(tensor.contents.ListFields())
        if parameters and "shared_memory_region" in parameters:
            if typed:
                raise RefusedError
            value = None
        elif request.raw_input_contents:
            if typed or not raw:
                raise RefusedError
            value = raw.pop(0)
        else:
            value = typed_data_of(tensor)
        inputs.append((tensor.name, tensor.datatype, tuple(tensor.shape), parameters, value))
    if raw:
        raise RefusedError
    return (
        request.model_name,
        request.model_version,
        request.id,
        parameters_of(request.parameters),
        inputs,
        [(output.name, parameters_of(output.parameters)) for output in request.outputs],
    )


def comparable(value):
    """``value`` in a form in which equal means equal: NaN too, and True apart from 1."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, bool | int | float):
        return (type(value), value)
    if isinstance(value, tuple | list):
        return [comparable(item) for item in value]
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    return value


def assert_reads_as_protobuf_does(data: bytes) -> None:
    """The decoder takes what protobuf and the stricter rules take, and makes the same of it."""
    try:
        expected = reference(data)
    except Exception:  # protobuf's DecodeError is a class of the runtime in use; or RefusedError
        expected = None
    decoded, offset = None, 0
    try:
        decoded = decode_infer_request(data)
    except DecodeError as error:
        offset = error.offset
    assert comparable(decoded) == comparable(expected)
    assert 0 <= offset <= len(data)


def assert_says(response, model, version, request_id, parameters, outputs) -> None:
    """``response`` says what the encoder was given."""
    assert (response.model_name, response.model_version) == (model, version)
    assert response.id == request_id
    assert comparable(parameters_of(response.parameters)) == comparable(parameters or None)
    assert len(response.outputs) == len(response.raw_output_contents) == len(outputs)
    for tensor, raw, (name, datatype, shape, data, own) in zip(
        response.outputs, response.raw_output_contents, outputs, strict=True
    ):
        assert (tensor.name, tensor.datatype, tuple(tensor.shape)) == (name, datatype, shape)
        assert comparable(parameters_of(tensor.parameters)) == comparable(own or None)
        assert not tensor.HasField("contents")
        assert raw == (data or b"")


# Fields that no encoder writes in this way, but that a decoder must understand or step over.
ODD_FIELDS = [
    b"\x8a\x80\x00\x01a",  # an overlong tag
    b"\x0a\x81\x80\x80\x00b",  # an overlong length
    b"\x0a\x01\xff",  # not UTF-8
    b"\x08\x01",  # model_name as a varint: an unknown field
    b"\xf8\xff\xff\xff\x0f\x01",  # the greatest field number
    b"\x78" + b"\xff" * 9 + b"\x7f",  # an unknown varint with bits beyond the 64th
    b"\x78" + b"\x80" * 10 + b"\x01",  # an unknown varint of 11 bytes
    b"\xa3\x01\x08\x01\xa4\x01",  # an unknown group
    b"\xa3\x01\xac\x01",  # a group that ends as another
    b"\x0c",  # the end of no group
    b"\x0e",  # wire type 6
    b"\x00\x01",  # field 0
    b"\x22\x00",  # a map entry with neither key nor value
    b"\x22\x0a\x0a\x01k\x12\x02\x08\x01\x12\x01",  # a map entry cut short
    b"\x22\x09\x0a\x01k\x12\x02\x08\x01\x12\x00",  # a map entry with two values
    b"\x22\x07\x0a\x01k\x12\x00\x18\x01",  # a map entry with an unknown field
    b"\x22\x0f\x0a\x01k\x12\x0a\x10" + b"\xff" * 8 + b"\x01",  # an overlong value
    b"\x2a\x07\x12\x04FP32\x2a\x00",  # an input with empty contents
    b"\x2a\x0d\x12\x04FP32\x2a\x05\x35\x00\x00\x80\x3f",  # one unpacked float
    b"\x2a\x10\x12\x04FP32\x2a\x08\x32\x06\x00\x00\x80\x3f\x00\x00",  # packed, not whole
    b"\x2a\x0e\x12\x05INT32\x2a\x05\x10\x05\x12\x01\x7f",  # unpacked, then packed
    b"\x2a\x13\x12\x05INT64\x2a\x03\x18\x05\x00\x2a\x05\x1a\x03\x01\x02\x03",
    b"\x2a\x11\x12\x05INT64\x2a\x02\x18\x05\x2a\x04\x1a\x02\x01\x02",  # contents in two parts
    b"\x2a\x06\x18\x02\x1a\x02\x03\x04",  # a shape in two forms
    b"\x2a\x0d\x18" + b"\x80" * 9 + b"\x02\x18\x01",
]
