"""Every call of the protocol but inference, in the protocol's JSON form.

A front only wraps what is returned here: HTTP sends it as it is, gRPC turns it into the message
of the same name (the keys are the protobuf fields' own names). ``model_config.py`` and
``statistics.py`` beside this file make the two largest answers.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from gateway import __version__
from gateway.control.manager import Manager
from gateway.control.model_config import model_config
from gateway.control.rollouts import Rollouts
from gateway.control.statistics import model_statistics
from gateway.errors import (
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    NoAvailableVersion,
    Unsupported,
)
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.registry import ModelVersion
from gateway.serving.signature import TensorSpec

PLATFORM: Final = "onnxruntime_onnx"

#: Who loads and unloads by the protocol's own calls, in the journal.
REPOSITORY_API: Final = "repository API"

#: The protocol's extensions that this server has; clients switch features on by this list.
EXTENSIONS: Final = (
    "classification",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
)

#: How the repository index names our states.
_INDEX_STATES: Final = {
    State.NEW: "LOADING",
    State.LOADING: "LOADING",
    State.WARMING: "LOADING",
    State.VALIDATING: "LOADING",
    State.READY: "READY",
    State.DRAINING: "UNLOADING",
    State.UNLOADED: "UNAVAILABLE",
    State.FAILED: "UNAVAILABLE",
}
#: A version in one of these may serve later.
_ON_ITS_WAY: Final = frozenset(State) - {State.DRAINING, State.UNLOADED, State.FAILED}


class LogControl(Protocol):
    """What the logging extension turns; ``gateway.logs.Logging`` is one."""

    def settings(self) -> dict[str, Any]:
        """The switches as they stand."""

    def update(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Turn some switches, and return how all stand."""


