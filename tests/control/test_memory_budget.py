"""Loads that do not fit into memory are refused before they start."""

import asyncio
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from gateway.control import loading
from gateway.control.memory_budget import MemoryBudget, estimate
from gateway.errors import LoadError, NoAvailableVersion
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.registry import ModelVersion
from tests.control.plane import ControlPlane, on_plane, until
from tests.control.weighty import MB, ROW, Transitions, add, weighty
from tests.repository import ModelDirectory
from tests.server import GatewayProcess

BY = {"by": "a test"}


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path / "models")


def nobody_knows() -> None:
    """Where the machine does not tell what it has available."""


# -- the ledger ---------------------------------------------------------------------------------


def test_a_version_takes_the_larger_of_its_estimate_and_its_measurement() -> None:
    budget = MemoryBudget(0, nobody_knows)
    one, two = ModelVersion("m", "1"), ModelVersion("m", "2")
    for entry, measured in ((one, 5 * MB), (two, 30 * MB)):
        budget.reserve(entry, 20 * MB)
        budget.settle(entry, measured)
    assert (budget.taken(one), budget.taken(two), budget.total) == (20 * MB, 30 * MB, 50 * MB)
    budget.release(two)
    assert (budget.taken(two), budget.total) == (0, 20 * MB)


def test_a_refusal_says_what_is_needed_who_has_it_and_how_to_mend_it() -> None:
    budget = MemoryBudget(50 * MB, nobody_knows)
    for number, size in enumerate((1, 20, 4, 3, 2, 5), 1):
        budget.reserve(ModelVersion("m", str(number)), size * MB)
    with pytest.raises(LoadError) as refused:
        budget.reserve(ModelVersion("big", "7"), 16 * MB)
    assert str(refused.value) == (
        "model 'big' version '7' does not fit into memory: it needs 16.0 MB, and of the 50.0 MB "
        "that --memory-budget allows 35.0 MB are taken (20.0 MB by model 'm' version '2', 5.0 MB "
        "by model 'm' version '6', 4.0 MB by model 'm' version '3', 3.0 MB by model 'm' version "
        "'4', the rest by 2 others). Raise --memory-budget, or let the old version go first "
        '(swap_policy = "in_place" in model.toml), or keep fewer previous versions loaded '
        "(--keep-previous)"
    )
    assert budget.total == 35 * MB
    budget.reserve(ModelVersion("big", "7"), 15 * MB)


def test_the_machine_has_what_loads_under_way_have_not_taken_yet() -> None:
    free = 50 * MB
    budget = MemoryBudget(0, lambda: free)
    one, two = ModelVersion("m", "1"), ModelVersion("m", "2")
    budget.reserve(one, 30 * MB)
    with pytest.raises(LoadError, match=r"20\.1 MB, .* 50\.0 MB that the machine has .* 30\.0 MB"):
        budget.reserve(two, 20_100_000)
    # Once it is loaded, it is the machine that has less.
    budget.settle(one, 0)
    free = 20_200_000
    budget.reserve(two, 20_100_000)


def test_what_leaves_first_counts_as_gone() -> None:
    budget = MemoryBudget(50 * MB, lambda: 10 * MB)
    old, new = ModelVersion("m", "1"), ModelVersion("m", "2")
    budget.hold(old, 40 * MB)
    budget.settle(old, 0)
    budget.check(new, 50 * MB, leaving=[old])
    with pytest.raises(LoadError, match="--memory-budget"):
        budget.check(new, 51 * MB, leaving=[old])


