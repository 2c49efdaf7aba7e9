"""A server that is killed at any point of any change comes back with what was committed last.

Each scene of ``crash_site`` is played once to its end, which tells the points that it passes and
the journal that it leaves; then once for each of these points, at which the server is killed. The
next server over the same files must serve by exactly the entries that were committed until then.
"""

import asyncio
import multiprocessing
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.control.traffic import LATEST, ModelTraffic, as_table
from gateway.errors import ModelNotReady, NotFound
from tests.control.crash_site import BY, FACTORS, SCENES, Scene, Site, perform, plane_at
from tests.control.multiples import answer
from tests.control.plane import ControlPlane

#: A fork of a process that has imported everything is there in milliseconds, and no thread of the
#: tests' own process is in it.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", "tests.control.crash_site"])

#: Of a journal's entry, what does not depend on the time and on chance.
CERTAIN = (
    "seq",
    "by",
    "verb",
    "model",
    "version",
    "outcome",
    "digest",
    "lineage",
    "before",
    "after",
)


@dataclass(frozen=True)
class Played:
    """A scene that nobody cut short: the points of its act, and the journal at its end."""

    points: list[str]
    journal: list[dict[str, Any]]

    def committed(self, point: int) -> list[dict[str, Any]]:
        """The journal when the scene is at that point: what is committed after it is missing."""
        missing = self.points[point + 1 :].count("committed")
        return self.journal[: len(self.journal) - missing]


@pytest.mark.parametrize("name", SCENES)
def test_a_killed_server_comes_back_with_what_was_committed(name: str, tmp_path: Path) -> None:
    scene = SCENES[name]
    site = scene.build(tmp_path / "scene")
    asyncio.run(decide(site, scene))
    played = play(name, site.copy(tmp_path / "played"))
    assert "committed" in played.points
    killings = [
        (number, *begin(name, site.copy(tmp_path / f"killed {number}"), number))
        for number in range(len(played.points))
    ]
    for number, killed, process in killings:
        point = played.points[number]
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"{number}: {point}"
        assert killed.points == played.points[: number + 1]
        try:
            asyncio.run(check(killed, scene, played.committed(number)))
        except Exception as error:
            error.add_note(f"killed at point {number}, {point!r}, of {played.points}")
            raise


def test_the_scenes_pass_every_point_that_there_is(tmp_path: Path) -> None:
    """The points of a verb, so that none is lost unnoticed."""
    scene = SCENES["promote"]
    site = scene.build(tmp_path / "scene")
    commit = ["begin", "state written", "journal written", "committed"]
    assert play("promote", site).points == [
        "promote: loading",
        "load: serves",
        *commit,
        "promote: loaded",
        "promote: decided",
        *commit,
        "promote: committed",
        "promote: applied",
    ]


async def decide(site: Site, scene: Scene) -> None:
    """What the earlier server does."""
    plane = plane_at(site)
    await plane.rollouts.open()
    try:
        await scene.decided(plane, site)
    finally:
        await plane.rollouts.close()
        await plane.manager.close()


def play(name: str, site: Site) -> Played:
    """Play the scene to its end."""
    _, process = begin(name, site, None)
    process.join(60)
    assert process.exitcode == 0

    async def read() -> list[dict[str, Any]]:
        plane = plane_at(site)
        await plane.rollouts.open()
        try:
            return await journal(plane)
        finally:
            await plane.rollouts.close()

    return Played(site.points, asyncio.run(read()))


def begin(name: str, site: Site, die_at: int | None) -> tuple[Site, Any]:
    """Begin to play the scene in a process of its own."""
    process = PROCESSES.Process(target=perform, args=(name, site.path, die_at))
    process.start()
    return site, process


async def journal(plane: ControlPlane) -> list[dict[str, Any]]:
    """The journal, the oldest entry first."""
    entries = await plane.rollouts.history(limit=1000)
    return entries[::-1]


async def check(site: Site, scene: Scene, committed: list[dict[str, Any]]) -> None:
    """A new server over the files that the killed one has left does as it should."""
    plane = plane_at(site)
    await plane.rollouts.open()
    try:
        found = await journal(plane)
        assert [certain(entry) for entry in found] == [certain(entry) for entry in committed]
        assert (await plane.rollouts.verify_journal())["intact"]
        await plane.manager.start()
        for model in scene.models:
            await check_model(plane, site, model, committed)
            await check_next(plane, model)
        verified = await plane.rollouts.verify_journal()
        assert verified["intact"], verified
        assert verified["entries"] > len(committed)
    finally:
        await plane.rollouts.close()
        await plane.manager.close()


async def check_model(
    plane: ControlPlane, site: Site, model: str, committed: list[dict[str, Any]]
) -> None:
    """The model serves by the last decision, and every version answers where it should."""
    status = plane.rollouts.status(model)
    decisions = [e["after"] for e in committed if e["model"] == model and e["after"]]
    decided = decisions[-1] if decisions else as_table(ModelTraffic())
    assert without_reasons(status["traffic"]) == without_reasons(decided)
    if decided["loaded"] is False:
        with pytest.raises(NotFound):
            await answer(plane, model=model)
        return
    stable = decided["stable"]
    if stable == LATEST:
        # One that the policy names is all that it loads; else it loads the highest.
        there = sorted(path.name for path in (site.models / model).iterdir() if path.is_dir())
        stable = "1" if "5" in there else there[-1]
    expected = {"stable": stable, **decided["labels"]}
    if decided["previous"]:
        expected["previous"] = decided["previous"][0]
    if decided["canary"] and decided["canary"]["phase"] in ("running", "paused"):
        expected["canary"] = decided["canary"]["plan"]["version"]
    else:
        expected[""] = stable
    for label, version in expected.items():
        assert await answer(plane, label, model) == (version, FACTORS[version]), label
    if decided["shadow"] and decided["shadow"]["version"] == stable:
        with pytest.raises(ModelNotReady, match="answers"):
            await plane.rollouts.shadow_report(model)
    elif decided["shadow"]:
        report = await plane.rollouts.shadow_report(model)
        assert report["shadow"]["version"] == decided["shadow"]["version"]


async def check_next(plane: ControlPlane, model: str) -> None:
    """Nothing is left in the way of the next verb."""
    if plane.rollouts.status(model)["serving"] is None:
        await plane.rollouts.load(model, **BY)
    there = [version["version"] for version in plane.rollouts.status(model)["versions"]]
    serving = plane.rollouts.status(model)["serving"]
    other = "2" if serving == "1" and "2" in there else "1"
    if other == serving:
        await plane.rollouts.set_label(model, "next", serving, **BY)
        assert await answer(plane, "next", model) == (serving, FACTORS[serving])
        return
    await plane.rollouts.promote(model, other, **BY)
    assert await answer(plane, model=model) == (other, FACTORS[other])


def certain(entry: dict[str, Any]) -> dict[str, Any]:
    return without_reasons({key: entry[key] for key in CERTAIN})


def without_reasons(value: Any) -> Any:
    """The tables without sentences, which may hold figures of this very run."""
    if isinstance(value, dict):
        return {key: without_reasons(v) for key, v in value.items() if key != "reason"}
    return value