class ControlService:
    """Answers the protocol's calls from the state of the manager. Event loop's thread only.

    Every method raises a ``GatewayError`` where the call cannot be answered: ``ModelNotFound``
    for a model or version that nobody knows, ``NoAvailableVersion`` where the model is known and
    nothing of it is loaded, ``ModelNotReady`` where a version that would have to answer is not.
    """

    def __init__(self, manager: Manager, rollouts: Rollouts, logging: LogControl) -> None:
        self._manager = manager
        self._rollouts = rollouts
        self._logging = logging

    def is_live(self) -> bool:
        """Whether the server answers at all."""
        return True

    def is_ready(self) -> bool:
        """Whether the server should be sent inference requests."""
        return self._manager.ready

    def server_metadata(self) -> dict[str, Any]:
        """The server's name, version and extensions."""
        return {
            "name": "onnx-gateway",
            "version": __version__,
            "extensions": list(EXTENSIONS),
        }

    def model_names(self) -> list[str]:
        """The names of the models that serve, sorted."""
        ready = {version.name for version in self._manager.versions() if _serves(version)}
        return sorted(ready)

    def is_model_ready(self, name: str, version: str = "") -> bool:
        """Whether the version, or any version where none is named, serves."""
        return any(_serves(candidate) for candidate in self._known(name, version))

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Names, types and shapes of the tensors, and what else is known as ``properties``.

        Shapes are whole: the batch axis, -1, is among them. Of ``properties``, all of them
        strings, ``lineage`` is a JSON object, ``labels`` and ``batch_axes`` are such by tensor.
        """
        chosen = self._loaded(name, version)
        signature = chosen.signature
        versions = [v.version for v in self._manager.versions(name) if _serves(v)]
        return {
            "name": name,
            "versions": versions,
            "platform": PLATFORM,
            "inputs": [_tensor_metadata(spec) for spec in signature.inputs],
            "outputs": [_tensor_metadata(spec) for spec in signature.outputs],
            "properties": _properties(chosen),
        }

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        """The model's settings in the form of Triton's ``ModelConfig``."""
        return model_config(self._loaded(name, version))

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """What each serving version has done so far; of one model where it is named."""
        versions = self._known(name, version) if name else self._manager.versions()
        return {
            "model_stats": [
                model_statistics(entry.name, entry.version, entry.lane.stats)
                for entry in versions
                if entry.lane is not None
            ]
        }

    def repository_index(self, ready_only: bool) -> list[dict[str, str]]:
        """Every version of the repositories and how it stands, by name."""
        entries = [
            {
                "name": version.name,
                "version": version.version,
                "state": _INDEX_STATES[version.state],
                "reason": "unloaded" if version.state is State.UNLOADED else version.reason,
            }
            for version in self._manager.versions()
            if _serves(version) or not ready_only
        ]
        if not ready_only:
            listed = {entry["name"] for entry in entries}
            entries += [
                {"name": name, "version": "", "state": "UNAVAILABLE", "reason": reason}
                for name, reason in self._manager.unloaded_models().items()
                if name not in listed
            ]
        return sorted(entries, key=lambda entry: (entry["name"], entry["version"]))

    async def load_model(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load the model as its repository holds it now, or load again what has changed there.

        Returns when the new versions serve; the old ones drain afterwards.

        Raises:
            ModelNotFound: no repository has it.
            LoadError: it cannot be served; what served before serves on.
            Unsupported: the parameters carry a configuration or files.
        """
        for key in parameters:
            if key == "config" or key.startswith("file:"):
                raise Unsupported(
                    f"the load parameter '{key}' is not supported: put the files and settings "
                    f"into the model's directory and load it from there"
                )
            raise InvalidRequest(f"there is no load parameter '{key}'")
        await self._rollouts.load(name, by=REPOSITORY_API)

    async def unload_model(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Take the model out of service; what is in flight is finished first.

        Returns as ``Manager.unload`` does. ``unload_dependents`` is accepted: no model here
        depends on another one.

        Raises:
            ModelNotFound: nobody knows the model.
        """
        for key in parameters:
            if key != "unload_dependents":
                raise InvalidRequest(f"there is no unload parameter '{key}'")
        await self._rollouts.unload(name, by=REPOSITORY_API)

    def log_settings(self, update: Mapping[str, Any] | None) -> dict[str, Any]:
        """The log's switches, after ``update`` was applied where it is given."""
        return self._logging.update(dict(update)) if update else self._logging.settings()

    def _known(self, name: str, version: str) -> list[ModelVersion]:
        versions = self._manager.versions(name)
        if not versions and name not in self._manager.unloaded_models():
            raise ModelNotFound(f"unknown model '{name}'; known are {self._names()}")
        if version:
            meant = self._rollouts.meant(name, version)
            versions = [entry for entry in versions if entry.version == meant]
            if not versions:
                raise ModelNotFound(f"model '{name}' has no version '{version}'")
        return versions

    def _loaded(self, name: str, version: str) -> LoadedModel:
        """The version asked for, or the one that the route gives, loaded."""
        known = self._known(name, version)
        if not version and (routed := self._manager.routed(name)) is not None:
            known = [routed]
        for entry in reversed(known):
            if entry.lane is not None:
                return entry.lane.loaded
        states = ", ".join(f"version '{v.version}' is {v.state.value}" for v in known)
        if version or any(entry.state in _ON_ITS_WAY for entry in known):
            raise ModelNotReady(f"model '{name}' is not ready: {states}")
        reason = states or self._manager.unloaded_models().get(name, "it is not loaded")
        raise NoAvailableVersion(f"model '{name}' has no available versions: {reason}")

    def _names(self) -> str:
        names = {version.name for version in self._manager.versions()}
        return ", ".join(sorted(names | set(self._manager.unloaded_models()))) or "none"


def _serves(version: ModelVersion) -> bool:
    return version.state is State.READY


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    shape = list(spec.shape)
    if spec.batch_axis is not None:
        shape[spec.batch_axis] = -1
    return {"name": spec.name, "datatype": spec.datatype.name, "shape": shape}


def _properties(loaded: LoadedModel) -> dict[str, str]:
    signature = loaded.signature
    tensors = (*signature.inputs, *signature.outputs)
    properties = {
        "digest": loaded.digest,
        "max_batch_size": str(signature.max_batch_size),
        "notes": " ".join(loaded.notes),
    }
    if loaded.lineage:
        properties["lineage"] = json.dumps(loaded.lineage, ensure_ascii=False)
    if labels := {spec.name: spec.labels for spec in tensors if spec.labels}:
        properties["labels"] = json.dumps(labels, ensure_ascii=False)
    if axes := {s.name: s.batch_axis for s in tensors if s.batch_axis is not None}:
        properties["batch_axes"] = json.dumps(axes)
    optional = [spec.name for spec in signature.inputs if spec.optional]
    if optional:
        properties["optional_inputs"] = json.dumps(optional)
    return {key: value for key, value in properties.items() if value}
