"""A model file's interface is read without its weights, and what cannot be served is refused."""

import contextlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from gateway.errors import LoadError
from gateway.serving.onnx.graph import read_graph
from gateway.serving.onnx.session import open_session
from gateway.serving.onnx.skim import skim
from gateway.serving.settings import ModelSettings
from tests.serving import models


def test_tensors_are_described_as_the_file_has_them(tmp_path: Path) -> None:
    graph = read_graph(models.save(models.recurrent(), tmp_path))
    assert [(s.name, s.datatype.name, s.shape) for s in graph.inputs] == [
        ("input", "FP32", (-1, -1)),
        ("state", "FP32", (2, -1, 8)),
        ("sr", "INT64", ()),
    ]
    assert [s.name for s in graph.outputs] == ["output", "stateN"]
    assert graph.opsets == {"": 18}


def test_symbols_are_kept(tmp_path: Path) -> None:
    graph = read_graph(models.save(models.time_major(), tmp_path))
    assert graph.inputs[0].symbols == ("time", "lane", "")


def test_metadata_is_text(tmp_path: Path) -> None:
    model = models.linear()
    model.producer_name = "trainer"
    helper.set_model_props(model, {"author": "someone"})
    graph = read_graph(models.save(model, tmp_path))
    assert graph.metadata == {"producer_name": "trainer", "graph": "test", "author": "someone"}


def test_a_default_makes_an_input_optional(tmp_path: Path) -> None:
    model = models.linear()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    path = models.save(model, tmp_path)
    assert [(s.name, s.optional) for s in read_graph(path).inputs] == [("x", False), ("w", True)]


def test_in_old_files_listed_weights_are_no_inputs(tmp_path: Path) -> None:
    model = models.linear()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    model.ir_version = 3
    assert [s.name for s in read_graph(models.save(model, tmp_path)).inputs] == ["x"]


def test_weights_are_not_read(tmp_path: Path) -> None:
    weights = np.zeros((1000, 1000), np.float32)
    model = models.make(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", TensorProto.FLOAT, ["N", 1000])],
        [("y", TensorProto.FLOAT, ["N", 1000])],
        {"w": weights},
    )
    path = models.save(model, tmp_path)
    skimmed = skim(path)
    assert skimmed.ByteSize() < 1000
    assert list(skimmed.graph.initializer[0].dims) == [1000, 1000]
    assert read_graph(path).size_bytes > weights.nbytes


def external(tmp_path: Path, location: str = "weights.bin") -> Path:
    model = models.linear()
    path = tmp_path / "m" / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    if location != "weights.bin":
        saved = onnx.load(path, load_external_data=False)
        for tensor in saved.graph.initializer:
            next(e for e in tensor.external_data if e.key == "location").value = location
        path.write_bytes(saved.SerializeToString())
    return path


