"""Who serves: from a request to a version."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from gateway.dispatch.mirror import Mirror
from gateway.dispatch.split import Split
from gateway.errors import ModelNotFound, ModelNotReady, NoAvailableVersion, SwapInPlace
from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion
from gateway.types import InferRequest, InferResponse

#: Is shown a request and its answer before the caller gets it; copies what it keeps.
Recorder: TypeAlias = Callable[[InferRequest, InferResponse], None]


class RouteTable:
    """An immutable snapshot of who serves; the control plane swaps it as a whole.

    Args:
        versions: every known version; those that are READY get traffic.
        defaults: by model name, the version that answers a request which names none.
        labels: by model name, versions by the labels that stand for them.
        splits: by model name, the candidate that shares those requests with the default.
        mirrors: what gets copies of the requests that a version is given.
        recorders: who is shown the requests that a version answers.
        swaps: by model name, the version that has made room for one that does not serve yet.
    """

    __slots__ = ("_defaults", "_known", "_labels", "_swaps", "mirrors", "recorders", "splits")

    def __init__(
        self,
        versions: Iterable[ModelVersion],
        defaults: Mapping[str, ModelVersion],
        *,
        labels: Mapping[str, Mapping[str, ModelVersion]] | None = None,
        splits: Mapping[str, Split] | None = None,
        mirrors: Mapping[ModelVersion, Mirror] | None = None,
        recorders: Mapping[ModelVersion, Recorder] | None = None,
        swaps: Mapping[str, ModelVersion] | None = None,
    ) -> None:
        known: dict[str, dict[str, ModelVersion]] = {}
        for version in versions:
            known.setdefault(version.name, {})[version.version] = version
        self._known = known
        self._defaults = dict(defaults)
        self._labels = {name: dict(given) for name, given in (labels or {}).items()}
        self.splits = dict(splits or {})
        self.mirrors = dict(mirrors or {})
        self.recorders = dict(recorders or {})
        self._swaps = dict(swaps or {})

    def choose(self, request: InferRequest) -> ModelVersion:
        """The version that answers ``request``; raises as ``resolve`` does."""
        if self.splits and not request.version:
            split = self.splits.get(request.model)
            if split is not None:
                target = split.choose(request)
                if target.state is State.READY:
                    return target
        return self.resolve(request.model, request.version)

    def resolve(self, name: str, version: str) -> ModelVersion:
        """The version that serves a request for ``name`` and ``version``.

        ``version`` is a version, a label that stands for one, or ``""`` for the default.

        Raises:
            ModelNotFound: nobody knows the model, or that version of it.
            NoAvailableVersion: the model is known, but nothing of it is loaded.
            ModelNotReady: the version is known and does not serve.
            SwapInPlace: it makes room for another one, which is not there yet.
        """
        if version:
            target = self._known.get(name, {}).get(version)
            if target is None:
                target = self._labels.get(name, {}).get(version)
        else:
            target = self._defaults.get(name)
        if target is None or target.state is not State.READY:
            raise self._refusal(name, version)
        return target

    def labels(self, name: str) -> dict[str, ModelVersion]:
        """The labels of a model, and what each stands for."""
        return dict(self._labels.get(name, {}))

    def _refusal(self, name: str, version: str) -> Exception:
        known = self._known.get(name)
        if known is None:
            return ModelNotFound(
                f"unknown model '{name}'"
                + (f" version '{version}'" if version else "")
                + f": it is not among the {len(self._known)} models of this server"
            )
        labels = self._labels.get(name, {})
        gone, meant = self._swaps.get(name), labels.get(version)
        if gone and (not version or (meant is not None and meant.version == gone.version)):
            states = ", ".join(_state_of(v) for v in known.values() if not v.state.final)
            return SwapInPlace(
                f"model '{name}' is being swapped in place: version '{gone.version}' makes room "
                f"for another one{f' ({states})' if states else ''}; try again"
            )
        if version and version not in known and version not in labels:
            labelled = f" and the labels {sorted(labels)}" if labels else ""
            return ModelNotFound(
                f"unknown version '{version}' of model '{name}', which has {sorted(known)}"
                + labelled
            )
        if version:
            meant = known.get(version) or labels[version]
            return ModelNotReady(f"model '{name}' is not ready: {_state_of(meant)}")
        # A version that serves, and is not the default, serves those who name it. One that drains
        # will not serve again; where this table still has it as the default, the next one knows of
        # another.
        default = self._defaults.get(name)
        no_default = (State.READY, State.DRAINING, State.FAILED, State.UNLOADED)
        coming = [
            _state_of(v)
            for v in known.values()
            if v.state not in no_default or (v is default and v.state is State.DRAINING)
        ]
        if coming:
            return ModelNotReady(f"model '{name}' is not ready: {', '.join(coming)}")
        failed = [_state_of(v) for v in known.values() if v.state is State.FAILED]
        ready = [v.version for v in known.values() if v.state is State.READY]
        by_name = f"; {sorted(ready)} can be asked for by name" if ready else ""
        return NoAvailableVersion(
            f"model '{name}' has no available versions: {', '.join(failed) or 'none is loaded'}"
            + by_name
        )


def _state_of(version: ModelVersion) -> str:
    told = f"version '{version.version}' is {version.state.value}"
    return told + (f" ({version.reason})" if version.reason else "")
