"""Who serves: from a model's name to a version."""

from collections.abc import Iterable

from gateway.errors import ModelNotFound, ModelNotReady, NoAvailableVersion
from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion


class RouteTable:
    """An immutable snapshot of who serves; the control plane swaps it as a whole.

    Args:
        versions: every known version; those that are READY get traffic.
        defaults: by model name, the version that answers a request which names none.
    """

    __slots__ = ("_defaults", "_known")

    def __init__(self, versions: Iterable[ModelVersion], defaults: dict[str, ModelVersion]) -> None:
        known: dict[str, dict[str, ModelVersion]] = {}
        for version in versions:
            known.setdefault(version.name, {})[version.version] = version
        self._known = known
        self._defaults = dict(defaults)

    def resolve(self, name: str, version: str) -> ModelVersion:
        """The version that serves a request for ``name`` and ``version`` (``""`` for any).

        Raises:
            ModelNotFound: nobody knows the model, or that version of it.
            NoAvailableVersion: the model is known, but nothing of it is loaded.
            ModelNotReady: the version is known and does not serve.
        """
        target = self._known.get(name, {}).get(version) if version else self._defaults.get(name)
        if target is None or target.state is not State.READY:
            raise self._refusal(name, version)
        return target

    def _refusal(self, name: str, version: str) -> Exception:
        known = self._known.get(name)
        if known is None:
            return ModelNotFound(
                f"unknown model '{name}'"
                + (f" version '{version}'" if version else "")
                + f": it is not among the {len(self._known)} models of this server"
            )
        if version and version not in known:
            return ModelNotFound(
                f"unknown version '{version}' of model '{name}', which has {sorted(known)}"
            )
        if version:
            return ModelNotReady(f"model '{name}' is not ready: {_state_of(known[version])}")
        coming = [v for v in known.values() if v.state not in (State.FAILED, State.UNLOADED)]
        if coming:
            told = ", ".join(_state_of(v) for v in coming)
            return ModelNotReady(f"model '{name}' is not ready: {told}")
        failed = [_state_of(v) for v in known.values() if v.state is State.FAILED]
        return NoAvailableVersion(
            f"model '{name}' has no available versions: {', '.join(failed) or 'none is loaded'}"
        )


def _state_of(version: ModelVersion) -> str:
    told = f"version '{version.version}' is {version.state.value}"
    return told + (f" ({version.reason})" if version.reason else "")
