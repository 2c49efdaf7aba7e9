"""ModelInferRequest on the wire: the codec reads what the protobuf library reads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native import oip_decode
from gateway._native.bytes_tensor import DecodeError
from gateway._native.oip_decode import decode_infer_request
from gateway.protos import message
from tests.native.oip_oracle import ODD_FIELDS, TYPED_FORMS, assert_reads_as_protobuf_does

ModelInferRequest = message("ModelInferRequest")

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


@settings(max_examples=300, deadline=None)
@given(requests())
def test_a_request_reads_as_protobuf_reads_it(data):
    assert_reads_as_protobuf_does(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(requests(), st.sampled_from(ODD_FIELDS)), max_size=4))
def test_joined_messages_merge_as_protobuf_merges_them(parts):
    assert_reads_as_protobuf_does(b"".join(parts))


@settings(max_examples=500, deadline=None)
@given(requests(), st.data())
def test_damaged_bytes_are_read_or_refused_as_protobuf_does(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        position = draw.draw(st.integers(0, len(damaged)))
        piece = draw.draw(st.one_of(st.binary(max_size=3), st.sampled_from(ODD_FIELDS)))
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
