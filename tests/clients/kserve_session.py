"""A user's session with kserve's clients; ends with an ``AssertionError`` where one is let down.

A program of its own, since kserve's and tritonclient's protobuf symbols clash in one process::

    python -m tests.clients.kserve_session HTTP_URL GRPC_URL
"""

import asyncio
import sys

import grpc
import httpx
import numpy as np
import pytest
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    InferResponse,
    RESTConfig,
)

X = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
Y = np.concatenate([2 * X, X.sum(-1, keepdims=True)], axis=-1)


def request(model: str, binary: bool, x: np.ndarray = X) -> InferRequest:
    given = InferInput("x", list(x.shape), "FP32")
    given.set_data_from_numpy(x, binary_data=binary)
    return InferRequest(model, [given], request_id="seven")


def typed_request() -> InferRequest:
    """Over gRPC this goes out as typed contents."""
    return InferRequest("rows", [InferInput("x", [3, 4], "FP32", data=X.ravel().tolist())])


def check(answer: InferResponse, request_id: str | None = "seven") -> None:
    (output,) = answer.outputs
    np.testing.assert_allclose(output.as_numpy(), Y, rtol=1e-6)
    assert answer.model_name == "rows"
    if request_id is not None:
        assert answer.id == request_id, answer.id


async def rest_v2(url: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    base = f"http://{url}"
    assert await client.is_server_live(base)
    assert await client.is_server_ready(base)
    assert await client.is_model_ready(base, "rows")
    check(await client.infer(base, request("rows", binary=False), model_name="rows"))
    check(await client.infer(base, request("rows", binary=True), model_name="rows"))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await client.infer(base, request("nobody", binary=False), model_name="nobody")
    assert caught.value.response.status_code == 404
    assert "nobody" in caught.value.response.json()["error"]
    await client.close()


async def rest_v1(url: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    base = f"http://{url}"
    assert await client.is_server_live(base)
    assert await client.is_model_ready(base, "rows")
    answer = await client.infer(base, {"instances": X.tolist()}, model_name="rows")
    np.testing.assert_allclose(np.array(answer["predictions"], np.float32), Y, rtol=1e-6)
    await client.close()


async def grpc_v2(url: str) -> None:
    async with InferenceGRPCClient(url) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("rows")
        check(await client.infer(request("rows", binary=True)))
        check(await client.infer(request("rows", binary=False)))
        check(await client.infer(typed_request()), request_id=None)
        with pytest.raises(grpc.RpcError) as caught:
            await client.infer(request("nobody", binary=True))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.RpcError) as caught:
            await client.infer(request("rows", binary=True, x=X[:, :3]))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def main(http_url: str, grpc_url: str) -> None:
    await rest_v2(http_url)
    await rest_v1(http_url)
    await grpc_v2(grpc_url)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
