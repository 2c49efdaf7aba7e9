"""What only ``tritonclient.grpc`` does: streams, ``async_infer`` with callbacks."""

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from tests.fronts import sample
from tests.repository import rows_of
from tests.server import GatewayProcess


@pytest.fixture
def client(grpc_gateway: GatewayProcess) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(grpc_gateway.grpc_url) as client:
        yield client


@pytest.fixture
def answers() -> "queue.Queue[tuple[Any, Any]]":
    return queue.Queue()


def given(x: np.ndarray) -> list[grpcclient.InferInput]:
    return [grpcclient.InferInput("x", list(x.shape), "FP32").set_data_from_numpy(x)]


def test_async_infer(
    client: grpcclient.InferenceServerClient, answers: "queue.Queue[tuple[Any, Any]]"
) -> None:
    arrays = {str(i): sample("FP32", (1 + i % 3, 4), seed=i) for i in range(32)}
    for name, x in arrays.items():
        client.async_infer(
            "rows",
            given(x),
            lambda result, error: answers.put((result, error)),
            request_id=name,
        )
    for _ in range(len(arrays)):
        result, error = answers.get(timeout=30)
        assert error is None
        x = arrays.pop(result.get_response().id)
        np.testing.assert_array_equal(result.as_numpy("y"), rows_of(x))


def test_async_infer_that_fails(
    client: grpcclient.InferenceServerClient, answers: "queue.Queue[tuple[Any, Any]]"
) -> None:
    client.async_infer(
        "nobody", given(sample("FP32", (1, 4))), lambda result, error: answers.put((result, error))
    )
    result, error = answers.get(timeout=30)
    assert result is None
    assert "nobody" in error.message()


def test_stream(
    client: grpcclient.InferenceServerClient, answers: "queue.Queue[tuple[Any, Any]]"
) -> None:
    arrays = {str(i): sample("FP32", (1 + i % 5, 4), seed=i) for i in range(64)}
    client.start_stream(lambda result, error: answers.put((result, error)))
    for name, x in arrays.items():
        client.async_stream_infer("rows", given(x), request_id=name)
    for _ in range(len(arrays)):
        result, error = answers.get(timeout=30)
        assert error is None
        x = arrays.pop(result.get_response().id)
        np.testing.assert_array_equal(result.as_numpy("y"), rows_of(x))
    client.stop_stream()
    assert answers.empty()


def test_errors_in_a_stream_end_neither_it_nor_its_other_requests(
    client: grpcclient.InferenceServerClient, answers: "queue.Queue[tuple[Any, Any]]"
) -> None:
    x = sample("FP32", (2, 4))
    client.start_stream(lambda result, error: answers.put((result, error)))
    for i in range(20):
        client.async_stream_infer("nobody" if i % 2 else "rows", given(x), request_id=str(i))
    results, errors = [], []
    for _ in range(20):
        result, error = answers.get(timeout=30)
        (errors if error is not None else results).append(error or result)
    client.stop_stream()
    assert len(results) == len(errors) == 10
    for result in results:
        np.testing.assert_array_equal(result.as_numpy("y"), rows_of(x))
    for error in errors:
        assert "nobody" in error.message()


def test_error_in_a_stream_that_asks_for_statuses_ends_it(
    client: grpcclient.InferenceServerClient, answers: "queue.Queue[tuple[Any, Any]]"
) -> None:
    client.start_stream(
        lambda result, error: answers.put((result, error)), headers={"triton_grpc_error": "true"}
    )
    client.async_stream_infer("nobody", given(sample("FP32", (1, 4))))
    _, error = answers.get(timeout=30)
    assert error.status() == "StatusCode.NOT_FOUND"
    client.stop_stream()
