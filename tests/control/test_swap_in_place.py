"""Models of which the old version goes before the new one comes, for want of memory for both."""

import asyncio
import gc
import json
import shutil
import urllib.request
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.control.memory_budget import MemoryBudget
from gateway.errors import Conflict, GatewayError, LoadError, ModelNotReady, StateUnavailable
from gateway.serving.lifecycle import State
from gateway.serving.onnx.session import OnnxSession
from tests.control.plane import ControlPlane, on_plane, until
from tests.control.weighty import MB, ROW, WIDTH, Transitions, add
from tests.repository import ModelDirectory, slow
from tests.server import GatewayProcess

BY = {"by": "a test"}
IN_PLACE = 'swap_policy = "in_place"\n'

#: Room for one version of 20 MB, and not for two.
TIGHT = 35 * MB


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    """Versions 1 and 2 of ``m``, of which 1 is loaded by itself."""
    directory = ModelDirectory(tmp_path / "models")
    for version in ("1", "2"):
        add(directory, "m", version, IN_PLACE + 'version_policy = { specific = ["1"] }\n')
    return directory


def on_tight_plane(
    test: Callable[[ControlPlane], Awaitable[None]], models: ModelDirectory, **options: Any
) -> None:
    async def started(plane: ControlPlane) -> None:
        assert await plane.manager.start() == []
        await test(plane)

    budget = MemoryBudget(TIGHT, lambda: None)
    on_plane(started, models.path, **{"budget": budget, **options})


async def answer(plane: ControlPlane, version: str = "") -> tuple[str, float]:
    """Which version says that it answered, and by what it multiplied."""
    response = await plane.infer("m", version, x=ROW)
    return response.version, float(response.outputs[0].array[0, 0]) / WIDTH


def golden(file: Path, factor: float) -> None:
    """A golden request of which only the version that multiplies by ``factor`` is capable."""
    tensor = {"datatype": "FP32"}
    document = {
        "inputs": [{**tensor, "name": "x", "shape": [1, WIDTH], "data": ROW[0].tolist()}],
        "outputs": [{**tensor, "name": "y", "shape": [1, 1], "data": [factor * WIDTH]}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document))


# -- going well ---------------------------------------------------------------------------------


def test_the_old_version_is_unloaded_before_the_new_one_is_loaded(
    models: ModelDirectory, transitions: Transitions
) -> None:
    async def test(plane: ControlPlane) -> None:
        transitions.seen.clear()
        status = await plane.rollouts.promote("m", "2", **BY)
        assert await answer(plane) == ("2", 2.0)
        assert transitions.of(State.DRAINING, State.UNLOADED, State.LOADING, State.READY) == [
            ("m:1", State.DRAINING),
            ("m:1", State.UNLOADED),
            ("m:2", State.LOADING),
            ("m:2", State.READY),
        ]
        assert status["traffic"]["stable"] == "2"
        assert status["traffic"]["previous"] == ["1"], "to go back to, but not loaded"
        assert plane.state("m", "1") == "UNAVAILABLE"
        assert (await plane.rollouts.history("m", limit=1))[0]["verb"] == "promote"

    on_tight_plane(test, models)


def test_a_rollback_loads_the_previous_version_again(
    models: ModelDirectory, transitions: Transitions
) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        transitions.seen.clear()
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("1", 1.0)
        assert transitions.of(State.UNLOADED, State.LOADING) == [
            ("m:2", State.UNLOADED),
            ("m:1", State.LOADING),
        ]
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("2", 2.0)

    on_tight_plane(test, models)


def test_a_restart_loads_what_serves_and_nothing_else(
    models: ModelDirectory, tmp_path: Path, transitions: Transitions
) -> None:
    async def promote(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)

    async def find(plane: ControlPlane) -> None:
        assert await answer(plane) == ("2", 2.0)
        assert transitions.of(State.LOADING) == [("m:2", State.LOADING)]
        # A look at the repository does not bring the others back either.
        await plane.manager.load("m")
        assert transitions.of(State.LOADING) == [("m:2", State.LOADING)]
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("1", 1.0)

    on_tight_plane(promote, models, state_dir=tmp_path / "state")
    transitions.seen.clear()
    on_tight_plane(find, models, state_dir=tmp_path / "state")


