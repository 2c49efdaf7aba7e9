"""Sessions: threads, providers, every element type, and errors that say what to do."""

import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from gateway.errors import InferenceFailed, InvalidTensor, LoadError, StartupError
from gateway.serving.onnx import providers
from gateway.serving.onnx.runtime import runtime
from gateway.serving.onnx.session import OnnxSession, intra_op_threads, open_session
from gateway.serving.settings import ModelSettings
from gateway.types import BF16, BYTES, DATATYPES, DataType
from tests.serving import models

MIB = 1 << 20


def opened(model: models.ModelProto, settings: ModelSettings | None = None) -> OnnxSession:
    return open_session(model.SerializeToString(), settings or ModelSettings(), size_bytes=1)


@pytest.mark.parametrize(
    ("size", "instances", "cores", "threads"),
    [
        (1 * MIB, 1, 16, 1),
        (15 * MIB, 1, 16, 1),
        (16 * MIB, 1, 16, 2),
        (100 * MIB, 1, 16, 8),
        (100 * MIB, 1, 2, 2),
        (100 * MIB, 4, 16, 4),
        (1000 * MIB, 1, 64, 16),
        (1000 * MIB, 4, 2, 1),
    ],
)
def test_threads_follow_size_and_cores(size: int, instances: int, cores: int, threads: int) -> None:
    assert intra_op_threads(size, instances, cores) == threads


def test_pools_never_spin() -> None:
    options = opened(models.linear()).raw.get_session_options()
    for pool in ("intra_op", "inter_op"):
        assert options.get_session_config_entry(f"session.{pool}.allow_spinning") == "0"


def test_threads_of_the_settings_hold() -> None:
    raw = opened(models.linear(), ModelSettings(intra_op_threads=3)).raw
    assert raw.get_session_options().intra_op_num_threads == 3


@pytest.mark.parametrize("datatype", [d for d in DATATYPES.values() if d is not BYTES], ids=repr)
def test_every_numeric_type_goes_through(datatype: DataType) -> None:
    session = opened(models.identity(datatype.onnx))
    given = np.arange(6).reshape(3, 2).astype(datatype.numpy)
    (result,) = session.run({"x": given}, ["y"])
    assert result.dtype == datatype.numpy
    np.testing.assert_array_equal(result, given)
    assert session.inputs == {"x": datatype}


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (2, 0)])
@pytest.mark.parametrize("datatype", [BF16, BYTES, DATATYPES["FP32"]], ids=repr)
def test_scalars_and_empty_tensors_keep_their_shape(
    shape: tuple[int, ...], datatype: DataType
) -> None:
    session = opened(models.identity(datatype.onnx, [None] * len(shape)))
    given = np.full(shape, "a" if datatype is BYTES else 1).astype(datatype.numpy)
    (result,) = session.run({"x": given}, ["y"])
    assert result.shape == shape
    assert result.tolist() == given.tolist()


def test_text_may_be_bytes_and_hold_nulls() -> None:
    session = opened(models.identity(TensorProto.STRING))
    given = np.array([[b"a\x00b", "naïve"], ["", "naïve".encode()]], object)
    (result,) = session.run({"x": given}, ["y"])
    assert result.tolist() == [["a\x00b", "naïve"], ["", "naïve"]]
    assert given[0, 0] == b"a\x00b"


def test_text_that_is_not_utf8_is_the_callers_fault() -> None:
    session = opened(models.identity(TensorProto.STRING))
    with pytest.raises(InvalidTensor, match="input 'x': element 1 is not UTF-8"):
        session.run({"x": np.array([["a", b"\xff"]], object)}, ["y"])


def test_a_bf16_result_outlives_its_run() -> None:
    session = opened(models.identity(TensorProto.BFLOAT16))
    first = session.run({"x": np.full((64, 2), 7, np.uint16)}, ["y"])[0]
    for value in range(20):
        session.run({"x": np.full((64, 2), value, np.uint16)}, ["y"])
    assert (first == 7).all()


