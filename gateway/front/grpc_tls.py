"""TLS for gRPC: the configured files proved and read before the server listens."""

import ssl

from gateway.errors import StartupError
from gateway.front.grpc_options import TlsFiles


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """What a server of HTTP/2 speaks TLS with, by ALPN; clients are asked for a certificate where
    ``files`` names their CA.

    Raises ``StartupError`` where a file cannot be read or is not what its setting says.
    """
    read_file(files.certificate, "--grpc-tls-certificate")
    read_file(files.key, "--grpc-tls-key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        # The empty password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except ssl.SSLError as error:
        raise StartupError(
            f"--grpc-tls-certificate {files.certificate} and --grpc-tls-key {files.key} must be a "
            f"certificate and its private key without a password, as PEM: {error}"
        ) from None
    if files.client_ca:
        read_file(files.client_ca, "--grpc-tls-client-ca")
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as error:
            raise StartupError(
                f"--grpc-tls-client-ca {files.client_ca} must be certificates as PEM: {error}"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def read_file(path: str, option: str) -> bytes:
    """The bytes of the file that ``option`` names. Raises ``StartupError`` where there are none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise StartupError(f"{option}: cannot read {path}: {error.strerror}") from None
