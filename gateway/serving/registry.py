"""The model versions that this process knows, whatever state they are in."""

from collections.abc import Iterator

from gateway.serving.lane import Lane
from gateway.serving.lifecycle import State, check_transition


class ModelVersion:
    """One version of one model.

    Used on the event loop's thread only.

    Attributes:
        state: where it is in its life; ``move`` changes it.
        reason: why it is in that state, for people; ``""`` where it speaks for itself.
        lane: what serves it; set while READY or DRAINING.
    """

    __slots__ = ("lane", "name", "reason", "state", "version")

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.state = State.NEW
        self.reason = ""
        self.lane: Lane | None = None

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"model '{self.name}' version '{self.version}'"

    def move(self, state: State, reason: str = "") -> None:
        """Go to ``state``.

        Raises:
            TransitionError: the lifecycle does not allow that move.
        """
        self.state = check_transition(self.state, state)
        self.reason = reason

    def __repr__(self) -> str:
        return f"ModelVersion({self.name!r}, {self.version!r}, {self.state.value})"


class Registry:
    """All known versions by model name, in the order in which they became known."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, ModelVersion]] = {}

    def add(self, version: ModelVersion) -> None:
        """Make a version known, in the place of an earlier one of the same name."""
        self._models.setdefault(version.name, {})[version.version] = version

    def remove(self, version: ModelVersion) -> None:
        """Forget a version; nothing happens if another has taken its place."""
        versions = self._models.get(version.name, {})
        if versions.get(version.version) is version:
            del versions[version.version]
            if not versions:
                del self._models[version.name]

    def get(self, name: str, version: str) -> ModelVersion | None:
        """The version of that name, if it is known."""
        return self._models.get(name, {}).get(version)

    def versions(self, name: str) -> dict[str, ModelVersion]:
        """The known versions of a model; empty for an unknown one."""
        return dict(self._models.get(name, {}))

    def names(self) -> list[str]:
        """The known models."""
        return list(self._models)

    def __iter__(self) -> Iterator[ModelVersion]:
        for versions in self._models.values():
            yield from versions.values()
