"""Triton's ``config.pbtxt``: what of it the gateway honours, and the names of all the rest."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format

from gateway.errors import ConfigError, LoadError
from gateway.serving.settings import ModelSettings, TensorSettings, VersionPolicy

#: Fields, as ``section.name``, that the gateway acts on, or that ask for what it does anyway.
HONOURED: Final = frozenset({
    "name",
    "platform",
    "backend",
    "max_batch_size",
    "default_model_filename",
    "version_policy.latest",
    "version_policy.latest.num_versions",
    "version_policy.all",
    "version_policy.specific.versions",
    "input.name",
    "input.data_type",
    "input.dims",
    "output.name",
    "output.data_type",
    "output.dims",
    "output.label_filename",
    "dynamic_batching",
    "dynamic_batching.preferred_batch_size",
    "dynamic_batching.max_queue_delay_microseconds",
    "dynamic_batching.priority_levels",
    "dynamic_batching.default_priority_level",
    "dynamic_batching.default_queue_policy.max_queue_size",
    "dynamic_batching.default_queue_policy.default_timeout_microseconds",
    "dynamic_batching.default_queue_policy.allow_timeout_override",
    "instance_group",
    "instance_group.name",
    "instance_group.kind",
    "instance_group.count",
    "instance_group.gpus",
    "optimization.execution_accelerators.gpu_execution_accelerator.name",
    "optimization.execution_accelerators.gpu_execution_accelerator.parameters",
    "optimization.execution_accelerators.cpu_execution_accelerator.name",
    "optimization.execution_accelerators.cpu_execution_accelerator.parameters",
    "parameters.intra_op_thread_count",
    "parameters.gpu_mem_limit",
})  # fmt: skip

#: Triton's names of accelerators, and ONNX Runtime's.
ACCELERATORS: Final = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}

GPU_PROVIDERS: Final = frozenset({"TensorrtExecutionProvider", "CUDAExecutionProvider"})

#: Triton's accelerator parameters that ONNX Runtime knows under another name.
ACCELERATOR_OPTIONS: Final = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "trt_engine_cache_path": "trt_engine_cache_path",
    "trt_engine_cache_enable": "trt_engine_cache_enable",
}

KIND_GPU: Final = 1
KIND_CPU: Final = 2


def parse_model_config(text: str) -> Any:
    """The ``inference.ModelConfig`` message that the text spells.

    Raises:
        ConfigError: the text does not parse; the message has the line and column.
    """
    from gateway.protos import message

    try:
        return text_format.Parse(text, message("ModelConfig")())
    except text_format.ParseError as error:
        raise ConfigError(f"not a valid Triton model configuration: {error}") from error


def settings_of(text: str, path: Path) -> ModelSettings:
    """The settings in a ``config.pbtxt``.

    Args:
        text: the file's text.
        path: the file; label files are looked for beside it, its directory is the model's name.

    Raises:
        ConfigError: the file, or a label file, is wrong.
        LoadError: the model is not one for ONNX Runtime.
    """
    try:
        config = parse_model_config(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    _check_backend(config, path)
    batching = config.dynamic_batching
    queue = batching.default_queue_policy
    providers, options, unknown = _accelerators(config)
    instances, gpus, kind = _instances(config.instance_group)
    if kind == KIND_CPU:
        providers = (*(p for p in providers if p not in GPU_PROVIDERS), "CPUExecutionProvider")
    elif kind == KIND_GPU or providers:
        cuda = () if kind != KIND_GPU else ("CUDAExecutionProvider",)
        providers = tuple(dict.fromkeys((*providers, *cuda)))
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    if "gpu_mem_limit" in parameters:
        options.setdefault("CUDAExecutionProvider", {})["gpu_mem_limit"] = parameters[
            "gpu_mem_limit"
        ]
    max_batch_size = _max_batch_size(config, text)
    defaults = ModelSettings()
    return ModelSettings(
        max_batch_size=max_batch_size,
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        preferred_batch_size=tuple(batching.preferred_batch_size),
        max_queue_size=queue.max_queue_size or defaults.max_queue_size,
        default_timeout_us=queue.default_timeout_microseconds,
        priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        instances=instances,
        gpus=gpus,
        providers=providers,
        provider_options=options,
        intra_op_threads=_integer(parameters, "intra_op_thread_count", path),
        version_policy=_version_policy(config),
        model_filename=config.default_model_filename or defaults.model_filename,
        inputs={t.name: _tensor(t, max_batch_size, path.parent) for t in config.input},
        outputs={t.name: _tensor(t, max_batch_size, path.parent) for t in config.output},
        source=path,
        ignored=(*dict.fromkeys(n for n in _names(config) if n not in HONOURED), *unknown),
    )


def _check_backend(config: Any, path: Path) -> None:
    if config.platform not in ("", "onnxruntime_onnx") or config.backend not in ("", "onnxruntime"):
        asked = config.backend or config.platform
        raise LoadError(
            f"{path} is for the backend {asked!r}; only ONNX Runtime's models are served"
            " (platform 'onnxruntime_onnx', backend 'onnxruntime')"
        )
    if config.name and config.name != path.parent.name:
        raise ConfigError(
            f"{path}: name is {config.name!r}, but the model's directory is {path.parent.name!r};"
            " make them the same, or leave name out"
        )
    if config.max_batch_size < 0:
        raise ConfigError(f"{path}: max_batch_size must be at least 0, not {config.max_batch_size}")


def _max_batch_size(config: Any, text: str) -> int | None:
    """``None`` where the file leaves it open.

    The message cannot tell 0 from nothing. Nothing, beside inputs whose dims are spelled out, means
    0 to Triton; in a file that only sets other things it means "find out".
    """
    if config.max_batch_size or config.input:
        return int(config.max_batch_size)
    return 0 if re.search(r"(?m)^[^#]*\bmax_batch_size\s*:", text) else None


def _tensor(tensor: Any, max_batch_size: int | None, folder: Path) -> TensorSettings:
    shape: tuple[int, ...] | None = None
    if tensor.dims and not tensor.HasField("reshape"):
        shape = (*((-1,) if max_batch_size else ()), *tensor.dims)
    return TensorSettings(
        labels=_labels(folder, getattr(tensor, "label_filename", "")),
        shape=shape,
        datatype=_datatype(tensor),
    )


def _datatype(tensor: Any) -> str:
    if not tensor.data_type:
        return ""
    values = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    name: str = values[tensor.data_type].name.removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def _labels(folder: Path, filename: str) -> tuple[str, ...]:
    if not filename:
        return ()
    path = folder / filename
    try:
        return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    except OSError as error:
        raise ConfigError(f"label file {path} cannot be read: {error.strerror}") from error


def _version_policy(config: Any) -> VersionPolicy:
    choice = config.version_policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(latest=None)
    if choice == "specific":
        versions = tuple(str(version) for version in config.version_policy.specific.versions)
        return VersionPolicy(latest=None, specific=versions)
    return VersionPolicy(latest=config.version_policy.latest.num_versions or 1)


def _instances(groups: Sequence[Any]) -> tuple[int, tuple[int, ...], int]:
    """Instances of all groups of the first one's kind, the GPUs they go round, and that kind."""
    if not groups:
        return 1, (), 0
    kind = groups[0].kind
    alike = [group for group in groups if group.kind == kind]
    # A group's count is per GPU that it names.
    total = sum((group.count or 1) * max(1, len(group.gpus)) for group in alike)
    return total, tuple(dict.fromkeys(gpu for group in alike for gpu in group.gpus)), int(kind)


