"""Calls of grpcio's clients that start early, are cancelled, or end at their deadline."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import ServerLiveRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.fronts import CHANNEL_OPTIONS, Request, Tensor, decode_grpc, grpc_message, sample
from tests.repository import ModelDirectory, rows, rows_of
from tests.server import GRPC_IMPLEMENTATIONS, GatewayProcess

X = sample("FP32", (1, 4))
ROW = grpc_message(Request("rows", (Tensor.of("x", X),)))


@pytest.fixture
def stub(grpc_gateway: GatewayProcess) -> Iterator[GRPCInferenceServiceStub]:
    """Nobody else's request is in the gateway."""
    wait_for_requests(grpc_gateway, 0)
    with grpc.insecure_channel(grpc_gateway.grpc_url, CHANNEL_OPTIONS) as channel:
        yield GRPCInferenceServiceStub(channel)


def steps(model: str, count: int = 20_000) -> Any:
    """A message that computes alone, by default for seconds."""
    return grpc_message(Request(model, (Tensor.of("steps", np.array([count])),)))


def check(answer: Any) -> None:
    np.testing.assert_array_equal(decode_grpc(answer)["y"], rows_of(X))


def metric(gateway: GatewayProcess, name: str, labels: str = "") -> float:
    text = gateway.request("GET", "/metrics")[2].decode()
    found = re.search(rf"^{name}(?:{{{labels}}})? (\S+)$", text, re.MULTILINE)
    assert found, f"no {name}{{{labels}}}"
    return float(found[1])


def wait_for_requests(gateway: GatewayProcess, count: int) -> None:
    """Until the gateway has ``count`` requests inside."""
    gateway.wait_until(lambda: metric(gateway, "onnx_gateway_inflight_requests") == count)


def wait_for_queue(gateway: GatewayProcess, model: str, count: int) -> None:
    """Until ``count`` requests to ``model`` wait."""
    labels = f'model="{model}",version="1"'
    gateway.wait_until(lambda: metric(gateway, "onnx_gateway_queue_depth", labels) == count)


def runs(gateway: GatewayProcess, model: str) -> int:
    counted = gateway.get(f"/v2/models/{model}/stats")[1]["model_stats"][0]
    return int(counted["execution_count"])


@pytest.mark.parametrize("implementation", GRPC_IMPLEMENTATIONS)
def test_a_call_that_waits_for_the_gateway_to_start(tmp_path: Path, implementation: str) -> None:
    ModelDirectory(tmp_path).add("rows", rows)
    gateway = GatewayProcess(tmp_path, grpc_impl=implementation)
    with grpc.insecure_channel(gateway.grpc_url, CHANNEL_OPTIONS) as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ServerLive(ServerLiveRequest(), timeout=60)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        # Of a model it would be told that it is not ready yet, which is an answer.
        waiting = stub.ServerLive.future(ServerLiveRequest(), timeout=60, wait_for_ready=True)
        with gateway:
            assert waiting.result().live
            check(stub.ModelInfer(ROW, timeout=60))


def test_a_cancelled_call_gives_up_its_place_in_the_queue(
    grpc_gateway: GatewayProcess, stub: GRPCInferenceServiceStub
) -> None:
    """``crowded`` runs one request and lets one more wait."""
    running = stub.ModelInfer.future(steps("crowded"), timeout=60)
    wait_for_requests(grpc_gateway, 1)
    wait_for_queue(grpc_gateway, "crowded", 0)
    waiting = stub.ModelInfer.future(steps("crowded"), timeout=60)
    wait_for_queue(grpc_gateway, "crowded", 1)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(steps("crowded"), timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    waiting.cancel()
    wait_for_queue(grpc_gateway, "crowded", 0)
    assert not running.done()
    after = stub.ModelInfer.future(steps("crowded"), timeout=60)
    wait_for_queue(grpc_gateway, "crowded", 1)
    check(stub.ModelInfer(ROW, timeout=60))
    for call in (running, after):
        call.cancel()


def test_a_deadline_that_passes_in_the_queue(
    grpc_gateway: GatewayProcess, stub: GRPCInferenceServiceStub
) -> None:
    """``slow`` runs requests one by one, in their order: what expired has not been run."""
    before = runs(grpc_gateway, "slow")
    running = stub.ModelInfer.future(steps("slow"), timeout=60)
    wait_for_requests(grpc_gateway, 1)
    wait_for_queue(grpc_gateway, "slow", 0)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(steps("slow"), timeout=0.2)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_for_queue(grpc_gateway, "slow", 0)
    assert not running.done()
    stub.ModelInfer(steps("slow", 1), timeout=60)
    running.result()
    assert runs(grpc_gateway, "slow") - before == 2


def test_an_asyncio_call_that_its_task_gives_up(grpc_gateway: GatewayProcess) -> None:
    async def session() -> None:
        async with grpc.aio.insecure_channel(grpc_gateway.grpc_url, CHANNEL_OPTIONS) as channel:
            stub = GRPCInferenceServiceStub(channel)
            calls = [stub.ModelInfer(steps("slow"), timeout=60) for _ in range(8)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*calls), 0.2)
            assert all(call.cancelled() for call in calls)
            check(await stub.ModelInfer(ROW, timeout=60))
            await asyncio.to_thread(wait_for_requests, grpc_gateway, 0)

    asyncio.run(session())
