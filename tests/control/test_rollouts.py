"""The verbs by which a model's traffic changes, over real models and a real dispatcher."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Conflict, GatewayError, LoadError, ModelNotFound, ModelNotReady
from tests.control.multiples import Clock, answer, scaled
from tests.control.plane import ControlPlane, on_plane, until
from tests.repository import ModelDirectory

BY = {"by": "a test"}


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    """Versions 1 to 3 of ``m``, which multiply by their number; 1 is loaded by itself.

    Version 5 multiplies by -1: of two scores the other one is the higher.
    """
    directory = ModelDirectory(tmp_path / "models")
    settings = 'version_policy = { specific = ["1"] }\n'
    for number in (1, 2, 3):
        directory.add("m", scaled(number), settings, version=str(number))
    directory.add("m", scaled(-1), settings, version="5")
    return directory


def rollout(test: Callable[[ControlPlane], Awaitable[None]], models: ModelDirectory, **options):
    async def started(plane: ControlPlane) -> None:
        await plane.manager.start()
        await test(plane)

    on_plane(started, models.path, **options)


def test_promote_loads_the_version_and_moves_all_traffic_at_once(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        assert await answer(plane) == ("1", 1.0)
        status = await plane.rollouts.promote("m", "2", **BY)
        assert await answer(plane) == ("2", 2.0)
        assert status["serving"] == "2"
        assert status["labels"] == {"stable": "2", "latest": "1", "previous": "1"}

    rollout(test, models)


def test_rollback_goes_back_to_the_version_that_stayed_warm(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        loads = dict(plane.manager.loads["m"])
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("1", 1.0)
        assert plane.manager.loads["m"] == loads, "nothing is loaded for it"
        # And back again: what was left is the previous one now.
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("2", 2.0)

    rollout(test, models)


def test_only_as_many_previous_versions_stay_as_are_to_be_kept(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        await plane.rollouts.promote("m", "3", **BY)
        assert await answer(plane, "previous") == ("2", 2.0)
        # Version 1 is what the version policy loads, and stays for that.
        assert plane.state("m", "1") == "READY"
        await plane.rollouts.promote("m", "1", **BY)
        await until(lambda: plane.state("m", "2") == "UNAVAILABLE")
        assert plane.state("m", "3") == "READY"

    rollout(test, models)


def test_a_version_that_cannot_be_loaded_changes_nothing(models: ModelDirectory) -> None:
    (models.path / "m" / "4").mkdir()
    (models.path / "m" / "4" / "model.onnx").write_bytes(b"this is no model")

    async def test(plane: ControlPlane) -> None:
        with pytest.raises(LoadError, match="version '4'"):
            await plane.rollouts.promote("m", "4", **BY)
        assert await answer(plane) == ("1", 1.0)
        (promote, load) = (await plane.rollouts.history("m"))[:2]
        assert (promote["verb"], promote["outcome"]) == ("promote", "failed")
        assert (load["verb"], load["version"], load["outcome"]) == ("load_version", "4", "failed")
        assert plane.manager.loads["m"] == {"ok": 1, "failed": 1}

    rollout(test, models)


def test_labels_are_addressed_like_versions(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.set_label("m", "champion", "2", **BY)
        assert await answer(plane, "champion") == ("2", 2.0)
        assert plane.service.is_model_ready("m", "champion")
        await plane.rollouts.set_label("m", "champion", "3", **BY)
        assert await answer(plane, "champion") == ("3", 3.0)
        await until(lambda: plane.state("m", "2") == "UNAVAILABLE")
        await plane.rollouts.promote("m", "champion", **BY)
        assert await answer(plane) == ("3", 3.0)
        await plane.rollouts.remove_label("m", "champion", **BY)
        with pytest.raises(ModelNotFound, match=r"'champion'.*'latest'"):
            await answer(plane, "champion")

    rollout(test, models)


ILLEGAL: list[tuple[str, type[GatewayError], Callable[[ControlPlane], Awaitable[Any]]]] = [
    ("promoted already", Conflict, lambda p: p.rollouts.promote("m", "2", **BY)),
    ("no canary", Conflict, lambda p: p.rollouts.pause_canary("m", **BY)),
    ("nor one to end", Conflict, lambda p: p.rollouts.abort_canary("m", **BY)),
    ("no shadow", Conflict, lambda p: p.rollouts.stop_shadow("m", **BY)),
    ("itself", Conflict, lambda p: p.rollouts.start_shadow("m", {"version": "2"}, **BY)),
    ("against itself", Conflict, lambda p: p.rollouts.start_canary("m", {"version": "2"}, **BY)),
    ("unknown version", ModelNotFound, lambda p: p.rollouts.promote("m", "9", **BY)),
    ("unknown model", ModelNotFound, lambda p: p.rollouts.promote("n", "1", **BY)),
    ("unknown label", ModelNotFound, lambda p: p.rollouts.remove_label("m", "best", **BY)),
    ("a version's name", Conflict, lambda p: p.rollouts.set_label("m", "1", "2", **BY)),
]


@pytest.mark.parametrize(
    ("error", "verb"), [(e, v) for _, e, v in ILLEGAL], ids=[name for name, _, _ in ILLEGAL]
)
def test_what_is_not_possible_is_refused_and_changes_nothing(
    models: ModelDirectory, error: type[GatewayError], verb: Callable[..., Awaitable[Any]]
) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        before = plane.rollouts.status("m")
        with pytest.raises(error):
            await verb(plane)
        after = plane.rollouts.status("m")
        assert {**after, "versions": None} == {**before, "versions": None}
        assert await answer(plane) == ("2", 2.0)

    rollout(test, models)


def test_what_is_decided_survives_a_restart(models: ModelDirectory, tmp_path: Path) -> None:
    async def decide(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        await plane.rollouts.set_label("m", "champion", "3", **BY)
        await plane.rollouts.start_shadow("m", {"version": "3"}, **BY)
        await plane.rollouts.start_canary("m", {"version": "1"}, **BY)

    async def find(plane: ControlPlane) -> None:
        assert await answer(plane, "stable") == ("2", 2.0)
        assert await answer(plane, "champion") == ("3", 3.0)
        assert await answer(plane, "canary") == ("1", 1.0)
        assert (await plane.rollouts.shadow_report("m"))["shadow"]["version"] == "3"
        assert plane.rollouts.canary_verdict("m")["phase"] == "running"
        assert (await plane.rollouts.verify_journal())["intact"]

    rollout(decide, models, state_dir=tmp_path / "state")
    rollout(find, models, state_dir=tmp_path / "state")


def test_the_journal_says_who_changed_what_and_why(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", by="ada", reason="better on the new data")
        entry = (await plane.rollouts.history("m", limit=1))[0]
        assert entry["by"] == "ada"
        assert entry["verb"] == "promote"
        assert entry["reason"] == "better on the new data"
        assert entry["before"]["stable"] == "latest"
        assert entry["after"]["stable"] == "2"
        assert entry["digest"].startswith("sha256:")
        assert (await plane.rollouts.verify_journal())["intact"]

    rollout(test, models)


def test_the_journal_has_lineage_and_evidence(models: ModelDirectory) -> None:
    (models.path / "m" / "2" / "lineage.toml").write_text('[code]\ncommit = "4f1d0c2"\n')
    lineage = {"code": {"commit": "4f1d0c2"}}

    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.start_shadow("m", {"version": "2"}, **BY)
        await plane.rollouts.promote("m", "2", **BY)
        promote, start, load = await plane.rollouts.history("m", limit=3)
        assert (load["verb"], load["lineage"]) == ("load_version", lineage)
        assert load["evidence"]["golden_requests"] == 0
        assert "1" in load["evidence"]["latency_us"]
        assert (start["verb"], start["lineage"]) == ("start_shadow", lineage)
        assert (promote["verb"], promote["lineage"]) == ("promote", lineage)
        assert promote["evidence"]["shadow"]["verdict"] == "inconclusive"
        metadata = plane.service.model_metadata("m", "2")
        assert json.loads(metadata["properties"]["lineage"]) == lineage

    rollout(test, models)


async def ask(plane: ControlPlane, count: int) -> dict[str, int]:
    """How many of ``count`` requests each version answered."""
    answered: dict[str, int] = {}
    for _ in range(count):
        version, _ = await answer(plane)
        answered[version] = answered.get(version, 0) + 1
    return answered


STEPS = [{"percent": 20, "hold_s": 60}, {"percent": 60, "hold_s": 60}]


def test_a_canary_grows_by_its_steps_and_is_promoted_when_its_gates_hold(
    models: ModelDirectory,
) -> None:
    clock = Clock()
    gates = {"max_error_increase": 0.2, "max_slow_increase": 1, "max_output_shift": 1}

    async def test(plane: ControlPlane) -> None:
        plan = {"version": "2", "steps": STEPS, "gates": gates}
        await plane.rollouts.start_canary("m", plan, **BY)
        first = await ask(plane, 300)
        assert 30 <= first["2"] <= 95, "a fifth"
        await plane.rollouts.look("m")
        assert plane.rollouts.canary_verdict("m")["percent"] == 20
        clock.now_s += 61
        await plane.rollouts.look("m")
        assert plane.rollouts.canary_verdict("m")["percent"] == 60
        await ask(plane, 400)
        await plane.rollouts.look("m")
        clock.now_s += 61
        await plane.rollouts.look("m")
        verdict = plane.rollouts.canary_verdict("m")
        assert (verdict["phase"], verdict["result"]) == ("promoted", "Successful")
        assert await ask(plane, 20) == {"2": 20}
        assert plane.rollouts.status("m")["labels"]["previous"] == "1"

    rollout(test, models, clock=clock)


def test_a_canary_whose_answers_differ_is_rolled_back(models: ModelDirectory) -> None:
    clock = Clock()
    gates = {"max_error_increase": 1, "max_slow_increase": 1, "max_output_shift": 0.2}

    async def test(plane: ControlPlane) -> None:
        plan = {"version": "5", "steps": [{"percent": 50, "hold_s": 60}], "gates": gates}
        await plane.rollouts.start_canary("m", plan, **BY)
        await ask(plane, 1200)
        await plane.rollouts.look("m")
        verdict = plane.rollouts.canary_verdict("m")
        assert (verdict["phase"], verdict["verdict"]) == ("rolled_back", "fail"), verdict
        assert "outputs:y" in verdict["reason"]
        assert await ask(plane, 20) == {"1": 20}

    rollout(test, models, clock=clock)


def test_a_canary_without_enough_evidence_is_inconclusive_and_waits(
    models: ModelDirectory,
) -> None:
    clock = Clock()

    async def test(plane: ControlPlane) -> None:
        plan = {"version": "2", "steps": [{"percent": 50, "hold_s": 1}]}
        await plane.rollouts.start_canary("m", plan, **BY)
        await ask(plane, 10)
        clock.now_s += 2
        await plane.rollouts.look("m")
        verdict = plane.rollouts.canary_verdict("m")
        assert (verdict["phase"], verdict["result"]) == ("inconclusive", "Inconclusive")
        assert verdict["percent"] == 50, "nothing is decided for the operator"
        await plane.rollouts.promote("m", "canary", **BY)
        assert plane.rollouts.canary_verdict("m")["phase"] == "promoted"

    rollout(test, models, clock=clock)


def test_a_shadow_is_compared_and_answers_nobody(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.start_shadow("m", {"version": "3", "keep_worst": 2}, **BY)
        assert await ask(plane, 50) == {"1": 50}
        report: dict[str, Any] = {}

        async def compared() -> bool:
            report.update(await plane.rollouts.shadow_report("m"))
            return report["pairs"] == report["requests"]["sent"]

        while not await compared():
            await asyncio.sleep(0.01)
        requests = report["requests"]
        assert requests["offered"] == 50
        assert requests["sent"] + sum(requests["skipped"].values()) == 50
        assert requests["paired"] == requests["sent"] > 0
        assert report["verdict"] == "fail"
        assert report["outputs"][0]["max_absolute_difference"] == 4.0
        worst = await plane.rollouts.shadow_worst("m")
        assert worst[0]["inputs"][0]["data"] == [1.0, 2.0]
        assert worst[0]["primary"][0]["data"] == [1.0, 2.0]
        assert worst[0]["shadow"][0]["data"] == [3.0, 6.0]

    rollout(test, models)


def test_a_shadow_that_is_promoted_rests_until_another_version_serves(
    models: ModelDirectory,
) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.start_shadow("m", {"version": "2"}, **BY)
        await plane.rollouts.promote("m", "2", **BY)
        with pytest.raises(ModelNotReady, match="'2', answers its traffic"):
            await plane.rollouts.shadow_report("m")
        await plane.rollouts.rollback("m", **BY)
        assert (await plane.rollouts.shadow_report("m"))["shadow"]["version"] == "2"

    rollout(test, models)


@pytest.mark.parametrize("settles_by", ["a start", "a load"])
def test_a_shadow_of_a_model_that_is_not_loaded_by_itself_is_at_work_after_a_restart(
    models: ModelDirectory, tmp_path: Path, settles_by: str
) -> None:
    models.add("other", scaled(7), version="1")
    models.add("other", scaled(8), version="2")

    async def decide(plane: ControlPlane) -> None:
        await plane.manager.start(["m"])
        await plane.rollouts.start_shadow("m", {"model": "other", "version": "1"}, **BY)
        assert (await plane.rollouts.shadow_report("m"))["shadow"]["model"] == "other"
        if settles_by == "a load":
            await plane.rollouts.unload("m", **BY)

    async def find(plane: ControlPlane) -> None:
        assert await plane.manager.start(["m"]) == []
        if settles_by == "a load":
            await plane.rollouts.load("m", **BY)
        assert (await plane.rollouts.shadow_report("m"))["shadow"]["version"] == "1"
        assert plane.state("other", "2") == "", "the rest of that model is loaded by nobody"

    on_plane(decide, models.path, state_dir=tmp_path / "state")
    on_plane(find, models.path, state_dir=tmp_path / "state")


def test_a_shadow_that_cannot_be_loaded_is_told_of_and_harms_nobody(
    models: ModelDirectory, tmp_path: Path
) -> None:
    models.add("other", scaled(7), version="1")

    async def decide(plane: ControlPlane) -> None:
        await plane.manager.start(["m"])
        await plane.rollouts.start_shadow("m", {"model": "other", "version": "1"}, **BY)

    async def find(plane: ControlPlane) -> None:
        (failure,) = await plane.manager.start(["m"])
        assert "model 'm' is not shadowed: model 'other' version '1'" in failure
        assert plane.manager.ready
        assert await answer(plane) == ("1", 1.0)

    on_plane(decide, models.path, state_dir=tmp_path / "state")
    (models.path / "other" / "1" / "model.onnx").write_bytes(b"this is not a model")
    on_plane(find, models.path, state_dir=tmp_path / "state")


def test_the_shadow_of_a_model_that_was_unloaded_stays_unloaded(
    models: ModelDirectory, tmp_path: Path
) -> None:
    models.add("other", scaled(7), version="1")

    async def decide(plane: ControlPlane) -> None:
        await plane.manager.start()
        await plane.rollouts.start_shadow("m", {"model": "other", "version": "1"}, **BY)
        await plane.rollouts.unload("other", **BY)

    async def find(plane: ControlPlane) -> None:
        plane.service.log_settings({"log_warning": True})
        assert await plane.manager.start() == []
        assert plane.state("other", "1") in ("", "UNAVAILABLE")
        assert "model 'm' is not shadowed: model 'other'" in plane.log.getvalue()

    on_plane(decide, models.path, state_dir=tmp_path / "state")
    on_plane(find, models.path, state_dir=tmp_path / "state")
