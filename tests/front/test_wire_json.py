"""The inference documents: what is read, what is refused and how, and what is written."""

import json
import math
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.errors import InvalidRequest, InvalidTensor, MalformedRequest
from gateway.front.json_document import MAX_DEPTH, parse_json
from gateway.front.request_header import ResponseForm
from gateway.front.shared_memory import SharedMemoryRegions
from gateway.front.status import status_of
from gateway.front.wire_json import InferenceCodec
from gateway.types import (
    BF16,
    BYTES,
    DATATYPES,
    FP16,
    FP32,
    FP64,
    InferOutput,
    InferRequest,
    InferResponse,
)


def describe(model: str, version: str) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}


def decode(document: Any, binary: bytes | None = None) -> tuple[InferRequest, ResponseForm]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    length = None if binary is None else len(body)
    codec = InferenceCodec(SharedMemoryRegions(), describe)
    return codec.decode("m", "", body + (binary or b""), length, 7)


def tensor(datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]}


def values(datatype: str, shape: list[int], data: Any) -> Any:
    request, _ = decode(tensor(datatype, shape, data))
    array = request.inputs[0].array()
    assert array.dtype == DATATYPES[datatype].numpy
    assert array.shape == tuple(shape)
    return array.tolist()


JSON_TYPES = [name for name in DATATYPES if name not in ("FP16", "BF16", "BYTES")]


