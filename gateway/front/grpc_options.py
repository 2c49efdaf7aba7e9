"""What a gRPC front is told: where to listen, with which certificates, and its limits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files.

    Attributes:
        certificate: the server's certificate, and those that it was signed with up to the root.
        key: the certificate's private key, without a password.
        client_ca: the certificates that a client's own must be signed with; ``""`` asks clients
            for none.
    """

    certificate: str
    key: str
    client_ca: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcOptions:
    """The options of a gRPC front; the defaults are those of the settings.

    Attributes:
        host: a name or address to listen on, IPv6 without brackets.
        port: the port, 0 for any free one.
        unix_socket: path of a unix socket to listen on besides, ``""`` for none.
        tls: what the port and the unix socket speak TLS with, ``None`` for plain text.
        max_message_bytes: the largest request message, decompressed.
        max_metadata_bytes: the largest metadata of a request, as HTTP/2 counts header lists.
        max_concurrent_streams: open calls that one connection may have.
        keepalive_time_s: how long a connection may be silent before it is pinged.
        keepalive_timeout_s: how long the answer to that ping may take before the connection is
            closed.
        read_timeout_s: how long the head of a call may take, and how long a message that has
            begun may pause; grpcio's server does not know this.
        access_log: whether each call is logged to ``gateway.access``, one line when it ends.
    """

    host: str
    port: int
    unix_socket: str = ""
    tls: TlsFiles | None = None
    max_message_bytes: int = 256 << 20
    max_metadata_bytes: int = 64 << 10
    max_concurrent_streams: int = 1024
    keepalive_time_s: float = 7200.0
    keepalive_timeout_s: float = 20.0
    read_timeout_s: float = 60.0
    access_log: bool = False
