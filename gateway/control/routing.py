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
from gateway.serving.registry import ModelVersion, Registry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watchers:
    """What looks at the traffic of a version besides those who answer it."""

    mirrors: Mapping[ModelVersion, Mirror] = field(default_factory=dict)
    recorders: Mapping[ModelVersion, Recorder] = field(default_factory=dict)


class Routing:
    """The decided traffic of every model, and the route tables that follow from it.

    Event loop's thread only. Nothing here loads or waits: a decision is made with ``decide``, a
    change of what is READY is told with ``publish``, and either replaces the dispatcher's table in
    that moment.

    Attributes:
        watchers: asked for anew with each table.
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
        self._registry = registry
        self._replace_table = publish
        self._traffic: dict[str, ModelTraffic] = {}
        self._policy: dict[str, frozenset[str]] = {}
        self._defaults: dict[str, ModelVersion] = {}

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
        policy = self.policy(model)
        ready = (
            entry
            for entry in self._registry.versions(model).values()
            if entry.state is State.READY and entry.version in policy
        )
        return max(ready, key=lambda entry: version_key(entry.version), default=None)

    def named(self, model: str) -> set[str]:
        """The versions of ``model`` that the traffic of any model needs."""
        named = self.traffic(model).named_versions(model)
        for other in self._traffic.values():
            if other.shadow is not None and other.shadow.model == model:
                named.add(other.shadow.version)
        return named

    def labels(self, model: str) -> dict[str, str]:
        """Versions by the labels that stand for them, those that follow by themselves included."""
        traffic = self.traffic(model)
        labels = dict(traffic.labels)
        if (default := self.default(model)) is not None:
            labels["stable"] = default.version
        if (latest := self.latest(model)) is not None:
            labels[LATEST] = latest.version
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
            )
        )

    def _choose_defaults(self) -> None:
        defaults = {}
        for name in self._registry.names():
            chosen = self._default_of(name)
            if chosen is None:
                continue
            defaults[name] = chosen
            before = self._defaults.get(name)
            if self.traffic(name).stable == LATEST and before is not None:
                self._follow(name, before, chosen)
        self._defaults = defaults

    def _default_of(self, model: str) -> ModelVersion | None:
        stable = self.traffic(model).stable
        if stable == LATEST:
            if (latest := self.latest(model)) is not None:
                return latest
            meant = self.policy(model)
        else:
            meant = frozenset((stable,))
            entry = self._registry.get(model, stable)
            if entry is not None and entry.state is State.READY:
                return entry
        entries = [self._registry.get(model, version) for version in meant]
        if not entries or any(e is None or e.state is not State.FAILED for e in entries):
            return None
        for version in self.traffic(model).previous:
            stand_in = self._registry.get(model, version)
            if stand_in is not None and stand_in.state is State.READY:
                # Nobody asked for it, but it served well before, and the other answer is none.
                return stand_in
        return None

    def _follow(self, model: str, before: ModelVersion, chosen: ModelVersion) -> None:
        """The latest version has changed: the one that was stays loaded, as after a promotion."""
        if before.version == chosen.version:
            return
        traffic = self.traffic(model)
        # One that has left by itself is no version to go back to; the one that serves neither.
        left = (before.version,) if before.state is State.READY else ()
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