@pytest.mark.parametrize("datatype", JSON_TYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_numbers_are_read_exactly_in_any_nesting(datatype: str, data: st.DataObject) -> None:
    dtype = DATATYPES[datatype].numpy
    array = data.draw(
        arrays.arrays(
            dtype,
            arrays.array_shapes(min_dims=0, max_side=3),
            elements=arrays.from_dtype(dtype, allow_nan=False, allow_infinity=False),
        )
    )
    assert np.array_equal(values(datatype, list(array.shape), array.tolist()), array)
    assert np.array_equal(values(datatype, list(array.shape), array.ravel().tolist()), array)


@given(st.lists(st.text()))
def test_strings_are_read_as_they_are(strings: list[str]) -> None:
    assert values("BYTES", [len(strings)], strings) == strings


def test_nestings_may_be_ragged_as_long_as_the_count_is_right() -> None:
    assert values("INT32", [2, 2], [[1], 2, [[3, 4]]]) == [[1, 2], [3, 4]]
    assert values("BYTES", [3], [["a"], "bc", [], "d"]) == ["a", "bc", "d"]


def test_numbers_that_are_not_finite_are_read() -> None:
    read = values("FP32", [3], [math.nan, math.inf, -math.inf])
    assert math.isnan(read[0])
    assert read[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("datatype", "value", "shown"),
    [
        ("UINT8", 300, "300"),
        ("UINT8", -1, "-1"),
        ("INT8", 128, "128"),
        ("INT64", 1 << 63, "9223372036854775808"),
        ("UINT64", 1 << 64, "1.8446744073709552e+19"),
        ("INT32", 1.5, "1.5"),
        ("INT32", 1.0, "1.0"),
        ("INT32", True, "true"),
        ("FP32", True, "true"),
        ("FP32", "1", '"1"'),
        ("FP32", None, "null"),
        ("FP32", {}, "{}"),
        ("FP32", 1e39, "1e+39"),
        ("FP64", "nan", '"nan"'),
        ("BOOL", 2, "2"),
        ("BOOL", 1.0, "1.0"),
        ("BOOL", "true", '"true"'),
        ("BYTES", 1, "1"),
        ("BYTES", None, "null"),
    ],
)
def test_a_value_that_does_not_fit_is_named(datatype: str, value: Any, shown: str) -> None:
    good = "a" if datatype == "BYTES" else 1
    with pytest.raises(InvalidTensor, match=f"'x': element 1 is .*{datatype} takes") as caught:
        decode(tensor(datatype, [3], [good, value, good]))
    assert shown in str(caught.value)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_says_that_it_is_binary_only(datatype: str) -> None:
    with pytest.raises(InvalidTensor, match="binary_data_size"):
        decode(tensor(datatype, [1], [1.0]))


@pytest.mark.parametrize(
    ("shape", "data"),
    [([3], [1, 2]), ([], [1, 2]), ([0], [1]), ([2**62, 2**62], [1]), ([2, 2], [[1, 2], [3]])],
)
def test_a_count_that_differs_from_the_shape(shape: list[int], data: Any) -> None:
    with pytest.raises(InvalidTensor, match=r"holds \d+ elements"):
        decode(tensor("INT32", shape, data))


@pytest.mark.parametrize("shape", [[2**62, 2**62, 0], [1] * 90])
def test_a_shape_that_no_array_can_have(shape: list[int]) -> None:
    data = [] if 0 in shape else [1]
    for datatype in ("INT32", "BYTES"):
        with pytest.raises(InvalidTensor, match="'x': shape"):
            decode(tensor(datatype, shape, data if datatype == "INT32" else ["a"] * len(data)))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": [{}]},
        {"inputs": [], "id": 1},
        {"inputs": [], "parameters": []},
        {"inputs": [], "parameters": {"timeout": -1}},
        {"inputs": [], "parameters": {"timeout": "soon"}},
        {"inputs": [], "parameters": {"mood": ["good"]}},
        {"inputs": [], "parameters": {"binary_data_output": 1}},
        {"inputs": [], "outputs": {}},
        {"inputs": [], "outputs": ["y"]},
        {"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": "3"}}]},
        {"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]},
        {"inputs": [{"name": "x", "datatype": "FLOAT", "shape": [1], "data": [1]}]},
        {"inputs": [{"name": "x", "datatype": ["FP32"], "shape": [1], "data": [1]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1], "data": [1]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [True], "data": [1]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": 1, "data": [1]}]},
    ],
)
def test_documents_that_say_the_wrong_thing(document: Any) -> None:
    with pytest.raises(InvalidRequest):
        decode(document)


@pytest.mark.parametrize(
    ("document", "where"),
    [
        (b"", "empty"),
        (b'{"inputs": [}', "column 13"),
        (b'{"inputs": [1, NaN, }', "column"),
        (b"\xff", "malformed JSON"),
        (b'{"id": "NaN \\ud800", "inputs": [NaN]}', "malformed JSON"),
    ],
)
def test_malformed_json_says_where_it_broke(document: bytes, where: str) -> None:
    with pytest.raises(MalformedRequest, match=where):
        decode(document)


@pytest.mark.parametrize("open", [b"[", b'{"a":'])
@pytest.mark.parametrize("inner", [b"1", b"NaN", b'"]]]}\\"}}"'])
def test_depth_has_a_limit(open: bytes, inner: bytes) -> None:
    close = b"]" if open == b"[" else b"}"
    side = b"[[1],[2],[" + b"[3]," * MAX_DEPTH + b"[4]]]"

    def nested(depth: int) -> bytes:
        return b"[" + open * (depth - 1) + inner + close * (depth - 1) + b"," + side + b"]"

    parse_json(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(MalformedRequest, match="deeper than 100"):
            parse_json(b"[" * depth)
        with pytest.raises(MalformedRequest, match="deeper than 100"):
            parse_json(nested(depth))


# Binary tensors


def binary_input(size: Any, datatype: str = "FP32", shape: Any = None) -> dict[str, Any]:
    return {
        "name": "x",
        "datatype": datatype,
        "shape": [2] if shape is None else shape,
        "parameters": {"binary_data_size": size},
    }


def test_binary_tensors_are_taken_in_the_order_of_the_inputs() -> None:
    named = [binary_input(4) | {"name": "a"}, binary_input(0) | {"name": "b"}]
    inline = {"name": "c", "datatype": "INT8", "shape": [1], "data": [5]}
    request, _ = decode({"inputs": [*named, inline, binary_input(3000)]}, b"abcd" + b"e" * 3000)
    assert [bytes(each.data) for each in request.inputs] == [b"abcd", b"", b"\x05", b"e" * 3000]


def test_a_document_seen_before_is_read_with_its_own_tensors() -> None:
    codec = InferenceCodec(SharedMemoryRegions(), describe)
    document = orjson.dumps({"inputs": [binary_input(8)], "id": "1", "parameters": {"p": 1}})
    for tail in (b"first   ", b"second  "):
        request, _ = codec.decode("m", "2", document + tail, len(document), 9)
        assert request.inputs[0].data == tail
        assert request.id == "1"
        request.parameters.clear()  # each request has its own
    with pytest.raises(MalformedRequest, match="binary_data_size is 8, but 7 bytes"):
        codec.decode("m", "2", document + b"short  ", len(document), 9)
    with pytest.raises(MalformedRequest, match=r"has 10 bytes of binary data, .* add up to 8"):
        codec.decode("m", "2", document + b"too long !", len(document), 9)
    with pytest.raises(MalformedRequest, match="Inference-Header-Content-Length is"):
        codec.decode("m", "2", document, len(document) + 1, 9)


def test_binary_size_without_a_header_length() -> None:
    with pytest.raises(MalformedRequest, match="Inference-Header-Content-Length"):
        decode({"inputs": [binary_input(8)]})


def test_data_in_two_places() -> None:
    with pytest.raises(MalformedRequest, match="exactly one"):
        decode({"inputs": [binary_input(4) | {"data": [1, 2]}]}, b"1234")


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_binary_strings(elements: list[bytes]) -> None:
    data = b"".join(struct.pack("<I", len(each)) + each for each in elements)
    document = {"inputs": [binary_input(len(data), "BYTES", [len(elements)])]}
    request, _ = decode(document, data)
    assert request.inputs[0].array().tolist() == elements


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | JSON_VALUES,
        "datatype": st.sampled_from([*DATATYPES, "FLOAT"]) | JSON_VALUES,
        "shape": st.lists(st.integers(-1, 3) | st.just(2**62), max_size=3) | JSON_VALUES,
        "data": st.lists(JSON_VALUES, max_size=4) | JSON_VALUES,
        "parameters": JSON_VALUES
        | st.fixed_dictionaries(
            {},
            optional={
                "binary_data_size": st.integers(-1, 40) | JSON_VALUES,
                "shared_memory_region": st.text(max_size=2) | JSON_VALUES,
                "shared_memory_byte_size": st.integers(-1, 40) | JSON_VALUES,
            },
        ),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"inputs": st.lists(INPUTS, max_size=3) | JSON_VALUES},
    optional={"id": JSON_VALUES, "outputs": JSON_VALUES, "parameters": JSON_VALUES},
)


