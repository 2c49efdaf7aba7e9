"""Whole HTTP/1.1 responses as bytes, from heads that are rendered once a second."""

from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import orjson

from gateway.errors import GatewayError, Unavailable
from gateway.front.status import status_of
from gateway.front.wire_json import Buffer

_CLOSE: Final = b"connection: close\r\n"
#: Said to clients that asked for it: an HTTP/1.0 one takes silence for a close.
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n"

#: Starts of responses that are kept within a second, and the longest document that is.
_MAX_STARTS: Final = 512
_MAX_START_BYTES: Final = 2048


class ResponseHeads:
    """Renders responses that carry the current date; ``tick`` it once a second."""

    __slots__ = ("_binary", "_json", "_starts", "date")

    def __init__(self) -> None:
        self._starts: dict[bytes, bytes] = {}
        self.tick()

    def tick(self) -> None:
        """Take the current time into the ``Date`` header."""
        self.date = formatdate(usegmt=True).encode()
        self._starts.clear()
        head = b"HTTP/1.1 200 OK\r\ndate: " + self.date + b"\r\ncontent-type: application/"
        self._json = head + b"json\r\n"
        self._binary = head + b"octet-stream\r\ninference-header-content-length: "

    def plain_inference(self, document: bytes, buffers: Sequence[Buffer]) -> bytes:
        """The response of ``document`` and the binary tensors after it, without ``Connection``.

        The sizes of all tensors are in the document, so all that comes before them depends on it
        alone and is kept for as long as the date is right.
        """
        if not buffers:
            return b"%bcontent-length: %d\r\n\r\n%b" % (self._json, len(document), document)
        start = self._starts.get(document)
        if start is None:
            start = self._binary_start(document, buffers, b"")
            if len(self._starts) < _MAX_STARTS and len(document) <= _MAX_START_BYTES:
                self._starts[document] = start
        return b"".join((start, *buffers))  # type: ignore[arg-type]  # an array is a buffer

    def inference(self, document: bytes, buffers: Sequence[Buffer], keep_alive: bool) -> bytes:
        """As ``plain_inference``, with a ``Connection`` header."""
        connection = _KEEP_ALIVE if keep_alive else _CLOSE
        if not buffers:
            return b"%b%bcontent-length: %d\r\n\r\n%b" % (
                self._json, connection, len(document), document,
            )  # fmt: skip
        start = self._binary_start(document, buffers, connection)
        return b"".join((start, *buffers))  # type: ignore[arg-type]

    def _binary_start(self, document: bytes, buffers: Sequence[Buffer], connection: bytes) -> bytes:
        total = len(document)
        for buffer in buffers:
            total += len(buffer) if isinstance(buffer, bytes) else buffer.nbytes
        return b"%b%d\r\n%bcontent-length: %d\r\n\r\n%b" % (
            self._binary, len(document), connection, total, document,
        )  # fmt: skip

    def encoded(
        self, coding: bytes, header_length: int | None, body: bytes, keep_alive: bool
    ) -> bytes:
        """The response whose ``body`` has the content coding ``coding``.

        ``header_length`` is the JSON document's size before compression, ``None`` for a response
        without binary tensors.
        """
        head = self._json if header_length is None else b"%b%d\r\n" % (self._binary, header_length)
        connection = _KEEP_ALIVE if keep_alive else _CLOSE
        return b"%b%bcontent-encoding: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            head, connection, coding, len(body), body,
        )  # fmt: skip

    def error(self, error: GatewayError, keep_alive: bool, status: int | None = None) -> bytes:
        """The response that tells ``error``; ``status`` where HTTP has one of its own for it."""
        if status is None:
            status, _ = status_of(error)
        body = error_body(error)
        phrase = HTTPStatus(status).phrase if status != 499 else "Client Closed Request"
        retry = b""
        if isinstance(error, Unavailable) and error.retry_after_s is not None:
            retry = b"retry-after: " + retry_after(error.retry_after_s) + b"\r\n"
        return (
            b"HTTP/1.1 %d %b\r\ndate: %b\r\ncontent-type: application/json\r\n%b%b"
            b"content-length: %d\r\n\r\n%b"
            % (
                status,
                phrase.encode(),
                self.date,
                retry,
                _KEEP_ALIVE if keep_alive else _CLOSE,
                len(body),
                body,
            )
        )


def error_body(error: GatewayError) -> bytes:
    """The JSON document that tells ``error``."""
    return orjson.dumps({"error": str(error).encode("utf-8", "replace").decode()})


def retry_after(seconds: float) -> bytes:
    """``seconds`` as a ``Retry-After`` value: whole seconds, at least one."""
    return b"%d" % max(1, -int(-seconds // 1))
