"""Verbs that meet one another, a load, a cancellation, the server's end, or a disk that is full."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.control import loading
from gateway.errors import (
    Conflict,
    GatewayError,
    LoadError,
    NoAvailableVersion,
    StateUnavailable,
    Unavailable,
)
from tests.control.multiples import answer, scaled
from tests.control.plane import ControlPlane, on_plane, until
from tests.repository import ModelDirectory

BY = {"by": "a test"}
STORE_POINTS = ("begin", "state written", "journal written", "committed")


class Gate:
    """Holds up the thread that comes to it until it is opened."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        assert self._opened.wait(30)

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        self._opened.clear()
        self._reached.clear()

    async def reached(self) -> None:
        await until(self._reached.is_set)


@pytest.fixture
def models(tmp_path: Path) -> ModelDirectory:
    """Versions 1 to 3 of ``m``, which multiply by their number; 1 is loaded by itself."""
    directory = ModelDirectory(tmp_path / "models")
    settings = 'version_policy = { specific = ["1"] }\nmax_batch_size = 0\n'
    for number in (1, 2, 3):
        directory.add("m", scaled(number), settings, version=str(number))
    return directory


@pytest.fixture
def slow_3(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Loads of version 3 wait at this gate."""
    gate = Gate()
    load = loading.load_model

    def held_up(name: str, version: str, *rest: Any, **more: Any) -> Any:
        if version == "3":
            gate.pass_through()
        return load(name, version, *rest, **more)

    monkeypatch.setattr(loading, "load_model", held_up)
    return gate


class Faults:
    """What happens at the points of the store's thread and of the verbs: nothing, if not set."""

    def __init__(self) -> None:
        self.at: dict[str, Callable[[], None]] = {}

    def __call__(self, point: str) -> None:
        if act := self.at.get(point):
            act()

    def disk_full(self, point: str) -> None:
        """The disk is full when the store comes to ``point``."""

        def fail() -> None:
            raise sqlite3.OperationalError("database or disk is full")

        self.at[point] = fail


def serving(
    test: Callable[[ControlPlane], Awaitable[None]], models: ModelDirectory, **options: Any
) -> None:
    async def started(plane: ControlPlane) -> None:
        await plane.manager.start()
        await test(plane)

    on_plane(started, models.path, **options)


def begin(work: Awaitable[Any]) -> "asyncio.Task[Any]":
    return asyncio.ensure_future(work)


async def decisions(plane: ControlPlane) -> list[dict[str, Any]]:
    """The journal's entries of decisions, the oldest first; each builds on the one before."""
    entries = [entry for entry in await plane.rollouts.history() if entry["after"]][::-1]
    for one, following in pairwise(entries):
        assert following["before"] == one["after"]
    if entries:
        assert entries[-1]["after"] == plane.rollouts.status("m")["traffic"]
    assert (await plane.rollouts.verify_journal())["intact"]
    return entries


async def turns(count: int = 20) -> None:
    """Let everything else on the loop go as far as it gets without waiting."""
    for _ in range(count):
        await asyncio.sleep(0)


# -- verbs and loads --------------------------------------------------------------------------


def test_a_rollback_does_not_wait_for_a_load(models: ModelDirectory, slow_3: Gate) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        promote = begin(plane.rollouts.promote("m", "3", **BY))
        await slow_3.reached()
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("1", 1.0)
        assert not promote.done()
        slow_3.open()
        await promote
        assert await answer(plane) == ("3", 3.0)
        assert await answer(plane, "previous") == ("1", 1.0)
        assert len(await decisions(plane)) == 3

    serving(test, models)


def test_a_rollback_while_the_previous_version_is_still_loaded_waits_for_it(
    models: ModelDirectory, slow_3: Gate, tmp_path: Path
) -> None:
    async def decide(plane: ControlPlane) -> None:
        slow_3.open()
        await plane.rollouts.promote("m", "3", **BY)
        await plane.rollouts.promote("m", "2", **BY)

    async def test(plane: ControlPlane) -> None:
        slow_3.close()
        start = begin(plane.manager.start())
        await slow_3.reached()
        rollback = begin(plane.rollouts.rollback("m", **BY))
        await turns()
        assert await answer(plane) == ("2", 2.0)
        slow_3.open()
        await start
        await rollback
        assert await answer(plane) == ("3", 3.0)

    serving(decide, models, state_dir=tmp_path / "state")
    on_plane(test, models.path, state_dir=tmp_path / "state")


def test_two_promotes_follow_one_another(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        await asyncio.gather(
            plane.rollouts.promote("m", "2", **BY), plane.rollouts.promote("m", "3", **BY)
        )
        first, last = await decisions(plane)
        assert {first["version"], last["version"]} == {"2", "3"}
        assert (await answer(plane))[0] == last["version"]
        assert (await answer(plane, "previous"))[0] == first["version"]

    serving(test, models)


def test_of_two_promotes_to_one_version_the_second_is_told(models: ModelDirectory) -> None:
    async def test(plane: ControlPlane) -> None:
        outcomes = await asyncio.gather(
            *(plane.rollouts.promote("m", "2", **BY) for _ in range(2)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [dict, Conflict]
        assert plane.manager.loads["m"] == {"ok": 2}, "version 1, and version 2 once"
        assert len(await decisions(plane)) == 1

    serving(test, models)


def test_a_version_is_kept_for_a_verb_that_waits_for_its_turn(models: ModelDirectory) -> None:
    fault, gate = Faults(), Gate()

    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.set_label("m", "best", "2", **BY)
        fault.at["state written"] = gate.pass_through
        moved = begin(plane.rollouts.set_label("m", "best", "1", **BY))
        await gate.reached()
        promote = begin(plane.rollouts.promote("m", "2", **BY))
        await turns()
        gate.open()
        await moved
        await promote
        assert await answer(plane) == ("2", 2.0)
        assert plane.manager.loads["m"] == {"ok": 2}

    serving(test, models, fault=fault)


def test_an_unload_waits_for_a_load_and_then_holds(models: ModelDirectory, slow_3: Gate) -> None:
    async def test(plane: ControlPlane) -> None:
        promote = begin(plane.rollouts.promote("m", "3", **BY))
        await slow_3.reached()
        unload = begin(plane.rollouts.unload("m", **BY))
        await turns()
        assert await answer(plane) == ("1", 1.0)
        slow_3.open()
        await unload
        # Whichever of the two was decided last, what is decided is what is.
        outcome = (await asyncio.gather(promote, return_exceptions=True))[0]
        last = (await decisions(plane))[-1]
        if last["verb"] == "unload":
            assert isinstance(outcome, dict | Conflict)
            with pytest.raises(NoAvailableVersion):
                await answer(plane)
        else:
            assert await answer(plane) == ("3", 3.0)

    serving(test, models)


def test_a_promote_that_an_unload_has_overtaken_is_told(models: ModelDirectory) -> None:
    fault, gate = Faults(), Gate()

    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.set_label("m", "best", "2", **BY)
        fault.at["state written"] = gate.pass_through
        unload = begin(plane.rollouts.unload("m", **BY))
        await gate.reached()
        promote = begin(plane.rollouts.promote("m", "2", **BY))
        await turns()
        gate.open()
        await unload
        with pytest.raises(Conflict, match="unloaded"):
            await promote
        assert plane.rollouts.status("m")["traffic"]["loaded"] is False
        with pytest.raises(NoAvailableVersion):
            await answer(plane)
        await plane.rollouts.load("m", **BY)
        assert await answer(plane, "best") == ("2", 2.0)

    serving(test, models, fault=fault)


def test_what_is_promoted_after_an_unload_serves_after_a_restart_too(
    models: ModelDirectory, tmp_path: Path
) -> None:
    async def decide(plane: ControlPlane) -> None:
        await plane.rollouts.unload("m", **BY)
        await plane.rollouts.promote("m", "2", **BY)
        assert await answer(plane) == ("2", 2.0)

    async def find(plane: ControlPlane) -> None:
        assert await answer(plane) == ("2", 2.0)

    serving(decide, models, state_dir=tmp_path / "state")
    serving(find, models, state_dir=tmp_path / "state")


def test_what_is_promoted_of_a_model_that_nobody_loaded_serves_after_a_restart_too(
    models: ModelDirectory, tmp_path: Path
) -> None:
    async def decide(plane: ControlPlane) -> None:
        await plane.manager.start([])
        await plane.rollouts.promote("m", "2", **BY)

    async def find(plane: ControlPlane) -> None:
        await plane.manager.start([])
        assert await answer(plane) == ("2", 2.0)

    on_plane(decide, models.path, state_dir=tmp_path / "state")
    on_plane(find, models.path, state_dir=tmp_path / "state")


def test_a_label_and_the_latest_version_move_at_the_same_time(tmp_path: Path) -> None:
    models = ModelDirectory(tmp_path / "models")
    models.add("m", scaled(1), "max_batch_size = 0\n")
    fault, gate = Faults(), Gate()

    async def test(plane: ControlPlane) -> None:
        fault.at["state written"] = gate.pass_through
        label = begin(plane.rollouts.set_label("m", "best", "1", **BY))
        await gate.reached()
        models.add("m", scaled(2), version="2")
        load = begin(plane.rollouts.load("m", **BY))
        await until(lambda: plane.rollouts.status("m")["serving"] == "2")
        gate.open()
        await label
        await load
        assert await answer(plane, "best") == ("1", 1.0)
        assert await answer(plane, "previous") == ("1", 1.0)
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("1", 1.0)
        await decisions(plane)

    serving(test, models, fault=fault)


# -- cancellation and the end -----------------------------------------------------------------


@pytest.mark.parametrize("cancels", [1, 3])
@pytest.mark.parametrize("point", STORE_POINTS)
def test_a_commit_that_has_begun_is_finished_although_its_caller_leaves(
    models: ModelDirectory, point: str, cancels: int
) -> None:
    fault, gate = Faults(), Gate()

    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.set_label("m", "best", "2", **BY)
        fault.at[point] = gate.pass_through
        promote = begin(plane.rollouts.promote("m", "2", **BY))
        await gate.reached()
        following = begin(plane.rollouts.rollback("m", **BY))
        for _ in range(cancels):
            promote.cancel()
            await turns()
        assert not following.done(), "it is not its turn yet"
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await promote
        await following
        assert [entry["verb"] for entry in await decisions(plane)][-2:] == ["promote", "rollback"]
        assert await answer(plane) == ("1", 1.0)
        assert await answer(plane, "previous") == ("2", 2.0)

    serving(test, models, fault=fault)


def test_an_unload_that_is_committed_is_carried_out_although_its_caller_leaves(
    models: ModelDirectory,
) -> None:
    fault, gate = Faults(), Gate()

    async def test(plane: ControlPlane) -> None:
        fault.at["state written"] = gate.pass_through
        unload = begin(plane.rollouts.unload("m", **BY))
        await gate.reached()
        unload.cancel()
        await turns()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await unload
        assert [entry["verb"] for entry in await decisions(plane)] == ["unload"]
        with pytest.raises(NoAvailableVersion):
            await answer(plane)

    serving(test, models, fault=fault)


def test_a_cancelled_load_changes_nothing_and_may_be_tried_again(
    models: ModelDirectory, slow_3: Gate
) -> None:
    async def test(plane: ControlPlane) -> None:
        before = plane.rollouts.status("m")["traffic"]
        promote = begin(plane.rollouts.promote("m", "3", **BY))
        await slow_3.reached()
        promote.cancel()
        with pytest.raises(asyncio.CancelledError):
            await promote
        assert plane.rollouts.status("m")["traffic"] == before
        assert await answer(plane) == ("1", 1.0)
        slow_3.open()
        await plane.rollouts.promote("m", "3", **BY)
        assert await answer(plane) == ("3", 3.0)

    serving(test, models)


def test_the_end_of_the_server_ends_a_verb_that_still_loads(
    models: ModelDirectory, slow_3: Gate, tmp_path: Path
) -> None:
    async def test(plane: ControlPlane) -> None:
        promote = begin(plane.rollouts.promote("m", "3", **BY))
        await slow_3.reached()
        await plane.rollouts.close()
        await plane.manager.close()
        slow_3.open()
        with pytest.raises(Unavailable):
            await promote

    async def find(plane: ControlPlane) -> None:
        assert await answer(plane) == ("1", 1.0)
        assert await decisions(plane) == []

    serving(test, models, state_dir=tmp_path / "state")
    serving(find, models, state_dir=tmp_path / "state")


def test_the_end_of_the_server_waits_for_a_commit(models: ModelDirectory, tmp_path: Path) -> None:
    fault, gate = Faults(), Gate()

    async def test(plane: ControlPlane) -> None:
        fault.at["promote: decided"] = lambda: fault.at.update({"begin": gate.pass_through})
        promote = begin(plane.rollouts.promote("m", "2", **BY))
        await gate.reached()
        close = begin(plane.rollouts.close())
        await turns()
        assert not close.done()
        gate.open()
        await close
        assert (await promote)["serving"] == "2"

    async def find(plane: ControlPlane) -> None:
        assert await answer(plane) == ("2", 2.0)

    serving(test, models, state_dir=tmp_path / "state", fault=fault)
    serving(find, models, state_dir=tmp_path / "state")


# -- a disk that is full ----------------------------------------------------------------------

VERBS: dict[str, Callable[[ControlPlane], Awaitable[Any]]] = {
    "promote": lambda p: p.rollouts.promote("m", "3", **BY),
    "rollback": lambda p: p.rollouts.rollback("m", **BY),
    "follow_latest": lambda p: p.rollouts.follow_latest("m", **BY),
    "set_label": lambda p: p.rollouts.set_label("m", "best", "3", **BY),
    "remove_label": lambda p: p.rollouts.remove_label("m", "good", **BY),
    "start_canary": lambda p: p.rollouts.start_canary("m", {"version": "3"}, **BY),
    "start_shadow": lambda p: p.rollouts.start_shadow("m", {"version": "3"}, **BY),
    "apply": lambda p: p.rollouts.apply({"models": {"m": {"stable": "3"}}}, **BY),
    "load": lambda p: p.rollouts.load("m", **BY),
    "unload": lambda p: p.rollouts.unload("m", **BY),
}


@pytest.mark.parametrize("point", STORE_POINTS[:3])
@pytest.mark.parametrize("verb", VERBS)
def test_what_cannot_be_written_down_does_not_happen(
    models: ModelDirectory, verb: str, point: str, tmp_path: Path
) -> None:
    fault = Faults()

    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        await plane.rollouts.set_label("m", "good", "1", **BY)
        before = plane.rollouts.status("m")
        written = await plane.rollouts.history()
        fault.disk_full(point)
        with pytest.raises(StateUnavailable, match="full"):
            await VERBS[verb](plane)
        after = plane.rollouts.status("m")
        assert {**after, "versions": None} == {**before, "versions": None}
        assert await plane.rollouts.history() == written
        assert await answer(plane) == ("2", 2.0)
        assert await answer(plane, "good") == ("1", 1.0)
        await until(lambda: plane.state("m", "3") in ("", "UNAVAILABLE"))
        fault.at.clear()
        await VERBS[verb](plane)
        assert (await decisions(plane))[-1]["verb"] == verb

    serving(test, models, fault=fault, state_dir=tmp_path / "state")


def test_models_are_served_although_their_loads_cannot_be_written_down(
    models: ModelDirectory,
) -> None:
    fault = Faults()
    fault.disk_full("state written")

    async def test(plane: ControlPlane) -> None:
        assert plane.service.is_ready()
        assert await answer(plane) == ("1", 1.0)

    serving(test, models, fault=fault)


def test_why_a_load_failed_is_told_although_it_cannot_be_written_down(
    models: ModelDirectory,
) -> None:
    models.add_broken("m", "4")
    fault = Faults()

    async def test(plane: ControlPlane) -> None:
        fault.disk_full("begin")
        with pytest.raises(LoadError, match="version '4'"):
            await plane.rollouts.promote("m", "4", **BY)

    serving(test, models, fault=fault)


def test_the_latest_version_serves_although_that_cannot_be_written_down(tmp_path: Path) -> None:
    models = ModelDirectory(tmp_path / "models")
    models.add("m", scaled(1), "max_batch_size = 0\n")
    fault = Faults()

    async def test(plane: ControlPlane) -> None:
        models.add("m", scaled(2), version="2")
        fault.disk_full("begin")
        with pytest.raises(StateUnavailable):
            await plane.rollouts.load("m", **BY)
        assert await answer(plane) == ("2", 2.0)
        fault.at.clear()
        await plane.rollouts.load("m", **BY)
        assert [e["verb"] for e in await decisions(plane)] == ["follow", "load"]
        await plane.rollouts.rollback("m", **BY)
        assert await answer(plane) == ("1", 1.0)

    serving(test, models, fault=fault)


def test_no_verb_fails_by_anything_but_a_typed_error_at_a_closed_server(
    models: ModelDirectory,
) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.rollouts.promote("m", "2", **BY)
        await plane.rollouts.set_label("m", "good", "1", **BY)
        await plane.rollouts.close()
        for verb in VERBS.values():
            with pytest.raises(GatewayError):
                await verb(plane)

    serving(test, models)
