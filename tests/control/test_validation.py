"""A new version that does not keep what it must never takes traffic."""

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, helper

from gateway.control.report import check
from gateway.control.validation import check_budgets, latency_ratio
from gateway.errors import LoadError
from gateway.serving.golden import golden_document
from gateway.serving.loaded import LoadedModel
from gateway.serving.settings import ModelSettings, ValidationSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.serving.tensor_json import tensor_document
from gateway.types import FP32, FP64, INT64, InferInput, InferRequest, InferResponse
from tests.control.plane import ROW, ControlPlane, on_plane
from tests.repository import ModelDirectory, constant, echo, model, rows, rows_of, value

X = TensorSpec("x", FP32, (-1, 4), batch_axis=0)
Y = TensorSpec("y", FP32, (-1, 2), batch_axis=0)


def loaded(version: str = "2", **facts: Any) -> LoadedModel:
    """A loaded version without sessions, as its figures say it is."""
    checks = {key: facts.pop(key) for key in ValidationSettings.__slots__ if key in facts}
    described = {
        "settings": ModelSettings(validation=ValidationSettings(**checks)),
        "signature": Signature((X,), (Y,), 8),
        "latency_ns": {1: 1_000_000, 2: 2_000_000},
    }
    return LoadedModel("m", version, Path("model.onnx"), sessions=(), **(described | facts))


def refusal(candidate: LoadedModel, serving: LoadedModel | None) -> str:
    with pytest.raises(LoadError, match=r"^model 'm' version '2': ") as caught:
        check_budgets(candidate, serving)
    return str(caught.value)


# -- budgets ----------------------------------------------------------------------------------


def test_nothing_is_limited_unless_asked_for() -> None:
    candidate = loaded(
        latency_ns={1: 10**12}, memory_bytes=10**15, signature=Signature((), (Y, X), 0)
    )
    check_budgets(candidate, loaded("1"))
    check_budgets(candidate, None)


@given(
    st.dictionaries(st.integers(1, 64), st.integers(1, 10**12), min_size=1),
    st.floats(0.01, 100),
)
def test_a_version_that_is_slower_throughout_is_that_much_slower(
    serving: dict[int, int], factor: float
) -> None:
    candidate = {size: ns * factor for size, ns in serving.items()}
    assert latency_ratio(candidate, serving) == pytest.approx(factor)
    assert latency_ratio({**candidate, 99: 1}, {**serving, 98: 1}) == pytest.approx(factor)


def test_latency_is_held_against_the_serving_version() -> None:
    candidate = loaded(max_latency_ratio=1.5, latency_ns={1: 4_000_000, 2: 2_000_000, 4: 1})
    check_budgets(candidate, None)
    check_budgets(candidate, loaded("1", latency_ns={1: 3_000_000, 2: 2_000_000}))
    assert (
        "it takes 2.00 times as long as version '1', and validation.max_latency_ratio allows 1.5"
        " (milliseconds by rows: 1: 4 instead of 1, 2: 2 instead of 2)"
    ) in refusal(candidate, loaded("1"))


def test_a_latency_that_was_not_measured_is_not_within_a_limit() -> None:
    unmeasured = loaded(max_latency_ratio=1.5, latency_ns={})
    assert "give sample rows that it accepts in warmup.npz" in refusal(unmeasured, loaded("1"))
    # A serving version without figures is no reason to refuse the next one.
    check_budgets(loaded(max_latency_ratio=1.5), replace(unmeasured, version="1"))


def test_memory_is_limited_with_and_without_a_serving_version() -> None:
    candidate = loaded(max_memory_bytes=1_000_000, memory_bytes=1_500_000)
    for serving in (None, loaded("1")):
        assert (
            "opening it took 1.5 MB of memory, and validation.max_memory_bytes allows 1.0 MB"
        ) in refusal(candidate, serving)
    check_budgets(replace(candidate, memory_bytes=1_000_000), None)


def test_the_same_signature_may_stand_in_another_order() -> None:
    a, b = replace(X, name="a"), replace(X, name="b")
    candidate = loaded(require_same_signature=True, signature=Signature((b, a), (Y,), 0))
    check_budgets(candidate, loaded("1", signature=Signature((a, b), (Y,), 8)))
    check_budgets(candidate, None)


