"""Every RPC but inference, through the descriptors that clients were compiled against."""

from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.front.grpc_server import running


@pytest.fixture(scope="module")
def server(implementation):
    with running(implementation) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def assert_refused(call, code, said):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() == grpc.StatusCode[code]
    assert said in caught.value.details()


def test_live_and_ready(server, client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("negate")
    server.on_loop(lambda: setattr(server.service, "ready", False))
    try:
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("negate")
    finally:
        server.on_loop(lambda: setattr(server.service, "ready", True))


@pytest.mark.parametrize("rpc", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_an_unknown_model_is_not_found(stub, rpc):
    request = getattr(service_pb2, f"{rpc}Request")(name="nobody")
    assert_refused(lambda: getattr(stub, rpc)(request), "NOT_FOUND", 'unknown model "nobody"')


def test_server_metadata(client):
    metadata = client.get_server_metadata()
    assert (metadata.name, metadata.version) == ("onnx-gateway", "1")
    assert list(metadata.extensions) == ["statistics"]


def test_model_metadata_leaves_out_what_only_http_says(client):
    metadata = client.get_model_metadata("negate")
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("negate", ["1"], "numpy")
    assert (metadata.inputs[0].datatype, list(metadata.inputs[0].shape)) == ("FP32", [-1, 4])


def test_model_config(client):
    config = client.get_model_config("negate").config
    assert (config.name, config.max_batch_size) == ("negate", 8)
    assert config.input[0].data_type == 11  # TYPE_FP32
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert config.instance_group[0].count == 2


def test_statistics_keep_64_bits(client):
    (model,) = client.get_inference_statistics().model_stats
    assert (model.last_inference, model.inference_count) == (1_700_000_000_000, 3)
    assert model.inference_stats.success.ns == 2**40
    assert model.inference_stats.HasField("cache_hit")
    assert model.batch_stats[0].batch_size == 2


def test_repository_index(client, stub):
    names = [model.name for model in client.get_model_repository_index().models]
    assert names == ["negate", "bad"]
    (ready,) = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True)).models
    assert (ready.name, ready.version, ready.state) == ("negate", "1", "READY")
    named = service_pb2.RepositoryIndexRequest(repository_name="other")
    assert_refused(lambda: stub.RepositoryIndex(named), "UNIMPLEMENTED", "one model repository")


def test_load_and_unload_with_parameters(server, client):
    client.load_model("negate", config='{"max_batch_size": 4}')
    client.unload_model("negate", unload_dependents=True)
    assert server.service.done[-2:] == [
        ("load", "negate", {"config": '{"max_batch_size": 4}'}),
        ("unload", "negate", {"unload_dependents": True}),
    ]


@pytest.mark.parametrize("verb", ["Load", "Unload"])
def test_a_name_in_field_1_alone_is_the_models(server, stub, verb):
    request_class = getattr(service_pb2, f"RepositoryModel{verb}Request")
    call = getattr(stub, f"RepositoryModel{verb}")
    call(request_class.FromString(b"\x0a\x06negate"))
    assert server.service.done[-1] == (verb.lower(), "negate", {})
    assert_refused(lambda: call(request_class()), "INVALID_ARGUMENT", "names no model")
    both = request_class(repository_name="other", model_name="negate")
    assert_refused(lambda: call(both), "UNIMPLEMENTED", '"other"')


def test_log_settings_keep_their_kinds(client):
    settings = client.get_log_settings().settings
    assert settings["log_info"].bool_param is True
    assert settings["log_verbose_level"].WhichOneof("parameter_choice") == "uint32_param"
    assert settings["log_file"].WhichOneof("parameter_choice") == "string_param"
    changed = client.update_log_settings({"log_info": False, "log_verbose_level": 2}).settings
    assert changed["log_info"].bool_param is False
    assert changed["log_verbose_level"].uint32_param == 2


def test_system_shared_memory_is_registered_listed_and_forgotten(client, tmp_path):
    object_ = Path("/dev/shm") / f"onnx-gateway-{tmp_path.name}"
    object_.write_bytes(bytes(64))
    try:
        for name, offset in [("a", 0), ("b", 32)]:
            client.register_system_shared_memory(name, f"/{object_.name}", 32, offset=offset)
        regions = client.get_system_shared_memory_status().regions
        assert {name: (r.key, r.offset, r.byte_size) for name, r in regions.items()} == {
            "a": (f"/{object_.name}", 0, 32),
            "b": (f"/{object_.name}", 32, 32),
        }
        client.unregister_system_shared_memory("a")
        assert list(client.get_system_shared_memory_status().regions) == ["b"]
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions
    finally:
        object_.unlink()


def test_cuda_shared_memory_is_empty_and_cannot_be_registered(client, stub):
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()
    request = service_pb2.CudaSharedMemoryRegisterRequest(name="a", byte_size=1)
    said = "use system shared memory"
    assert_refused(lambda: stub.CudaSharedMemoryRegister(request), "UNIMPLEMENTED", said)


def test_trace_settings_are_not_offered(stub):
    request = service_pb2.TraceSettingRequest()
    assert_refused(lambda: stub.TraceSetting(request), "UNIMPLEMENTED", "trace settings")


def test_every_rpc_of_the_protocol_is_answered(server):
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    with grpc.insecure_channel(server.url) as channel:

        def refusal(name):
            """Why a call without a message is refused, ``None`` where it is answered."""
            call = channel.stream_stream(f"/{service.full_name}/{name}")
            try:
                list(call(iter([b""] if name != "ModelStreamInfer" else []), timeout=30))
            except grpc.RpcError as error:
                return error.code(), error.details().replace(name, "RPC")
            return None

        unknown = refusal("NoSuchMethod")
        assert unknown[0] == grpc.StatusCode.UNIMPLEMENTED
        for method in service.methods:
            assert refusal(method.name) != unknown


def test_bytes_that_are_no_message_are_the_callers_fault(server):
    with grpc.insecure_channel(server.url) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        assert_refused(lambda: call(b"\x0a\x05a"), "INVALID_ARGUMENT", "no ModelMetadataRequest")
