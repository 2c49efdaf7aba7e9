"""Random verbs, restarts and new versions, against the rules that ``reference`` states."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.control import trials
from gateway.control.traffic import BUILT_IN_LABELS, ModelTraffic, as_table
from gateway.errors import ConfigError, Conflict, ModelNotFound, NotFound, Unavailable
from gateway.serving.lifecycle import State
from tests.control.multiples import Clock, answer, scaled
from tests.control.plane import ControlPlane, until
from tests.control.reference import Reference, Refusal

T = TypeVar("T")

BY = {"by": "a test"}
KEEP_PREVIOUS = 1
#: A canary passes with little evidence, and each of its two steps lasts a minute.
PLAN = {
    "steps": [{"percent": 30, "hold_s": 60}, {"percent": 70, "hold_s": 60}],
    "gates": {"max_error_increase": 0.5, "max_slow_increase": 1, "max_output_shift": 1},
}

#: What may become of it after the last one.
ENDS = ["promoted", "passed", "inconclusive"]

#: Versions that are there from the beginning; two more may come.
FIRST = ("1", "2", "3")
LATER = ("4", "5")
VERSIONS = st.sampled_from([*FIRST * 2, *LATER])
LABELS = st.sampled_from(["best", "good"])
#: What a caller may name; not all of it is there.
NAMES = st.sampled_from([*FIRST * 4, *LATER, "best", "good", *BUILT_IN_LABELS])


@cache
def model_file(version: str) -> bytes:
    """Multiplies by the version's number."""
    return scaled(float(version))().SerializeToString()


