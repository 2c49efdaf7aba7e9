"""Requests that differ in their id and their tensors alone: the second is served by its head.

Over the gRPC fronts, of which the native one does that: what may differ must, and what is wrong is
still refused, in the same words.
"""

from collections.abc import Iterator
from dataclasses import replace

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tests.fronts import GrpcStream, GrpcUnary, RefusedError, Request, Tensor, grpc_message, sample
from tests.repository import ModelDirectory, rows_of
from tests.repository import rows as rows_model
from tests.server import GatewayProcess


@pytest.fixture(params=[GrpcUnary, GrpcStream], ids=["unary", "stream"])
def client(
    request: pytest.FixtureRequest, grpc_gateway: GatewayProcess
) -> Iterator[GrpcUnary | GrpcStream]:
    adapter = request.param(grpc_gateway)
    yield adapter
    adapter.close()


def rows(count: int, seed: int, id: str = "") -> Request:
    return Request("rows", (Tensor.of("x", sample("FP32", (count, 4), seed)),), id=id)


def test_each_gets_its_own_answer(client: GrpcUnary) -> None:
    for seed in range(40):
        count = 1 + seed % 5
        answer = client.infer(rows(count, seed))
        np.testing.assert_array_equal(answer["y"], rows_of(sample("FP32", (count, 4), seed)))


@pytest.mark.parametrize("order", [("SUM", "DIFFERENCE"), ("DIFFERENCE", "SUM"), ("SUM",), None])
def test_outputs_come_as_they_were_asked_for(
    client: GrpcUnary, order: tuple[str, ...] | None
) -> None:
    for seed in range(4):
        a, b = sample("INT32", (2, 16), seed) // 4, sample("INT32", (2, 16), 100 + seed) // 4
        # The inputs in either order: what belongs to which is in the head.
        tensors = (Tensor.of("A", a), Tensor.of("B", b))
        request = Request("sum_and_difference", tensors[:: 1 if seed % 2 else -1], outputs=order)
        answer = client.infer(request)
        assert list(answer) == list(order or ("SUM", "DIFFERENCE"))
        np.testing.assert_array_equal(answer["SUM"], a + b)
        if "DIFFERENCE" in answer:
            np.testing.assert_array_equal(answer["DIFFERENCE"], a - b)


@pytest.mark.parametrize("id", ["", "a", "x" * 300, "é", "\N{SNOWMAN}" * 50])
def test_ids_are_echoed(client: GrpcUnary, id: str) -> None:
    for seed in range(3):
        message = grpc_message(rows(2, seed, id=id))
        if isinstance(client, GrpcStream):
            (streamed,) = client.stub.ModelStreamInfer(iter([message]), timeout=30)
            assert streamed.infer_response.id == id
        else:
            assert client.stub.ModelInfer(message, timeout=30).id == id


def test_an_id_that_is_no_utf_8_is_refused_though_its_head_is_known(
    grpc_gateway: GatewayProcess,
) -> None:
    right = grpc_message(rows(2, 1, id="??")).SerializeToString()
    wrong = right.replace(b"??", b"\xff\xfe")
    with grpc.insecure_channel(grpc_gateway.grpc_url) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(2):
            assert service_pb2.ModelInferResponse.FromString(call(right, timeout=30)).id == "??"
            with pytest.raises(grpc.RpcError) as caught:
                call(wrong, timeout=30)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_wrong_size_is_refused_in_the_same_words(client: GrpcUnary) -> None:
    x = sample("FP32", (3, 4))
    right = Request("rows", (Tensor.of("x", x),))
    wrong = replace(right, inputs=(Tensor.of("x", x, raw=x.tobytes()[:-4]),))
    told = set()
    for _ in range(3):
        with pytest.raises(RefusedError) as caught:
            client.infer(wrong)
        told.add(caught.value.message)
        np.testing.assert_array_equal(client.infer(right)["y"], rows_of(x))
    (message,) = told
    assert "takes 48 bytes, got 44" in message


def test_values_that_decide_about_a_batch_are_read_each_time(client: GrpcUnary) -> None:
    """An index outside the table fails its own request, whatever went before."""
    for index in (3, 10, 4, 11, 3):
        request = Request("lookup", (Tensor.of("index", np.array([[index]], np.int64)),))
        if index < 10:
            assert client.infer(request)["y"].item() == index * 1.5
        else:
            with pytest.raises(RefusedError, match=str(index)):
                client.infer(request)


def test_a_model_that_was_unloaded_is_not_served_from_memory(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("models")
    ModelDirectory(path).add("rows", rows_model)
    with GatewayProcess(path) as gateway:
        client = GrpcUnary(gateway)
        for _ in range(3):
            client.infer(rows(2, 1))
        assert gateway.post("/v2/repository/models/rows/unload", {})[0] == 200
        with pytest.raises(RefusedError) as caught:
            client.infer(rows(2, 1))
        assert caught.value.code in ("NOT_FOUND", "UNAVAILABLE")
        assert gateway.post("/v2/repository/models/rows/load", {})[0] == 200
        for seed in range(3):
            answer = client.infer(rows(2, seed))
            np.testing.assert_array_equal(answer["y"], rows_of(sample("FP32", (2, 4), seed)))
        client.close()