def test_the_estimate_counts_external_data_and_every_session(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    onnx.save(
        weighty(1.0), file, save_as_external_data=True, location="weights.bin", size_threshold=1024
    )
    assert file.stat().st_size < 1 * MB
    assert 20 * MB <= estimate(file, 1) < 21 * MB
    assert estimate(file, 3) == 3 * estimate(file, 1)
    assert estimate(tmp_path / "absent.onnx", 1) == 0


# -- loads --------------------------------------------------------------------------------------


def test_a_load_that_does_not_fit_is_refused_before_it_starts(
    models: ModelDirectory, transitions: Transitions
) -> None:
    for version in ("1", "2"):
        add(models, "m", version, 'version_policy = { specific = ["1"] }\n')

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        budget = plane.manager.budget
        before = budget.total
        assert before >= 20 * MB
        transitions.seen.clear()
        with pytest.raises(LoadError, match=r"version '2' does not fit into memory: it needs 20\."):
            await plane.rollouts.promote("m", "2", **BY)
        assert transitions.seen == [("m:2", State.FAILED)]
        assert budget.total == before
        assert (await plane.infer("m", x=ROW)).version == "1"
        (refused,) = [
            entry
            for entry in plane.service.repository_index(ready_only=False)
            if entry["version"] == "2"
        ]
        assert refused["state"] == "UNAVAILABLE"
        assert "--memory-budget" in refused["reason"]
        promote, load = (await plane.rollouts.history("m"))[:2]
        for entry in (promote, load):
            assert entry["outcome"] == "failed"
            assert "does not fit into memory" in entry["reason"]

    on_plane(test, models.path, budget=MemoryBudget(35 * MB, nobody_knows))


def test_a_machine_without_room_refuses_too(models: ModelDirectory) -> None:
    add(models, "m", "1")

    async def test(plane: ControlPlane) -> None:
        (failure,) = await plane.manager.start()
        assert "of the 19.0 MB that the machine has available" in failure
        with pytest.raises(NoAvailableVersion, match="does not fit into memory"):
            await plane.infer("m", x=ROW)

    on_plane(test, models.path, budget=MemoryBudget(0, lambda: 19 * MB))


def test_of_two_loads_at_once_one_is_refused(
    models: ModelDirectory, transitions: Transitions
) -> None:
    add(models, "one", "1")
    add(models, "two", "1")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start([])
        outcomes = await asyncio.gather(
            plane.manager.load("one"), plane.manager.load("two"), return_exceptions=True
        )
        (refused,) = [outcome for outcome in outcomes if outcome is not None]
        assert isinstance(refused, LoadError)
        assert "does not fit into memory" in str(refused)
        assert len(transitions.of(State.LOADING)) == len(plane.service.model_names()) == 1

    on_plane(test, models.path, load_threads=2, budget=MemoryBudget(35 * MB, nobody_knows))


@pytest.mark.parametrize("threads", [1, 2])
def test_what_grows_while_several_are_loaded_is_counted_for_none_of_them(
    models: ModelDirectory, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    for name in ("one", "two"):
        add(models, name, "1")
    both = threading.Barrier(threads)
    load = loading.load_model

    def grown(*what: Any, **how: Any) -> LoadedModel:
        both.wait(30)
        loaded = load(*what, **how)
        both.wait(30)
        return replace(loaded, memory_bytes=70 * MB)

    monkeypatch.setattr(loading, "load_model", grown)

    async def test(plane: ControlPlane) -> None:
        assert await plane.manager.start() == []
        for name in ("one", "two"):
            (entry,) = plane.manager.versions(name)
            taken = plane.manager.budget.taken(entry)
            if threads == 1:
                assert taken == 70 * MB
            else:
                assert 20 * MB <= taken < 21 * MB

    on_plane(test, models.path, load_threads=threads, budget=MemoryBudget(0, nobody_knows))


def test_an_unloaded_version_leaves_its_place_to_another(models: ModelDirectory) -> None:
    add(models, "one", "1")
    add(models, "two", "1")

    async def test(plane: ControlPlane) -> None:
        budget = plane.manager.budget
        await plane.manager.start(["one"])
        with pytest.raises(LoadError):
            await plane.manager.load("two")
        await plane.manager.unload("one")
        await until(lambda: plane.state("one", "1") == "UNAVAILABLE")
        assert budget.total == 0
        await plane.manager.load("two")
        (two,) = plane.manager.versions("two")
        assert budget.total == budget.taken(two) >= 20 * MB

    on_plane(test, models.path, budget=MemoryBudget(35 * MB, nobody_knows))


def test_a_load_that_fails_gives_back_what_was_reserved(models: ModelDirectory) -> None:
    add(models, "m", "1").write_bytes(b"this is no model")

    async def test(plane: ControlPlane) -> None:
        assert len(await plane.manager.start()) == 1
        assert plane.manager.budget.total == 0

    on_plane(test, models.path, budget=MemoryBudget(50 * MB, nobody_knows))


def test_a_load_that_is_given_up_counts_until_its_thread_is_done(
    models: ModelDirectory, transitions: Transitions
) -> None:
    add(models, "m", "1")

    async def test(plane: ControlPlane) -> None:
        budget = plane.manager.budget
        await plane.manager.start([])
        load = asyncio.create_task(plane.manager.load("m"))
        await until(lambda: ("m:1", State.LOADING) in transitions.seen)
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        assert budget.total >= 20 * MB or not plane.manager.loading
        await until(lambda: budget.total == 0)
        assert not plane.manager.loading

    on_plane(test, models.path, budget=MemoryBudget(50 * MB, nobody_knows))


def test_the_status_says_what_each_version_takes(models: ModelDirectory) -> None:
    add(models, "m", "1")

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        (version,) = plane.rollouts.status("m")["versions"]
        assert version["memory_bytes"] == plane.manager.budget.total >= 20 * MB
        await plane.manager.unload("m")
        await until(lambda: plane.rollouts.status("m")["versions"][0]["memory_bytes"] == 0)

    on_plane(test, models.path)


def test_a_server_keeps_to_its_budget(models: ModelDirectory) -> None:
    for name in ("one", "two"):
        add(models, name, "1")
    options = ("--memory-budget", "35MB", "--no-strict-readiness")
    with GatewayProcess(models.path, *options) as gateway:
        _, index = gateway.post("/v2/repository/index", {})
        # Which of them comes first is nobody's promise.
        (loaded,) = [entry["name"] for entry in index if entry["state"] == "READY"]
        (refused,) = [entry for entry in index if entry["state"] == "UNAVAILABLE"]
        assert "35.0 MB that --memory-budget allows" in refused["reason"]
        metrics = gateway.request("GET", "/metrics")[2].decode()
        assert "onnx_gateway_memory_budget_bytes 3.5e+07" in metrics
        labels = re.escape(f'{{model="{loaded}",version="1"}}')
        taken = re.search(rf"onnx_gateway_model_memory_bytes{labels} (\S+)", metrics)
        assert taken is not None
        assert float(taken[1]) >= 20 * MB
        load = f"/v2/repository/models/{refused['name']}/load"
        status, answer = gateway.post(load, {})
        assert status == 400, answer
        assert "does not fit into memory" in answer["error"]
        assert gateway.post(f"/v2/repository/models/{loaded}/unload", {})[0] == 200
        gateway.wait_until(lambda: gateway.post(load, {})[0] == 200)
