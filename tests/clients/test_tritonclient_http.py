"""What only ``tritonclient.http`` does: JSON tensors, ``async_infer``, raw exchanges."""

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as httpclient

from tests.fronts import sample
from tests.repository import ELEMENT_TYPES, rows_of
from tests.server import GatewayProcess

X = sample("FP32", (3, 4), seed=1)


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[httpclient.InferenceServerClient]:
    with httpclient.InferenceServerClient(gateway.http_url, concurrency=4) as client:
        yield client


@pytest.mark.parametrize("binary_out", [False, True], ids=["JSON out", "binary out"])
@pytest.mark.parametrize("binary_in", [False, True], ids=["JSON in", "binary in"])
def test_json_and_binary_tensors(
    client: httpclient.InferenceServerClient, binary_in: bool, binary_out: bool
) -> None:
    given = httpclient.InferInput("x", [3, 4], "FP32").set_data_from_numpy(X, binary_in)
    wanted = httpclient.InferRequestedOutput("y", binary_data=binary_out)
    answer = client.infer("rows", [given], outputs=[wanted])
    np.testing.assert_array_equal(answer.as_numpy("y"), rows_of(X))
    assert ("data" in answer.get_output("y")) is not binary_out


def test_json_and_binary_tensors_in_one_request(client: httpclient.InferenceServerClient) -> None:
    a, b = (sample("INT32", (2, 16), seed=seed) // 4 for seed in (1, 2))
    inputs = [
        httpclient.InferInput("A", [2, 16], "INT32").set_data_from_numpy(a, binary_data=False),
        httpclient.InferInput("B", [2, 16], "INT32").set_data_from_numpy(b, binary_data=True),
    ]
    outputs = [
        httpclient.InferRequestedOutput("SUM", binary_data=True),
        httpclient.InferRequestedOutput("DIFFERENCE", binary_data=False),
    ]
    answer = client.infer("sum_and_difference", inputs, outputs=outputs)
    np.testing.assert_array_equal(answer.as_numpy("SUM"), a + b)
    np.testing.assert_array_equal(answer.as_numpy("DIFFERENCE"), a - b)


def test_every_type_that_json_can_carry(client: httpclient.InferenceServerClient) -> None:
    arrays = {name: sample(name, (2, 3), seed=5) for name in ELEMENT_TYPES}
    only_binary = {"FP16", "BF16"}
    inputs = [
        httpclient.InferInput(f"in_{name}", [2, 3], name).set_data_from_numpy(
            array, binary_data=name in only_binary
        )
        for name, array in arrays.items()
    ]
    outputs = [
        httpclient.InferRequestedOutput(f"out_{name}", binary_data=name in only_binary)
        for name in arrays
    ]
    answer = client.infer("types", inputs, outputs=outputs)
    for name, array in arrays.items():
        given = answer.as_numpy(f"out_{name}")
        if name == "BYTES":
            given = np.vectorize(str.encode, otypes=[object])(given)
        np.testing.assert_array_equal(given, array)


def test_async_infer(client: httpclient.InferenceServerClient) -> None:
    arrays = [sample("FP32", (1 + i % 3, 4), seed=i) for i in range(32)]
    pending = [
        client.async_infer(
            "rows",
            [httpclient.InferInput("x", list(x.shape), "FP32").set_data_from_numpy(x)],
        )
        for x in arrays
    ]
    for x, request in zip(arrays, pending, strict=True):
        np.testing.assert_array_equal(request.get_result().as_numpy("y"), rows_of(x))


def test_request_body_made_by_the_client_and_sent_by_hand(gateway: GatewayProcess) -> None:
    given = httpclient.InferInput("x", [3, 4], "FP32").set_data_from_numpy(X)
    make, parse = (
        httpclient.InferenceServerClient.generate_request_body,
        httpclient.InferenceServerClient.parse_response_body,
    )
    body, header_length = make([given])
    status, headers, answer = gateway.request(
        "POST",
        "/v2/models/rows/infer",
        body,
        {"Inference-Header-Content-Length": str(header_length)},
    )
    assert status == 200, answer
    result = parse(answer, header_length=int(headers["inference-header-content-length"]))
    np.testing.assert_array_equal(result.as_numpy("y"), rows_of(X))
