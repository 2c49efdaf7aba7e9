"""Certificates for tests of TLS: an authority, and what it has signed."""

from dataclasses import dataclass
from pathlib import Path

import grpc
import trustme


@dataclass(frozen=True)
class Pair:
    """PEM files of a certificate and its private key."""

    certificate: Path
    key: Path


class Certificates:
    """An authority for ``127.0.0.1`` and ``localhost``, in files of ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = directory / "authority.pem"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(self.authority)
        self.server = self.issue("server", "127.0.0.1", "localhost")

    def issue(self, file_name: str, *names: str) -> Pair:
        """A certificate for ``names``, of a server or a client."""
        pair = Pair(self.directory / f"{file_name}.pem", self.directory / f"{file_name}-key.pem")
        issued = self._authority.issue_cert(*names)
        issued.private_key_pem.write_to_path(pair.key)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        pair.certificate.write_bytes(chain)
        return pair

    def credentials(self, client: Pair | None = None) -> grpc.ChannelCredentials:
        """Of a gRPC client that trusts this authority, and shows ``client`` when asked."""
        root = self.authority.read_bytes()
        if client is None:
            return grpc.ssl_channel_credentials(root)
        return grpc.ssl_channel_credentials(
            root, client.key.read_bytes(), client.certificate.read_bytes()
        )