@pytest.mark.parametrize(
    ("inputs", "outputs", "change"),
    [
        ((replace(X, datatype=FP64),), (Y,), "input 'x' is FP64 [-1, 4] (was FP32 [-1, 4])"),
        ((replace(X, shape=(-1, 5)),), (Y,), "input 'x' is FP32 [-1, 5] (was FP32 [-1, 4])"),
        (
            (replace(X, optional=True),),
            (Y,),
            "input 'x' is FP32 [-1, 4], optional (was FP32 [-1, 4])",
        ),
        (
            (X, TensorSpec("n", INT64, ())),
            (Y,),
            "input 'n' is INT64 [] (was not there)",
        ),
        ((X,), (), "output 'y' is not there (was FP32 [-1, 2])"),
    ],
)
def test_another_signature_is_told_where_the_same_is_asked_for(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], change: str
) -> None:
    candidate = loaded(require_same_signature=True, signature=Signature(inputs, outputs, 8))
    assert refusal(candidate, loaded("1")).endswith(
        "validation.require_same_signature asks for the signature of version '1', but " + change
    )


def test_everything_that_is_exceeded_is_told_at_once() -> None:
    candidate = loaded(
        max_latency_ratio=1.1, max_memory_bytes=1, memory_bytes=2, latency_ns={1: 10**9}
    )
    message = refusal(candidate, loaded("1"))
    assert "max_memory_bytes" in message
    assert "max_latency_ratio" in message


# -- through the control plane ----------------------------------------------------------------


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path)


def put_golden(folder: Path, answer: np.ndarray) -> None:
    """Expect ``answer`` where ``ROW`` is sent, of whatever ``folder`` is: a model or a version."""
    tensors = {
        "inputs": [tensor_document("x", FP32, ROW)],
        "outputs": [tensor_document("y", FP32, answer)],
    }
    (folder / "golden").mkdir(parents=True)
    (folder / "golden" / "a.json").write_text(json.dumps(tensors))


@pytest.mark.parametrize(
    ("place", "answer", "complaint"),
    [
        ("", rows_of(ROW), "output 'y' has the shape [1, 4]; expected is [1, 5]"),
        ("2", ROW + 1, "output 'y' is off in 4 of 4 elements by up to 1"),
    ],
    ids=["of the model", "of the version"],
)
def test_a_version_that_fails_golden_requests_never_serves(
    models: ModelDirectory, place: str, answer: np.ndarray, complaint: str
) -> None:
    models.add("m", rows)

    async def test(plane: ControlPlane) -> None:
        assert await plane.manager.start() == []
        models.add("m", lambda: echo("FP32"), version="2")
        put_golden(models.path / "m" / place, answer)
        with pytest.raises(LoadError, match="1 of 1 golden requests failed"):
            await plane.manager.load("m")
        served = await plane.infer("m", x=ROW)
        assert served.version == "1"
        np.testing.assert_array_equal(served.outputs[0].array, rows_of(ROW))
        index = plane.service.repository_index(ready_only=False)
        assert [(entry["version"], entry["state"]) for entry in index] == [
            ("1", "READY"),
            ("2", "UNAVAILABLE"),
        ]
        assert complaint in index[1]["reason"]

    on_plane(test, models.path)


def test_a_version_may_have_other_answers_than_the_model(models: ModelDirectory) -> None:
    models.add("m", rows)
    put_golden(models.path / "m", rows_of(ROW))

    async def test(plane: ControlPlane) -> None:
        assert await plane.manager.start() == []
        models.add("m", lambda: echo("FP32"), version="2")
        put_golden(models.path / "m" / "2", ROW)
        await plane.manager.load("m")
        assert (await plane.infer("m", x=ROW)).version == "2"

    on_plane(test, models.path)


