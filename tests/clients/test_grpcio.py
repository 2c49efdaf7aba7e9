"""grpcio's clients, blocking and asyncio: compression, large messages, many calls."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.clients.relay import Relay
from tests.fronts import (
    CHANNEL_OPTIONS,
    Array,
    Request,
    Tensor,
    decode_grpc,
    grpc_message,
    sample,
)
from tests.repository import rows_of
from tests.server import GRPC_IMPLEMENTATIONS, GatewayProcess, Gateways

ALGORITHMS = (grpc.Compression.Gzip, grpc.Compression.Deflate)
#: Which front codes its answers, too; grpcio's server sends them as they are.
CODES_ANSWERS = {"native": True, "grpcio": False}


class Client(ABC):
    """One channel for each use, closed at its end; ``options`` are grpcio's for a call."""

    def __init__(self, url: str, **channel: Any) -> None:
        self.url = url
        self.channel = {"options": CHANNEL_OPTIONS, **channel}

    @abstractmethod
    def infer(self, requests: Sequence[Request], **options: Any) -> list[Any]:
        """The answers of one call for each request, all in flight at once."""

    @abstractmethod
    def stream(self, requests: Sequence[Request], **options: Any) -> list[Any]:
        """The messages of one ModelStreamInfer with all requests."""


class Blocking(Client):
    def infer(self, requests: Sequence[Request], **options: Any) -> list[Any]:
        with grpc.insecure_channel(self.url, **self.channel) as channel:
            call = GRPCInferenceServiceStub(channel).ModelInfer
            futures = [call.future(grpc_message(each), timeout=60, **options) for each in requests]
            return [future.result() for future in futures]

    def stream(self, requests: Sequence[Request], **options: Any) -> list[Any]:
        with grpc.insecure_channel(self.url, **self.channel) as channel:
            call = GRPCInferenceServiceStub(channel).ModelStreamInfer
            return list(call(iter(map(grpc_message, requests)), timeout=60, **options))


class Asyncio(Client):
    def infer(self, requests: Sequence[Request], **options: Any) -> list[Any]:
        async def use(stub: GRPCInferenceServiceStub) -> list[Any]:
            calls = [
                stub.ModelInfer(grpc_message(each), timeout=60, **options) for each in requests
            ]
            return await asyncio.gather(*calls)

        return self._run(use)

    def stream(self, requests: Sequence[Request], **options: Any) -> list[Any]:
        async def use(stub: GRPCInferenceServiceStub) -> list[Any]:
            messages = iter(map(grpc_message, requests))
            return [each async for each in stub.ModelStreamInfer(messages, timeout=60, **options)]

        return self._run(use)

    def _run(self, use: Callable[[GRPCInferenceServiceStub], Awaitable[list[Any]]]) -> list[Any]:
        async def connected() -> list[Any]:
            async with grpc.aio.insecure_channel(self.url, **self.channel) as channel:
                return await use(GRPCInferenceServiceStub(channel))

        return asyncio.run(connected())


@pytest.fixture(params=[Blocking, Asyncio], ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> type[Client]:
    return request.param


@pytest.fixture
def client(kind: type[Client], grpc_gateway: GatewayProcess) -> Client:
    return kind(grpc_gateway.grpc_url)


def row(number: float) -> Array:
    """``float32 [1, 4]`` that only ``number`` can have given."""
    return (np.arange(4, dtype=np.float32) + np.float32(number)).reshape(1, 4)


def infer_rows(x: Array, id: str = "") -> Request:
    return Request("rows", (Tensor.of("x", x),), id=id)


def echo(array: Array) -> Request:
    return Request("echo", (Tensor.of("x", array),))


def check_row(answer: Any, number: float) -> None:
    np.testing.assert_array_equal(decode_grpc(answer)["y"], rows_of(row(number)))


def megabytes(count: int, compressible: bool = False) -> Array:
    """``float32 [2, ...]``, small numbers that repeat or random ones."""
    shape = (2, count << 17)
    if compressible:
        return (np.arange(count << 18) % 8).astype(np.float32).reshape(shape)
    return np.random.default_rng(count).random(shape, np.float32)


# Compression


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.name)
def test_compressed_calls(client: Client, algorithm: grpc.Compression) -> None:
    """From one row to a megabyte: decoded on the spot and on a thread, answered plain and coded."""
    sizes = (1, 60, 2_000, 60_000)
    requests = [infer_rows(sample("FP32", (size, 4), seed=size)) for size in sizes]
    answers = client.infer(requests, compression=algorithm)
    for size, answer in zip(sizes, answers, strict=True):
        expected = rows_of(sample("FP32", (size, 4), seed=size))
        np.testing.assert_array_equal(decode_grpc(answer)["y"], expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.name)
