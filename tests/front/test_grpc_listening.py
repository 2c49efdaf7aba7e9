"""Where a gRPC front listens: a port, a unix socket, with TLS or without; and what it refuses."""

import socket
import ssl
import subprocess
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.errors import StartupError
from gateway.front.grpc_options import TlsFiles
from tests.certificates import Certificates, Pair
from tests.front.grpc_server import HOST, running


def assert_served(channel):
    """It infers: 400 kB there and back."""
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.inputs.add(name="x", datatype="FP32", shape=[100_000])
    request.raw_input_contents.append(bytes(400_000))
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    assert stub.ModelInfer(request, timeout=30).raw_output_contents[0] == bytes(400_000)


def assert_unreachable(channel):
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=30)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def assert_does_not_start(implementation, said, **options):
    with pytest.raises(StartupError, match=said), running(implementation, **options):
        pass


def test_a_taken_port_ends_the_start_with_a_message(implementation):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert_does_not_start(implementation, f"{port}.*--grpc-port", port=port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_given_without_brackets(implementation):
    with (
        running(implementation, host="::1") as server,
        grpc.insecure_channel(f"[::1]:{server.front.port}") as channel,
    ):
        assert_served(channel)


# -- unix sockets -------------------------------------------------------------------------------


def left_behind(path: Path) -> None:
    """A socket file that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))


@pytest.mark.parametrize("leave", [lambda path: None, left_behind], ids=["new", "left behind"])
def test_a_unix_socket_is_served_besides_the_port(implementation, tmp_path, leave):
    path = tmp_path / "gateway.sock"
    leave(path)
    with running(implementation, unix_socket=str(path)) as server:
        for address in (f"unix:{path}", server.url):
            with grpc.insecure_channel(address) as channel:
                assert_served(channel)
    assert not path.exists()


def test_the_unix_socket_of_another_server_is_left_alone(implementation, tmp_path):
    path = tmp_path / "gateway.sock"
    with running(implementation, unix_socket=str(path)):
        said = "--grpc-unix-socket: another server listens on .*gateway.sock"
        assert_does_not_start(implementation, said, unix_socket=str(path))
        with grpc.insecure_channel(f"unix:{path}") as channel:
            assert_served(channel)


def test_a_file_that_is_no_socket_is_left_alone(implementation, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("keep me")
    said = "--grpc-unix-socket: .*notes.txt is there and is no socket"
    assert_does_not_start(implementation, said, unix_socket=str(path))
    assert path.read_text() == "keep me"


@pytest.mark.parametrize("name", ["nowhere/gateway.sock", "x" * 200], ids=["missing", "long"])
def test_a_path_that_cannot_be_had_ends_the_start_with_a_message(implementation, tmp_path, name):
    path = tmp_path / name
    assert_does_not_start(implementation, "--grpc-unix-socket", unix_socket=str(path))


# -- TLS ----------------------------------------------------------------------------------------


def tls_files(certificates: Certificates, **other: object) -> TlsFiles:
    pair = certificates.server
    files = {"certificate": pair.certificate, "key": pair.key, **other}
    return TlsFiles(**{name: str(path) for name, path in files.items()})


@pytest.fixture
def strangers(tmp_path) -> Certificates:
    """Another authority, which nobody here trusts."""
    return Certificates(tmp_path)


def test_tls_is_spoken_with_who_trusts_the_certificate(implementation, certificates, strangers):
    with running(implementation, tls=tls_files(certificates)) as server:
        with grpc.secure_channel(server.url, certificates.credentials()) as channel:
            assert_served(channel)
        with grpc.secure_channel(server.url, strangers.credentials()) as channel:
            assert_unreachable(channel)
        with grpc.insecure_channel(server.url) as channel:
            assert_unreachable(channel)
        with grpc.secure_channel(server.url, certificates.credentials()) as channel:
            assert_served(channel)


def test_tls_agrees_on_http2_by_alpn(implementation, certificates):
    context = ssl.create_default_context(cafile=certificates.authority)
    context.set_alpn_protocols(["http/1.1", "h2"])
    with (
        running(implementation, tls=tls_files(certificates)) as server,
        socket.create_connection((HOST, server.front.port), 30) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"


def test_clients_need_a_certificate_where_their_authority_is_named(
    implementation, certificates, strangers
):
    known = certificates.issue("client", "client.example")
    unknown = strangers.issue("client", "client.example")
    tls = tls_files(certificates, client_ca=certificates.authority)
    with running(implementation, tls=tls) as server:
        with grpc.secure_channel(server.url, certificates.credentials(known)) as channel:
            assert_served(channel)
        for pair in (None, unknown):
            with grpc.secure_channel(server.url, certificates.credentials(pair)) as channel:
                assert_unreachable(channel)


def test_the_unix_socket_speaks_tls_where_the_port_does(implementation, certificates, tmp_path):
    address = f"unix:{tmp_path / 'gateway.sock'}"
    named = [("grpc.ssl_target_name_override", "localhost")]
    with running(
        implementation, tls=tls_files(certificates), unix_socket=str(tmp_path / "gateway.sock")
    ):
        with grpc.secure_channel(address, certificates.credentials(), named) as channel:
            assert_served(channel)
        with grpc.insecure_channel(address) as channel:
            assert_unreachable(channel)


def encrypted(pair: Pair, directory: Path) -> Path:
    """The private key of ``pair`` behind a password."""
    path = directory / "encrypted.pem"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", pair.key, "-out", path, "-passout", "pass:secret"],
        check=True, capture_output=True,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("file", ["certificate", "key", "client_ca"])
def test_a_missing_file_is_named_with_its_setting(implementation, certificates, file):
    tls = tls_files(certificates, **{file: "/nowhere.pem"})
    option = f"--grpc-tls-{file.replace('_', '-')}"
    assert_does_not_start(implementation, f"{option}: cannot read /nowhere.pem: No such", tls=tls)


@pytest.mark.parametrize("file", ["certificate", "key", "client_ca"])
def test_a_file_that_is_no_pem_is_named_with_its_setting(
    implementation, certificates, tmp_path, file
):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("-----BEGIN PEACE-----\n")
    tls = tls_files(certificates, **{file: wrong})
    option = f"--grpc-tls-{file.replace('_', '-')}"
    assert_does_not_start(implementation, f"{option} .*wrong.pem .*as PEM", tls=tls)


def test_a_key_of_another_certificate_is_refused(implementation, certificates, strangers):
    tls = tls_files(certificates, key=strangers.server.key)
    assert_does_not_start(implementation, "--grpc-tls-key .*key values mismatch", tls=tls)


def test_a_key_behind_a_password_is_refused_without_asking_for_it(
    implementation, certificates, tmp_path
):
    tls = tls_files(certificates, key=encrypted(certificates.server, tmp_path))
    assert_does_not_start(implementation, "--grpc-tls-key .*without a password", tls=tls)
