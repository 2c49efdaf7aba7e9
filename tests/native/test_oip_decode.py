"""ModelInferRequest on the wire: the codec reads what the protobuf library reads."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native import oip_decode
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
    try:
        expected = reference(data)
    except Exception:  # protobuf's DecodeError is a class of the runtime in use; or RefusedError
        with pytest.raises(DecodeError) as caught:
            decode_infer_request(data)
        assert 0 <= caught.value.offset <= len(data)
        return
    assert comparable(decode_infer_request(data)) == comparable(expected)


INT64 = st.integers(-(2**63), 2**63 - 1)
PARAMETERS = st.dictionaries(
    st.sampled_from(["shared_memory_region", "priority", "timeout", "é", ""]),
    st.one_of(
        st.none(),
        st.booleans(),
        INT64,
        st.text(max_size=4),
        st.floats(),
        st.integers(2**63, 2**64 - 1),
    ),
    max_size=3,
)
ELEMENTS = {
    "bool_contents": st.booleans(),
    "int_contents": st.one_of(st.integers(-128, 127), st.integers(-(2**31), 2**31 - 1)),
    "int64_contents": INT64,
    "uint_contents": st.one_of(st.integers(0, 255), st.integers(0, 2**32 - 1)),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32),
    "fp64_contents": st.floats(),
    "bytes_contents": st.binary(max_size=5),
}


def set_parameters(entries, values) -> None:
    for key, value in values.items():
        entry = entries[key]
        if isinstance(value, bool):
            entry.bool_param = value
        elif isinstance(value, int):
            setattr(entry, "uint64_param" if value >= 2**63 else "int64_param", value)
        elif isinstance(value, float):
            entry.double_param = value
        elif isinstance(value, str):
            entry.string_param = value


@st.composite
def requests(draw):
    """Requests as protobuf's own encoder writes them, right ones and ones that break a rule."""
    request = ModelInferRequest(
        model_name=draw(st.text(max_size=8)),
        model_version=draw(st.sampled_from(["", "1", "v10"])),
        id=draw(st.text(max_size=4)),
    )
    set_parameters(request.parameters, draw(PARAMETERS))
    form = draw(st.sampled_from(["raw", "typed", "either"]))
    for _ in range(draw(st.integers(0, 3))):
        datatype = draw(st.sampled_from([*TYPED_FORMS, "FP16", "FOO"]))
        tensor = request.inputs.add(name=draw(st.text(max_size=3)), datatype=datatype)
        tensor.shape.extend(draw(st.lists(st.one_of(st.integers(0, 300), INT64), max_size=4)))
        if draw(st.integers(0, 3)) == 0:
            set_parameters(tensor.parameters, draw(PARAMETERS))
        if form != "raw":
            field = TYPED_FORMS.get(datatype, ("int_contents", ""))[0]
            if draw(st.integers(0, 9)) == 0:
                field = draw(st.sampled_from(list(ELEMENTS)))
            elements = draw(st.lists(ELEMENTS[field], max_size=5))
            getattr(tensor.contents, field).extend(elements)
        if form != "typed" and "shared_memory_region" not in tensor.parameters:
            size = draw(st.sampled_from([0, 3, oip_decode.COPY_LIMIT, oip_decode.COPY_LIMIT + 1]))
            request.raw_input_contents.append(bytes([draw(st.integers(0, 255))]) * size)
    for _ in range(draw(st.integers(0, 2))):
        set_parameters(request.outputs.add(name="out").parameters, draw(PARAMETERS))
    return request.SerializeToString()


# Fields that no encoder writes in this way, but that a decoder must understand or step over.
ODD_FIELDS = st.sampled_from(
    [
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
)


@settings(max_examples=300, deadline=None)
@given(requests())
def test_a_request_reads_as_protobuf_reads_it(data):
    assert_reads_as_protobuf_does(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(requests(), ODD_FIELDS), max_size=4))
def test_joined_messages_merge_as_protobuf_merges_them(parts):
    assert_reads_as_protobuf_does(b"".join(parts))


@settings(max_examples=500, deadline=None)
@given(requests(), st.data())
def test_damaged_bytes_are_read_or_refused_as_protobuf_does(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        position = draw.draw(st.integers(0, len(damaged)))
        piece = draw.draw(st.one_of(st.binary(max_size=3), ODD_FIELDS))
        damaged[position : position + draw.draw(st.integers(0, 3))] = piece
    assert_reads_as_protobuf_does(bytes(damaged[: draw.draw(st.integers(0, len(damaged)))]))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40))
def test_random_bytes_are_read_or_refused_as_protobuf_does(data):
    assert_reads_as_protobuf_does(data)


@settings(deadline=None)
@given(requests())
def test_every_truncation_is_read_or_refused_as_protobuf_does(data):
    for end in range(min(len(data), 150)):
        assert_reads_as_protobuf_does(data[:end])


def nested(levels: int) -> bytes:
    return b"\xa3\x01" * levels + b"\xa4\x01" * levels


def delimited(tag: int, data: bytes) -> bytes:
    size = len(data)
    return (
        bytes([tag])
        + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7]))
        + data
    )


