"""A client of HTTP/2 that sends one gRPC request over and over: cheap, and blunt where asked to be.

It compresses no headers and reads none, and sends without a look at the server's windows: that
holds for small requests, few at a time. An error is known by its lack of a message; to
``RawConnection`` an answer is right when its message is, byte for byte, that of the first one.
"""

import contextlib
import socket
import struct
from typing import Final, Self

from loadtests.payloads import Payload

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_LARGEST_WINDOW: Final = 2**31 - 1
#: The window that every connection has at first, which SETTINGS do not change.
_FIRST_WINDOW: Final = 65_535
_TIMEOUT_S: Final = 60.0


class WrongFrame(Exception):
    """The server sent what answers no call: a reset, a GOAWAY, another message, or an end."""


class CallStream:
    """The client's end of one connection, as bytes: calls out, answers in, in any order."""

    def __init__(self, payload: Payload) -> None:
        self._head = _header_block(payload)
        self._body = payload.body
        self._next_stream = 1
        self._held = b""
        self._messages: dict[int, bytes] = {}
        self._unacknowledged = 0

    def preface(self) -> bytes:
        """What a connection begins with."""
        widen = struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW)
        return _PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_WINDOW_UPDATE, 0, 0, widen)

    def call(self, body: bytes = b"") -> tuple[int, bytes]:
        """The stream of another call, and its frames; its body is the payload's for ``b""``."""
        stream = self._next_stream
        self._next_stream += 2
        return stream, _call_frames(stream, self._head, body or self._body)

    def receive(self, data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
        """Each call that ``data`` ends, with its message, and the frames to send in return.

        The message is without its prefix; ``b""`` where the call failed.

        Raises:
            WrongFrame: the server refuses the connection.
        """
        ended: list[tuple[int, bytes]] = []
        reply = b""
        data = self._held + data
        offset = 0
        while len(data) - offset >= 9:
            end = offset + 9 + int.from_bytes(data[offset : offset + 3], "big")
            if len(data) < end:
                break
            kind, flags = data[offset + 3], data[offset + 4]
            stream = int.from_bytes(data[offset + 5 : offset + 9], "big")
            content = data[offset + 9 : end]
            if kind == _DATA:
                self._messages[stream] = self._messages.get(stream, b"") + content
                self._unacknowledged += len(content)
            elif kind == _HEADERS and flags & _END_STREAM:
                ended.append((stream, self._messages.pop(stream, b"")[5:]))
            elif kind == _RST_STREAM:
                self._messages.pop(stream, None)
                ended.append((stream, b""))
            elif kind == _GOAWAY:
                raise WrongFrame(f"the server ends the connection: {content!r}")
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                reply += _frame(kind, _ACK, 0, content if kind == _PING else b"")
            offset = end
        self._held = data[offset:]
        if self._unacknowledged > _LARGEST_WINDOW // 2:
            size = struct.pack(">I", self._unacknowledged)
            reply += _frame(_WINDOW_UPDATE, 0, 0, size)
            self._unacknowledged = 0
        return ended, reply


class RawConnection:
    """One connection; a context manager that closes it. Not for two threads at a time.

    Attributes:
        answered: calls that were answered so far.
        answer: the message of every answer; ``b""`` before the first one.
    """

    def __init__(self, port: int, payload: Payload, answer: bytes = b"") -> None:
        self.answered = 0
        self.answer = answer
        self._calls = CallStream(payload)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(self._calls.preface())

    def begin(self, calls: int) -> None:
        """Send ``calls`` requests at once."""
        self._socket.sendall(b"".join(self._calls.call()[1] for _ in range(calls)))

    def read(self) -> int:
        """Wait for bytes; how many calls they have answered.

        Raises:
            WrongFrame: they are no right answers.
        """
        received = self._socket.recv(1 << 18)
        if not received:
            raise WrongFrame("the server has closed the connection")
        ended, reply = self._calls.receive(received)
        if reply:
            self._socket.sendall(reply)
        for _, message in ended:
            self._check(message)
        self.answered += len(ended)
        return len(ended)

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
        if not message:
            raise WrongFrame("a call has ended without a message: the server refused it")
        if not self.answer:
            self.answer = message
        elif message != self.answer:
            raise WrongFrame(f"the server answers {message!r} where it answered {self.answer!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _call_frames(stream: int, head: bytes, body: bytes) -> bytes:
    return _frame(_HEADERS, _END_HEADERS, stream, head) + _frame(_DATA, _END_STREAM, stream, body)


def _header_block(payload: Payload) -> bytes:
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