def test_external_data_is_found(tmp_path: Path) -> None:
    path = external(tmp_path)
    graph = read_graph(path)
    assert graph.external == (path.parent / "weights.bin",)
    assert graph.size_bytes == path.stat().st_size + (path.parent / "weights.bin").stat().st_size


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path = external(tmp_path)
    (path.parent / "weights.bin").unlink()
    with pytest.raises(LoadError, match=r"external data of tensor 'w' is missing: 'weights\.bin'"):
        read_graph(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", ""])
def test_external_data_outside_the_directory_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(LoadError, match="outside the model's directory"):
        read_graph(external(tmp_path, location))


def refused(kind: onnx.TypeProto, tmp_path: Path) -> str:
    model = models.identity()
    model.graph.output[0].type.CopyFrom(kind)
    with pytest.raises(LoadError) as caught:
        read_graph(models.save(model, tmp_path))
    return str(caught.value)


FLOAT = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 2])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (helper.make_sequence_type_proto(FLOAT), "output 'y' is a sequence (of tensors)"),
        (helper.make_optional_type_proto(FLOAT), "output 'y' is an optional (of a tensor)"),
        (helper.make_map_type_proto(TensorProto.INT64, FLOAT), "output 'y' is a map"),
        (
            helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, FLOAT)),
            "output 'y' is a sequence (of a map)",
        ),
        (
            helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, [2, 2]),
            "output 'y' is a sparse tensor",
        ),
        *(
            (
                helper.make_tensor_type_proto(getattr(TensorProto, name), ["N"]),
                f"output 'y' is a tensor of {name}",
            )
            for name in (
                "COMPLEX64",
                "COMPLEX128",
                "FLOAT8E4M3FN",
                "FLOAT8E5M2",
                "UINT4",
                "INT4",
                "FLOAT4E2M1",
            )
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_types_that_the_protocol_lacks_are_refused(
    tmp_path: Path, kind: onnx.TypeProto, words: str
) -> None:
    assert words in refused(kind, tmp_path)


def test_an_input_without_a_rank_asks_for_a_shape(tmp_path: Path) -> None:
    path = models.save(models.identity(shape=None), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(LoadError, match=r"input 'x' has no shape .* model\.toml"):
        read_graph(path)
    graph = read_graph(path, {"x": (-1, 7)})
    assert graph.inputs[0].shape == (-1, 7)
    assert graph.unshaped == {"y"}


@pytest.mark.parametrize("content", [b"", b"hello, this is no model", b"\x08\x0a", b"\xff" * 100])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadError, match="not an ONNX model"):
        read_graph(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        read_graph(tmp_path / "model.onnx")


WHOLE = models.linear().SerializeToString()


@settings(max_examples=200)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, len(WHOLE)))
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int, end: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    damaged = bytearray(WHOLE)
    damaged[position] = byte
    path.write_bytes(damaged[:end])
    with contextlib.suppress(LoadError):
        read_graph(path)


@pytest.mark.parametrize("labels", [[0, 1, 2], ["cat", "dog", "eel"]])
def test_a_zipmap_gives_way_to_its_tensor(tmp_path: Path, labels: list[int] | list[str]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    y = np.array(labels)[np.arange(60) % 3]
    classifier = LogisticRegression().fit(x, y)
    path = models.save(to_onnx(classifier, x[:1]), tmp_path)
    graph = read_graph(path)
    probabilities = graph.outputs[1]
    assert probabilities.datatype.name == "FP32"
    assert probabilities.shape == (-1, 3)
    assert probabilities.labels == tuple(map(str, labels))
    assert json.loads(graph.metadata[f"classes.{probabilities.name}"]) == list(map(str, labels))
    session = open_session(graph.model, ModelSettings(), size_bytes=graph.size_bytes)
    (given,) = session.run({graph.inputs[0].name: x}, [probabilities.name])
    np.testing.assert_allclose(given, classifier.predict_proba(x), rtol=1e-4, atol=1e-6)


def test_bf16_beside_text_keeps_its_name_and_bits(tmp_path: Path) -> None:
    model = models.make(
        [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Identity", ["s"], ["t"])],
        [("a", TensorProto.BFLOAT16, ["N"]), ("s", TensorProto.STRING, ["N"])],
        [("b", TensorProto.BFLOAT16, ["N"]), ("t", TensorProto.STRING, ["N"])],
    )
    graph = read_graph(models.save(model, tmp_path))
    assert [(s.name, s.datatype.name) for s in graph.outputs] == [("b", "BF16"), ("t", "BYTES")]
    session = open_session(graph.model, ModelSettings(), size_bytes=1)
    bits = np.array([0x3F80, 0xFF80, 0x8000, 0x0001], np.uint16)
    feeds = {"a": bits, "s": np.array(["w", b"x", "", "z"], object)}
    text, same = session.run(feeds, ["t", "b"])
    np.testing.assert_array_equal(same, bits)
    assert text.tolist() == ["w", "x", "", "z"]


def test_large_constants_of_subgraphs_may_lie_outside(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.ones(2, np.float32), "inner")],
    )
    inner = branch.initializer[0]
    inner.ClearField("raw_data")
    inner.data_location = TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="gone.bin")
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = models.make([node], [("c", TensorProto.BOOL, [])], [("y", TensorProto.FLOAT, [2])])
    with pytest.raises(LoadError, match="'inner' is missing"):
        read_graph(models.save(model, tmp_path))
