"""``tritonclient``'s asyncio clients: many requests in flight from one thread."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.clients.conftest import Endpoint
from tests.fronts import sample
from tests.repository import rows_of
from tests.server import GatewayProcess

Run = Callable[[Callable[[Any], Awaitable[None]]], None]


@pytest.fixture
def library(endpoint: Endpoint) -> ModuleType:
    return {"http": tritonclient.http.aio, "grpc": tritonclient.grpc.aio}[endpoint.protocol]


@pytest.fixture
def run(library: ModuleType, endpoint: Endpoint) -> Run:
    """Runs a coroutine function on a client in a loop of its own."""

    async def with_client(body: Callable[[Any], Awaitable[None]]) -> None:
        async with library.InferenceServerClient(endpoint.url) as client:
            await body(client)

    return lambda body: asyncio.run(asyncio.wait_for(with_client(body), 60))


def given(library: ModuleType, x: np.ndarray) -> list[Any]:
    return [library.InferInput("x", list(x.shape), "FP32").set_data_from_numpy(x)]


def test_health_and_metadata(run: Run) -> None:
    async def body(client: Any) -> None:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("rows")
        assert await client.get_server_metadata()
        assert await client.get_model_metadata("rows")
        assert await client.get_model_config("rows")
        assert await client.get_model_repository_index()
        assert await client.get_inference_statistics("rows")

    run(body)


def test_many_requests_at_once(run: Run, library: ModuleType) -> None:
    arrays = [sample("FP32", (1 + i % 4, 4), seed=i) for i in range(200)]

    async def body(client: Any) -> None:
        answers = await asyncio.gather(*(client.infer("rows", given(library, x)) for x in arrays))
        for x, answer in zip(arrays, answers, strict=True):
            np.testing.assert_array_equal(answer.as_numpy("y"), rows_of(x))

    run(body)


def test_error(run: Run, library: ModuleType) -> None:
    async def body(client: Any) -> None:
        with pytest.raises(InferenceServerException, match="nobody"):
            await client.infer("nobody", given(library, sample("FP32", (1, 4))))

    run(body)


def test_cancelled_request_harms_nothing(run: Run, library: ModuleType) -> None:
    x = sample("FP32", (2, 4))
    steps = library.InferInput("steps", [1], "INT64").set_data_from_numpy(np.array([2_000]))

    async def body(client: Any) -> None:
        tasks = [asyncio.ensure_future(client.infer("slow", [steps])) for _ in range(4)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        answer = await client.infer("rows", given(library, x))
        np.testing.assert_array_equal(answer.as_numpy("y"), rows_of(x))

    run(body)


def test_stream(grpc_gateway: GatewayProcess) -> None:
    grpc = tritonclient.grpc.aio
    arrays = {str(i): sample("FP32", (1 + i % 3, 4), seed=i) for i in range(50)}

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for name, x in arrays.items():
            yield {"model_name": "rows", "inputs": given(grpc, x), "request_id": name}
        yield {"model_name": "nobody", "inputs": given(grpc, x), "request_id": "bad"}

    async def body() -> None:
        left, errors = dict(arrays), []
        async with grpc.InferenceServerClient(grpc_gateway.grpc_url) as client:
            async for result, error in client.stream_infer(requests()):
                if error is not None:
                    errors.append(error)
                    continue
                x = left.pop(result.get_response().id)
                np.testing.assert_array_equal(result.as_numpy("y"), rows_of(x))
        assert not left
        assert len(errors) == 1
        assert "nobody" in errors[0].message()

    asyncio.run(asyncio.wait_for(body(), 60))
