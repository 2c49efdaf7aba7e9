"""Which version answers where the one that is decided to answer cannot be loaded."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from gateway.control.repository import ModelSource
from gateway.control.stand_in import stand_ins
from gateway.control.traffic import ModelTraffic
from gateway.errors import Conflict, LoadError, ModelNotFound, NoAvailableVersion
from gateway.serving.settings import ModelSettings, VersionPolicy
from tests.control.multiples import answer, scaled
from tests.control.plane import ControlPlane, on_plane, until
from tests.repository import ModelDirectory

BY = {"by": "a test"}
IN_PLACE = 'swap_policy = "in_place"\n'


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    """Versions 1 to 3 of ``m``, which multiply by their number."""
    directory = ModelDirectory(tmp_path / "models")
    for number in (1, 2, 3):
        directory.add("m", scaled(number), version=str(number))
    return directory


def broken(models: ModelDirectory, *versions: str) -> None:
    for version in versions:
        (models.path / "m" / version / "model.onnx").write_bytes(b"this is not a model")


def mend(models: ModelDirectory, version: str) -> None:
    onnx.save(scaled(float(version))(), models.path / "m" / version / "model.onnx")


async def stand_in_entries(plane: ControlPlane) -> list[str]:
    """The versions that stood in, as the journal has them, the last one first."""
    entries = await plane.rollouts.history("m")
    return [entry["version"] for entry in entries if entry["verb"] == "stand_in"]


# -- which ones, in which order -----------------------------------------------------------------


def source(*found: str, chosen: tuple[str, ...], specific: bool = False) -> ModelSource:
    path = Path("m")
    policy = VersionPolicy(specific=chosen) if specific else VersionPolicy(latest=len(chosen))
    return ModelSource(
        "m",
        path,
        dict.fromkeys(chosen, path),
        dict.fromkeys(found, path),
        ModelSettings(version_policy=policy),
    )


@pytest.mark.parametrize(
    ("traffic", "expected"),
    [
        ({}, ["10", "9", "2", "1"]),
        ({"previous": ("2",)}, ["10", "9", "2", "1"]),
        ({"stable": "10"}, ["9", "2", "1"]),
        ({"stable": "10", "previous": ("2", "11")}, ["2", "11", "9", "1"]),
        ({"stable": "10", "previous": ("7",)}, ["9", "2", "1"]),
        ({"stable": "1"}, []),
        ({"stable": "5"}, ["2", "1"]),
    ],
)
def test_those_before_it_and_those_below_it_may_stand_in(
    traffic: dict[str, Any], expected: list[str]
) -> None:
    found = source("1", "2", "9", "10", "11", chosen=("11",))
    assert stand_ins(found, ModelTraffic(**traffic)) == expected


def test_a_policy_that_names_its_versions_is_kept_to() -> None:
    found = source("1", "2", "3", "4", chosen=("1", "4"), specific=True)
    assert stand_ins(found, ModelTraffic()) == ["1"]
    assert stand_ins(found, ModelTraffic(stable="3", previous=("2",))) == ["2", "1"]


# -- at a start ---------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", ["", IN_PLACE])
def test_below_a_latest_version_that_is_broken_the_next_one_that_loads_serves(
    models: ModelDirectory, settings: str
) -> None:
    broken(models, "3", "2")
    (models.path / "m" / "model.toml").write_text(settings)

    async def test(plane: ControlPlane) -> None:
        (failure,) = await plane.manager.start()
        assert "version '3'" in failure
        assert "version '1' of model 'm' answers in the place of the latest one" in failure
        assert failure.split("; ")[-1] in plane.log.getvalue()
        assert plane.manager.ready, "the model serves"
        assert await answer(plane) == ("1", 1.0)
        assert await answer(plane, "latest") == ("1", 1.0)
        assert plane.state("m", "3") == "UNAVAILABLE"
        assert plane.manager.loads["m"] == {"failed": 2, "ok": 1}
        assert await stand_in_entries(plane) == ["1"]

    on_plane(test, models.path)


def test_once_the_latest_version_is_mended_it_serves_and_what_stood_in_is_the_previous_one(
    models: ModelDirectory,
) -> None:
    broken(models, "3")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        assert await answer(plane) == ("2", 2.0)
        with pytest.raises(LoadError, match="version '2' of model 'm' answers in the place"):
            await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("2", 2.0)
        assert await stand_in_entries(plane) == ["2"], "written down once"
        mend(models, "3")
        await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("3", 3.0)
        assert plane.manager.loads["m"]["ok"] == 2
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("2", 2.0)

    on_plane(test, models.path)


def test_what_stood_in_goes_when_it_is_needed_no_more(models: ModelDirectory) -> None:
    broken(models, "3")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        mend(models, "3")
        await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("3", 3.0)
        await until(lambda: plane.state("m", "2") == "UNAVAILABLE")

    on_plane(test, models.path, keep_previous=0)


def test_a_version_that_stands_in_may_be_promoted_over(models: ModelDirectory) -> None:
    broken(models, "3")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        await plane.rollouts.promote("m", "1", **BY)
        assert await answer(plane) == ("1", 1.0)
        assert await answer(plane, "previous") == ("2", 2.0)

    on_plane(test, models.path)


def test_a_version_that_stands_in_and_is_decided_upon_stands_in_no_more(
    models: ModelDirectory,
) -> None:
    broken(models, "3")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        await plane.rollouts.promote("m", "2", **BY)
        with pytest.raises(Conflict, match="stable already"):
            await plane.rollouts.promote("m", "2", **BY)

    on_plane(test, models.path)


def test_where_latest_stands_for_nothing_it_cannot_be_promoted(models: ModelDirectory) -> None:
    broken(models, "3")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start([])
        await plane.rollouts.promote("m", "2", **BY)
        with pytest.raises(ModelNotFound, match="'latest' stands for no version"):
            await plane.rollouts.promote("m", "latest", **BY)
        assert plane.rollouts.status("m")["traffic"]["stable"] == "2"

    on_plane(test, models.path)


def test_where_no_other_version_loads_nothing_serves(models: ModelDirectory) -> None:
    broken(models, "1", "2", "3")

    async def test(plane: ControlPlane) -> None:
        assert len(await plane.manager.start()) == 1
        assert not plane.manager.ready
        with pytest.raises(NoAvailableVersion, match="version '3' is FAILED"):
            await answer(plane)
        assert await stand_in_entries(plane) == []

    on_plane(test, models.path)


# -- at a restart -------------------------------------------------------------------------------


def restarted(
    decide: Callable[[ControlPlane], Awaitable[None]],
    between: Callable[[], None],
    find: Callable[[ControlPlane], Awaitable[None]],
    models: ModelDirectory,
    tmp_path: Path,
    **options: Any,
) -> None:
    async def first(plane: ControlPlane) -> None:
        assert await plane.manager.start() == []
        await decide(plane)

    on_plane(first, models.path, state_dir=tmp_path / "state", **options)
    between()
    on_plane(find, models.path, state_dir=tmp_path / "state", **options)


@pytest.mark.parametrize(
    ("settings", "keep_previous", "expected"),
    [("", 1, "3"), ("", 0, "1"), (IN_PLACE, 1, "3"), (IN_PLACE, 0, "1")],
)
def test_where_what_was_stable_is_broken_the_one_before_it_serves_or_a_lower_one(
    models: ModelDirectory, tmp_path: Path, settings: str, keep_previous: int, expected: str
) -> None:
    (models.path / "m" / "model.toml").write_text(settings)

    async def decide(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)

    async def find(plane: ControlPlane) -> None:
        (failure,) = await plane.manager.start()
        assert f"version '{expected}' of model 'm' answers in the place of version '2'" in failure
        assert await answer(plane) == (expected, float(expected))
        assert plane.manager.ready
        assert plane.rollouts.status("m")["traffic"]["stable"] == "2", "what is decided stays"
        assert await stand_in_entries(plane) == [expected]
        # Mended, it serves again, without anybody's deciding anything.
        mend(models, "2")
        await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("2", 2.0)

    def between() -> None:
        broken(models, "2")

    restarted(decide, between, find, models, tmp_path, keep_previous=keep_previous)


def test_in_place_a_second_load_in_vain_leaves_what_stands_in(
    models: ModelDirectory, tmp_path: Path
) -> None:
    (models.path / "m" / "model.toml").write_text(IN_PLACE)

    async def decide(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)

    async def find(plane: ControlPlane) -> None:
        await plane.manager.start()
        for _ in range(2):
            with pytest.raises(LoadError, match="in the place of version '2'"):
                await plane.rollouts.load("m", **BY)
            assert await answer(plane) == ("3", 3.0)
        with pytest.raises(LoadError):
            await plane.rollouts.promote("m", "2", **BY)
        assert await answer(plane) == ("3", 3.0)
        await plane.rollouts.promote("m", "1", **BY)
        assert await answer(plane) == ("1", 1.0)

    restarted(decide, lambda: broken(models, "2"), find, models, tmp_path)


@pytest.mark.parametrize("settings", ["", IN_PLACE])
def test_a_version_that_was_mended_may_be_promoted_to_what_it_is_decided_to_be(
    models: ModelDirectory, tmp_path: Path, settings: str
) -> None:
    (models.path / "m" / "model.toml").write_text(settings)

    async def decide(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)

    async def find(plane: ControlPlane) -> None:
        await plane.manager.start()
        mend(models, "2")
        status = await plane.rollouts.promote("m", "2", **BY)
        assert await answer(plane) == ("2", 2.0)
        assert status["traffic"]["previous"] == ["3"]
        with pytest.raises(Conflict, match="stable already"):
            await plane.rollouts.promote("m", "2", **BY)

    restarted(decide, lambda: broken(models, "2"), find, models, tmp_path)


def test_a_stable_version_whose_directory_is_gone_has_a_stand_in_too(
    models: ModelDirectory, tmp_path: Path
) -> None:
    async def decide(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)

    async def find(plane: ControlPlane) -> None:
        (failure,) = await plane.manager.start()
        assert "version '3' of model 'm' answers in the place of version '2'" in failure
        assert await answer(plane) == ("3", 3.0)

    def between() -> None:
        shutil.rmtree(models.path / "m" / "2")

    restarted(decide, between, find, models, tmp_path)


# -- a load of an unloaded model ----------------------------------------------------------------


def test_a_model_that_is_loaded_again_but_for_its_newest_version_is_loaded_after_a_restart_too(
    models: ModelDirectory, tmp_path: Path
) -> None:
    async def decide(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        await plane.rollouts.unload("m", **BY)
        broken(models, "3")
        with pytest.raises(LoadError, match="version '3'"):
            await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("2", 2.0)
        status = plane.rollouts.status("m")
        assert status["traffic"]["loaded"] is True
        failed, load = (await plane.rollouts.history("m"))[:2]
        assert (failed["verb"], failed["outcome"]) == ("load", "failed")
        assert (load["verb"], load["outcome"]) == ("load", "ok")
        assert "version '3'" in load["evidence"]["failed"]

    async def find(plane: ControlPlane) -> None:
        assert len(await plane.manager.start()) == 1
        assert await answer(plane) == ("2", 2.0)

    restarted(decide, lambda: None, find, models, tmp_path)


def test_a_model_of_which_nothing_could_be_loaded_stays_unloaded(
    models: ModelDirectory, tmp_path: Path
) -> None:
    async def decide(plane: ControlPlane) -> None:
        await plane.rollouts.unload("m", **BY)
        broken(models, "1", "2", "3")
        with pytest.raises(LoadError):
            await plane.rollouts.load("m", **BY)
        assert plane.rollouts.status("m")["traffic"]["loaded"] is False

    async def find(plane: ControlPlane) -> None:
        assert await plane.manager.start() == []
        assert plane.manager.ready

    restarted(decide, lambda: None, find, models, tmp_path)