def test_wrong_inputs_are_told_from_failures() -> None:
    session = opened(models.linear())
    with pytest.raises(InvalidTensor, match="ONNX Runtime refuses the inputs"):
        session.run({"x": np.zeros((1, 9), np.float32)}, ["y"])
    with pytest.raises(InferenceFailed, match="ONNX Runtime failed to run the model"):
        opened(models.fixed_reshape()).run({"x": np.zeros((2, 4), np.float32)}, ["y"])


def test_a_run_with_a_limit_gives_up() -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state_in", "state_in"], ["state_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [64, 64]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [64, 64]),
        ],
    )
    endless = models.make(
        [helper.make_node("Loop", ["steps", "go", "x"], ["y"], body=body)],
        [("steps", TensorProto.INT64, []), ("x", TensorProto.FLOAT, [64, 64])],
        [("y", TensorProto.FLOAT, [64, 64])],
        {"go": np.array(True)},
    )
    feeds = {"steps": np.array(1 << 40), "x": np.zeros((64, 64), np.float32)}
    start = time.monotonic()
    with pytest.raises(InferenceFailed, match="terminate"):
        opened(endless).run(feeds, ["y"], limit_s=0.1)
    assert time.monotonic() - start < 30


def test_a_model_that_is_none_is_refused() -> None:
    with pytest.raises(LoadError, match="ONNX Runtime refuses the model"):
        open_session(b"nothing", ModelSettings(), size_bytes=1)


def test_an_unknown_provider_is_named_beside_those_there_are() -> None:
    with pytest.raises(LoadError, match=r"'WarpExecutionProvider'.*CPUExecutionProvider"):
        opened(models.linear(), ModelSettings(providers=("WarpExecutionProvider",)))


def test_a_named_provider_is_used() -> None:
    session = opened(models.linear(), ModelSettings(providers=("CPUExecutionProvider",)))
    assert session.providers == ("CPUExecutionProvider",)
    assert session.device == "cpu"


@pytest.fixture
def fresh_runtime() -> object:
    runtime.cache_clear()
    yield
    runtime.cache_clear()


@pytest.mark.usefixtures("fresh_runtime")
def test_a_missing_runtime_names_both_ways_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(StartupError) as caught:
        runtime()
    assert "pip install onnx-gateway[cpu]" in str(caught.value)
    assert "pip install onnx-gateway[gpu]" in str(caught.value)


@pytest.mark.usefixtures("fresh_runtime")
@pytest.mark.parametrize("version", ["1.30.2", "1.9.0", ""])
def test_an_unusable_runtime_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(__version__=version))
    with pytest.raises(StartupError, match="too old" if version else "empty"):
        runtime()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_is_listed_but_does_not_start_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ort = runtime()
    if providers.CUDA in ort.get_available_providers():
        pytest.skip("CUDA is really there")
    pretender = SimpleNamespace(
        get_available_providers=lambda: [providers.CUDA, providers.CPU],
        InferenceSession=ort.InferenceSession,
    )
    monkeypatch.setattr(providers, "runtime", lambda: pretender)
    refusal = providers.cuda_refusal.__wrapped__()
    assert refusal is not None


@pytest.mark.gpu
def test_cuda_is_chosen_where_it_works() -> None:
    if (refusal := providers.cuda_refusal()) is not None:
        pytest.skip(f"no CUDA: {refusal}")
    session = opened(models.linear())
    assert session.providers[0] == providers.CUDA
    assert session.device == "cuda:0"
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    on_cpu = opened(models.linear(), ModelSettings(providers=(providers.CPU,)))
    np.testing.assert_allclose(
        session.run({"x": x}, ["y"])[0], on_cpu.run({"x": x}, ["y"])[0], rtol=1e-2, atol=1e-3
    )