@pytest.mark.parametrize("place", ["", "1"])
def test_golden_requests_that_change_decide_at_the_next_load_and_not_about_what_serves(
    models: ModelDirectory, place: str
) -> None:
    models.add("m", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        (before,) = plane.manager.versions("m")
        put_golden(models.path / "m" / place, ROW)
        await plane.manager.load("m")
        assert plane.manager.versions("m") == [before], "it is loaded once"
        assert (await plane.infer("m", x=ROW)).version == "1"
        await plane.manager.unload("m")
        with pytest.raises(LoadError, match="1 of 1 golden requests failed"):
            await plane.manager.load("m")
        shutil.rmtree(models.path / "m" / place / "golden")
        put_golden(models.path / "m" / place, rows_of(ROW))
        await plane.manager.load("m")
        assert (await plane.infer("m", x=ROW)).version == "1"

    on_plane(test, models.path)


def test_golden_requests_beside_the_only_version_do_not_load_it_again(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    onnx.save(rows(), tmp_path / "m" / "model.onnx")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        (before,) = plane.manager.versions("m")
        put_golden(tmp_path / "m", rows_of(ROW))
        await plane.manager.load("m")
        assert plane.manager.versions("m") == [before]

    on_plane(test, tmp_path)


def test_a_version_without_golden_requests_is_refused_where_they_are_required(
    models: ModelDirectory,
) -> None:
    models.add("m", rows, "[validation]\nrequire_golden = true\n")

    async def test(plane: ControlPlane) -> None:
        (failure,) = await plane.manager.start()
        assert "validation.require_golden" in failure

    on_plane(test, models.path)


def test_recorded_answers_are_golden_requests_of_the_next_version(models: ModelDirectory) -> None:
    models.add("m", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        documents: list[dict[str, Any]] = []
        request = InferRequest(
            "m", "", "", [InferInput("x", FP32, ROW.shape, ROW.tobytes())], None, {}, 0, 0
        )

        def keep(answer: Any) -> None:
            assert isinstance(answer, InferResponse), answer
            documents.append(golden_document(request, answer))

        await submit(plane, request, keep)
        (document,) = documents
        assert (document["model_name"], document["model_version"]) == ("m", "1")
        folder = models.path / "m" / "golden"
        folder.mkdir()
        (folder / "recorded.json").write_text(json.dumps(document))
        models.add("m", rows, version="2")
        await plane.manager.load("m")
        assert (await plane.infer("m", x=ROW)).version == "2"
        models.add("m", lambda: echo("FP32"), version="3")
        with pytest.raises(LoadError, match=r"recorded\.json"):
            await plane.manager.load("m")

    on_plane(test, models.path)


def large() -> ModelProto:
    """64 MB of weights."""
    return model(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("ReduceMax", ["product"], ["y"]),
        ],
        [value("x", "FP32", [1, 4])],
        [value("y", "FP32", [1, 1])],
        [constant("w", np.ones((4, 4_000_000), np.float32))],
    )


async def submit(plane: ControlPlane, request: InferRequest, keep: Callable[[Any], None]) -> None:
    """Send a request and wait until ``keep``, the reply's callback, has returned."""
    answered = asyncio.Event()

    def reply(answer: Any) -> None:
        keep(answer)
        answered.set()

    plane.dispatcher.submit(request, reply)
    async with asyncio.timeout(30):
        await answered.wait()


# -- the check command ------------------------------------------------------------------------


def test_the_check_command_tells_of_golden_requests_and_budgets(models: ModelDirectory) -> None:
    for name, answer in (("good", rows_of(ROW)), ("bad", rows_of(ROW) + 1)):
        models.add(name, rows)
        put_golden(models.path / name, answer)
    models.add("large", large, '[validation]\nmax_memory_bytes = "1MB"\n')
    models.add("plain", rows)
    reports = {report.source.name: report for report in check([models.path])}
    assert "golden requests: 1, all answered as expected" in reports["good"].text()
    assert "golden requests: none replayed" in reports["plain"].text()
    assert reports["good"].as_dict()["versions"][0]["golden_requests"] == 1
    assert "1 of 1 golden requests failed" in reports["bad"].text()
    assert "validation.max_memory_bytes allows 1.0 MB" in reports["large"].problems[0]
