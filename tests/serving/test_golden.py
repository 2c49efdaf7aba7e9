"""Golden requests: what is recorded reads back, and what is wrong in a file is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.errors import InvalidTensor, LoadError
from gateway.serving.compare import deviation
from gateway.serving.golden import golden_document, golden_files, read_golden
from gateway.serving.samples import from_datatype
from gateway.serving.settings import ModelSettings, ValidationSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import (
    BF16,
    BYTES,
    DATATYPES,
    FP32,
    INT64,
    UINT16,
    Array,
    DataType,
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
    RequestedOutput,
)

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def tensors(datatype: DataType) -> st.SearchStrategy[Array]:
    if datatype is BYTES:
        return arrays.arrays(object, SHAPES, elements=st.text(max_size=5), fill=st.nothing())
    return arrays.arrays(datatype.numpy, SHAPES)


def exchange(
    inputs: list[InferInput], outputs: list[InferOutput], asked: list[RequestedOutput] | None = None
) -> dict[str, Any]:
    request = InferRequest("m", "", "r-1", inputs, asked, {}, 0, 0)
    return golden_document(request, InferResponse("m", "3", "r-1", outputs))


def write(folder: Path, document: Any, name: str = "a.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def tensor(name: str, datatype: str, data: Any, shape: list[int] | None = None) -> dict[str, Any]:
    shape = [len(data)] if shape is None else shape
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def document(**changes: Any) -> dict[str, Any]:
    """A right golden request but for the ``changes``; ``None`` takes a key out."""
    right = {"inputs": [tensor("x", "FP32", [1.5])], "outputs": [tensor("y", "INT64", [2])]}
    return {key: value for key, value in (right | changes).items() if value is not None}


# -- recorded and read ------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", DATATYPES.values(), ids=DATATYPES)
@given(data=st.data())
def test_what_is_recorded_reads_back(
    tmp_path_factory: pytest.TempPathFactory, datatype: DataType, data: st.DataObject
) -> None:
    sent, answered = data.draw(tensors(datatype)), data.draw(tensors(datatype))
    path = write(
        tmp_path_factory.mktemp("golden"),
        exchange(
            [InferInput("x", datatype, sent.shape, sent)], [InferOutput("y", datatype, answered)]
        ),
    )
    golden = read_golden(path)
    assert golden.id == "r-1"
    (given_input,), (given_output,) = golden.inputs, golden.outputs
    for name, tensor, array, expected in (
        ("x", given_input, given_input.array(), sent),
        ("y", given_output, given_output.array, answered),
    ):
        assert (tensor.name, tensor.datatype, tensor.shape) == (name, datatype, expected.shape)
        assert array.dtype == datatype.numpy
        assert array.flags.c_contiguous
        assert deviation(expected, array, datatype, 0.0, 0.0) is None


@pytest.mark.parametrize("datatype", [d for d in DATATYPES.values() if d is not BYTES], ids=repr)
def test_inputs_are_recorded_from_their_wire_bytes(tmp_path: Path, datatype: DataType) -> None:
    array = np.arange(6).astype(datatype.numpy).reshape(2, 3)
    sent = InferInput("x", datatype, (2, 3), memoryview(array.tobytes()))
    golden = read_golden(write(tmp_path, exchange([sent], [InferOutput("y", datatype, array)])))
    np.testing.assert_array_equal(golden.inputs[0].array(), array)


def test_a_recorded_document_shares_nothing_with_the_reply() -> None:
    array = np.ones(2, np.float32)
    recorded = exchange([], [InferOutput("y", FP32, array)])
    array[:] = 7
    assert recorded["outputs"][0]["data"] == [1.0, 1.0]


def test_a_recorded_document_survives_strict_json(tmp_path: Path) -> None:
    array = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    text = json.dumps(exchange([], [InferOutput("y", FP32, array)]), allow_nan=False)
    np.testing.assert_array_equal(read_golden(write(tmp_path, text)).outputs[0].array, array)


def test_classifications_are_not_recorded() -> None:
    scores = InferOutput("y", BYTES, np.array([b"0.9:1"], object))
    other = InferOutput("z", FP32, np.ones(1, np.float32))
    asked = [RequestedOutput("y", 1), RequestedOutput("z")]
    assert [out["name"] for out in exchange([], [scores, other], asked)["outputs"]] == ["z"]
    with pytest.raises(InvalidTensor, match="ask for the scores"):
        exchange([], [scores], asked[:1])


def test_text_that_is_not_utf8_cannot_be_recorded() -> None:
    with pytest.raises(InvalidTensor, match="'y': element 1 is not UTF-8"):
        exchange([], [InferOutput("y", BYTES, np.array([b"a", b"\xff"], object))])


# -- JSON -------------------------------------------------------------------------------------


def test_a_pasted_request_and_response_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """{"id": "7", "model_name": "m", "model_version": "1", "parameters": {"priority": 1},
            "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32",
                        "data": [[1, 2.5], [NaN, -Infinity]], "parameters": {}}],
            "outputs": [{"name": "y", "shape": [1], "datatype": "BOOL", "data": [true]}],
            "tolerance": {"relative": 0.5, "absolute": 2}}""",
    )
    golden = read_golden(path)
    np.testing.assert_array_equal(
        golden.inputs[0].array(), np.array([[1, 2.5], [np.nan, -np.inf]], np.float32)
    )
    assert golden.outputs[0].array.tolist() == [True]
    assert (golden.relative, golden.absolute, golden.id) == (0.5, 2.0, "7")


def test_a_tolerance_may_be_left_open(tmp_path: Path) -> None:
    golden = read_golden(write(tmp_path, document(tolerance={"absolute": 1})))
    assert (golden.relative, golden.absolute) == (None, 1.0)


def test_brain_floats_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, document(outputs=[tensor("y", "BF16", [1.0, 1.006, "NaN", 3.38e38])]))
    values = from_datatype(read_golden(path).outputs[0].array, BF16)
    np.testing.assert_allclose(values[[0, 1, 3]], [1.0, 1.0078125, 3.38e38], rtol=2**-9)
    assert np.isnan(values[2])


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "the golden request must be a table, not []"),
        (document(tolerence={}), "unknown key 'tolerence'; did you mean 'tolerance'?"),
        (document(inputs=None), "inputs is missing"),
        (document(outputs=None), "outputs is missing"),
        (document(outputs=[]), "there are no outputs"),
        (document(inputs=[3]), "inputs[0] must be a table, not 3"),
        (document(inputs=[{"name": "x"}]), "inputs[0].datatype is missing"),
        (document(inputs=[tensor("x", "FP8", [1])]), "inputs[0].datatype must be one of BOOL, "),
        (document(inputs=[tensor("x", "FP32", [1], [-1])]), "inputs[0].shape[0] must be an int"),
        (
            document(inputs=[tensor("x", "FP32", [1], [2, 2])]),
            "inputs[0].data has 1 elements, but the shape [2, 2] holds 4",
        ),
        (
            document(outputs=[tensor("y", "UINT8", [1, 300])]),
            "outputs[0].data[1] must be an integer from 0 to 255 for UINT8, not 300",
        ),
        (
            document(outputs=[tensor("y", "INT64", [1.5])]),
            "outputs[0].data[0] must be an integer from",
        ),
        (document(outputs=[tensor("y", "BOOL", ["no"])]), "data[0] must be true or false"),
        (document(outputs=[tensor("y", "BYTES", [1])]), "data[0] must be text for BYTES, not 1"),
        (
            document(outputs=[tensor("y", "FP16", [1e6])]),
            "data[0] must be a number within 65504 of zero for FP16",
        ),
        (document(outputs=[tensor("y", "FP32", [None])]), "data[0] must be a number within"),
        (document(outputs=[tensor("y", "FP64", [10**400])]), "data[0] must be a number within"),
        (
            document(outputs=[tensor("y", "FP32", [1]), tensor("y", "FP32", [1])]),
            "outputs must have each tensor once; repeated ['y']",
        ),
        (
            document(tolerance={"relative": -1}),
            "tolerance.relative must be a finite number of at least 0, not -1",
        ),
        (document(id=3), "id must be text, not 3"),
    ],
)
def test_what_is_wrong_in_json_is_named(tmp_path: Path, wrong: Any, complaint: str) -> None:
    path = write(tmp_path, wrong)
    with pytest.raises(LoadError) as caught:
        read_golden(path)
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    for name in ("a.json", "a.npz"):
        with pytest.raises(LoadError, match=f"{name} cannot be read: No such file"):
            read_golden(tmp_path / name)


# -- NPZ --------------------------------------------------------------------------------------


def save(folder: Path, **given: Any) -> Path:
    path = folder / "a.npz"
    np.savez(path, **{key.replace("_", ":"): value for key, value in given.items()})
    return path


def test_arrays_are_read_with_their_data_types(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        input_x=np.float32([[1, 2]]),
        input_rate=np.int64(8000),
        output_y=np.array(["a", "é"]),
        output_z=np.array([b"a", "é".encode()]),
        relative=0.5,
        absolute=np.array([1]),
    )
    golden = read_golden(path)
    assert [(t.name, t.datatype, t.shape) for t in golden.inputs] == [
        ("x", FP32, (1, 2)),
        ("rate", INT64, ()),
    ]
    for output in golden.outputs:
        assert output.datatype is BYTES
        assert output.array.tolist() == ["a", "é"]
    assert (golden.relative, golden.absolute) == (0.5, 1.0)


def test_brain_floats_are_told_from_integers_by_the_signature(tmp_path: Path) -> None:
    path = save(tmp_path, input_x=np.uint16([1]), output_y=np.uint16([1]))
    spec = TensorSpec("x", BF16, (1,))
    golden = read_golden(path, Signature((spec,), (), 0))
    assert golden.inputs[0].datatype is BF16
    assert golden.outputs[0].datatype is UINT16


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"x": np.ones(1)}, "unknown array 'x'; known are input:NAME, output:NAME"),
        ({"output_": np.ones(1)}, "unknown array 'output:'"),
        ({"input_x": np.ones(1)}, "there are no outputs"),
        ({"output_y": np.ones(1, np.complex64)}, "output:y is complex64"),
        ({"output_y": np.array([1], object)}, "as a .npz of plain arrays (text as numpy str)"),
        ({"output_y": np.array([b"\xff"])}, "output:y is not UTF-8"),
        ({"relative": -1.0}, "relative must be a finite number of at least 0, not -1.0"),
        (
            {"absolute": np.ones(2)},
            "absolute must be a finite number of at least 0, not [1.0, 1.0]",
        ),
    ],
)
def test_what_is_wrong_in_an_npz_is_named(
    tmp_path: Path, given: dict[str, Any], complaint: str
) -> None:
    path = save(tmp_path, **given)
    with pytest.raises(LoadError) as caught:
        read_golden(path)
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)


def test_a_file_that_is_no_npz_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"a\.npz cannot be read"):
        read_golden(write(tmp_path, "no arrays", "a.npz"))


# -- finding ----------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The directories of golden requests of a model and of its version 1."""
    for folder in ("golden", "1/golden"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path / "golden", tmp_path / "1/golden"


def test_a_file_of_the_version_goes_before_the_models(folders: tuple[Path, Path]) -> None:
    shared, own = folders
    for path in (shared / "b.json", own / "b.json", shared / "a.npz", own / "c.json"):
        path.touch()
    for ignored in (".d.json", "README.md", "d.json.bak"):
        (shared / ignored).touch()
    found = golden_files(shared.parent / "1/model.onnx", ModelSettings(golden=shared))
    assert found == (shared / "a.npz", own / "b.json", own / "c.json")


def test_they_may_be_turned_off_and_asked_for(folders: tuple[Path, Path]) -> None:
    shared, own = folders
    path = shared.parent / "1/model.onnx"
    required = ModelSettings(golden=shared, validation=ValidationSettings(require_golden=True))
    with pytest.raises(LoadError, match=f"no golden requests.*{own} or {shared}"):
        golden_files(path, required)
    with pytest.raises(LoadError, match="no golden requests"):
        golden_files(path, ModelSettings(validation=ValidationSettings(require_golden=True)))
    (shared / "a.json").touch()
    assert golden_files(path, required) == (shared / "a.json",)
    off = ModelSettings(golden=shared, validation=ValidationSettings(golden=False))
    assert golden_files(path, off) == ()
    assert golden_files(path, ModelSettings()) == ()
