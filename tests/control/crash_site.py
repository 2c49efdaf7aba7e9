"""A server that is killed at a chosen point of what it does, in a process of its own.

A *point* is where the control plane calls its ``fault``. ``perform`` notes every point that it
passes in the file ``points``, and dies at the one that it is told.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gateway.control import trials
from tests.control.multiples import ROW, Clock, scaled
from tests.control.plane import ControlPlane
from tests.repository import ModelDirectory

BY = {"by": "a test"}
#: What each version multiplies by. Of two scores, version 5 has the other one higher.
FACTORS = {"1": 1.0, "2": 2.0, "3": 3.0, "5": -1.0}
#: Only version 1 is loaded by itself; a model that is not batched is loaded soonest.
SPECIFIC = 'version_policy = { specific = ["1"] }\nmax_batch_size = 0\n'
LATEST = "max_batch_size = 0\n"
BATCHED = 'version_policy = { specific = ["1"] }\n'


@dataclass
class Site:
    """Where it happens: ``models`` and ``state`` in one directory, which only this run has.

    In ``spare`` are versions that are not in the repository yet.
    """

    path: Path
    clock: Clock = field(default_factory=Clock)

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def points(self) -> list[str]:
        """The points that were passed, the last one included at which the server died."""
        return (self.path / "points").read_text().splitlines()

    def publish(self, version: str) -> None:
        """Put a spare version into the repository."""
        shutil.copytree(self.path / "spare" / version, self.models / "m" / version)

    def copy(self, path: Path) -> "Site":
        """The same files at ``path``."""
        shutil.copytree(self.path, path)
        return Site(path)


Act = Callable[[ControlPlane, Site], Awaitable[Any]]


async def nothing(plane: ControlPlane, site: Site) -> None:
    """Where nothing comes before."""


async def start(plane: ControlPlane, site: Site) -> None:
    """Load what is to serve."""
    await plane.manager.start()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is cut short, and what comes before it.

    Attributes:
        act: what is cut short.
        decided: done by an earlier server, which was stopped.
        started, prepare: done by the server that is killed, before ``act``.
        models: in the repository; of each there are ``versions``, and ``settings``.
    """

    act: Act
    decided: Act = nothing
    started: bool = True
    prepare: Act = nothing
    models: tuple[str, ...] = ("m",)
    versions: tuple[str, ...] = tuple(FACTORS)
    settings: str = SPECIFIC

    def build(self, path: Path) -> Site:
        """The repository and an empty state."""
        repository = ModelDirectory(path / "models")
        for model in self.models:
            for version in self.versions:
                repository.add(model, scaled(FACTORS[version]), self.settings, version=version)
        for version in FACTORS.keys() - set(self.versions):
            place = ModelDirectory(path)
            place.add("spare", scaled(FACTORS[version]), version=version)
        return Site(path)


def verb(name: str, *arguments: Any, model: str = "m") -> Act:
    """The verb of that name."""

    async def act(plane: ControlPlane, site: Site) -> None:
        await getattr(plane.rollouts, name)(model, *arguments, **BY)

    return act


def in_turn(*acts: Act) -> Act:
    """One after the other."""

    async def act(plane: ControlPlane, site: Site) -> None:
        for one in acts:
            await one(plane, site)

    return act


def applied(declaration: dict[str, Any]) -> Act:
    async def act(plane: ControlPlane, site: Site) -> None:
        await plane.rollouts.apply({"models": declaration}, **BY)

    return act


def published(version: str) -> Act:
    async def act(plane: ControlPlane, site: Site) -> None:
        site.publish(version)

    return act


def asked(count: int) -> Act:
    """So many requests, of 16 rows each."""
    rows = np.repeat(ROW, 16, axis=0)

    async def act(plane: ControlPlane, site: Site) -> None:
        for _ in range(count):
            await plane.infer("m", x=rows)

    return act


def held(seconds: float) -> Act:
    """So much time passes."""

    async def act(plane: ControlPlane, site: Site) -> None:
        site.clock.now_s += seconds

    return act


async def look(plane: ControlPlane, site: Site) -> None:
    """See how the canary does, and do what follows."""
    await plane.rollouts.look("m")


ANYTHING_GOES = {"max_error_increase": 1, "max_slow_increase": 1, "max_output_shift": 1}
OUTPUTS_COUNT = {**ANYTHING_GOES, "max_output_shift": 0.2}


def canary(version: str, *percents: float, **gates: float) -> Act:
    """A canary of which each step lasts a minute."""
    steps = [{"percent": percent, "hold_s": 60} for percent in percents]
    return verb("start_canary", {"version": version, "steps": steps, "gates": gates})


