"""ModelInferResponse on the wire: what the codec writes, the protobuf library reads back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.oip_encode import encode_infer_response
from gateway.protos import message
from tests.native.oip_oracle import assert_says

ModelInferResponse = message("ModelInferResponse")
ModelStreamInferResponse = message("ModelStreamInferResponse")

TEXT = st.text(max_size=200)
PARAMETERS = st.none() | st.dictionaries(
    TEXT,
    st.one_of(st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), TEXT),
    max_size=3,
)
OUTPUTS = st.lists(
    st.tuples(
        TEXT,
        st.sampled_from(["FP32", "BYTES", "INT8"]),
        st.lists(st.integers(-1, 2**63 - 1), max_size=5).map(tuple),
        st.one_of(st.none(), st.binary(max_size=300)),
        PARAMETERS,
    ),
    max_size=6,
)


@settings(deadline=None)
@given(TEXT, TEXT, TEXT, PARAMETERS, OUTPUTS)
def test_protobuf_reads_back_what_was_written(model, version, request_id, parameters, outputs):
    encoded = encode_infer_response(model, version, request_id, parameters, outputs)
    response = ModelInferResponse.FromString(encoded)
    assert_says(response, model, version, request_id, parameters, outputs)


@settings(deadline=None)
@given(TEXT, TEXT, OUTPUTS)
def test_a_streams_answer_is_wrapped(model, request_id, outputs):
    encoded = encode_infer_response(model, "1", request_id, None, outputs, stream=True)
    wrapped = ModelStreamInferResponse.FromString(encoded)
    assert wrapped.error_message == ""
    assert_says(wrapped.infer_response, model, "1", request_id, None, outputs)


def test_the_kind_of_a_parameter_is_kept():
    parameters = {
        "flag": True,
        "count": 1,
        "huge": 2**64 - 1,
        "least": -(2**63),
        "x": 1.0,
        "s": "1",
    }
    response = ModelInferResponse.FromString(encode_infer_response("m", "", "", parameters, []))
    kinds = {
        key: value.WhichOneof("parameter_choice") for key, value in response.parameters.items()
    }
    assert kinds == {
        "flag": "bool_param",
        "count": "int64_param",
        "huge": "uint64_param",
        "least": "int64_param",
        "x": "double_param",
        "s": "string_param",
    }


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "f2", "f4", "f8", "i8"])
def test_arrays_of_any_shape_are_written_as_their_bytes(dtype):
    for shape in [(), (0, 3), (2, 3, 4)]:
        array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
        encoded = encode_infer_response("m", "1", "", None, [("y", "T", shape, array, None)])
        (raw,) = ModelInferResponse.FromString(encoded).raw_output_contents
        assert raw == array.tobytes()


def test_the_buffers_are_given_back():
    data = bytearray(b"1234")
    encode_infer_response("m", "1", "", None, [("y", "FP32", (1,), data, None)] * 6)
    data.append(0)  # raises BufferError while somebody holds the buffer


@pytest.mark.parametrize(
    ("parameters", "outputs", "error"),
    [
        ({"x": None}, [], TypeError),
        ({"x": b"bytes"}, [], TypeError),
        ({1: "x"}, [], TypeError),
        ({"x": 2**64}, [], OverflowError),
        ({"x": -(2**63) - 1}, [], OverflowError),
        (None, [("y", "FP32", (1.5,), b"", None)], TypeError),
        (None, [("y", "FP32", (2**63,), b"", None)], OverflowError),
        (None, [("y", "FP32", None, b"", None)], TypeError),
        (None, [(None, "FP32", (1,), b"", None)], TypeError),
        (None, [("y", "FP32", (1,), "text", None)], TypeError),
        (None, [("y", "FP32", (1,), b"")], TypeError),
        (None, [["y", "FP32", (1,), b"", None]], TypeError),
        (None, [("y", "FP32", (2,), np.zeros((4, 4))[:, 0], None)], ValueError),
    ],
)
def test_wrong_values_are_refused_and_every_buffer_given_back(parameters, outputs, error):
    data = bytearray(b"1234")
    with pytest.raises(error):
        encode_infer_response("m", "1", "", parameters, [("x", "FP32", (1,), data, None), *outputs])
    data.append(0)
