"""Who serves, as decided and as it can be: from the models' traffic to a route table."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.control.repository import version_key
from gateway.control.traffic import LATEST, ModelTraffic
from gateway.dispatch.mirror import Mirror
from gateway.dispatch.route import Recorder, RouteTable
from gateway.dispatch.split import Split
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.registry import ModelVersion, Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watchers:
    """What looks at the traffic of a version besides those who answer it."""

    mirrors: Mapping[ModelVersion, Mirror] = field(default_factory=dict)
    recorders: Mapping[ModelVersion, Recorder] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Swap:
    """What served before a swap in place, until a version serves again.

    ``loaded`` is without its sessions: what was measured of it, to compare its successor with.
    """

    entry: ModelVersion
    loaded: LoadedModel


class Routing:
    """The decided traffic of every model, and the route tables that follow from it.

    Event loop's thread only. Nothing here loads or waits: a decision is made with ``decide``, a
    change of what is READY is told with ``publish``, and either replaces the dispatcher's table in
    that moment.

    Attributes:
        watchers: asked for anew with each table.
        in_place: the models that swap in place: of what is decided about them only the stable
            version and those in use beside it are loaded, none of ``previous``, and none that the
            version policy chooses but somebody has decided otherwise.
    """

    def __init__(
        self, registry: Registry, publish: Callable[[RouteTable], None], *, keep_previous: int = 1
    ) -> None:
        """Route what ``registry`` holds.

        Args:
            publish: called with each new table.
            keep_previous: versions that stay loaded for a rollback once another one is stable.
        """
        self.keep_previous: Final = keep_previous
        self.watchers: Callable[[], Watchers] = Watchers
        self.in_place: frozenset[str] = frozenset()
        self._registry = registry
        self._replace_table = publish
        self._traffic: dict[str, ModelTraffic] = {}
        self._policy: dict[str, frozenset[str]] = {}
        self._defaults: dict[str, ModelVersion] = {}
        self._swaps: dict[str, Swap] = {}
        self._stand_ins: dict[str, str] = {}

    def traffic(self, model: str) -> ModelTraffic:
        """What is decided about ``model``; the defaults where nothing is."""
        return self._traffic.get(model, ModelTraffic())

    def decided(self) -> dict[str, ModelTraffic]:
        """The models about which something is decided."""
        return dict(self._traffic)

    def decide(self, decisions: Mapping[str, ModelTraffic]) -> None:
        """Set the traffic of the models named, and route by it."""
        self._traffic.update(decisions)
        self.publish()

    def set_policy(self, model: str, versions: frozenset[str]) -> None:
        """The versions that ``LATEST`` may mean: those that the model's version policy chooses.

        Of others, which are loaded because the traffic names them, none serves unasked.
        """
        self._policy[model] = versions

    def policy(self, model: str) -> frozenset[str]:
        """See ``set_policy``."""
        return self._policy.get(model, frozenset())

    def default(self, model: str) -> ModelVersion | None:
        """The version that answers a request which names none."""
        return self._defaults.get(model)

    def latest(self, model: str) -> ModelVersion | None:
        """The highest version that serves, of those that ``LATEST`` may mean."""
        policy = self._policy.get(model)
        ready = (
            entry
            for entry in self._registry.versions(model).values()
            if entry.state is State.READY and (policy is None or entry.version in policy)
        )
        return max(ready, key=lambda entry: version_key(entry.version), default=None)

    def meant(self, model: str) -> ModelVersion | None:
        """The version that is decided to answer requests which name none, if it is READY."""
        stable = self.traffic(model).stable
        if stable == LATEST:
            return self.latest(model)
        entry = self._registry.get(model, stable)
        return entry if entry is not None and entry.state is State.READY else None

    def serving(self, model: str) -> str:
        """The version that answers a request which names none, ``""`` for none.

        During a swap in place it is the one that did.
        """
        if (default := self.default(model)) is not None:
            return default.version
        return swap.entry.version if (swap := self.swap(model)) is not None else ""

    def latest_chosen(self, model: str) -> str:
        """The highest version that the version policy chooses, loaded or not; ``""`` for none."""
        return max(self.policy(model), key=version_key, default="")

    def swap(self, model: str) -> Swap | None:
        """The swap in place that goes on, if one does."""
        return self._swaps.get(model)

    def begin_swap(self, entry: ModelVersion) -> None:
        """``entry``, which serves, is about to be unloaded to make room for its successor."""
        assert entry.lane is not None
        self._swaps[entry.name] = Swap(entry, replace(entry.lane.loaded, sessions=()))

    def end_swap(self, model: str) -> None:
        """Nothing is to come in the place of what has gone; otherwise a swap ends by itself."""
        if self._swaps.pop(model, None) is not None:
            self.publish()

    def stand_in(self, model: str) -> str:
        """The version that answers because what is decided to cannot; ``""`` where that can."""
        return self._stand_ins.get(model, "")

    def set_stand_in(self, model: str, version: str) -> None:
        """Have ``version``, which is READY, answer until what is decided to answer does."""
        self._stand_ins[model] = version
        self.publish()

    def needed(
        self, model: str, *, stable: str = "", policy: frozenset[str] | None = None
    ) -> set[str]:
        """The versions of ``model`` that are to be loaded.

        One that stands in is among them for as long as it does, so not if anything is otherwise.

        Args:
            stable: as if this was decided to be the stable version.
            policy: as if the version policy chose these.
        """
        named = self.named(model, stable)
        if not stable and policy is None and (stand_in := self.stand_in(model)):
            named.add(stand_in)
        stable = stable or self.traffic(model).stable
        if model in self.in_place and stable != LATEST:
            return named
        return named | (self.policy(model) if policy is None else policy)

    def used_by(self, model: str, traffic: ModelTraffic) -> set[str]:
        """The versions of ``model`` that must be loaded for ``traffic``, which is its own."""
        if model in self.in_place:
            traffic = replace(traffic, previous=())
        return traffic.named_versions(model)

    def named(self, model: str, stable: str = "") -> set[str]:
        """The versions of ``model`` that the traffic of any model needs; see ``needed``."""
        traffic = self.traffic(model)
        named = self.used_by(model, replace(traffic, stable=stable or traffic.stable))
        for other in self._traffic.values():
            if other.shadow is not None and other.shadow.model == model:
                named.add(other.shadow.version)
        return named

    def labels(self, model: str) -> dict[str, str]:
        """Versions by the labels that stand for them, those that follow by themselves included."""
        traffic = self.traffic(model)
        labels = dict(traffic.labels)
        if serving := self.serving(model):
            labels["stable"] = serving
        if (latest := self.latest(model)) is not None:
            labels[LATEST] = latest.version
        elif (swap := self.swap(model)) is not None:
            labels[LATEST] = swap.entry.version
        elif traffic.stable == LATEST and serving:
            labels[LATEST] = serving
        if traffic.previous:
            labels["previous"] = traffic.previous[0]
        if (canary := traffic.running_canary) is not None:
            labels["canary"] = canary.plan.version
        return labels

    def publish(self) -> None:
        """Replace the route table by what is decided now, over what is READY now."""
        self._choose_defaults()
        names = self._registry.names()
        labels = {name: self._labelled(name) for name in names}
        splits = {name: split for name in names if (split := self._split(name)) is not None}
        watchers = self.watchers()
        self._replace_table(
            RouteTable(
                self._registry,
                self._defaults,
                labels={name: given for name, given in labels.items() if given},
                splits=splits,
                mirrors=watchers.mirrors,
                recorders=watchers.recorders,
                swaps={name: swap.entry for name, swap in self._swaps.items()},
            )
        )

    def _choose_defaults(self) -> None:
        defaults = {}
        for name in self._registry.names():
            chosen = self._default_of(name)
            # What stood in, and is being swapped in place, may come back.
            stays = name in self._swaps if chosen is None else chosen is not self.meant(name)
            if not stays:
                self._stand_ins.pop(name, None)
            if chosen is None:
                continue
            defaults[name] = chosen
            before = self._defaults.get(name)
            if (swap := self._swaps.pop(name, None)) is not None:
                before = swap.entry
            if self.traffic(name).stable == LATEST and before is not None:
                self._follow(name, before, chosen, swap is not None)
        self._defaults = defaults

    def _default_of(self, model: str) -> ModelVersion | None:
        if (entry := self.meant(model)) is not None:
            return entry
        stand_in = self._registry.get(model, self.stand_in(model))
        if stand_in is not None and stand_in.state is State.READY:
            return stand_in
        stable = self.traffic(model).stable
        meant = self.policy(model) if stable == LATEST else frozenset((stable,))
        entries = [self._registry.get(model, version) for version in meant]
        if not entries or any(e is None or e.state is not State.FAILED for e in entries):
            return None
        for version in self.traffic(model).previous:
            stand_in = self._registry.get(model, version)
            if stand_in is not None and stand_in.state is State.READY:
                # Nobody asked for it, but it served well before, and the other answer is none.
                return stand_in
        return None

    def _follow(
        self, model: str, before: ModelVersion, chosen: ModelVersion, swapped: bool
    ) -> None:
        """The latest version has changed: the one that was is the previous one, as if promoted."""
        if before.version == chosen.version:
            return
        traffic = self.traffic(model)
        # One that has left by itself is no version to go back to; the one that serves neither.
        stays = before.state is State.READY or swapped
        left = (before.version,) if stays else ()
        kept = [version for version in traffic.previous if version not in (*left, chosen.version)]
        previous = (*left, *kept)[: self.keep_previous]
        if previous != traffic.previous:
            self._traffic[model] = replace(traffic, previous=previous)

    def _labelled(self, model: str) -> dict[str, ModelVersion]:
        entries = self._registry.versions(model)
        return {
            label: entries[version]
            for label, version in self.labels(model).items()
            if version in entries
        }

    def _split(self, model: str) -> Split | None:
        canary = self.traffic(model).running_canary
        stable = self.default(model)
        if canary is None or stable is None:
            return None
        candidate = self._registry.get(model, canary.plan.version)
        if candidate is None or candidate is stable:
            return None
        return Split(
            model,
            stable,
            candidate,
            canary.percent / 100,
            header=canary.plan.sticky_header,
            parameter=canary.plan.sticky_parameter,
        )