BUSY = in_turn(
    start,
    verb("promote", "2"),
    verb("set_label", "champion", "3"),
    verb("start_shadow", {"version": "3"}),
    canary("3", 20),
)

SCENES: dict[str, Scene] = {
    "first start": Scene(started=False, act=start),
    "start": Scene(decided=BUSY, started=False, act=start),
    "load a new version": Scene(
        versions=("1",), settings=LATEST, prepare=published("2"), act=verb("load")
    ),
    "load while a version is kept": Scene(
        versions=("1", "2"),
        settings=LATEST,
        decided=in_turn(start, verb("promote", "2")),
        prepare=published("3"),
        act=verb("load"),
    ),
    "unload": Scene(decided=BUSY, act=verb("unload")),
    "load again": Scene(decided=in_turn(BUSY, verb("unload")), act=verb("load")),
    "promote": Scene(act=verb("promote", "2")),
    "promote over another": Scene(decided=BUSY, act=verb("promote", "5")),
    "promote the canary": Scene(decided=BUSY, act=verb("promote", "canary")),
    "rollback": Scene(decided=in_turn(start, verb("promote", "2")), act=verb("rollback")),
    "rollback a canary": Scene(decided=BUSY, act=verb("rollback")),
    "follow the latest": Scene(
        decided=in_turn(start, verb("promote", "2")), act=verb("follow_latest")
    ),
    "set a label": Scene(act=verb("set_label", "champion", "3")),
    "move a label": Scene(decided=BUSY, act=verb("set_label", "champion", "1")),
    "remove a label": Scene(decided=BUSY, act=verb("remove_label", "champion")),
    "start a canary": Scene(act=canary("2", 20)),
    "pause a canary": Scene(decided=BUSY, act=verb("pause_canary")),
    "resume a canary": Scene(
        decided=in_turn(BUSY, verb("pause_canary")), act=verb("resume_canary")
    ),
    "abort a canary": Scene(decided=BUSY, act=verb("abort_canary")),
    "canary step": Scene(
        decided=in_turn(start, canary("2", 20, 60)),
        prepare=in_turn(asked(5), held(61)),
        act=look,
    ),
    "canary promotion": Scene(
        decided=in_turn(start, canary("2", 50, **ANYTHING_GOES)),
        prepare=in_turn(asked(50), held(61)),
        act=look,
    ),
    "canary rollback": Scene(
        settings=BATCHED,
        decided=in_turn(start, canary("5", 50, **OUTPUTS_COUNT)),
        prepare=asked(400),
        act=look,
    ),
    "start a shadow": Scene(act=verb("start_shadow", {"version": "2"})),
    "replace a shadow": Scene(decided=BUSY, act=verb("start_shadow", {"version": "1"})),
    "stop a shadow": Scene(decided=BUSY, act=verb("stop_shadow")),
    "apply": Scene(
        decided=BUSY,
        act=applied({"m": {"stable": "1", "labels": {"best": "5"}, "shadow": {"version": "2"}}}),
    ),
    "apply to two models": Scene(
        models=("m", "o"),
        # At a start the two would be loaded in any order.
        started=False,
        prepare=in_turn(verb("load"), verb("load", model="o")),
        act=applied({"m": {"stable": "2"}, "o": {"stable": "3", "labels": {"old": "1"}}}),
    ),
}


def plane_at(site: Site, **options: Any) -> ControlPlane:
    """A control plane over the files of ``site``."""
    return ControlPlane(site.models, state_dir=site.state, **options)


def perform(name: str, path: Path, die_at: int | None) -> None:
    """Play the scene at ``path``; ends the process by SIGKILL at its point ``die_at``, from 0."""
    scene, site = SCENES[name], Site(path)
    # Looks at the canary are the scene's.
    trials.LOOK_S = 3600.0  # type: ignore[misc]
    armed = False
    passed = 0
    notes = os.open(path / "points", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def fault(point: str) -> None:
        nonlocal passed
        if not armed:
            return
        os.write(notes, f"{point}\n".encode())
        passed += 1
        if die_at is not None and passed > die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def play() -> None:
        nonlocal armed
        plane = plane_at(site, fault=fault, clock=site.clock)
        await plane.rollouts.open()
        if scene.started:
            await plane.manager.start()
        await scene.prepare(plane, site)
        armed = True
        await scene.act(plane, site)
        armed = False
        await plane.rollouts.close()
        await plane.manager.close()

    asyncio.run(play())
