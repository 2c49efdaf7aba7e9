"""ONNX Runtime's execution providers: which of them a model is run on, and with what options."""

import functools
import logging
from typing import Final

import numpy as np

from gateway.errors import LoadError
from gateway.serving.onnx.runtime import runtime
from gateway.serving.settings import ModelSettings

log = logging.getLogger(__name__)

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"

#: Chosen for a server whose batch size changes from run to run: the exhaustive search of cuDNN
#: algorithms would run again for each new shape, and doubling arenas would keep memory that
#: other models on the card need.
CUDA_OPTIONS: Final[dict[str, str]] = {
    "arena_extend_strategy": "kSameAsRequested",
    "cudnn_conv_algo_search": "HEURISTIC",
    "do_copy_in_default_stream": "1",
}


@functools.cache
def cuda_refusal() -> str | None:
    """Why CUDA cannot be used in this process, or ``None`` where it can; tried once.

    That the provider is listed says how ONNX Runtime was built, not that a driver, a card and the
    CUDA libraries are there: a session of one operator tells.
    """
    ort = runtime()
    if CUDA not in ort.get_available_providers():
        return "this ONNX Runtime is built without it ('pip install onnx-gateway[gpu]' has it)"
    from onnx import TensorProto, helper

    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "cuda",
        [tensor("x", TensorProto.FLOAT, [1])],
        [tensor("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), providers=[CUDA, CPU], enable_fallback=0
        )
        if CUDA not in session.get_providers():
            return "ONNX Runtime could not load it; its own error message is above"
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:
        return str(error).strip().splitlines()[0]
    return None


@functools.cache
def automatic_providers() -> tuple[str, ...]:
    """The execution providers for a model whose settings name none; logged once a process."""
    refusal = cuda_refusal()
    if refusal is None:
        log.info("models run on CUDA (found and tried); the settings' `providers` change that")
        return (CUDA, CPU)
    log.info("models run on the CPU; CUDA: %s", refusal)
    return (CPU,)


def choose_providers(settings: ModelSettings) -> tuple[str, ...]:
    """The providers to ask for, in order; the CPU is always the last resort of single operators.

    Raises:
        LoadError: the settings name a provider that this ONNX Runtime does not have.
    """
    if not settings.providers:
        return automatic_providers()
    available = runtime().get_available_providers()
    for name in settings.providers:
        if name not in available:
            raise LoadError(
                f"execution provider {name!r} is not in this ONNX Runtime, which has"
                f" {', '.join(available)}: change `providers`, or install the build that has it"
            )
    return settings.providers if CPU in settings.providers else (*settings.providers, CPU)


def provider_options(name: str, index: int, settings: ModelSettings) -> dict[str, str]:
    """The options of provider ``name`` on GPU ``index``; the settings' own have the last word."""
    chosen: dict[str, str] = {}
    if name in (CUDA, TENSORRT):
        chosen["device_id"] = str(index)
    if name == CUDA:
        chosen |= CUDA_OPTIONS
    return chosen | settings.provider_options.get(name, {})
