"""The service's answers, held against the protocol's own messages where there are some."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2

from gateway.errors import (
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    NoAvailableVersion,
    Unsupported,
)
from tests.control.plane import ROW, ControlPlane, on_plane, until
from tests.repository import ModelDirectory, rows, scores, slow, sum_and_difference

Test = Callable[[ControlPlane], Awaitable[None]]
LABELS = '[outputs.chances]\nlabels = ["ant", "bee", "cat", "dog"]\n'


@pytest.fixture
def serve(tmp_path: Path) -> Callable[[Test], None]:
    """Runs a test on a control plane whose models are loaded."""
    models = ModelDirectory(tmp_path)
    models.add("rows", rows)
    models.add("tuned", rows, "max_batch_size = 4\nmax_queue_size = 9\ninstances = 2\n")
    models.add("scores", scores, LABELS)
    models.add("pair", sum_and_difference)
    models.add("slow", slow)
    models.add_broken("broken")

    def run(test: Test) -> None:
        async def started(plane: ControlPlane) -> None:
            await plane.manager.start()
            await test(plane)

        on_plane(started, tmp_path)

    return run


def test_server_metadata_names_what_works(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        metadata = plane.service.server_metadata()
        json_format.ParseDict(metadata, service_pb2.ServerMetadataResponse())
        assert metadata["name"] == "onnx-gateway"
        assert "statistics" in metadata["extensions"]
        assert "sequence" not in metadata["extensions"]
        assert "cuda_shared_memory" not in metadata["extensions"]

    serve(test)


def test_model_metadata_shows_whole_shapes(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        metadata = plane.service.model_metadata("rows")
        assert metadata["platform"] == "onnxruntime_onnx"
        assert metadata["versions"] == ["1"]
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 5]}]
        assert metadata["properties"]["digest"].startswith("sha256:")
        assert all(isinstance(value, str) for value in metadata["properties"].values())
        json_format.ParseDict(
            metadata, service_pb2.ModelMetadataResponse(), ignore_unknown_fields=True
        )

    serve(test)


def test_class_labels_are_among_the_properties(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        properties = plane.service.model_metadata("scores")["properties"]
        assert json.loads(properties["labels"]) == {"chances": ["ant", "bee", "cat", "dog"]}

    serve(test)


def test_a_config_of_a_batched_model_leaves_the_batch_out_of_dims(
    serve: Callable[[Test], None],
) -> None:
    async def test(plane: ControlPlane) -> None:
        config = plane.service.model_config("tuned")
        assert config["max_batch_size"] == 4
        assert config["input"][0]["dims"] == [4]
        assert config["input"][0]["data_type"] == "TYPE_FP32"
        assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 9
        assert config["instance_group"][0]["count"] == 2
        assert config["instance_group"][0]["kind"] == "KIND_CPU"

    serve(test)


def test_a_config_of_an_unbatched_model_has_whole_dims(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        config = plane.service.model_config("slow")
        assert config["max_batch_size"] == 0
        assert config["input"][0]["dims"] == [1]
        assert "dynamic_batching" not in config

    serve(test)


def test_every_config_is_a_model_config_message(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        for name in plane.service.model_names():
            config = plane.service.model_config(name)
            json_format.ParseDict(config, model_config_pb2.ModelConfig())

    serve(test)


def test_statistics_count_rows_runs_and_times(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.infer("rows", x=np.repeat(ROW, 3, axis=0))
        await plane.infer("rows", x=ROW)
        document = plane.service.statistics("rows")
        json_format.ParseDict(document, service_pb2.ModelStatisticsResponse())
        (stats,) = document["model_stats"]
        assert (stats["name"], stats["version"]) == ("rows", "1")
        assert stats["inference_count"] == 4
        assert stats["execution_count"] == 2
        assert stats["last_inference"] > 0
        times = stats["inference_stats"]
        assert times["success"]["count"] == 2
        assert times["fail"] == {"count": 0, "ns": 0}
        assert times["success"]["ns"] >= times["compute_infer"]["ns"] > 0
        assert times["cache_hit"] == times["cache_miss"] == {"count": 0, "ns": 0}
        batches = {entry["batch_size"]: entry["compute_infer"] for entry in stats["batch_stats"]}
        assert {rows: entry["count"] for rows, entry in batches.items()} == {1: 1, 3: 1}

    serve(test)


def test_statistics_without_a_name_are_of_every_loaded_model(
    serve: Callable[[Test], None],
) -> None:
    async def test(plane: ControlPlane) -> None:
        names = [entry["name"] for entry in plane.service.statistics()["model_stats"]]
        assert names == plane.service.model_names()

    serve(test)


def test_the_index_tells_every_version_and_why(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        index = plane.service.repository_index(ready_only=False)
        json_format.ParseDict({"models": index}, service_pb2.RepositoryIndexResponse())
        by_name = {entry["name"]: entry for entry in index}
        assert by_name["rows"]["state"] == "READY"
        assert by_name["broken"]["state"] == "UNAVAILABLE"
        assert "not an ONNX model" in by_name["broken"]["reason"]
        ready = plane.service.repository_index(ready_only=True)
        assert [entry["name"] for entry in ready] == plane.service.model_names()

    serve(test)


def test_what_nobody_knows_is_not_found(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        service = plane.service
        calls = (
            service.is_model_ready,
            service.model_metadata,
            service.model_config,
            service.statistics,
        )
        for call in calls:
            with pytest.raises(ModelNotFound, match="absent"):
                call("absent", "")
            with pytest.raises(ModelNotFound, match="'rows' has no version '7'"):
                call("rows", "7")

    serve(test)


def test_a_model_that_is_known_and_not_loaded_has_no_available_version(
    serve: Callable[[Test], None],
) -> None:
    async def test(plane: ControlPlane) -> None:
        assert plane.service.is_model_ready("rows") is True
        assert plane.service.is_model_ready("rows", "1") is True
        assert plane.service.is_model_ready("broken") is False
        for call in (plane.service.model_metadata, plane.service.model_config):
            with pytest.raises(NoAvailableVersion, match=r"has no available versions.*FAILED"):
                call("broken")
            with pytest.raises(ModelNotReady, match="FAILED"):
                call("broken", "1")

    serve(test)


def test_load_and_unload_by_the_repository_extension(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.service.unload_model("rows", {"unload_dependents": False})
        assert plane.service.is_model_ready("rows") is False
        await until(lambda: plane.state("rows", "1") == "UNAVAILABLE")
        await plane.service.load_model("rows", {})
        assert plane.service.is_model_ready("rows") is True

    serve(test)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"config": "{}"}, Unsupported),
        ({"file:1/model.onnx": "AAAA"}, Unsupported),
        ({"colour": 1}, InvalidRequest),
    ],
)
def test_load_parameters_that_are_not_offered_are_named(
    serve: Callable[[Test], None], parameters: dict[str, object], error: type[Exception]
) -> None:
    async def test(plane: ControlPlane) -> None:
        with pytest.raises(error, match=next(iter(parameters))):
            await plane.service.load_model("rows", parameters)

    serve(test)


def test_log_settings_are_read_and_turned(serve: Callable[[Test], None]) -> None:
    async def test(plane: ControlPlane) -> None:
        assert plane.service.log_settings(None)["log_info"] is False
        assert plane.service.log_settings({"log_info": True})["log_info"] is True
        assert plane.logs.settings()["log_info"] is True

    serve(test)
