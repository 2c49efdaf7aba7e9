"""``tritonclient``'s blocking clients, HTTP and gRPC, as their users call them."""

import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from google.protobuf.json_format import MessageToDict
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

from tests.clients.conftest import Endpoint
from tests.fronts import sample
from tests.repository import ELEMENT_TYPES, rows_of

X = sample("FP32", (3, 4), seed=1)
A = sample("INT32", (2, 16), seed=2) // 4
B = sample("INT32", (2, 16), seed=3) // 4

EXTENSIONS = {
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
    "system_shared_memory",
}


@pytest.fixture
def library(endpoint: Endpoint) -> ModuleType:
    return {"http": tritonclient.http, "grpc": tritonclient.grpc}[endpoint.protocol]


@pytest.fixture
def client(library: ModuleType, endpoint: Endpoint) -> Iterator[Any]:
    with library.InferenceServerClient(endpoint.url) as client:
        yield client


def tensor(library: ModuleType, name: str, array: np.ndarray) -> Any:
    datatype = tritonclient.utils.np_to_triton_dtype(array.dtype)
    return library.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)


def as_json(answer: Any) -> Any:
    """A control answer as the HTTP client gives it."""
    if isinstance(answer, (dict, list)):
        return answer
    return MessageToDict(answer, preserving_proto_field_name=True)


