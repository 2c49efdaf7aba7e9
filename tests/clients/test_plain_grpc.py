"""Clients that know no Open Inference Protocol: reflection and the standard health check."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.fronts import sample
from tests.repository import ModelDirectory, rows, rows_of
from tests.server import GRPC_IMPLEMENTATIONS, GatewayProcess

SERVICE = "inference.GRPCInferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def channel(grpc_gateway: GatewayProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(grpc_gateway.grpc_url) as channel:
        yield channel


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert set(services) >= {SERVICE, "grpc.health.v1.Health"}


def test_inference_with_nothing_but_reflection(channel: grpc.Channel) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName(SERVICE).FindMethodByName("ModelInfer")
    request_class = GetMessageClass(method.input_type)
    answer_class = GetMessageClass(method.output_type)
    x = sample("FP32", (2, 4))
    request = request_class(model_name="rows")
    given = request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    given.contents.fp32_contents.extend(x.ravel().tolist())
    call = channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        request_serializer=request_class.SerializeToString,
        response_deserializer=answer_class.FromString,
    )
    answer = call(request, timeout=30)
    (raw,) = answer.raw_output_contents
    np.testing.assert_array_equal(np.frombuffer(raw, np.float32).reshape(2, 5), rows_of(x))


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health_check(channel: grpc.Channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
    assert answer.status == SERVING


def test_health_check_of_an_unknown_service(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=30)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("implementation", GRPC_IMPLEMENTATIONS)
def test_health_watch_tells_of_the_end(tmp_path: Path, implementation: str) -> None:
    ModelDirectory(tmp_path).add("rows", rows)
    with (
        GatewayProcess(tmp_path, grpc_impl=implementation) as gateway,
        grpc.insecure_channel(gateway.grpc_url) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=""), timeout=60
        )
        assert next(watch).status == SERVING
        gateway.stop()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_unknown_method(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/NoSuchMethod")(b"", timeout=30)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
