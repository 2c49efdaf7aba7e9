import asyncio
import gc
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from gateway.errors import (
    GatewayError,
    LoadError,
    ModelNotFound,
    NoAvailableVersion,
    ShuttingDown,
)
from gateway.serving.lifecycle import State
from gateway.serving.onnx.session import OnnxSession
from gateway.serving.registry import ModelVersion
from tests.control.plane import ROW, ControlPlane, on_plane, until
from tests.repository import ModelDirectory, constant, echo, model, rows, slow, value


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path)


def scaled(factor: float) -> onnx.ModelProto:
    """``y = factor * x``."""
    return model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [value("x", "FP32", ["n", 4])],
        [value("y", "FP32", ["n", 4])],
        [constant("factor", np.full(4, factor, np.float32))],
    )


def replace(models: ModelDirectory, name: str, model: onnx.ModelProto, version: str = "1") -> None:
    onnx.save(model, models.path / name / version / "model.onnx")


def test_every_model_of_every_repository_is_loaded(tmp_path: Path) -> None:
    first, second = ModelDirectory(tmp_path / "a"), ModelDirectory(tmp_path / "b")
    first.add("one", rows)
    second.add("two", rows)

    async def test(plane: ControlPlane) -> None:
        assert not plane.manager.ready
        assert await plane.manager.start() == []
        assert plane.manager.ready
        assert plane.service.model_names() == ["one", "two"]
        answer = await plane.infer("two", x=ROW)
        np.testing.assert_array_equal(answer.outputs[0].array, [[0, 2, 4, 6, 6]])

    on_plane(test, first.path, second.path)


def test_only_named_models_are_loaded_in_explicit_mode(models: ModelDirectory) -> None:
    models.add("one", rows)
    models.add("two", rows)

    async def test(plane: ControlPlane) -> None:
        assert await plane.manager.start(["two"]) == []
        assert plane.manager.ready
        assert plane.service.model_names() == ["two"]
        assert plane.state("one", "") == "UNAVAILABLE"
        await plane.manager.load("one")
        assert plane.service.model_names() == ["one", "two"]

    on_plane(test, models.path)


@pytest.mark.parametrize("strict", [True, False])
def test_a_model_that_fails_harms_no_other_and_counts_for_strict_readiness(
    models: ModelDirectory, strict: bool
) -> None:
    models.add("good", rows)
    models.add_broken("broken")

    async def test(plane: ControlPlane) -> None:
        (failure,) = await plane.manager.start()
        assert "broken" in failure
        assert plane.manager.ready is not strict
        assert plane.state("broken", "1") == "UNAVAILABLE"
        assert (await plane.infer("good", x=ROW)).version == "1"
        with pytest.raises(NoAvailableVersion, match=r"FAILED"):
            await plane.infer("broken", x=ROW)

    on_plane(test, models.path, strict_readiness=strict)


def test_a_named_model_that_no_repository_holds_fails_the_start(models: ModelDirectory) -> None:
    models.add("one", rows)

    async def test(plane: ControlPlane) -> None:
        (failure,) = await plane.manager.start(["absent"])
        assert "unknown model 'absent'" in failure
        assert not plane.manager.ready

    on_plane(test, models.path)


