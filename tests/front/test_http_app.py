"""Everything over HTTP but inference: control, V1, shared memory, metrics, documentation."""

import asyncio
import json
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from gateway.errors import QueueFull, StartupError
from gateway.front.http_context import HttpLimits
from gateway.front.http_control import ControlEndpoints
from gateway.front.http_server import HttpFront, MetricsFront
from gateway.front.openapi import openapi_document
from gateway.front.shared_memory import SharedMemoryRegions
from gateway.types import BYTES, FP32, INT64, InferOutput
from tests.front.http_backend import EchoDispatcher, SmallService
from tests.front.running_front import RunningFront


@pytest.fixture(scope="module")
def shared_front() -> Iterator[RunningFront]:
    with RunningFront() as running:
        yield running


@pytest.fixture
def front(shared_front: RunningFront) -> RunningFront:
    shared_front.service.ready = True
    shared_front.service.loaded = {"echo", "held", "fixed"}
    shared_front.service.inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    shared_front.dispatcher.refusal = None
    return shared_front


@pytest.fixture
def client(front: RunningFront) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{front.port}") as made:
        yield made


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_server_metadata(client: httpx.Client, path: str) -> None:
    assert client.get(path).json()["name"] == "onnx-gateway"


def test_health(client: httpx.Client, front: RunningFront) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    front.service.ready = False
    answer = client.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False})


@pytest.mark.parametrize("model", ["/v2/models/echo", "/v2/models/echo/versions/v10"])
def test_models(client: httpx.Client, model: str) -> None:
    assert client.get("/v2/models").json() == {"models": ["echo", "fixed", "held"]}
    assert client.get(model).json()["versions"] == ["v10" if "v10" in model else "1"]
    assert client.get(f"{model}/ready").json() == {"name": "echo", "ready": True}
    assert client.get(f"{model}/config").json()["max_batch_size"] == 8
    assert len(client.get(f"{model}/stats").json()["model_stats"]) == 1
    assert len(client.get("/v2/models/stats").json()["model_stats"]) == 3


def test_a_model_that_is_not_ready(client: httpx.Client) -> None:
    assert client.post("/v2/repository/models/echo/unload").status_code == 200
    answer = client.get("/v2/models/echo/ready")
    assert (answer.status_code, answer.json()) == (503, {"name": "echo", "ready": False})
    index = client.post("/v2/repository/index", json={"ready": True}).json()
    assert [each["name"] for each in index] == ["fixed", "held"]
    assert len(client.get("/v2/repository/index").json()) == 3
    assert client.post("/v2/repository/models/echo/load", json={"parameters": {}}).is_success
    assert client.get("/v2/models/echo/ready").is_success


def test_log_settings(client: httpx.Client) -> None:
    assert client.post("/v2/logging", json={"log_verbose_level": 2}).json() == {
        "log_verbose_level": 2
    }
    assert client.get("/v2/logging").json() == {"log_verbose_level": 2}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/echo/infer", 405),
        ("PUT", "/v2/models/echo/versions/1/infer", 405),
        ("DELETE", "/v2/models", 405),
        ("GET", "/v2/trace/setting", 501),
        ("POST", "/v2/models/echo/trace/setting", 501),
        ("POST", "/v2/cudasharedmemory/region/r/register", 501),
        ("POST", "/v2/repository/elsewhere/index", 501),
        ("GET", "/v2/systemsharedmemory/region/r/status", 404),
    ],
)
def test_errors_have_one_form(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"ready": 1}'])
def test_malformed_control_bodies(client: httpx.Client, body: bytes) -> None:
    assert client.post("/v2/repository/index", content=body).status_code == 400


def test_a_streamed_control_body_has_the_limit() -> None:
    with (
        RunningFront(HttpLimits(max_request_bytes=1000)) as front,
        httpx.Client(base_url=f"http://127.0.0.1:{front.port}") as client,
    ):
        answer = client.post("/v2/logging", content=(b" " * 300 for _ in range(5)))
        assert answer.status_code == 413
        assert "--max-request-bytes" in answer.json()["error"]


