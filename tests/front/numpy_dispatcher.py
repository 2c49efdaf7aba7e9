"""What the gRPC front needs behind it, in process: numpy functions in place of models.

The dispatcher keeps the contract of the real one: a refusal is raised by ``submit``, an answer
comes later and once, never after ``cancel``, and its arrays are overwritten when ``reply`` returns.
"""

import asyncio
import mmap
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import (
    GatewayError,
    InferenceFailed,
    InvalidRequest,
    InvalidTensor,
    ModelNotFound,
    NotFound,
)
from gateway.types import BYTES, DATATYPES, Array, InferOutput, InferRequest, InferResponse, Reply

Model = Callable[[list[Array]], list[tuple[str, str, Array]]]


def negate(arrays: list[Array]) -> list[tuple[str, str, Array]]:
    return [("negated", "FP32", -arrays[0])]


def echo(arrays: list[Array]) -> list[tuple[str, str, Array]]:
    names = {
        datatype.numpy: datatype.name for datatype in DATATYPES.values() if datatype.name != "BF16"
    }
    return [(f"output{i}", names[array.dtype], array) for i, array in enumerate(arrays)]


def fail(arrays: list[Array]) -> list[tuple[str, str, Array]]:
    raise InferenceFailed("the model divided by zero")


class NumpyPending:
    def __init__(self, dispatcher: "NumpyDispatcher", request: InferRequest, reply: Reply) -> None:
        self.dispatcher = dispatcher
        self.request = request
        self.reply = reply
        self.cancelled = False

    def cancel(self) -> None:
        if self in self.dispatcher.waiting:
            self.dispatcher.waiting.remove(self)
            self.cancelled = True
            self.dispatcher.cancelled.append(self.request.id)

    def answer(self) -> None:
        if self not in self.dispatcher.waiting:
            return
        self.dispatcher.waiting.remove(self)
        self.reply(self._run())

    def _run(self) -> InferResponse | GatewayError:
        arrays = [tensor.array() for tensor in self.request.inputs]
        try:
            results = self.dispatcher.models[self.request.model](arrays)
        except GatewayError as error:
            return error
        wanted = self.request.outputs
        outputs = [
            InferOutput(name, DATATYPES[datatype], np.ascontiguousarray(array).reshape(array.shape))
            for name, datatype, array in results
            if wanted is None or name in [output.name for output in wanted]
        ]
        return InferResponse(self.request.model, "1", self.request.id, outputs)


