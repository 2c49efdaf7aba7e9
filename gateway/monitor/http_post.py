"""Posts a body to an address, over the standard library alone. Blocks: for a thread."""

import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from gateway.errors import ConfigError

#: Seconds that a connection may take.
CONNECT_S: Final = 5.0
#: Bytes of an answer that are read; the rest is dropped with its connection.
MAX_ANSWER_BYTES: Final = 4096
#: Statuses after which the same request may well succeed later.
_PASSING: Final = frozenset((408, 425, 429, 500, 502, 503, 504))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a POST.

    Attributes:
        status: of HTTP; 0 where there was no answer.
        text: the answer's first characters, or what kept it from coming.
        retry_after_s: what the receiver asked to wait, ``None`` where it did not.
    """

    status: int
    text: str
    retry_after_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the receiver took it."""
        return 200 <= self.status < 300

    @property
    def may_succeed_later(self) -> bool:
        """Whether it makes sense to try again."""
        return self.status == 0 or self.status in _PASSING

    def __str__(self) -> str:
        if not self.status:
            return self.text
        if 300 <= self.status < 400:
            return f"status {self.status}: redirects are not followed; give the final address"
        return f"status {self.status}" + (f": {self.text}" if self.text else "")


class Address:
    """Where to post to: an ``http`` or ``https`` URL, checked once."""

    def __init__(self, url: str, where: str) -> None:
        """Raises ``ConfigError``, beginning with ``where``, for what is no such URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{where} is no URL: {error}") from None
        # The URL itself is not shown: it may be the secret.
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii():
            raise ConfigError(f"{where} must be an http or https URL, in ASCII")
        if parts.username is not None:
            raise ConfigError(f"{where} has a name or password in it: use headers instead")
        if any(c <= " " or c == "\x7f" for c in url):
            raise ConfigError(f"{where} has a space or control character in it")
        self._secure: Final = parts.scheme == "https"
        self._host: Final = parts.hostname
        self._port: Final = port
        self._exchange: tuple[HTTPConnection, threading.Event] | None = None
        self._target: Final = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def __str__(self) -> str:
        """Without path and query, which may hold a secret."""
        port = f":{self._port}" if self._port else ""
        return f"{'https' if self._secure else 'http'}://{self._host}{port}"

    def post(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer:
        """Post ``body``; never raises for what the network or the receiver does.

        It takes at most ``CONNECT_S`` or ``timeout_s`` to connect, and ``timeout_s`` for the
        answer, however slowly that drips. One at a time.
        """
        connect_s = min(timeout_s, CONNECT_S)
        connection = (
            HTTPSConnection(
                self._host, self._port, timeout=connect_s, context=ssl.create_default_context()
            )
            if self._secure
            else HTTPConnection(self._host, self._port, timeout=connect_s)
        )
        late = threading.Event()
        watch = threading.Timer(timeout_s, _cut, (connection, late))
        watch.daemon = True
        self._exchange = (connection, late)
        try:
            connection.connect()
            connection.sock.settimeout(timeout_s)
            watch.start()
            connection.request("POST", self._target, body, dict(headers))
            response = connection.getresponse()
            text = response.read(MAX_ANSWER_BYTES).decode("utf-8", "replace").strip()
            wait = _seconds(response.headers.get("Retry-After", ""))
            if not late.is_set():
                return Answer(status=response.status, text=text, retry_after_s=wait)
        except TimeoutError:
            late.set()
        except (OSError, HTTPException, ValueError) as error:
            # A socket that is cut within TLS fails in ways of its own.
            if not late.is_set():
                told = str(error) or type(error).__name__
                return Answer(status=0, text=f"no answer from {self}: {told}")
        finally:
            self._exchange = None
            watch.cancel()
            connection.close()
        return Answer(status=0, text=f"no answer from {self} within {timeout_s:g} s")

    def abort(self) -> None:
        """Wait for no answer any more; for another thread than the one that posts."""
        if (exchange := self._exchange) is not None:
            _cut(*exchange)


def _cut(connection: HTTPConnection, late: threading.Event) -> None:
    """End an exchange that takes too long, from another thread than the one that waits for it."""
    late.set()
    sock = connection.sock
    if sock is not None:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _seconds(text: str) -> float | None:
    """What a ``Retry-After`` asks for: seconds, or a date."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