class TrafficMachine(RuleBasedStateMachine):
    """One control plane after the other over the same files."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.path = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.expected = Reference(KEEP_PREVIOUS, FIRST)
        self.auto_promote = False
        for version in FIRST:
            self.add_file(version, good=True)
        (self.path / "models" / "m" / "model.toml").write_text("max_batch_size = 0\n")
        self.open()

    def teardown(self) -> None:
        self.close()
        self.loop.close()
        shutil.rmtree(self.path)

    # -- the parts ----------------------------------------------------------------------------

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await work

        return self.loop.run_until_complete(bounded())

    def open(self) -> None:
        async def make() -> ControlPlane:
            plane = ControlPlane(
                self.path / "models",
                state_dir=self.path / "state",
                clock=self.clock,
                keep_previous=KEEP_PREVIOUS,
            )
            await plane.rollouts.open()
            await plane.manager.start()
            return plane

        self.plane = self.run(make())

    def close(self) -> None:
        self.run(self.plane.rollouts.close())
        self.run(self.plane.manager.close())

    def add_file(self, version: str, *, good: bool) -> None:
        place = self.path / "models" / "m" / version
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(model_file(version) if good else b"this is no model")

    def attempt(self, refusal: Refusal, verb: Awaitable[Any]) -> None:
        """The verb does as the reference has done."""
        if refusal is None:
            self.run(verb)
            return
        with pytest.raises(refusal) as caught:
            self.run(verb)
        assert caught.type is refusal

    @property
    def verbs(self) -> Any:
        return self.plane.rollouts

    # -- verbs --------------------------------------------------------------------------------

    @rule(version=NAMES)
    def promote(self, version: str) -> None:
        self.attempt(self.expected.promote(version), self.verbs.promote("m", version, **BY))

    @precondition(lambda self: self.expected.running or self.expected.previous)
    @rule()
    def rollback(self) -> None:
        self.attempt(self.expected.rollback(), self.verbs.rollback("m", **BY))

    @precondition(lambda self: self.expected.stable != "latest")
    @rule()
    def follow_latest(self) -> None:
        self.attempt(self.expected.follow_latest(), self.verbs.follow_latest("m", **BY))

    @rule(label=LABELS, version=NAMES)
    def set_label(self, label: str, version: str) -> None:
        refusal = self.expected.set_label(label, version)
        self.attempt(refusal, self.verbs.set_label("m", label, version, **BY))

    @precondition(lambda self: self.expected.labels)
    @rule(label=LABELS)
    def remove_label(self, label: str) -> None:
        refusal = self.expected.remove_label(label)
        self.attempt(refusal, self.verbs.remove_label("m", label, **BY))

    @rule(version=NAMES)
    def start_canary(self, version: str) -> None:
        # Every other one waits for somebody to promote it.
        self.auto_promote = not self.auto_promote
        plan = {**PLAN, "version": version, "auto_promote": self.auto_promote}
        refusal = self.expected.start_canary(version)
        self.attempt(refusal, self.verbs.start_canary("m", plan, **BY))

    @precondition(lambda self: self.expected.running)
    @rule(verb=st.sampled_from(["pause_canary", "resume_canary", "abort_canary"]))
    def steer_canary(self, verb: str) -> None:
        self.attempt(getattr(self.expected, verb)(), getattr(self.verbs, verb)("m", **BY))

    @rule(version=NAMES)
    def start_shadow(self, version: str) -> None:
        refusal = self.expected.start_shadow(version)
        self.attempt(refusal, self.verbs.start_shadow("m", {"version": version}, **BY))

    @precondition(lambda self: self.expected.shadow)
    @rule()
    def stop_shadow(self) -> None:
        self.attempt(self.expected.stop_shadow(), self.verbs.stop_shadow("m", **BY))

    @rule(verb=st.sampled_from(["load", "load", "unload"]))
    def load_or_unload(self, verb: str) -> None:
        self.attempt(getattr(self.expected, verb)(), getattr(self.verbs, verb)("m", **BY))

    @rule(
        stable=st.none() | VERSIONS | st.just("latest"),
        labels=st.dictionaries(LABELS, VERSIONS),
        shadow=st.none() | VERSIONS,
    )
    def apply(self, stable: str | None, labels: dict[str, str], shadow: str | None) -> None:
        declared: dict[str, Any] = {"labels": labels}
        if stable is not None:
            declared["stable"] = stable
        if shadow is not None:
            declared["shadow"] = {"version": shadow}
        if shadow is not None and shadow == stable:
            refusal: Refusal = ConfigError
        else:
            refusal = self.expected.apply(stable, labels, shadow)
        self.attempt(refusal, self.verbs.apply({"models": {"m": declared}}, **BY))

    @rule(
        verb=st.sampled_from(["rollback", "follow_latest", "stop_shadow", "pause_canary"]),
        label=st.sampled_from([*BUILT_IN_LABELS, "1"]),
    )
    def whatever_comes_to_mind(self, verb: str, label: str) -> None:
        """Most of these are not possible as things stand, and the labels are nobody's to set."""
        self.attempt(getattr(self.expected, verb)(), getattr(self.verbs, verb)("m", **BY))
        refusal = ConfigError if label in BUILT_IN_LABELS else Conflict
        self.attempt(refusal, self.verbs.set_label("m", label, "1", **BY))
        self.attempt(ModelNotFound, self.verbs.remove_label("m", label, **BY))

    # -- what happens -------------------------------------------------------------------------

    @precondition(lambda self: len(self.expected.files) < len(FIRST + LATER))
    @rule(good=st.sampled_from([True, True, True, False]))
    def publish(self, good: bool) -> None:
        """A new version lies in the repository."""
        version = str(len(self.expected.files) + 1)
        self.expected.files[version] = good
        self.add_file(version, good=good)

    @rule()
    def restart(self) -> None:
        self.close()
        self.expected.restart()
        self.open()

    @precondition(lambda self: self.expected.running)
    @rule(
        seconds=st.lists(st.sampled_from([1, 61, 61]), min_size=1, max_size=4), asked=st.booleans()
    )
    def look(self, seconds: list[int], asked: bool) -> None:
        """Time passes, and the canary is looked at: its steps go on once they were long enough."""
        for passed in seconds:
            if asked:
                self.ask_both()
            self.clock.now_s += passed
            if canary := self.expected.running:
                self.look_once(canary, long_enough=passed > 60)

    @rule(version=NAMES, asked=st.sampled_from([True, False]))
    def try_a_version_to_the_end(self, version: str, asked: bool) -> None:
        self.start_canary(version)
        if self.expected.running:
            self.look([61, 61, 61], asked)

    def look_once(self, canary: dict[str, Any], *, long_enough: bool) -> None:
        self.run(self.verbs.look("m"))
        # From here on the next step counts.
        self.run(self.verbs.look("m"))
        now = self.verbs.status("m")["traffic"]["canary"]
        if canary["phase"] == "running" and long_enough:
            next_phases = ["running"] if canary["step"] == 0 else ENDS
            assert now["phase"] in next_phases
            assert now["step"] == 1
        elif canary["phase"] in ("paused", "passed"):
            assert now["phase"] == canary["phase"]
        self.expected.looked(now["phase"], now["step"])

    def ask_both(self) -> None:
        """Have evidence for a canary."""
        for label in ("stable", "canary"):
            version = self.expected.all_labels.get(label)
            if version in self.expected.up:
                for _ in range(40):
                    self.run(answer(self.plane, label))

    # -- what always holds --------------------------------------------------------------------

    @invariant()
    def what_is_decided_is_as_expected(self) -> None:
        expected, status = self.expected, self.verbs.status("m")
        traffic = status["traffic"]
        canary, shadow = traffic["canary"], traffic["shadow"]
        assert traffic["stable"] == expected.stable
        assert traffic["previous"] == expected.previous
        assert len(traffic["previous"]) <= KEEP_PREVIOUS
        assert traffic["labels"] == expected.labels
        assert traffic["loaded"] == expected.loaded
        assert (shadow and shadow["version"]) == expected.shadow
        assert (
            canary
            and {
                "version": canary["plan"]["version"],
                "phase": canary["phase"],
                "step": canary["step"],
            }
        ) == expected.canary
        assert status["serving"] == expected.serving
        assert status["labels"] == expected.all_labels

    @invariant()
    def what_is_needed_is_loaded_and_nothing_else(self) -> None:
        coming_or_going = (State.READY, State.UNLOADED, State.FAILED)
        versions = self.plane.manager.versions
        self.run(until(lambda: all(v.state in coming_or_going for v in versions("m"))))
        assert {v.version for v in versions("m") if v.state is State.READY} == self.expected.up

    @invariant()
    def whoever_should_answer_does(self) -> None:
        expected = self.expected
        for name in ("", *expected.all_labels, *expected.files):
            version = expected.all_labels.get(name, name) if name else expected.serving
            if version not in expected.up:
                with pytest.raises((NotFound, Unavailable)):
                    self.run(answer(self.plane, name))
                continue
            candidate = expected.running["version"] if expected.running else version
            may = {version, candidate} if not name else {version}
            answered, factor = self.run(answer(self.plane, name))
            assert answered in may
            assert factor == float(answered)

    @invariant()
    def what_is_tried_is_what_is_decided(self) -> None:
        expected = self.expected
        (sample,) = self.verbs.samples()
        assert (sample.shadow is not None) == expected.shadowed
        if expected.running:
            verdict = self.verbs.canary_verdict("m")
            at_work = {expected.serving, expected.running["version"]} <= expected.up
            assert (verdict["evidence"] is not None) == at_work

    @invariant()
    def the_journal_ends_with_the_traffic(self) -> None:
        history = self.run(self.verbs.history("m", limit=1000))
        decisions = [entry["after"] for entry in history if entry["after"]]
        decided = decisions[0] if decisions else as_table(ModelTraffic())
        assert self.verbs.status("m")["traffic"] == decided
        assert self.run(self.verbs.verify_journal())["intact"]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the canary but the machine."""
    monkeypatch.setattr(trials, "LOOK_S", 3600.0)


def play(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        TrafficMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )


def test_random_verbs_do_as_the_rules_say() -> None:
    play(examples=25, steps=30)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_random_verbs_do_as_the_rules_say() -> None:
    play(examples=1000, steps=60)