@given(DOCUMENTS, st.binary(max_size=60), st.none() | st.integers(-3, 3))
def test_no_document_does_worse_than_being_refused(
    document: Any, binary: bytes, lie: int | None
) -> None:
    body = json.dumps(document).encode() + binary
    length = None if lie is None else max(0, len(body) - len(binary) + lie)
    codec = InferenceCodec(SharedMemoryRegions(), describe)
    try:
        request, _ = codec.decode("m", "", body, length, 0)
    except Exception as error:
        assert 400 <= status_of(error)[0] < 500  # noqa: PT017
    else:
        assert all(each.datatype in DATATYPES.values() for each in request.inputs)


@given(st.binary(max_size=80), st.none() | st.integers(1, 100))
def test_no_bytes_do_worse_than_being_refused(body: bytes, length: int | None) -> None:
    with pytest.raises(InvalidRequest):
        InferenceCodec(SharedMemoryRegions(), describe).decode("m", "", body, length, 0)


@given(st.binary(max_size=80))
def test_bytes_without_a_document_are_the_only_input_whole_or_refused(body: bytes) -> None:
    codec = InferenceCodec(SharedMemoryRegions(), describe)
    try:
        request, _ = codec.decode("m", "", body, 0, 0)
    except InvalidRequest:
        return
    (tensor,) = request.inputs
    assert tensor.array().tobytes() == body


# Responses


def encode(
    outputs: list[InferOutput], request: dict[str, Any] | None = None, id: str = ""
) -> tuple[Any, bytes]:
    codec = InferenceCodec(SharedMemoryRegions(), describe)
    _, form = decode({"inputs": [], **(request or {})})
    response = InferResponse("m", "3", id, outputs)
    document, buffers = codec.encode(response, form)
    assert codec.encode(response, form)[0] == document
    return document, b"".join(bytes(each) for each in buffers)


def output(datatype: str, array: Any) -> InferOutput:
    kind = DATATYPES[datatype]
    return InferOutput("y", kind, np.array(array, kind.numpy))


def test_the_order_of_a_response() -> None:
    document, rest = encode([output("INT8", [[1, 2]])], id="i")
    assert document == (
        b'{"model_name":"m","model_version":"3","id":"i","outputs":'
        b'[{"name":"y","datatype":"INT8","shape":[1,2],"data":[1,2]}]}'
    )
    assert rest == b""
    assert b'"id"' not in encode([])[0]


