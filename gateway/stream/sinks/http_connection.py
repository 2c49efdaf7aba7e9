"""One HTTP/1.1 connection that posts, sending and receiving apart, so that several go at once."""

import socket
import ssl
import time
from typing import Any, Final
from urllib.parse import SplitResult

import httptools

#: Bytes read from a connection at once; answers are small.
_READ: Final = 64 << 10
#: Most bytes of an answer: it is read to its end and thrown away.
_MOST: Final = 1 << 20


class _Answer:
    """What the parser tells of an answer."""

    def __init__(self) -> None:
        self.done = False
        self.retry_after = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value.decode("latin-1")

    def on_message_complete(self) -> None:
        self.done = True


class HttpConnection:
    """Opens itself when needed. Every error is an ``OSError``, after which it is closed.

    Args:
        address: the URL's parts.
        tls: for ``https``.
    """

    def __init__(self, address: SplitResult, tls: ssl.SSLContext | None) -> None:
        self._host: Final = address.hostname or ""
        self._port: Final = address.port or (80 if tls is None else 443)
        self._tls: Final = tls
        self._socket: socket.socket | None = None
        self._used = False
        self._sent = b""

    def send(self, request: bytes, deadline: float) -> None:
        """Send a whole request; one answer must be received before the next."""
        if self._socket is not None and self._is_stale():
            self.close()
        try:
            if self._socket is None:
                self._open(deadline)
            self._send(request, deadline)
        except OSError:
            self.close()
            raise
        self._sent = request

    def receive(self, deadline: float) -> tuple[int, str]:
        """The answer's status and its ``Retry-After``, ``""`` where it has none."""
        try:
            try:
                return self._receive(deadline)
            except ConnectionError:
                if not self._used:
                    raise
            # It was open from before, and was closed as we sent: what a server may do with one
            # that was idle. The receiver may have it twice.
            self.close()
            self._open(deadline)
            self._send(self._sent, deadline)
            return self._receive(deadline)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close it; ``send`` opens it again."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._used = False

    def _open(self, deadline: float) -> None:
        plain = socket.create_connection((self._host, self._port), _rest(deadline))
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.settimeout(_rest(deadline))
            self._socket = (
                plain
                if self._tls is None
                else self._tls.wrap_socket(plain, server_hostname=self._host)
            )
        except BaseException:
            plain.close()
            raise
        self._used = False

    def _is_stale(self) -> bool:
        """Whether the other side has closed, or sent what nobody asked for."""
        assert self._socket is not None
        self._socket.settimeout(0)
        try:
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            pass
        return True

    def _send(self, data: bytes, deadline: float) -> None:
        assert self._socket is not None
        self._socket.settimeout(_rest(deadline))
        self._socket.sendall(data)

    def _receive(self, deadline: float) -> tuple[int, str]:
        assert self._socket is not None
        answer = _Answer()
        parser: Any = httptools.HttpResponseParser(answer)
        taken = 0
        while not answer.done:
            self._socket.settimeout(_rest(deadline))
            data = self._socket.recv(_READ)
            taken += len(data)
            if not data:
                raise ConnectionResetError("the connection was closed before an answer came")
            if taken > _MOST:
                raise OSError(f"the answer has more than {_MOST} bytes")
            try:
                parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise OSError(f"the answer is not HTTP/1.1: {error}") from None
        self._used = True
        if not parser.should_keep_alive():
            self.close()
        return parser.get_status_code(), answer.retry_after


def _rest(deadline: float) -> float:
    """Seconds until ``deadline``; never 0, which would mean not to wait at all."""
    rest = deadline - time.monotonic()
    if rest <= 0:
        raise TimeoutError("there was no answer in time")
    return rest
