"""A loaded model's settings in the form of Triton's ``ModelConfig``."""

from typing import Any

from gateway.serving.loaded import LoadedModel
from gateway.serving.settings import ModelSettings, VersionPolicy
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import DataType


def model_config(loaded: LoadedModel) -> dict[str, Any]:
    """The ``ModelConfig`` of ``loaded`` as JSON with the protobuf fields' own names.

    In that form a batched model's tensors all have the batch as their first axis, which ``dims``
    leave out. Where ours do not (another batch axis, an input shared by the batch),
    ``max_batch_size`` is 0 and ``dims`` are whole shapes, so that what a client builds from them
    is a right request; the true limit is then among ``parameters``.
    """
    signature, settings = loaded.signature, loaded.settings
    leading = _batches_lead(signature)
    config: dict[str, Any] = {
        "name": loaded.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": _version_policy(settings.version_policy),
        "max_batch_size": signature.max_batch_size if leading else 0,
        "input": [_input(spec, leading) for spec in signature.inputs],
        "output": [_tensor(spec, leading) for spec in signature.outputs],
        "batch_input": [],
        "batch_output": [],
        "instance_group": [_instance_group(loaded)],
        "default_model_filename": loaded.path.name,
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {
            key: {"string_value": value} for key, value in _parameters(loaded, leading).items()
        },
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
    }
    if signature.max_batch_size > 0:
        config["dynamic_batching"] = _dynamic_batching(settings)
    return config


def _batches_lead(signature: Signature) -> bool:
    return signature.max_batch_size > 0 and all(
        spec.batch_axis == 0 for spec in (*signature.inputs, *signature.outputs)
    )


def _type(datatype: DataType) -> str:
    return "TYPE_STRING" if datatype.name == "BYTES" else f"TYPE_{datatype.name}"


def _tensor(spec: TensorSpec, leading: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "data_type": _type(spec.datatype),
        "dims": list(spec.shape[1:] if leading else spec.shape),
        "is_shape_tensor": False,
    }


def _input(spec: TensorSpec, leading: bool) -> dict[str, Any]:
    return {
        **_tensor(spec, leading),
        "format": "FORMAT_NONE",
        "allow_ragged_batch": False,
        "optional": spec.optional,
    }


def _version_policy(policy: VersionPolicy) -> dict[str, Any]:
    if policy.all:
        return {"all": {}}
    if policy.specific:
        # Triton's field holds numbers; a version with another name is one that it cannot name.
        numbers = [int(version) for version in policy.specific if version.isdecimal()]
        return {"specific": {"versions": numbers}}
    return {"latest": {"num_versions": policy.latest}}


def _instance_group(loaded: LoadedModel) -> dict[str, Any]:
    device = loaded.sessions[0].device
    kind, _, index = device.partition(":")
    return {
        "name": loaded.name,
        "kind": "KIND_CPU" if kind == "cpu" else "KIND_GPU",
        "count": len(loaded.sessions),
        "gpus": [] if kind == "cpu" else [int(index or 0)],
        "secondary_devices": [],
        "profile": [],
        "passive": False,
        "host_policy": "",
    }


def _dynamic_batching(settings: ModelSettings) -> dict[str, Any]:
    return {
        "preferred_batch_size": list(settings.preferred_batch_size),
        "max_queue_delay_microseconds": settings.max_queue_delay_us,
        "preserve_ordering": False,
        "priority_levels": settings.priority_levels,
        "default_priority_level": settings.default_priority_level,
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": settings.default_timeout_us,
            "allow_timeout_override": True,
            "max_queue_size": settings.max_queue_size,
        },
        "priority_queue_policy": {},
    }


def _parameters(loaded: LoadedModel, leading: bool) -> dict[str, str]:
    parameters = {
        "execution_providers": ",".join(loaded.sessions[0].providers),
        "latency_objective_ms": f"{loaded.settings.latency_objective_ms:g}",
    }
    if loaded.signature.max_batch_size and not leading:
        parameters["max_batch_size"] = str(loaded.signature.max_batch_size)
    return parameters