def test_health(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("rows")
    assert client.is_model_ready("rows", "1")


@pytest.mark.parametrize(("model", "version"), [("nobody", ""), ("rows", "9")])
def test_unknown_model_is_not_ready(
    client: Any, library: ModuleType, model: str, version: str
) -> None:
    if library is tritonclient.http:
        assert not client.is_model_ready(model, version)
    else:
        with pytest.raises(InferenceServerException, match=version or model) as caught:
            client.is_model_ready(model, version)
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_server_metadata(client: Any) -> None:
    metadata = as_json(client.get_server_metadata())
    assert metadata["name"]
    assert metadata["version"]
    assert set(metadata["extensions"]) >= EXTENSIONS


def test_model_metadata(client: Any) -> None:
    metadata = as_json(client.get_model_metadata("sum_and_difference"))
    assert metadata["name"] == "sum_and_difference"
    assert metadata["versions"] == ["1"]
    assert metadata["platform"] == "onnxruntime_onnx"
    shapes = {entry["name"]: entry["shape"] for entry in metadata["inputs"]}
    assert {name: list(map(int, shape)) for name, shape in shapes.items()} == {
        "A": [-1, 16],
        "B": [-1, 16],
    }
    assert [entry["name"] for entry in metadata["outputs"]] == ["SUM", "DIFFERENCE"]
    assert {entry["datatype"] for entry in metadata["inputs"]} == {"INT32"}


def test_model_config(client: Any) -> None:
    config = as_json(client.get_model_config("sliced"))
    config = config.get("config", config)
    assert config["name"] == "sliced"
    assert config["max_batch_size"] == 8
    assert [entry["name"] for entry in config["input"]] == ["x"]
    # With a batch size in the configuration, Triton's dims leave the batch axis out.
    assert list(map(int, config["input"][0]["dims"])) == [4]
    assert config["input"][0]["data_type"] == "TYPE_FP32"


def test_statistics_count_what_was_asked(client: Any, library: ModuleType) -> None:
    def counts() -> dict[str, int]:
        (stats,) = as_json(client.get_inference_statistics("rows"))["model_stats"]
        kinds = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        inference = stats.get("inference_stats", {})
        return {
            "inferences": int(stats.get("inference_count", 0)),
            **{kind: int(inference.get(kind, {}).get("count", 0)) for kind in kinds},
        }

    before = counts()
    for _ in range(5):
        client.infer("rows", [tensor(library, "x", X)])
    after = counts()
    gained = {kind: after[kind] - before[kind] for kind in after}
    assert gained == {
        "inferences": 15,
        "success": 5,
        "fail": 0,
        "queue": 5,
        "compute_input": 5,
        "compute_infer": 5,
        "compute_output": 5,
    }


def test_statistics_of_every_model(client: Any) -> None:
    names = {entry["name"] for entry in as_json(client.get_inference_statistics())["model_stats"]}
    assert {"rows", "types", "slow"} <= names


def test_repository_index_unload_and_load(client: Any, library: ModuleType) -> None:
    def state() -> tuple[str, bool]:
        index = as_json(client.get_model_repository_index())
        entries = index if isinstance(index, list) else index["models"]
        (entry,) = [entry for entry in entries if entry["name"] == "unloadable"]
        return entry["state"], client.is_model_ready("unloadable")

    assert state() == ("READY", True)
    client.unload_model("unloadable")
    assert state() == ("UNAVAILABLE", False)
    with pytest.raises(InferenceServerException, match="unloadable"):
        client.infer("unloadable", [tensor(library, "x", X)])
    client.load_model("unloadable")
    assert state() == ("READY", True)
    answer = client.infer("unloadable", [tensor(library, "x", X)])
    np.testing.assert_array_equal(answer.as_numpy("y"), rows_of(X))


def test_load_of_an_unknown_model(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="nobody"):
        client.load_model("nobody")


def test_log_settings(client: Any) -> None:
    before = as_json(client.get_log_settings())
    level = before.get("settings", before)["log_verbose_level"]
    client.update_log_settings({"log_verbose_level": 1})
    client.update_log_settings({"log_verbose_level": 0})
    assert level is not None


def test_infer(client: Any, library: ModuleType) -> None:
    inputs = [tensor(library, "A", A), tensor(library, "B", B)]
    answer = client.infer("sum_and_difference", inputs, request_id="seven", model_version="1")
    np.testing.assert_array_equal(answer.as_numpy("SUM"), A + B)
    np.testing.assert_array_equal(answer.as_numpy("DIFFERENCE"), A - B)
    response = as_json(answer.get_response())
    assert response["id"] == "seven"
    assert response["model_name"] == "sum_and_difference"
    assert response["model_version"] == "1"


def test_inputs_in_any_order(client: Any, library: ModuleType) -> None:
    answer = client.infer("sum_and_difference", [tensor(library, "B", B), tensor(library, "A", A)])
    np.testing.assert_array_equal(answer.as_numpy("DIFFERENCE"), A - B)


def test_outputs_asked_for(client: Any, library: ModuleType) -> None:
    inputs = [tensor(library, "A", A), tensor(library, "B", B)]
    outputs = [library.InferRequestedOutput("DIFFERENCE")]
    answer = client.infer("sum_and_difference", inputs, outputs=outputs)
    np.testing.assert_array_equal(answer.as_numpy("DIFFERENCE"), A - B)
    assert answer.as_numpy("SUM") is None


@pytest.mark.parametrize("count", [0, 1, 4])
def test_every_type(client: Any, library: ModuleType, count: int) -> None:
    arrays = {name: sample(name, (count, 3), seed=count) for name in ELEMENT_TYPES}
    inputs = [tensor(library, f"in_{name}", array) for name, array in arrays.items()]
    answer = client.infer("types", inputs)
    for name, array in arrays.items():
        np.testing.assert_array_equal(answer.as_numpy(f"out_{name}"), array)


def test_more_rows_than_the_batch_limit(client: Any, library: ModuleType) -> None:
    x = sample("FP32", (37, 4))
    answer = client.infer("sliced", [tensor(library, "x", x)])
    np.testing.assert_array_equal(answer.as_numpy("y"), rows_of(x))


def test_error_has_status_and_message(client: Any, library: ModuleType) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("nobody", [tensor(library, "x", X)])
    assert caught.value.status() in ("404", "StatusCode.NOT_FOUND")
    assert "nobody" in caught.value.message()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: Any, library: ModuleType, algorithm: str) -> None:
    x = np.zeros((500, 4), np.float32)
    inputs = [tensor(library, "x", x)]
    if library is tritonclient.http:
        options = {
            "request_compression_algorithm": algorithm,
            "response_compression_algorithm": algorithm,
        }
    else:
        options = {"compression_algorithm": algorithm}
    answer = client.infer("rows", inputs, **options)
    np.testing.assert_array_equal(answer.as_numpy("y"), rows_of(x))


