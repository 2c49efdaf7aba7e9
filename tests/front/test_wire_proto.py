"""Inference requests and answers between protobuf bytes and the gateway's types."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.errors import InvalidRequest, InvalidTensor, MalformedRequest
from gateway.front.wire_proto import decode_request, encode_response
from gateway.protos import message
from gateway.types import DATATYPES, InferOutput, InferResponse

ModelInferRequest = message("ModelInferRequest")
ModelInferResponse = message("ModelInferResponse")


class Region:
    """One shared memory region, named ``region``."""

    def __init__(self, size: int = 64) -> None:
        self.memory = bytearray(size)

    def read(self, name, offset, byte_size):
        assert name == "region"
        return memoryview(self.memory)[offset : offset + byte_size]

    def write(self, name, offset, byte_size, data):
        if len(data) > byte_size:
            raise InvalidRequest("too large")
        self.read(name, offset, byte_size)[: len(data)] = data


def decode(request, deadline_ns=0, received_ns=0, region=None):
    return decode_request(request.SerializeToString(), deadline_ns, received_ns, region or Region())


def one_input(datatype="FP32", shape=(1,), raw=None, **parameters):
    request = ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    if raw is not None:
        request.raw_input_contents.append(raw)
    for key, value in parameters.items():
        field = "string_param" if isinstance(value, str) else "int64_param"
        setattr(tensor.parameters[key], field, value)
    return request


def test_a_request_is_read_whole():
    request = ModelInferRequest(model_name="m", model_version="2", id="7")
    request.parameters["priority"].int64_param = 3
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([1, 2], "f4").tobytes())
    request.outputs.add(name="y").parameters["classification"].int64_param = 5
    request.outputs.add(name="z")
    decoded, placed = decode(request, deadline_ns=9, received_ns=5)
    assert (decoded.model, decoded.version, decoded.id) == ("m", "2", "7")
    assert decoded.parameters == {"priority": 3}
    assert (decoded.deadline_ns, decoded.received_ns) == (9, 5)
    (tensor,) = decoded.inputs
    assert (tensor.name, tensor.datatype.name, tensor.shape) == ("x", "FP32", (1, 2))
    assert tensor.array().tolist() == [[1, 2]]
    assert [(output.name, output.class_count) for output in decoded.outputs] == [("y", 5), ("z", 0)]
    assert placed == {}


def test_no_requested_outputs_are_all_of_them():
    assert decode(ModelInferRequest())[0].outputs is None


@pytest.mark.parametrize(
    ("deadline_ns", "timeout_us", "expected_ns"),
    [(0, 0, 0), (0, 3, 8000), (7000, 3, 7000), (9000, 3, 8000), (7000, 0, 7000)],
)
def test_the_deadline_is_the_earlier_of_the_calls_and_the_requests(
    deadline_ns, timeout_us, expected_ns
):
    request = ModelInferRequest()
    request.parameters["timeout"].int64_param = timeout_us
    decoded, _ = decode(request, deadline_ns, received_ns=5000)
    assert decoded.deadline_ns == expected_ns
    assert decoded.parameters == {"timeout": timeout_us}


@pytest.mark.parametrize("typed", [True, False])
def test_bytes_are_an_array_of_objects(typed):
    request = one_input("BYTES", (2, 1))
    if typed:
        request.inputs[0].contents.bytes_contents.extend([b"a", b"bc"])
    else:
        request.raw_input_contents.append(b"\x01\0\0\0a\x02\0\0\0bc")
    (tensor,) = decode(request)[0].inputs
    assert tensor.data.dtype == object
    assert tensor.data.tolist() == [[b"a"], [b"bc"]]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (one_input("FLOAT", raw=b""), 'unknown datatype "FLOAT"; known are BOOL'),
        (one_input("BYTES", (2,), b"\x01\0\0\0a"), r'"x" of shape \[2\].*at byte 5'),
        (one_input("BYTES", (-1,), b""), "negative dimension"),
        (one_input("BYTES", (2**62, 4), b""), "no BYTES tensor"),
        (one_input("BYTES", (0, 2**62), b""), "no BYTES tensor"),
        (one_input("BYTES", (1,) * 100, b"\0\0\0\0"), "no BYTES tensor"),
        (one_input(shared_memory_region="region"), "shared_memory_byte_size must accompany"),
        (
            one_input(shared_memory_region="region", shared_memory_byte_size="4"),
            "shared_memory_byte_size is a whole number, not '4'",
        ),
        (
            one_input(
                shared_memory_region="region", shared_memory_byte_size=4, shared_memory_offset=-1
            ),
            "shared_memory_offset is a whole number, not -1",
        ),
    ],
)
def test_a_tensor_that_makes_no_sense_is_refused(request_, said):
    with pytest.raises(InvalidTensor, match=said):
        decode(request_)


def test_typed_bytes_that_do_not_fill_the_shape_are_refused():
    request = one_input("BYTES", (3,))
    request.inputs[0].contents.bytes_contents.append(b"a")
    with pytest.raises(InvalidTensor, match=r"has 3 elements, .* hold 1"):
        decode(request)


@pytest.mark.parametrize("value", ["soon", -1, 1.5, True])
def test_a_timeout_that_is_no_number_is_refused(value):
    kinds = {str: "string_param", int: "int64_param", float: "double_param", bool: "bool_param"}
    request = ModelInferRequest()
    setattr(request.parameters["timeout"], kinds[type(value)], value)
    with pytest.raises(InvalidTensor, match="timeout is a whole number"):
        decode(request)


def test_bytes_that_are_no_request_are_malformed():
    with pytest.raises(
        MalformedRequest, match="no ModelInferRequest: at byte 1: expected a length"
    ):
        decode_request(b"\x0a\x05abc", 0, 0, Region())


def test_an_input_in_shared_memory_is_a_view_of_it():
    region = Region()
    request = one_input(
        "UINT8", (4,), shared_memory_region="region", shared_memory_byte_size=4,
        shared_memory_offset=8,
    )  # fmt: skip
    (tensor,) = decode(request, region=region)[0].inputs
    region.memory[8:12] = b"abcd"
    assert bytes(tensor.data) == b"abcd"


def test_an_output_in_shared_memory_leaves_its_entry_empty():
    region = Region()
    request = ModelInferRequest()
    for name, offset in [("numbers", 0), ("texts", 32)]:
        parameters = request.outputs.add(name=name).parameters
        parameters["shared_memory_region"].string_param = "region"
        parameters["shared_memory_byte_size"].int64_param = 32
        parameters["shared_memory_offset"].int64_param = offset
    request.outputs.add(name="here")
    _, placed = decode(request)
    outputs = [
        InferOutput("numbers", DATATYPES["FP32"], np.array([[1.5]], "f4")),
        InferOutput("texts", DATATYPES["BYTES"], np.array(["é", b"b"], object)),
        InferOutput("here", DATATYPES["BOOL"], np.array(True)),
    ]
    encoded = encode_response(InferResponse("m", "1", "", outputs), placed, region)
    response = ModelInferResponse.FromString(encoded)
    assert list(response.raw_output_contents) == [b"", b"", b"\x01"]
    assert [tuple(output.shape) for output in response.outputs] == [(1, 1), (2,), ()]
    assert response.outputs[1].parameters["shared_memory_region"].string_param == "region"
    assert response.outputs[1].parameters["shared_memory_offset"].int64_param == 32
    assert response.outputs[1].parameters["shared_memory_byte_size"].int64_param == 32
    assert region.memory[:4] == np.float32(1.5).tobytes()
    assert region.memory[32:43] == b"\x02\0\0\0\xc3\xa9\x01\0\0\0b"


@settings(deadline=None)
@given(
    st.sampled_from([d for d in DATATYPES.values() if d.name not in ("BYTES", "BF16")]).flatmap(
        lambda datatype: st.tuples(
            st.just(datatype.name),
            hnp.arrays(datatype.numpy, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4)),
        )
    )
)
def test_a_tensor_comes_back_as_it_was_sent(tensor):
    name, array = tensor
    request = one_input(name, array.shape, array.tobytes())
    (read,) = decode(request)[0].inputs
    output = InferOutput("y", read.datatype, read.array())
    encoded = encode_response(InferResponse("m", "1", "7", [output]), {}, Region())
    response = ModelInferResponse.FromString(encoded)
    assert (response.model_name, response.model_version, response.id) == ("m", "1", "7")
    assert (response.outputs[0].datatype, tuple(response.outputs[0].shape)) == (name, array.shape)
    assert response.raw_output_contents[0] == array.tobytes()