def _accelerators(config: Any) -> tuple[tuple[str, ...], dict[str, dict[str, str]], list[str]]:
    """Providers in order, their options, and names of accelerators that are not known."""
    providers: list[str] = []
    options: dict[str, dict[str, str]] = {}
    unknown: list[str] = []
    wanted = config.optimization.execution_accelerators
    for accelerator in (*wanted.gpu_execution_accelerator, *wanted.cpu_execution_accelerator):
        provider = ACCELERATORS.get(accelerator.name)
        if provider is None:
            unknown.append(f"optimization.execution_accelerators.{accelerator.name}")
            continue
        providers.append(provider)
        for key, value in accelerator.parameters.items():
            if key == "precision_mode":
                options.setdefault(provider, {})["trt_fp16_enable"] = str(int(value == "FP16"))
            elif key in ACCELERATOR_OPTIONS:
                options.setdefault(provider, {})[ACCELERATOR_OPTIONS[key]] = value
            else:
                unknown.append(f"optimization.execution_accelerators.{accelerator.name}.{key}")
    return tuple(providers), options, unknown


def _integer(parameters: dict[str, str], key: str, path: Path) -> int:
    value = parameters.get(key, "0")
    if not value.isdecimal():
        raise ConfigError(f"{path}: parameters.{key} must be an integer, not {value!r}")
    return int(value)


def _names(message: Any, prefix: str = "") -> Iterator[str]:
    """The dotted name of every field that is set, down to the leaves, maps by their keys."""
    for field, value in message.ListFields():
        name = f"{prefix}{field.name}"
        kind = field.message_type
        if kind is None:
            yield name
        elif kind.GetOptions().map_entry:
            # An accelerator's parameters are judged where they are read.
            yield from [name] if prefix else (f"{name}.{key}" for key in value)
        else:
            inner = list(value) if hasattr(value, "append") or hasattr(value, "add") else [value]
            for item in inner:
                below = list(_names(item, f"{name}."))
                yield from below or [name]