def test_classification(client: Any, library: ModuleType) -> None:
    scores = np.array([[0.1, 0.5, 0.3, 0.2], [9.0, -1.0, 0.0, 2.5]], np.float32)
    outputs = [library.InferRequestedOutput("chances", class_count=2)]
    answer = client.infer("scores", [tensor(library, "scores", scores)], outputs=outputs)
    classes = answer.as_numpy("chances")
    assert classes.shape == (2, 2)
    told = [[element.decode().split(":") for element in row] for row in classes]
    assert [[(int(index), label) for _, index, label in row] for row in told] == [
        [(1, "bee"), (2, "cat")],
        [(0, "ant"), (3, "dog")],
    ]
    given = [[float(score) for score, _, _ in row] for row in told]
    np.testing.assert_allclose(given, [[0.5, 0.3], [9.0, 2.5]], rtol=1e-6)


def test_timeout_and_priority(client: Any, library: ModuleType) -> None:
    inputs = [tensor(library, "x", X)]
    answer = client.infer("rows", inputs, timeout=10_000_000, priority=1)
    np.testing.assert_array_equal(answer.as_numpy("y"), rows_of(X))


def test_parameters_that_mean_nothing_here(client: Any, library: ModuleType) -> None:
    inputs = [tensor(library, "x", X)]
    answer = client.infer("rows", inputs, parameters={"colour": "red", "n": 7, "on": True})
    np.testing.assert_array_equal(answer.as_numpy("y"), rows_of(X))


def test_shared_memory_in_and_out(client: Any, library: ModuleType) -> None:
    size = X.nbytes
    region = shm.create_shared_memory_region("numbers", "/onnx_gateway_test", size + 3 * 5 * 4)
    try:
        shm.set_shared_memory_region(region, [X])
        client.register_system_shared_memory("numbers", "/onnx_gateway_test", size + 3 * 5 * 4)
        assert "numbers" in json.dumps(as_json(client.get_system_shared_memory_status()))
        given = library.InferInput("x", [3, 4], "FP32")
        given.set_shared_memory("numbers", size)
        wanted = library.InferRequestedOutput("y")
        wanted.set_shared_memory("numbers", 3 * 5 * 4, offset=size)
        answer = client.infer("rows", [given], outputs=[wanted])
        assert answer.get_output("y") is not None
        y = shm.get_contents_as_numpy(region, np.float32, [3, 5], offset=size)
        np.testing.assert_array_equal(y, rows_of(X))

        too_small = library.InferRequestedOutput("y")
        too_small.set_shared_memory("numbers", 8, offset=size)
        with pytest.raises(InferenceServerException, match="60"):
            client.infer("rows", [given], outputs=[too_small])
        given.set_shared_memory("numbers", size, offset=size * 10)
        with pytest.raises(InferenceServerException, match="numbers"):
            client.infer("rows", [given])
        with pytest.raises(InferenceServerException, match="numbers"):
            client.register_system_shared_memory("numbers", "/onnx_gateway_test", size)
    finally:
        client.unregister_system_shared_memory("numbers")
        shm.destroy_shared_memory_region(region)
    assert "numbers" not in json.dumps(as_json(client.get_system_shared_memory_status()))
    with pytest.raises(InferenceServerException, match="numbers"):
        client.infer("rows", [given])


def test_shared_memory_that_does_not_exist(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="onnx_gateway_nowhere"):
        client.register_system_shared_memory("none", "/onnx_gateway_nowhere", 64)


def test_cuda_shared_memory_says_that_it_is_not_offered(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"(?i)cuda"):
        client.register_cuda_shared_memory("none", b"AAAA", 0, 64)
