"""What the traffic of one model should be, after any verbs: the least that can be said of it.

It follows the rules alone, knows no loads that take time, no storage and no requests. Each verb
either changes it or returns the error by which it is refused, and changes nothing then.
"""

from collections.abc import Iterable
from typing import Any

from gateway.errors import Conflict, LoadError, ModelNotFound

LATEST = "latest"
Refusal = type[Exception] | None


class Reference:
    """One model, of whose versions the policy chooses the highest.

    Attributes:
        files: versions in the repository, and whether each can be loaded.
        up: versions that serve.
        policy: what ``LATEST`` may mean: the highest version as of the last good load, and those
            that were tried since.
        wanted: whether the model is loaded at a start.
        stand_in: answers because nothing that ``LATEST`` may mean could be loaded.
    """

    def __init__(self, keep_previous: int, versions: Iterable[str]) -> None:
        self.keep = keep_previous
        self.files = dict.fromkeys(versions, True)
        self.up = {max(self.files)}
        self.policy = set(self.up)
        self.wanted = True
        self.stand_in: str | None = None
        self.stable = LATEST
        self.previous: list[str] = []
        self.labels: dict[str, str] = {}
        self.canary: dict[str, Any] | None = None
        self.shadow: str | None = None
        self.loaded: bool | None = None

    # -- what follows from it -----------------------------------------------------------------

    @property
    def running(self) -> dict[str, Any] | None:
        over = ("promoted", "rolled_back", "aborted")
        return self.canary if self.canary and self.canary["phase"] not in over else None

    @property
    def latest(self) -> str | None:
        return max(self.policy & self.up, default=None)

    @property
    def serving(self) -> str | None:
        if self.stable != LATEST:
            return self.stable if self.stable in self.up else None
        if self.latest is not None:
            return self.latest
        if self.stand_in in self.up:
            return self.stand_in
        tried = self.policy and self.policy <= {v for v, good in self.files.items() if not good}
        stand_ins = [version for version in self.previous if version in self.up]
        return stand_ins[0] if tried and stand_ins else None

    @property
    def named(self) -> set[str]:
        named = {self.stable, *self.previous, *self.labels.values(), self.shadow} - {LATEST, None}
        return named | ({self.running["version"]} if self.running else set())

    @property
    def all_labels(self) -> dict[str, str]:
        built_in = {
            "stable": self.serving,
            LATEST: self.latest or (self.serving if self.stable == LATEST else None),
            "previous": self.previous[0] if self.previous else None,
            "canary": self.running["version"] if self.running else None,
        }
        return {**self.labels, **{label: v for label, v in built_in.items() if v}}

    @property
    def shadowed(self) -> bool:
        """Whether a shadow is at work."""
        return self.shadow in self.up and self.serving not in (None, self.shadow)

    # -- verbs --------------------------------------------------------------------------------

    def promote(self, version: str) -> Refusal:
        version = self.all_labels.get(version, version)
        if refusal := self.ensure(version):
            return refusal
        if self.stable == version and not self.running:
            return self.refused(Conflict)
        own = self.running and self.running["version"] == version
        self.end_canary("promoted" if own else "aborted")
        self.move_to(version, self.keep)
        return self.done(loads=True)

    def rollback(self) -> Refusal:
        if self.running:
            self.end_canary("aborted")
            return self.done()
        if not self.previous:
            return Conflict
        version = self.previous[0]
        if refusal := self.ensure(version):
            return refusal
        self.move_to(version, max(self.keep, 1))
        return self.done(loads=True)

    def follow_latest(self) -> Refusal:
        if self.stable == LATEST or self.running:
            return Conflict
        return self.follow() or self.done()

    def set_label(self, label: str, version: str) -> Refusal:
        version = self.all_labels.get(version, version)
        if refusal := self.ensure(version):
            return refusal
        self.labels = {**self.labels, label: version}
        return self.done(loads=True)

    def remove_label(self, label: str) -> Refusal:
        if label not in self.labels:
            return ModelNotFound
        self.labels = {name: v for name, v in self.labels.items() if name != label}
        return self.done()

    def start_canary(self, version: str) -> Refusal:
        version = self.all_labels.get(version, version)
        if refusal := self.ensure(version):
            return refusal
        if self.running or self.serving in (None, version):
            return self.refused(Conflict)
        self.stable = self.serving
        self.canary = {"version": version, "phase": "running", "step": 0}
        return self.done(loads=True)

    def pause_canary(self) -> Refusal:
        return self.move_canary("paused", not_in=("paused",))

    def resume_canary(self) -> Refusal:
        return self.move_canary("running", not_in=("running", "inconclusive", "passed"))

    def abort_canary(self) -> Refusal:
        return self.move_canary("aborted")

    def start_shadow(self, version: str) -> Refusal:
        version = self.all_labels.get(version, version)
        if refusal := self.ensure(version):
            return refusal
        if self.serving in (None, version):
            return self.refused(Conflict)
        self.shadow = version
        return self.done(loads=True)

    def stop_shadow(self) -> Refusal:
        if self.shadow is None:
            return Conflict
        self.shadow = None
        return self.done()

    def load(self) -> Refusal:
        refusal = self.load_all()
        if refusal and (self.wanted or self.serving is None):
            return refusal
        # What serves now is to serve after a restart too.
        self.loaded = self.wanted = True
        self.done()
        return refusal

    def unload(self) -> Refusal:
        self.end_canary("aborted")
        self.previous, self.loaded = [], False
        self.wanted = False
        self.up, self.stand_in = set(), None
        return None

    def apply(self, stable: str | None, labels: dict[str, str], shadow: str | None) -> Refusal:
        """What is declared whole, but for a canary."""
        goal = self.stable if stable is None else stable
        wanted = {goal, *labels.values(), shadow, *self.previous} - {LATEST, None}
        if goal not in (LATEST, self.stable) and self.stable != LATEST:
            wanted.add(self.stable)
        same = (goal, labels, shadow) == (self.stable, self.labels, self.shadow)
        if same and not self.running:
            return None
        if goal not in (LATEST, self.stable):
            before = [v for v in (self.stable, *self.previous) if v not in (LATEST, goal)]
            dropped = set(before) - set(dict.fromkeys(before[: self.keep]))
            wanted -= dropped - {goal, *labels.values(), shadow}
        # A new stable version is loaded first: if it is not there, nothing else is either.
        changes = goal != self.stable
        for version in sorted(wanted, key=lambda v: (not (changes and v == goal), v)):
            if refusal := self.ensure(version):
                return refusal
        if goal == LATEST != self.stable:
            if refusal := self.follow():
                return self.refused(refusal)
        elif goal not in (LATEST, self.serving):
            self.move_to(goal, self.keep)
        self.stable = goal
        own = self.running and self.running["version"] == goal
        self.end_canary("promoted" if own else "aborted")
        self.labels, self.shadow = labels, shadow
        return self.done(loads=bool(wanted))

    # -- what happens -------------------------------------------------------------------------

    def restart(self) -> None:
        self.up, self.policy, self.stand_in = set(), set(), None
        self.wanted = self.loaded is not False
        if self.wanted:
            self.load_all()

    def looked(self, phase: str, step: int) -> None:
        """The canary has come to be so by itself."""
        assert self.running
        self.canary = {**self.running, "phase": phase, "step": step}
        if phase == "promoted":
            self.move_to(self.canary["version"], self.keep)
        self.done()

    # -- parts --------------------------------------------------------------------------------

    def ensure(self, version: str) -> Refusal:
        if version not in self.up:
            if version not in self.files:
                return self.refused(ModelNotFound)
            self.policy = self.policy or {max(self.files)}
            if not self.files[version]:
                return self.refused(LoadError)
            self.up.add(version)
        return None

    def refused(self, error: type[Exception]) -> type[Exception]:
        """Refused, and what was loaded for it goes."""
        self.settle()
        return error

    def done(self, *, loads: bool = False) -> None:
        if loads and not self.wanted:
            self.loaded = True
        self.settle()

    def settle(self) -> None:
        if self.stable != LATEST or self.latest is not None:
            self.stand_in = None
        self.up &= self.policy | self.named | {self.stand_in}

    def move_to(self, version: str, keep: int) -> None:
        self.previous = first((self.serving, *self.previous), version, keep)
        self.stable = version

    def follow(self) -> Refusal:
        if self.latest is not None:
            self.previous = first((self.serving, *self.previous), self.latest, self.keep)
        elif self.serving is not None:
            return Conflict
        self.stable = LATEST
        return None

    def end_canary(self, phase: str) -> None:
        if self.running:
            self.canary = {**self.running, "phase": phase}

    def move_canary(self, phase: str, not_in: tuple[str, ...] = ()) -> Refusal:
        if not self.running or self.running["phase"] in not_in:
            return Conflict
        self.canary = {**self.running, "phase": phase}
        return self.done()

    def load_all(self) -> Refusal:
        chosen = max(self.files)
        self.policy |= {chosen}
        failed = False
        for version in sorted(self.files):
            if version not in {chosen, *self.named} or version in self.up:
                continue
            if not self.files[version]:
                failed = True
                continue
            self.add(version)
        if self.stable == LATEST and self.latest is None:
            lower = [v for v, good in self.files.items() if good and v < chosen]
            if lower:
                self.add(max(lower), stands_in=True)
        if failed:
            return LoadError
        self.policy = {chosen}
        self.settle()
        return None

    def add(self, version: str, *, stands_in: bool = False) -> None:
        """It serves, and the latest version that was is the previous one if that is another now."""
        before = self.serving
        self.up.add(version)
        if stands_in:
            self.stand_in = version
        if self.stable == LATEST and before not in (None, self.serving):
            self.previous = first((before, *self.previous), self.serving, self.keep)


def first(versions: Iterable[str | None], chosen: str | None, keep: int) -> list[str]:
    """The first ``keep`` of them, each once, but for the one that is chosen."""
    return [v for v in dict.fromkeys(versions) if v and v != chosen][:keep]
