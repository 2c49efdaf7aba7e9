"""Bytes to a port and what comes back, with nothing in between that would keep a rule."""

import errno
import select
import socket

from tests.server import HOST


def exchange(port: int, data: bytes, *, patience_s: float = 0.05, timeout_s: float = 20.0) -> bytes:
    """Send ``data`` and return all that the server says before it closes.

    Where it says nothing for ``patience_s`` it is told that no more comes (a half-close).
    Raises ``TimeoutError`` where the server then neither answers nor closes.
    """
    received = []
    with socket.create_connection((HOST, port), timeout_s) as connection:
        try:
            connection.sendall(data)
            readable, _, _ = select.select([connection], [], [], patience_s)
            if not readable:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(1 << 16):
                received.append(chunk)
                if not select.select([connection], [], [], patience_s)[0]:
                    connection.shutdown(socket.SHUT_WR)
        except (ConnectionResetError, BrokenPipeError):
            pass  # it had enough before all was said
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
    return b"".join(received)


def ask(port: int, request: bytes, timeout_s: float = 20.0) -> bytes:
    """Send a request that is whole and asks for the connection to be closed; its answer."""
    return exchange(port, request, patience_s=timeout_s, timeout_s=timeout_s)


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """An HTTP request; ``length`` is what Content-Length says where that is not the truth."""
    told = len(body) if length is None else length
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: gateway",
        "Connection: close",
        f"Content-Length: {told}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status_of(answer: bytes) -> int:
    """The status of an HTTP answer, 0 where there is none."""
    parts = answer.split(b" ", 2)
    return int(parts[1]) if len(parts) > 1 and parts[0].startswith(b"HTTP/1.") else 0
