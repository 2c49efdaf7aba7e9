"""Bytes to a port and what comes back, with nothing in between that would keep a rule."""

import socket

from tests.server import HOST


def exchange(port: int, data: bytes, timeout_s: float = 20.0) -> bytes:
    """Send ``data``, say that no more comes, and return all that the server says before it closes.

    Raises ``TimeoutError`` where the server neither answers nor closes.
    """
    received = []
    with socket.create_connection((HOST, port), timeout_s) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(1 << 16):
                received.append(chunk)
        except (ConnectionResetError, BrokenPipeError):
            pass  # it had enough before all was said
    return b"".join(received)


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