def test_compressed_stream(client: Client, algorithm: grpc.Compression) -> None:
    sizes = (1, 60, 2_000, 60_000, 2, 61, 2_001)
    requests = [infer_rows(sample("FP32", (size, 4), seed=size), str(size)) for size in sizes]
    messages = client.stream(requests, compression=algorithm)
    assert {message.infer_response.id for message in messages} == {str(size) for size in sizes}
    for message in messages:
        assert not message.error_message
        size = int(message.infer_response.id)
        expected = rows_of(sample("FP32", (size, 4), seed=size))
        np.testing.assert_array_equal(decode_grpc(message.infer_response)["y"], expected)


def test_channel_that_compresses_but_for_one_call(
    kind: type[Client], grpc_gateway: GatewayProcess
) -> None:
    client = kind(grpc_gateway.grpc_url, compression=grpc.Compression.Gzip)
    for options in ({}, {"compression": grpc.Compression.NoCompression}, {}):
        (answer,) = client.infer([infer_rows(row(5))], **options)
        check_row(answer, 5)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.name)
@pytest.mark.parametrize("implementation", GRPC_IMPLEMENTATIONS)
def test_what_is_compressed_is_small_on_the_wire(
    gateways: Gateways, kind: type[Client], implementation: str, algorithm: grpc.Compression
) -> None:
    x = megabytes(4, compressible=True)
    with Relay(gateways[implementation].grpc_port) as relay:
        (answer,) = kind(relay.url).infer([echo(x)], compression=algorithm)
    np.testing.assert_array_equal(decode_grpc(answer)["y"], x)
    assert 1_000 < relay.sent < 200_000
    if CODES_ANSWERS[implementation]:
        assert 1_000 < relay.received < 200_000
    else:
        assert relay.received > x.nbytes


# Large messages


@pytest.mark.parametrize("algorithm", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_eight_megabytes_in_and_out(client: Client, algorithm: grpc.Compression) -> None:
    x = megabytes(8)
    (answer,) = client.infer([echo(x)], compression=algorithm)
    np.testing.assert_array_equal(decode_grpc(answer)["y"], x)


def test_eight_megabytes_in_a_stream(client: Client) -> None:
    arrays = [megabytes(8), megabytes(7)]
    messages = client.stream([echo(array) for array in arrays])
    outputs = [decode_grpc(message.infer_response)["y"] for message in messages]
    # Of unlike requests a later one may be answered first.
    for array in arrays:
        assert any(np.array_equal(array, output) for output in outputs)
    assert len(outputs) == len(arrays)


def test_eight_megabytes_in_several_calls_beside_small_ones(client: Client) -> None:
    x = megabytes(8)
    requests = [echo(x), *(infer_rows(row(i)) for i in range(50)), echo(x)]
    first, *small, last = client.infer(requests)
    for answer in (first, last):
        np.testing.assert_array_equal(decode_grpc(answer)["y"], x)
    for i, answer in enumerate(small):
        check_row(answer, i)


# Many calls


def test_each_of_many_calls_gets_its_own_answer(client: Client) -> None:
    for first in (0, 1_000):
        answers = client.infer([infer_rows(row(first + i)) for i in range(200)])
        for i, answer in enumerate(answers):
            check_row(answer, first + i)