@pytest.mark.parametrize("datatype", JSON_TYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_numbers_are_written_exactly(datatype: str, data: st.DataObject) -> None:
    dtype = DATATYPES[datatype].numpy
    array = data.draw(
        arrays.arrays(
            dtype, arrays.array_shapes(min_dims=0, max_side=3), elements=arrays.from_dtype(dtype)
        )
    )
    document, _ = encode([InferOutput("y", DATATYPES[datatype], array)])
    written = json.loads(document)["outputs"][0]
    read = np.array(written["data"], dtype).reshape(written["shape"])
    assert np.array_equal(read, array, equal_nan=array.dtype.kind == "f")


def test_numbers_that_are_not_finite_are_written_as_triton_does() -> None:
    array = np.array([[1, np.nan], [np.inf, -np.inf]], np.float32)
    document, _ = encode([InferOutput("y", FP32, array)])
    assert b'"data":[1.0,NaN,Infinity,-Infinity]' in document


def test_an_empty_tensor() -> None:
    document, _ = encode([InferOutput("y", FP64, np.zeros((0, 3)))])
    assert b'"shape":[0,3],"data":[]' in document


def test_strings_are_written_as_text_and_others_say_to_ask_for_binary() -> None:
    document, _ = encode([output("BYTES", ["é", b"b\xc3\xa9"])])
    assert orjson.loads(document)["outputs"][0]["data"] == ["é", "bé"]
    with pytest.raises(InvalidTensor, match=r"element 1 is not valid UTF-8.*binary_data"):
        encode([output("BYTES", [b"a", b"\xff"])])


@pytest.mark.parametrize("datatype", [FP16, BF16])
def test_half_precision_as_json_says_to_ask_for_binary(datatype: Any) -> None:
    with pytest.raises(InvalidTensor, match="binary_data"):
        encode([InferOutput("y", datatype, np.zeros(1, datatype.numpy))])


def test_forms_by_output_and_for_all() -> None:
    both = [
        InferOutput("y", FP32, np.ones((1, 2), np.float32)),
        InferOutput("z", BYTES, np.array([b"ab"], object)),
    ]
    every = {"parameters": {"binary_data_output": True}}
    document, rest = encode(both, every)
    sizes = [each["parameters"]["binary_data_size"] for each in orjson.loads(document)["outputs"]]
    assert sizes == [8, 6]
    assert rest == np.ones(2, np.float32).tobytes() + b"\x02\x00\x00\x00ab"
    mixed = every | {
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}]
    }
    document, rest = encode(both, mixed)
    first, second = orjson.loads(document)["outputs"]
    assert first["data"] == [1.0, 1.0]
    assert second["parameters"] == {"binary_data_size": 6}
    assert len(rest) == 6


def test_a_kept_document_follows_the_shape_and_the_version() -> None:
    codec = InferenceCodec(SharedMemoryRegions(), describe)
    _, form = decode({"inputs": [], "parameters": {"binary_data_output": True}})
    for version, rows in (("1", 1), ("1", 2), ("2", 2), ("2", 1)):
        array = np.zeros((rows, 3), np.float32)
        response = InferResponse("m", version, "", [InferOutput("y", FP32, array)])
        document, _ = codec.encode(response, form)
        read = orjson.loads(document)
        assert read["model_version"] == version
        assert read["outputs"][0]["shape"] == [rows, 3]
        assert read["outputs"][0]["parameters"]["binary_data_size"] == array.nbytes


def test_classification_is_asked_for_by_output() -> None:
    request, _ = decode(
        {"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}
    )
    assert request.outputs is not None
    assert [(each.name, each.class_count) for each in request.outputs] == [("y", 3)]


def test_a_document_of_no_bytes_makes_the_body_the_only_input() -> None:
    codec = InferenceCodec(SharedMemoryRegions(), describe)
    body = np.arange(6, dtype=np.float32).tobytes()
    request, form = codec.decode("m", "", body, 0, 7)
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, tuple(tensor.shape)) == ("x", FP32, (3, 2))
    np.testing.assert_array_equal(tensor.array(), np.arange(6, dtype=np.float32).reshape(3, 2))
    assert form.all_binary