class NumpyDispatcher:
    """Serves ``models``. While ``held`` is set, requests wait until ``answer`` picks them."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {"negate": negate, "echo": echo, "fail": fail}
        self.held = False
        self.waiting: list[NumpyPending] = []
        self.cancelled: list[str] = []
        self.requests: list[InferRequest] = []
        # It learns nothing, so no head is ever known.
        self.templates: dict[bytes, Any] = {}
        self.inflight = 0

    def submit(self, request: InferRequest, reply: Reply) -> NumpyPending:
        if request.model not in self.models:
            raise ModelNotFound(f'unknown model "{request.model}"')
        for tensor in request.inputs:
            if tensor.datatype is not BYTES:
                expected = tensor.datatype.itemsize * int(np.prod(tensor.shape))
                if len(tensor.data) != expected:
                    raise InvalidTensor(
                        f'input "{tensor.name}" has {len(tensor.data)} bytes, not {expected}'
                    )
        self.requests.append(request)
        pending = NumpyPending(self, request, reply)
        self.waiting.append(pending)
        if not self.held:
            asyncio.get_running_loop().call_soon(pending.answer)
        return pending

    def learn(self, head: bytes, request: InferRequest) -> None:
        """There is nothing to learn about functions."""

    def submit_known(self, template: Any, ticket: Any, now_ns: int) -> None:
        raise AssertionError("no head is known")

    def answer(self, *ids: str) -> None:
        """Answer the waiting requests ``ids``, in this order; all of them without any."""
        for id in ids or [pending.request.id for pending in self.waiting]:
            next(pending for pending in self.waiting if pending.request.id == id).answer()


class NumpyService:
    """The control plane of one ready model, ``negate``; notes what it is asked to do."""

    def __init__(self) -> None:
        self.ready = True
        self.done: list[tuple[Any, ...]] = []
        self.settings: dict[str, Any] = {"log_info": True, "log_verbose_level": 0, "log_file": ""}

    def is_live(self) -> bool:
        return True

    def is_ready(self) -> bool:
        return self.ready

    def is_model_ready(self, name: str, version: str = "") -> bool:
        self._known(name)
        return self.ready

    def server_metadata(self) -> dict[str, Any]:
        return {"name": "onnx-gateway", "version": "1", "extensions": ["statistics"]}

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        self._known(name)
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
        return {
            "name": name,
            "versions": ["1"],
            "platform": "numpy",
            "inputs": [tensor],
            "outputs": [tensor],
            "said_over_http_only": {"notes": []},
        }

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        self._known(name)
        dims = {"name": "x", "data_type": "TYPE_FP32", "dims": [4]}
        return {
            "name": name,
            "max_batch_size": 8,
            "input": [dims],
            "instance_group": [{"kind": "KIND_CPU", "count": 2}],
            "dynamic_batching": {"max_queue_delay_microseconds": 100},
        }

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        if name:
            self._known(name)
        duration = {"count": 3, "ns": 2**40}
        return {
            "model_stats": [
                {
                    "name": "negate",
                    "version": "1",
                    "last_inference": 1_700_000_000_000,
                    "inference_count": 3,
                    "execution_count": 2,
                    "inference_stats": {"success": duration, "cache_hit": {"count": 0, "ns": 0}},
                    "batch_stats": [{"batch_size": 2, "compute_infer": duration}],
                }
            ]
        }

    def repository_index(self, ready_only: bool) -> list[dict[str, str]]:
        models = [{"name": "negate", "version": "1", "state": "READY", "reason": ""}]
        if not ready_only:
            models.append({"name": "bad", "version": "", "state": "UNAVAILABLE", "reason": "torn"})
        return models

    async def load_model(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._known(name)
        await asyncio.sleep(0)
        self.done.append(("load", name, dict(parameters)))

    async def unload_model(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._known(name)
        await asyncio.sleep(0)
        self.done.append(("unload", name, dict(parameters)))

    def log_settings(self, update: Mapping[str, Any] | None) -> dict[str, Any]:
        self.settings.update(update or {})
        return self.settings

    def _known(self, name: str) -> None:
        if name != "negate":
            raise ModelNotFound(f'unknown model "{name}"')


class MappedRegions:
    """Shared memory regions on ``/dev/shm``, as clients make them with ``shm_open``."""

    def __init__(self) -> None:
        self.regions: dict[str, dict[str, Any]] = {}
        self.views: dict[str, memoryview] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        path = Path("/dev/shm") / key.lstrip("/")
        if not path.exists():
            raise InvalidRequest(f'there is no shared memory object "{key}"')
        file = os.open(path, os.O_RDWR)
        try:
            view = memoryview(mmap.mmap(file, offset + byte_size))
        finally:
            os.close(file)
        self.views[name] = view[offset:]
        self.regions[name] = {
            "name": name, "key": key, "offset": offset, "byte_size": byte_size
        }  # fmt: skip

    def unregister(self, name: str = "") -> None:
        for known in [name] if name else list(self.regions):
            with suppress(KeyError):
                del self.regions[known], self.views[known]

    def status(self, name: str = "") -> list[dict[str, Any]]:
        return [self.regions[name]] if name else list(self.regions.values())

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        if name not in self.views:
            raise NotFound(f'unknown shared memory region "{name}"')
        return self.views[name][offset : offset + byte_size]

    def write(self, name: str, offset: int, byte_size: int, data: bytes | memoryview) -> None:
        if len(data) > byte_size:
            raise InvalidRequest(f"{len(data)} bytes do not fit the {byte_size} of {name}")
        self.read(name, offset, byte_size)[: len(data)] = data