def test_a_new_version_takes_the_route_and_the_old_one_goes(models: ModelDirectory) -> None:
    models.add("rows", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        models.add("rows", rows, version="2")
        await plane.manager.load("rows")
        assert (await plane.infer("rows", x=ROW)).version == "2"
        await until(lambda: plane.state("rows", "1") == "UNAVAILABLE")
        with pytest.raises(GatewayError):
            await plane.infer("rows", "1", x=ROW)

    on_plane(test, models.path, keep_previous=0)


def test_what_was_the_latest_version_stays_for_a_rollback(models: ModelDirectory) -> None:
    models.add("rows", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        for version in ("2", "3"):
            models.add("rows", rows, version=version)
            await plane.manager.load("rows")
        await until(lambda: plane.state("rows", "1") == "UNAVAILABLE")
        assert (await plane.infer("rows", x=ROW)).version == "3"
        assert (await plane.infer("rows", "previous", x=ROW)).version == "2"

    on_plane(test, models.path)


def test_the_highest_number_is_the_default_and_each_version_answers(
    models: ModelDirectory,
) -> None:
    settings = "[version_policy]\nlatest = 3\n"
    for version in ("9", "10"):
        models.add("rows", rows, settings, version=version)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        assert (await plane.infer("rows", x=ROW)).version == "10"
        assert (await plane.infer("rows", "9", x=ROW)).version == "9"

    on_plane(test, models.path)


def test_requests_in_flight_are_answered_by_the_version_that_took_them(
    models: ModelDirectory,
) -> None:
    models.add("slow", slow, "inline = false\n")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        steps = np.array([3000])
        running = [asyncio.create_task(plane.infer("slow", steps=steps)) for _ in range(3)]
        await until(lambda: plane.dispatcher.inflight == 3)
        models.add("slow", slow, version="2")
        await plane.manager.load("slow")
        assert (await plane.infer("slow", steps=np.array([1]))).version == "2"
        assert [answer.version for answer in await asyncio.gather(*running)] == ["1"] * 3

    on_plane(test, models.path)


def test_no_request_fails_while_versions_change_under_load(models: ModelDirectory) -> None:
    models.add("rows", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        stop = asyncio.Event()
        served: set[str] = set()

        async def ask() -> None:
            while not stop.is_set():
                served.add((await plane.infer("rows", x=ROW)).version)

        callers = [asyncio.create_task(ask()) for _ in range(4)]
        for version in ("2", "3", "4"):
            models.add("rows", rows, version=version)
            await plane.manager.load("rows")
        await until(lambda: "4" in served)
        stop.set()
        await asyncio.gather(*callers)
        assert {"1", "4"} <= served

    on_plane(test, models.path)


def test_a_changed_file_is_loaded_again_an_unchanged_one_is_not(models: ModelDirectory) -> None:
    models.add("echo", lambda: echo("FP32"))

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        (before,) = plane.manager.versions("echo")
        await plane.manager.load("echo")
        assert plane.manager.versions("echo") == [before]
        replace(models, "echo", echo("INT64"))
        await plane.manager.load("echo")
        (after,) = plane.manager.versions("echo")
        assert after is not before
        row = np.array([[1, 2]], np.int64)
        answer = await plane.infer("echo", x=row)
        np.testing.assert_array_equal(answer.outputs[0].array, row)

    on_plane(test, models.path)


def test_changed_external_data_of_a_bare_model_is_loaded_again(tmp_path: Path) -> None:
    file = tmp_path / "scaled.onnx"

    def write(factor: float) -> None:
        onnx.save(
            scaled(factor),
            file,
            save_as_external_data=True,
            location="scaled.bin",
            size_threshold=0,
        )

    write(2.0)
    (tmp_path / "neighbour.bin").write_bytes(b"another model's")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        (before,) = plane.manager.versions("scaled")
        (tmp_path / "neighbour.bin").write_bytes(b"another model's, changed")
        await plane.manager.load("scaled")
        assert plane.manager.versions("scaled") == [before]
        unchanged = file.stat()
        (tmp_path / "scaled.bin").unlink()
        write(3.0)
        os.utime(file, ns=(unchanged.st_atime_ns, unchanged.st_mtime_ns))
        assert file.stat().st_size == unchanged.st_size
        await plane.manager.load("scaled")
        answer = await plane.infer("scaled", x=ROW)
        np.testing.assert_array_equal(answer.outputs[0].array, 3 * ROW)

    on_plane(test, tmp_path)


def test_a_load_goes_through_every_state(
    models: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.add("rows", rows)
    seen: list[tuple[str, str]] = []
    move = ModelVersion.move

    def watched(self: ModelVersion, state: State, reason: str = "") -> None:
        move(self, state, reason)
        seen.append((self.label, state.value))

    monkeypatch.setattr(ModelVersion, "move", watched)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        states = ["LOADING", "VALIDATING", "WARMING", "READY"]
        assert seen == [("model 'rows' version '1'", state) for state in states]

    on_plane(test, models.path)


def test_settings_that_are_not_honoured_are_named_when_their_model_is_loaded(
    models: ModelDirectory,
) -> None:
    models.add("rows", rows)
    models.add("echo", lambda: echo("FP32"))
    (models.path / "rows" / "config.pbtxt").write_text("response_cache { enable: true }")

    async def test(plane: ControlPlane) -> None:
        plane.service.log_settings({"log_warning": True})
        await plane.manager.start()
        await plane.manager.load("echo")
        lines = [line for line in plane.log.getvalue().splitlines() if "response_cache" in line]
        assert len(lines) == 1
        assert "'rows'" in lines[0]

    on_plane(test, models.path)


def test_changed_settings_load_the_model_again(models: ModelDirectory) -> None:
    models.add("rows", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        (models.path / "rows" / "model.toml").write_text("max_batch_size = 2\n")
        await plane.manager.load("rows")
        assert plane.service.model_config("rows")["max_batch_size"] == 2

    on_plane(test, models.path)


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_failed_load_leaves_what_serves(models: ModelDirectory, version: str) -> None:
    models.add("rows", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        broken = models.path / "rows" / version / "model.onnx"
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes(b"this is not a model")
        with pytest.raises(LoadError, match="rows"):
            await plane.manager.load("rows")
        assert (await plane.infer("rows", x=ROW)).version == "1"
        assert plane.manager.ready

    on_plane(test, models.path)


def test_an_unloaded_model_refuses_and_can_be_loaded_again(models: ModelDirectory) -> None:
    models.add("rows", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        await plane.manager.unload("rows")
        with pytest.raises(GatewayError):
            await plane.infer("rows", x=ROW)
        await until(lambda: plane.state("rows", "1") == "UNAVAILABLE")
        with pytest.raises(NoAvailableVersion):
            await plane.infer("rows", x=ROW)
        assert plane.manager.ready, "nobody wants the model any more"
        await plane.manager.load("rows")
        assert (await plane.infer("rows", x=ROW)).version == "1"

    on_plane(test, models.path)


@pytest.mark.parametrize("inline", ["true", "false"])
def test_the_sessions_of_an_unloaded_model_go_at_once(models: ModelDirectory, inline: str) -> None:
    models.add("rows", rows, f"inline = {inline}\n")

    def sessions() -> int:
        return sum(isinstance(thing, OnnxSession) for thing in gc.get_objects())

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        await plane.infer("rows", x=ROW)
        gc.collect()
        loaded = sessions()
        gc.disable()
        try:
            await plane.manager.unload("rows")
            await until(lambda: plane.state("rows", "1") == "UNAVAILABLE")
            assert sessions() == loaded - 1, "without a collection"
        finally:
            gc.enable()

    on_plane(test, models.path)


def test_loads_of_one_model_at_once_load_it_once(models: ModelDirectory) -> None:
    models.add("rows", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start([])
        await asyncio.gather(*(plane.manager.load("rows") for _ in range(5)))
        assert len(plane.manager.versions("rows")) == 1
        assert (await plane.infer("rows", x=ROW)).version == "1"

    on_plane(test, models.path)


def test_an_unknown_model_is_neither_loaded_nor_unloaded(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        for change in (plane.manager.load, plane.manager.unload):
            with pytest.raises(ModelNotFound, match="unknown model 'absent'"):
                await change("absent")

    on_plane(test, models.path)


def test_nothing_is_loaded_once_the_server_ends(models: ModelDirectory) -> None:
    models.add("rows", rows)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        plane.manager.refuse_readiness()
        assert not plane.manager.ready
        assert (await plane.infer("rows", x=ROW)).version == "1"
        with pytest.raises(ShuttingDown):
            await plane.manager.load("rows")

    on_plane(test, models.path)
