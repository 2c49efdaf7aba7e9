"""The protocol's messages: the wire contract, and a pool that leaves others' alone."""

import subprocess
import sys
from textwrap import dedent

import pytest

from gateway.protos import PACKAGE, POOL, SERVICE, message


def described(field):
    """All of a field that the wire and generated code depend on."""
    nested = field.message_type or field.enum_type
    return (
        field.number,
        field.type,
        field.is_repeated,
        nested.full_name if nested else None,
        field.containing_oneof.name if field.containing_oneof else None,
    )


def every_message(descriptors):
    for descriptor in descriptors:
        yield descriptor
        yield from every_message(descriptor.nested_types)


@pytest.fixture(scope="module")
def clients_files():
    """The descriptors that tritonclient carries."""
    from tritonclient.grpc import model_config_pb2, service_pb2

    return [service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR]


def test_every_message_and_field_is_the_clients(clients_files):
    for file in clients_files:
        for theirs in every_message(file.message_types_by_name.values()):
            ours = POOL.FindMessageTypeByName(theirs.full_name)
            assert {field.name: described(field) for field in ours.fields} == {
                field.name: described(field) for field in theirs.fields
            }, theirs.full_name
            assert {enum.name: enum.values_by_name.keys() for enum in ours.enum_types} == {
                enum.name: enum.values_by_name.keys() for enum in theirs.enum_types
            }
            for enum in theirs.enum_types:
                assert_same_enum(ours.enum_types_by_name[enum.name], enum)


def assert_same_enum(ours, theirs) -> None:
    numbers = {value.name: value.number for value in ours.values}
    assert numbers == {value.name: value.number for value in theirs.values}


def test_every_enum_is_the_clients(clients_files):
    enums = [enum for file in clients_files for enum in file.enum_types_by_name.values()]
    assert enums
    for theirs in enums:
        assert_same_enum(POOL.FindEnumTypeByName(theirs.full_name), theirs)


def test_there_is_nothing_that_the_client_does_not_have(clients_files):
    theirs = {
        descriptor.full_name
        for file in clients_files
        for descriptor in every_message(file.message_types_by_name.values())
    }
    ours = {
        descriptor.full_name
        for name in ("inference.proto", "model_config.proto")
        for descriptor in every_message(POOL.FindFileByName(name).message_types_by_name.values())
    }
    assert ours == theirs


def test_every_rpc_is_the_clients(clients_files):
    def described_methods(service):
        return {
            method.name: (
                method.input_type.full_name,
                method.output_type.full_name,
                method.client_streaming,
                method.server_streaming,
            )
            for method in service.methods
        }

    theirs = clients_files[0].services_by_name["GRPCInferenceService"]
    assert described_methods(POOL.FindServiceByName(SERVICE)) == described_methods(theirs)


def test_an_unknown_message_is_a_key_error():
    with pytest.raises(KeyError, match=f"{PACKAGE}.Nonsense"):
        message("Nonsense")


# tritonclient's gRPC client and kserve cannot be imported together: both register the protocol's
# symbols in protobuf's default pool. Each gets a process of its own, shared with the gateway.
@pytest.mark.parametrize(
    "client",
    [
        """
        from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse
        """,
        """
        from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest, ModelInferResponse
        """,
    ],
    ids=["tritonclient", "kserve"],
)
@pytest.mark.parametrize("gateway_first", [True, False])
def test_the_gateway_and_a_client_share_a_process(client, gateway_first):
    gateway = """
        from gateway.protos import message
        from gateway._native.oip_decode import decode_infer_request
        from gateway._native.oip_encode import encode_infer_response
        """
    use = """
        theirs = ModelInferRequest(model_name="m", id="7")
        data = theirs.SerializeToString()
        assert decode_infer_request(data)[:3] == ("m", "", "7")
        assert message("ModelInferRequest").FromString(data).id == "7"
        answer = ModelInferResponse.FromString(encode_infer_response("m", "1", "7", None, []))
        assert (answer.model_version, answer.id) == ("1", "7")
        """
    parts = [gateway, client] if gateway_first else [client, gateway]
    program = "\n".join(dedent(part) for part in [*parts, use])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