@pytest.mark.parametrize("levels", range(96, 103))
def test_nesting_has_protobufs_limit_at_every_level(levels):
    groups = nested(levels)
    for data in (
        groups,
        delimited(0x2A, groups),
        delimited(0x32, groups),
        delimited(0x22, groups),
        delimited(0x22, delimited(0x12, groups)),
        delimited(0x2A, delimited(0x2A, groups)),
        delimited(0x2A, delimited(0x22, groups)),
        delimited(0x32, delimited(0x12, groups)),
        delimited(0x2A, delimited(0x22, delimited(0x12, groups))),
    ):
        assert_reads_as_protobuf_does(data)


def test_a_large_tensor_is_a_view_of_the_message_and_a_small_one_a_copy():
    request = ModelInferRequest(model_name="m")
    for size in (oip_decode.COPY_LIMIT, oip_decode.COPY_LIMIT + 1):
        request.inputs.add(name="x", datatype="UINT8", shape=[size])
        request.raw_input_contents.append(bytes(size))
    data = request.SerializeToString()
    small, large = (tensor[4] for tensor in decode_infer_request(data)[4])
    assert type(small) is bytes
    assert type(large) is memoryview
    assert large.obj is data
    assert (large.format, large.ndim, large.nbytes) == ("B", 1, oip_decode.COPY_LIMIT + 1)


@pytest.mark.parametrize("wrap", [bytearray, memoryview, lambda data: np.frombuffer(data, "u1")])
def test_any_contiguous_buffer_is_read(wrap):
    request = ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="UINT8", shape=[4096])
    request.raw_input_contents.append(bytes(range(256)) * 16)
    decoded = decode_infer_request(wrap(request.SerializeToString()))
    assert decoded[0] == "m"
    assert bytes(decoded[4][0][4]) == bytes(range(256)) * 16


def test_a_view_outlives_the_callers_reference_to_the_message():
    request = ModelInferRequest()
    request.inputs.add(name="x")
    request.raw_input_contents.append(b"\x07" * 5000)
    (tensor,) = decode_infer_request(memoryview(bytearray(request.SerializeToString())))[4]
    assert bytes(tensor[4]) == b"\x07" * 5000


def one_input(datatype: str, **contents):
    request = ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype)
    for field, elements in contents.items():
        getattr(tensor.contents, field).extend(elements)
    return request


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (one_input("FP32", int_contents=[1, 2]), "'x' in fp32_contents.*found 2.*int_contents"),
        (one_input("FP16", fp32_contents=[1.0]), "raw_input_contents for input 'x'.*'FP16'"),
        (one_input("INT8", int_contents=[128]), "INT8 element, found 128"),
        (one_input("INT16", int_contents=[-32769]), "INT16 element, found -32769"),
        (one_input("UINT8", uint_contents=[256]), "UINT8 element, found 256"),
        (one_input("UINT16", uint_contents=[65536]), "UINT16 element, found 65536"),
    ],
)
def test_contents_that_do_not_fit_the_datatype_are_refused(request_, said):
    with pytest.raises(DecodeError, match=said):
        decode_infer_request(request_.SerializeToString())


def test_raw_and_typed_contents_do_not_mix():
    request = one_input("FP32", fp32_contents=[1.0])
    request.raw_input_contents.append(b"1234")
    with pytest.raises(DecodeError, match="found both for input 'x'"):
        decode_infer_request(request.SerializeToString())


@pytest.mark.parametrize(
    ("entries", "said"), [(1, "input 'y'.*found only 1"), (3, "expected 2.*found 3")]
)
def test_raw_contents_are_one_for_each_input(entries, said):
    request = ModelInferRequest()
    request.inputs.add(name="x")
    request.inputs.add(name="y")
    request.raw_input_contents.extend([b"1"] * entries)
    with pytest.raises(DecodeError, match=said):
        decode_infer_request(request.SerializeToString())


def test_an_input_in_shared_memory_takes_no_raw_contents():
    request = ModelInferRequest()
    shared = request.inputs.add(name="x")
    shared.parameters["shared_memory_region"].string_param = "region"
    request.inputs.add(name="y")
    request.raw_input_contents.append(b"y's")
    inputs = decode_infer_request(request.SerializeToString())[4]
    assert [(name, data) for name, _, _, _, data in inputs] == [("x", None), ("y", b"y's")]


@pytest.mark.parametrize("field", [b"\x2a\x00", b"\x32\x00"])
def test_the_number_of_tensors_is_bounded(field):
    decode_infer_request(field * oip_decode.MAX_TENSORS)
    with pytest.raises(DecodeError, match=f"at most {oip_decode.MAX_TENSORS}"):
        decode_infer_request(field * (oip_decode.MAX_TENSORS + 1))


def test_an_error_says_where_and_what():
    with pytest.raises(
        DecodeError, match=r"at byte 3: expected a length of at most 1, found 9"
    ) as caught:
        decode_infer_request(b"\x0a\x00\x12\x09a")
    assert caught.value.offset == 3
