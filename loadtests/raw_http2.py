"""A client of HTTP/2 that sends one gRPC request over and over: cheap, and blunt where asked to be.

It compresses no headers and reads none, and sends without a look at the server's windows: that
holds for small requests, few at a time. An answer is right when its message is, byte for byte, that
of the first answer; an error has no message, so it cannot pass for one.
"""

import contextlib
import socket
import struct
from typing import Final, Self

from loadtests.payloads import Payload

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_LARGEST_WINDOW: Final = 2**31 - 1
#: The window that every connection has at first, which SETTINGS do not change.
_FIRST_WINDOW: Final = 65_535
_TIMEOUT_S: Final = 60.0


class WrongFrame(Exception):
    """The server sent what answers no call: a reset, a GOAWAY, another message, or an end."""


class RawConnection:
    """One connection; a context manager that closes it. Not for two threads at a time.

    Attributes:
        answered: calls that were answered so far.
        answer: the message of every answer, with its prefix; ``b""`` before the first one.
    """

    def __init__(self, port: int, payload: Payload, answer: bytes = b"") -> None:
        self.answered = 0
        self.answer = answer
        self._head = header_block(payload)
        self._body = payload.body
        self._next_stream = 1
        self._held = b""
        self._messages = 0
        self._unacknowledged = 0
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        widen = struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW)
        self._socket.sendall(
            PREFACE + frame(_SETTINGS, 0, 0, b"") + frame(_WINDOW_UPDATE, 0, 0, widen)
        )

    def begin(self, calls: int) -> None:
        """Send ``calls`` requests at once."""
        frames = []
        for stream in range(self._next_stream, self._next_stream + 2 * calls, 2):
            frames.append(frame(_HEADERS, _END_HEADERS, stream, self._head))
            frames.append(frame(_DATA, _END_STREAM, stream, self._body))
        self._next_stream += 2 * calls
        self._socket.sendall(b"".join(frames))

    def read(self) -> int:
        """Wait for bytes; how many calls they have answered.

        Raises:
            WrongFrame: they are no right answers.
        """
        received = self._socket.recv(1 << 18)
        if not received:
            raise WrongFrame("the server has closed the connection")
        data = self._held + received
        answered = offset = 0
        while len(data) - offset >= 9:
            end = offset + 9 + int.from_bytes(data[offset : offset + 3], "big")
            if len(data) < end:
                break
            kind, flags = data[offset + 3], data[offset + 4]
            if kind == _DATA:
                self._check(data[offset + 9 : end])
            elif kind == _HEADERS:
                answered += flags & _END_STREAM  # the trailers
            else:
                self._react(kind, flags, data[offset + 9 : end])
            offset = end
        self._held = data[offset:]
        self.answered += answered
        if self.answered > self._messages:
            raise WrongFrame("a call has ended without a message: the server refused it")
        return answered

    def finish(self, calls: int) -> None:
        """Wait until ``calls`` have been answered since the beginning."""
        while self.answered < calls:
            self.read()

    def close(self, abruptly: bool = False) -> None:
        """Close the connection, ``abruptly`` with a reset of TCP's."""
        if abruptly:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _check(self, message: bytes) -> None:
        if not self.answer:
            self.answer = message
        elif message != self.answer:
            raise WrongFrame(f"the server answers {message!r} where it answered {self.answer!r}")
        self._messages += 1
        # Half of the connection's window may pass before it is opened again.
        self._unacknowledged += len(message)
        if self._unacknowledged > _LARGEST_WINDOW // 2:
            size = struct.pack(">I", self._unacknowledged)
            self._socket.sendall(frame(_WINDOW_UPDATE, 0, 0, size))
            self._unacknowledged = 0

    def _react(self, kind: int, flags: int, payload: bytes) -> None:
        if kind in (_RST_STREAM, _GOAWAY):
            raise WrongFrame(f"the server sent a frame of type {kind} to an honest client")
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            echoed = payload if kind == _PING else b""
            self._socket.sendall(frame(kind, _ACK, 0, echoed))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def header_block(payload: Payload) -> bytes:
    """Literal fields that no table learns, in the fewest rules of HPACK."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": payload.path,
        ":authority": "127.0.0.1",
        **payload.headers,
    }
    block = b""
    for name, value in fields.items():
        block += b"\0" + _string(name.lower()) + _string(value)
    return block


def _string(text: str) -> bytes:
    if len(text) > 126:
        raise ValueError(f"{text!r} is too long for a length of one byte")
    return bytes([len(text)]) + text.encode("ascii")