def test_a_new_version_in_the_repository_takes_the_place_of_the_latest(
    tmp_path: Path, transitions: Transitions
) -> None:
    models = ModelDirectory(tmp_path / "models")
    add(models, "m", "1", IN_PLACE)

    async def test(plane: ControlPlane) -> None:
        add(models, "m", "2")
        transitions.seen.clear()
        await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("2", 2.0)
        assert transitions.of(State.UNLOADED, State.LOADING) == [
            ("m:1", State.UNLOADED),
            ("m:2", State.LOADING),
        ]
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("1", 1.0)
        await plane.rollouts.follow_latest("m", **BY)
        assert await answer(plane) == ("2", 2.0)

    on_tight_plane(test, models)


def test_a_declaration_swaps_in_place_too(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.apply({"models": {"m": {"stable": "2"}}}, **BY)
        assert await answer(plane) == ("2", 2.0)
        await plane.rollouts.apply({"models": {"m": {"stable": "latest"}}}, **BY)
        assert await answer(plane) == ("1", 1.0)

    on_tight_plane(test, models)


def test_what_is_used_beside_the_stable_version_stays(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.set_label("m", "champion", "1", **BY)
        await plane.rollouts.promote("m", "2", **BY)
        assert await answer(plane, "champion") == ("1", 1.0)
        assert await answer(plane) == ("2", 2.0)

    on_tight_plane(test, models, budget=MemoryBudget(500 * MB, lambda: None))


def test_requests_in_flight_are_answered_and_new_ones_are_told_when_to_come_back(
    tmp_path: Path, transitions: Transitions
) -> None:
    models = ModelDirectory(tmp_path / "models")
    settings = IN_PLACE + 'inline = false\nversion_policy = { specific = ["1"] }\n'
    for version in ("1", "2"):
        models.add("slow", slow, settings, version=version)

    async def test(plane: ControlPlane) -> None:
        running = asyncio.create_task(plane.infer("slow", steps=np.array([3000])))
        await until(lambda: plane.dispatcher.inflight == 1)
        promotion = asyncio.create_task(plane.rollouts.promote("slow", "2", **BY))
        await until(lambda: ("slow:1", State.DRAINING) in transitions.seen)
        refusals = []
        for version in ("", "stable", "latest"):
            with pytest.raises(ModelNotReady, match="swapped in place") as refused:
                await plane.infer("slow", version, steps=np.array([1]))
            refusals.append(refused.value)
        assert all(refusal.retry_after_s == 1.0 for refusal in refusals)
        assert "version '1' makes room for another one" in str(refusals[0])
        assert not running.done()
        assert ("slow:2", State.LOADING) not in transitions.seen
        assert (await running).version == "1"
        await promotion
        assert (await plane.infer("slow", steps=np.array([1]))).version == "2"
        assert plane.dispatcher.refused == {"SwapInPlace": 3}

    on_tight_plane(test, models)


def test_no_request_gets_another_error_than_that_during_swaps(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        stop = asyncio.Event()
        outcomes: set[object] = set()

        async def ask() -> None:
            while not stop.is_set():
                try:
                    outcomes.add(await answer(plane))
                except GatewayError as error:
                    outcomes.add(type(error).__name__)
                    await asyncio.sleep(0.001)

        callers = [asyncio.create_task(ask()) for _ in range(4)]
        for version in ("2", "1", "2"):
            await plane.rollouts.promote("m", version, **BY)
            assert (await answer(plane))[0] == version
        await until(lambda: ("2", 2.0) in outcomes)
        stop.set()
        await asyncio.gather(*callers)
        assert outcomes <= {("1", 1.0), ("2", 2.0), "SwapInPlace"}

    on_tight_plane(test, models)


# -- going wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["file", "golden"])
def test_what_served_before_serves_again_where_the_new_version_cannot(
    models: ModelDirectory, transitions: Transitions, wrong: str
) -> None:
    place = models.path / "m" / "2"
    if wrong == "file":
        (place / "model.onnx").write_bytes(b"this is no model")
    else:
        golden(place / "golden" / "right.json", factor=7.0)

    async def test(plane: ControlPlane) -> None:
        transitions.seen.clear()
        with pytest.raises(LoadError, match=r"'2'.*; version '1', .* is loaded again"):
            await plane.rollouts.promote("m", "2", **BY)
        assert await answer(plane) == ("1", 1.0)
        assert transitions.of(State.UNLOADED, State.FAILED, State.READY) == [
            ("m:1", State.UNLOADED),
            ("m:2", State.FAILED),
            ("m:1", State.READY),
        ]
        assert plane.rollouts.status("m")["traffic"]["stable"] == "latest"
        verbs = [
            (entry["verb"], entry["version"], entry["outcome"])
            for entry in await plane.rollouts.history("m", limit=3)
        ]
        assert verbs == [
            ("promote", "2", "failed"),
            ("load_version", "1", "ok"),
            ("load_version", "2", "failed"),
        ]
        # And it can still be swapped.
        shutil.rmtree(place)
        add(models, "m", "2")
        await plane.rollouts.promote("m", "2", **BY)
        assert await answer(plane) == ("2", 2.0)

    on_tight_plane(test, models)


def test_a_latest_version_that_fails_gives_its_place_back(tmp_path: Path) -> None:
    models = ModelDirectory(tmp_path / "models")
    add(models, "m", "1", IN_PLACE)

    async def test(plane: ControlPlane) -> None:
        models.add_broken("m", "2")
        with pytest.raises(LoadError, match="version '1', which served before, is loaded again"):
            await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("1", 1.0)
        assert plane.manager.ready

    on_tight_plane(test, models)


def test_the_sessions_of_a_version_that_fails_are_gone_before_the_old_one_is_loaded(
    models: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden(models.path / "m" / "2" / "golden" / "right.json", factor=7.0)
    open_at_load: list[int] = []
    watched = Transitions(monkeypatch)

    def sessions() -> int:
        return sum(isinstance(thing, OnnxSession) for thing in gc.get_objects())

    class Count(list):
        def append(self, entry: tuple[str, State]) -> None:
            if entry[1] is State.LOADING:
                open_at_load.append(sessions())

    async def test(plane: ControlPlane) -> None:
        gc.collect()
        others = sessions() - 1
        gc.disable()
        watched.seen = Count()
        try:
            with pytest.raises(LoadError):
                await plane.rollouts.promote("m", "2", **BY)
        finally:
            gc.enable()
        assert open_at_load == [others, others], "at the load of 2, and of 1 again"

    on_tight_plane(test, models)


def test_a_version_whose_own_file_was_replaced_by_a_broken_one_cannot_come_back(
    models: ModelDirectory,
) -> None:
    async def test(plane: ControlPlane) -> None:
        file = models.path / "m" / "1" / "model.onnx"
        whole = file.read_bytes()
        file.write_bytes(b"this is no model")
        with pytest.raises(LoadError, match="the file of version '1' is gone"):
            await plane.rollouts.load("m", **BY)
        assert plane.manager.loads["m"] == {"ok": 1, "failed": 1}, "it is not tried twice"
        with pytest.raises(GatewayError, match="FAILED"):
            await answer(plane)
        file.write_bytes(whole)
        await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("1", 1.0)

    on_tight_plane(test, models)


def test_settings_that_cannot_be_served_with_leave_those_that_were(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        settings = models.path / "m" / "model.toml"
        settings.write_text(settings.read_text() + '[outputs.absent]\nlabels = ["a"]\n')
        with pytest.raises(LoadError, match=r"absent.*; version '1', .* is loaded again"):
            await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("1", 1.0)

    on_tight_plane(test, models)


def test_a_version_that_could_never_fit_costs_nobody_the_one_that_serves(
    models: ModelDirectory, transitions: Transitions
) -> None:
    async def test(plane: ControlPlane) -> None:
        transitions.seen.clear()
        settings = models.path / "m" / "model.toml"
        settings.write_text(settings.read_text() + "instances = 2\n")
        with pytest.raises(LoadError, match=r"does not fit into memory: it needs 4\d\.\d MB"):
            await plane.rollouts.promote("m", "2", **BY)
        assert transitions.seen == [("m:2", State.FAILED)]
        assert await answer(plane) == ("1", 1.0)

    on_tight_plane(test, models)


def test_the_latency_of_the_version_that_has_gone_is_still_the_measure(
    models: ModelDirectory,
) -> None:
    async def test(plane: ControlPlane) -> None:
        settings = models.path / "m" / "model.toml"
        limit = "[validation]\nmax_latency_ratio = 0.000001\n"
        settings.write_text(settings.read_text() + limit)
        with pytest.raises(LoadError, match=r"times as long as version '1'.* is loaded again"):
            await plane.rollouts.promote("m", "2", **BY)
        assert await answer(plane) == ("1", 1.0)

    on_tight_plane(test, models)


def test_a_promotion_that_cannot_be_written_down_brings_the_old_version_back(
    models: ModelDirectory,
) -> None:
    armed = False

    def fault(point: str) -> None:
        if armed and point == "promote: decided":
            raise StateUnavailable("the disk is full")

    async def test(plane: ControlPlane) -> None:
        nonlocal armed
        armed = True
        with pytest.raises(StateUnavailable):
            await plane.rollouts.promote("m", "2", **BY)
        await until(lambda: plane.state("m", "1") == "READY")
        assert await answer(plane) == ("1", 1.0)
        await until(lambda: plane.state("m", "2") == "UNAVAILABLE")

    on_tight_plane(test, models, fault=fault)


def test_a_swap_whose_caller_leaves_is_not_given_up_half_way(
    models: ModelDirectory, transitions: Transitions
) -> None:
    add(models, "m", "3")

    async def test(plane: ControlPlane) -> None:
        promotion = asyncio.create_task(plane.rollouts.promote("m", "2", **BY))
        await until(lambda: ("m:2", State.LOADING) in transitions.seen)
        promotion.cancel()
        with pytest.raises(asyncio.CancelledError):
            await promotion
        # Nothing was decided, so what served is loaded again.
        await until(lambda: plane.state("m", "1") == "READY")
        assert await answer(plane) == ("1", 1.0)
        await plane.rollouts.promote("m", "3", **BY)
        assert await answer(plane) == ("3", 3.0)

    on_tight_plane(test, models)


def test_two_rollbacks_at_once_go_back_once(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        outcomes = await asyncio.gather(
            *(plane.rollouts.rollback("m", **BY) for _ in range(2)), return_exceptions=True
        )
        assert [type(o) for o in outcomes if isinstance(o, Exception)] == [Conflict]
        assert await answer(plane) == ("1", 1.0)

    on_tight_plane(test, models)


def test_an_unloaded_model_has_nothing_to_go_back_to(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        await plane.rollouts.unload("m", **BY)
        await until(lambda: plane.manager.budget.total == 0)
        await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("2", 2.0)
        with pytest.raises(Conflict, match="no previous version"):
            await plane.rollouts.rollback("m", **BY)

    on_tight_plane(test, models)


# -- a server -----------------------------------------------------------------------------------


def test_clients_of_a_server_are_told_when_to_come_back(tmp_path: Path) -> None:
    models = ModelDirectory(tmp_path / "models")
    settings = IN_PLACE + 'inline = false\nversion_policy = { specific = ["1"] }\n'
    for version in ("1", "2"):
        models.add("slow", slow, settings, version=version)
    with GatewayProcess(models.path) as gateway, ThreadPoolExecutor(5) as pool:

        def ask(steps: int) -> tuple[int, dict[str, str], Any]:
            tensor = {"name": "steps", "datatype": "INT64", "shape": [1], "data": [steps]}
            body = json.dumps({"inputs": [tensor]}).encode()
            status, headers, answer = gateway.request("POST", "/v2/models/slow/infer", body)
            return status, headers, json.loads(answer)

        def promote() -> int:
            request = urllib.request.Request(
                f"{gateway.admin_url}/admin/models/slow/promote",
                json.dumps({"version": "2"}).encode(),
                {"content-type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status

        def inflight() -> bool:
            metrics = gateway.request("GET", "/metrics")[2].decode()
            return "onnx_gateway_inflight_requests 4.0" in metrics

        def leaves() -> bool:
            _, index = gateway.post("/v2/repository/index", {})
            return any(entry["state"] == "UNLOADING" for entry in index)

        # One after the other, so that version 1 is long busy with them.
        running = [pool.submit(ask, 20_000) for _ in range(4)]
        gateway.wait_until(inflight)
        promotion = pool.submit(promote)
        gateway.wait_until(leaves)
        status, headers, answer = ask(1)
        assert (status, headers["retry-after"]) == (503, "1")
        assert "swapped in place" in answer["error"]
        assert [request.result()[2]["model_version"] for request in running] == ["1"] * 4
        assert promotion.result() == 200
        assert ask(1)[2]["model_version"] == "2"
