"""Many concurrent requests through the unmodified ``tritonclient``, half HTTP and half gRPC."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import np_to_triton_dtype

Array = npt.NDArray[Any]
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Caller:
    """One client of one protocol; ``protocol`` is ``"HTTP"`` or ``"gRPC"``."""

    def __init__(self, protocol: str, module: ModuleType, url: str) -> None:
        self.protocol = protocol
        self._module = module
        options = {"conn_limit": 64} if protocol == "HTTP" else {}
        self._client = module.InferenceServerClient(url, **options)

    async def infer(self, model: str, **arrays: Array) -> dict[str, Array]:
        """Send one request of the named inputs; the outputs by name."""
        result, response = await self._infer(model, arrays)
        names = (
            [output["name"] for output in response["outputs"]]
            if isinstance(response, dict)
            else [output.name for output in response.outputs]
        )
        return {name: result.as_numpy(name) for name in names}

    async def version_of(self, model: str, **arrays: Array) -> str:
        """Send one request of the named inputs; the version that answered it."""
        _, response = await self._infer(model, arrays)
        if isinstance(response, dict):
            return str(response["model_version"])
        return str(response.model_version)

    async def _infer(self, model: str, arrays: dict[str, Array]) -> tuple[Any, Any]:
        inputs = []
        for name, array in arrays.items():
            tensor = self._module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(array).reshape(array.shape))
            inputs.append(tensor)
        result = await self._client.infer(model, inputs)
        return result, result.get_response()

    async def statistics(self, model: str) -> dict[str, Any]:
        """The server's statistics of the one loaded version of ``model`` (HTTP only)."""
        statistics = await self._client.get_inference_statistics(model)
        first: dict[str, Any] = statistics["model_stats"][0]
        return first

    async def close(self) -> None:
        await self._client.close()


@asynccontextmanager
async def callers(http_port: int, grpc_port: int) -> AsyncIterator[tuple[Caller, Caller]]:
    """An HTTP and a gRPC client of the gateway on these ports."""
    http = Caller("HTTP", tritonclient.http.aio, f"127.0.0.1:{http_port}")
    grpc = Caller("gRPC", tritonclient.grpc.aio, f"127.0.0.1:{grpc_port}")
    try:
        yield http, grpc
    finally:
        await http.close()
        await grpc.close()


async def spread(
    clients: Sequence[Caller],
    items: Sequence[Item],
    call: Callable[[Caller, Item], Awaitable[Answer]],
    in_flight: int,
) -> list[Answer]:
    """The answers in order: calls ``in_flight`` at once, the clients taking turns."""
    room = asyncio.Semaphore(in_flight)

    async def one(index: int, item: Item) -> Answer:
        async with room:
            return await call(clients[index % len(clients)], item)

    return await asyncio.gather(*(one(index, item) for index, item in enumerate(items)))
