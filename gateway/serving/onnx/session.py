"""ONNX Runtime sessions: opening one with the settings of a model, and running it."""

import ctypes
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.errors import GatewayError, InferenceFailed, InvalidTensor, LoadError
from gateway.serving.background import Background
from gateway.serving.onnx.providers import CPU, CUDA, TENSORRT, choose_providers, provider_options
from gateway.serving.onnx.runtime import runtime
from gateway.serving.settings import ModelSettings
from gateway.types import BF16, BYTES, DATATYPES, Array, DataType

log = logging.getLogger(__name__)

#: ONNX Runtime's spelling of the tensor types that the protocol can express.
ORT_TYPES: Final[dict[str, DataType]] = {
    f"tensor({spelling})": DATATYPES[name]
    for spelling, name in {
        "bool": "BOOL", "string": "BYTES",
        "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
        "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
        "float16": "FP16", "bfloat16": "BF16", "float": "FP32", "double": "FP64",
    }.items()
}  # fmt: skip

#: An output of this ending gives, in FP32, the BF16 output of the name before it. ONNX Runtime's
#: Python API takes text only in a plain run, and gives BF16 only from another kind of run, so
#: ``serving/onnx/graph.py`` adds such outputs to a model that has both.
WIDENED: Final = ".as_float32"

_MIB: Final = 1 << 20