def test_cuda_shared_memory_is_empty(client: httpx.Client) -> None:
    assert client.get("/v2/cudasharedmemory/status").json() == []
    assert client.post("/v2/cudasharedmemory/unregister").is_success


def test_metrics(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.text == "up 1\n"
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


# V1


def predict(client: httpx.Client, instances: Any, model: str = "echo") -> httpx.Response:
    return client.post(f"/v1/models/{model}:predict", json={"instances": instances})


def test_v1_rows_of_a_model_with_one_input(client: httpx.Client) -> None:
    expected = {"predictions": [[1.0, 2.0], [3.5, 4.0]]}
    assert predict(client, [[1, 2], [3.5, 4]]).json() == expected
    assert predict(client, [{"x": [1, 2]}, {"x": [3.5, 4]}]).json() == expected
    assert client.get("/v1/models").json()["models"] == ["echo", "fixed", "held"]
    assert client.get("/").json() == {"status": "alive"}
    assert client.get("/v1/models/echo").json() == {"name": "echo", "ready": True}


def test_v1_rows_of_a_model_with_several_inputs(client: httpx.Client, front: RunningFront) -> None:
    front.service.inputs = [
        {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "s", "datatype": "BYTES", "shape": [-1]},
        {"name": "n", "datatype": "INT64", "shape": [-1]},
    ]
    rows = [{"x": [1.0, 2.0], "s": "a],[b", "n": 1}, {"x": [3.0, 4.0], "s": "ü", "n": -2}]
    assert predict(client, rows).json() == {"predictions": rows}
    assert predict(client, [[1, 2]]).status_code == 400
    assert predict(client, [{"x": [1, 2]}]).status_code == 400


def test_v1_numbers_that_are_not_finite(client: httpx.Client, front: RunningFront) -> None:
    front.dispatcher.outputs = [
        InferOutput("y", FP32, np.array([1, np.nan], np.float32)),
        InferOutput("z", INT64, np.array([[1], [2]])),
    ]
    text = predict(client, [[1, 2], [3, 4]], "fixed").text
    assert text == '{"predictions":[{"y":1.0,"z":[1]},{"y":NaN,"z":[2]}]}'


def test_v1_outputs_without_a_row_for_each_instance(
    client: httpx.Client, front: RunningFront
) -> None:
    front.dispatcher.outputs = [InferOutput("y", BYTES, np.array(["a"], object))]
    answer = predict(client, [[1, 2], [3, 4]], "fixed")
    assert answer.status_code == 400
    assert "/v2/models/fixed/infer" in answer.json()["error"]


@pytest.mark.parametrize("instances", [None, [], {}, [[1, 2], [3]], [[1, [2]]], [[1, "a"]], [None]])
def test_v1_wrong_instances(client: httpx.Client, instances: Any) -> None:
    answer = predict(client, instances)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_v1_refusals(client: httpx.Client, front: RunningFront) -> None:
    assert predict(client, [[1, 2]], "nobody").status_code == 404
    front.dispatcher.refusal = QueueFull("exceeds maximum queue size")
    answer = predict(client, [[1, 2]])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


# Clients


@pytest.fixture
def triton_client(front: RunningFront) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(f"127.0.0.1:{front.port}")
    yield made
    made.close()


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_triton_inference(
    triton_client: triton.InferenceServerClient, binary: bool, coding: str | None
) -> None:
    arrays = {
        "FP32": np.linspace(0, 1, 600, dtype=np.float32).reshape(2, 300),
        "BYTES": np.array([b"a", "ü".encode()], object),
        "BOOL": np.array([True, False]),
    }
    inputs = []
    for datatype, array in arrays.items():
        tensor = triton.InferInput(datatype, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in arrays]
    for requested in (outputs, None):
        result = triton_client.infer(
            "echo",
            inputs,
            outputs=requested,
            request_id="7",
            request_compression_algorithm=coding,
            response_compression_algorithm=coding,
        )
        assert result.get_response()["id"] == "7"
        for name in ("FP32", "BOOL"):
            assert np.array_equal(result.as_numpy(name), arrays[name])
        texts = [getattr(each, "decode", each.__str__)() for each in result.as_numpy("BYTES")]
        assert texts == ["a", "ü"]


def test_triton_shared_memory(triton_client: triton.InferenceServerClient) -> None:
    data = np.array([[1, 2]], np.float32)
    block = SharedMemory(create=True, size=16)
    try:
        block.buf[:8] = data.tobytes()
        triton_client.unregister_system_shared_memory()
        triton_client.unregister_cuda_shared_memory()
        triton_client.register_system_shared_memory("r", f"/{block.name}", 16)
        with pytest.raises(InferenceServerException, match="registered already"):
            triton_client.register_system_shared_memory("r", f"/{block.name}", 16)
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_shared_memory("r", 8)
        output = triton.InferRequestedOutput("x")
        output.set_shared_memory("r", 8, 8)
        result = triton_client.infer("echo", [tensor], outputs=[output])
        assert result.get_output("x")["parameters"] == {
            "shared_memory_region": "r",
            "shared_memory_offset": 8,
            "shared_memory_byte_size": 8,
        }
        assert bytes(block.buf[8:]) == data.tobytes()
        output.set_shared_memory("r", 4, 8)
        with pytest.raises(InferenceServerException, match="8 bytes, but 4"):
            triton_client.infer("echo", [tensor], outputs=[output])
        assert len(triton_client.get_system_shared_memory_status()) == 1
        triton_client.unregister_system_shared_memory("r")
        assert triton_client.get_system_shared_memory_status() == []
    finally:
        block.close()
        block.unlink()


def test_triton_errors(triton_client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="unknown model 'nobody'") as caught:
        triton_client.get_model_metadata("nobody")
    assert caught.value.status() == "404"


# Documentation


def test_the_openapi_document_has_every_route_and_no_other() -> None:
    document = openapi_document("1")
    described = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    service: Any = SmallService()
    routed = {
        (method, route.path)
        for route in ControlEndpoints(service, SharedMemoryRegions(), 1).routes()
        for method in route.methods or ()
        if method != "HEAD" and "{repository}" not in route.path and route.path != "/v2/"
    }
    other = {path for _, path in described - routed}
    assert routed <= described
    assert other == {
        "/",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/models/{model}:predict",
        "/metrics",
    }


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_references_of_the_openapi_document_lead_somewhere(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    for reference in references(document):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_the_docs_page_needs_nothing_else(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    anchors, links, outside, open_tags = set(), set(), set(), []

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            anchors.add(values.get("id"))
            links.add(values.get("href"))
            outside.add(values.get("src"))
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Page().feed(answer.text)
    assert open_tags == []
    assert outside == {None}
    assert {link for link in links if link} - {f"#{anchor}" for anchor in anchors} == {
        "/openapi.json"
    }
    for path in json.loads(client.get("/openapi.json").text)["paths"]:
        assert path in answer.text


# Ports


def test_a_taken_port_names_itself_and_the_option() -> None:
    async def start(port: int) -> None:
        await HttpFront(
            EchoDispatcher(),
            SmallService(),
            SharedMemoryRegions(),
            host="127.0.0.1",
            port=port,
            metrics=lambda: b"",
        ).start()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"127.0.0.1:{port}.*--http-port"):
            asyncio.run(start(port))


def test_the_metrics_port_serves_metrics_alone(front: RunningFront) -> None:
    metrics = MetricsFront(lambda: b"up 1\n", host="127.0.0.1", port=0)
    front.run(metrics.start())
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{metrics.port}") as client:
            assert client.get("/metrics").text == "up 1\n"
            assert client.get("/v2").status_code == 404
            assert client.post("/v2/models/echo/infer").status_code == 404
    finally:
        front.run(metrics.close(0))