#: ``(weights in bytes, threads)``: a model of at least that size gets at most so many threads.
#: Measured on fully connected models, spinning off, one thread against two: up to 6 MiB the second
#: thread costs 10-90% more CPU a run and makes a batch of one slower; from 24 MiB it takes 30-45%
#: off the latency for 4-25% more CPU. Larger steps follow the same rule: a thread must get several
#: megabytes of weights to be worth its wake-up.
THREADS_BY_SIZE: Final = ((256 * _MIB, 16), (96 * _MIB, 8), (48 * _MIB, 4), (16 * _MIB, 2))


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def intra_op_threads(size_bytes: int, instances: int, cores: int) -> int:
    """Threads inside one operator for a model whose weights are ``size_bytes`` large.

    The cores are shared by the model's instances; never less than 1.
    """
    share = max(1, cores // max(1, instances))
    for size, threads in THREADS_BY_SIZE:
        if size_bytes >= size:
            return min(share, threads)
    return 1


class OnnxSession:
    """One ONNX Runtime session of one model.

    ``run`` may be called from several threads at once. The session is released with the object.

    Attributes:
        raw: the ``onnxruntime.InferenceSession``, for IO binding.
        alone: whether the thread that calls does all of a run's work.
        device: where the providers want tensors to live: ``"cpu"`` or ``"cuda:<index>"``.
        providers: the execution providers that are in use, in order.
        inputs, outputs: data types by tensor name, in the graph's order; optional inputs included.
    """

    __slots__ = (
        "_raw_names",
        "_special_inputs",
        "alone",
        "device",
        "inputs",
        "outputs",
        "providers",
        "raw",
    )

    def __init__(self, raw: Any, device: str, alone: bool = False) -> None:
        self.raw: Final = raw
        self.device: Final = device
        self.alone: Final = alone
        self.providers: Final[tuple[str, ...]] = tuple(raw.get_providers())
        self.inputs: Final = _datatypes(
            "input", [*raw.get_inputs(), *raw.get_overridable_initializers()]
        )
        raw_outputs = _datatypes("output", raw.get_outputs())
        self._raw_names = {name.removesuffix(WIDENED): name for name in raw_outputs}
        self.outputs: Final = {
            name: BF16 if raw_name.endswith(WIDENED) else raw_outputs[raw_name]
            for name, raw_name in self._raw_names.items()
        }
        self._special_inputs = frozenset(
            name for name, datatype in self.inputs.items() if datatype in (BF16, BYTES)
        )

    def run(
        self,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
        limit_s: float | None = None,
    ) -> list[Array]:
        """Run the model once and give the named outputs, in that order.

        Args:
            feeds: arrays by input name, of the dtype that ``DataType.numpy`` names: BF16 bit for
                bit as ``uint16``, BYTES as ``object`` arrays of ``str`` or UTF-8 ``bytes``.
            outputs: names of the outputs to compute.
            limit_s: seconds after which ONNX Runtime is told to give up between two operators;
                costs a thread, so it is for runs on inputs that nobody vouches for.

        Returns:
            Arrays of the same convention (BYTES elements are ``str``), owned by the caller.

        Raises:
            InvalidTensor: a BYTES element is not UTF-8, the only text ONNX Runtime takes, or
                ONNX Runtime blames the inputs' names, types or shapes.
            InferenceFailed: anything else, with ONNX Runtime's own message.
        """
        values: dict[str, Any] = dict(feeds)
        for name in self._special_inputs.intersection(values):
            values[name] = self._feed(name, values[name])
        wanted = [self._raw_names.get(name, name) for name in outputs]
        try:
            with _time_limit(limit_s) as options:
                if any(self.outputs.get(name) is BF16 for name in wanted):
                    made = runtime().OrtValue.ortvalue_from_numpy
                    for name, value in values.items():
                        if isinstance(value, np.ndarray):
                            values[name] = made(value)
                    results = self.raw.run_with_ort_values(wanted, values, options)
                    return [_fetch(output) for output in results]
                results = self.raw.run(wanted, values, options)
        except Exception as error:
            raise blame(error) from error
        return [
            narrowed(array) if name.endswith(WIDENED) else array
            for name, array in zip(wanted, results, strict=True)
        ]

    def _feed(self, name: str, array: Array) -> Any:
        """The form in which ONNX Runtime takes a BF16 or BYTES input."""
        if self.inputs[name] is BYTES:
            return text(name, array)
        contiguous = np.ascontiguousarray(array).reshape(array.shape)
        return runtime().OrtValue.ortvalue_from_numpy_with_onnx_type(contiguous, BF16.onnx)


@contextmanager
def _time_limit(limit_s: float | None) -> Iterator[Any]:
    """Run options under which ONNX Runtime gives up after ``limit_s``; ``None`` without a limit."""
    if limit_s is None:
        yield None
        return
    options = runtime().RunOptions()
    options.log_severity_level = 4
    timer = threading.Timer(limit_s, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def blame(error: Exception) -> GatewayError:
    """The error to raise for what a run raised: whose fault it is, with ONNX Runtime's message."""
    message = str(error).strip()
    if type(error).__name__ == "InvalidArgument":
        return InvalidTensor(f"ONNX Runtime refuses the inputs: {message}")
    return InferenceFailed(f"ONNX Runtime failed to run the model: {message}")


def narrowed(array: Array) -> Array:
    """BF16 bits of FP32 values that were BF16 before; nothing is rounded."""
    return (
        (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16).reshape(array.shape)
    )


def text(name: str, array: Array) -> Array:
    """An ``object`` array with every ``bytes`` element decoded; ``array`` itself if it has none.

    Raises:
        InvalidTensor: an element is not UTF-8.
    """
    if not any(isinstance(element, bytes) for element in array.flat):
        return array
    decoded = np.empty(array.size, object)
    for index, element in enumerate(array.flat):
        try:
            decoded[index] = element.decode() if isinstance(element, bytes) else element
        except UnicodeDecodeError as error:
            raise InvalidTensor(
                f"input {name!r}: element {index} is not UTF-8 ({error}); ONNX strings are UTF-8"
            ) from error
    return decoded.reshape(array.shape)


def _fetch(output: Any) -> Array:
    """A copy of an ``OrtValue`` as an array, BF16 as ``uint16``."""
    if output.data_type() != "tensor(bfloat16)":
        array: Array = output.numpy()
        return array
    shape = tuple(output.shape())
    copied = np.empty(shape, np.uint16)
    if copied.nbytes:
        ctypes.memmove(copied.ctypes.data, output.data_ptr(), copied.nbytes)
    return copied


def _datatypes(kind: str, arguments: Sequence[Any]) -> dict[str, DataType]:
    types: dict[str, DataType] = {}
    for argument in arguments:
        if argument.type not in ORT_TYPES:
            raise LoadError(
                f"{kind} {argument.name!r} is a {argument.type}, which the Open Inference Protocol"
                " cannot express"
            )
        types[argument.name] = ORT_TYPES[argument.type]
    return types


def open_session(
    model: Path | bytes,
    settings: ModelSettings,
    *,
    size_bytes: int,
    instance: int = 0,
    folder: Path | None = None,
    background: Background | None = None,
) -> OnnxSession:
    """Open a session; blocks for as long as ONNX Runtime needs to optimise the graph.

    Args:
        model: the ``.onnx`` file, or its bytes.
        settings: providers, their options, threads, devices.
        size_bytes: the size of the model with its external data, by which threads are chosen.
        instance: which of ``settings.instances`` this is; instances go round ``settings.gpus``.
        folder: where external data lies, for a model given as bytes.
        background: where to open it, unless it has threads of its own: they would serve at the
            priority of the one that made them.

    Raises:
        StartupError: there is no usable ONNX Runtime.
        LoadError: the model or a provider is refused; the message is ONNX Runtime's own.
    """
    ort = runtime()
    providers = choose_providers(settings)
    index = settings.gpus[instance % len(settings.gpus)] if settings.gpus else 0
    options = _session_options(settings, size_bytes)
    if folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
    alone = options.intra_op_num_threads == 1 and set(providers) == {CPU}

    def make() -> Any:
        return ort.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=list(providers),
            provider_options=[provider_options(name, index, settings) for name in providers],
            # Or ONNX Runtime prints to stdout and goes on with another provider.
            enable_fallback=0,
        )

    try:
        raw = background.run(make) if background is not None and alone else make()
    except Exception as error:
        raise LoadError(f"ONNX Runtime refuses the model: {str(error).strip()}") from error
    started = raw.get_providers()
    for name in providers:
        if name not in started:
            raise LoadError(
                f"ONNX Runtime could not start {name} (its own error message is in the log);"
                f" it would run on {', '.join(started)}"
            )
    raw.disable_fallback()
    accelerated = CUDA in started or TENSORRT in started
    if accelerated:
        index = int(raw.get_provider_options().get(CUDA, {}).get("device_id", index))
    return OnnxSession(raw, f"cuda:{index}" if accelerated else "cpu", alone)


def _session_options(settings: ModelSettings, size_bytes: int) -> Any:
    options = runtime().SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads or intra_op_threads(
        size_bytes, settings.instances, usable_cores()
    )
    options.inter_op_num_threads = 1
    # A spinning pool burns a core between batches: 330 us of CPU a call instead of 84.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # 4 is "fatal": what a session reports as an error reaches us as an exception.
    options.log_severity_level = 0 if log.isEnabledFor(logging.DEBUG) else 4
    return options
