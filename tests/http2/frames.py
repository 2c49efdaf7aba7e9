"""HTTP/2's frames (RFC 9113, sections 4 and 6) as bytes, the wrong ones too."""

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_SIZE = 16_384

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20


class Type(IntEnum):
    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


class Code(IntEnum):
    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class Frame(NamedTuple):
    type: int
    flags: int
    stream: int
    payload: bytes

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)

    def __repr__(self) -> str:
        name = Type(self.type).name if self.type in iter(Type) else f"type {self.type:#x}"
        return f"<{name} flags={self.flags:#x} stream={self.stream} {len(self.payload)} octets>"


def frame(type: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return head(len(payload), type, flags, stream) + payload


def head(length: int, type: int, flags: int = 0, stream: int = 0) -> bytes:
    """A frame's first 9 octets. ``stream`` with its highest bit set has the reserved bit set."""
    return struct.pack(">BHBBI", length >> 16, length & 0xFFFF, type, flags, stream)


def data(stream: int, payload: bytes = b"", *, end: bool = False, pad: int | None = None) -> bytes:
    flags = (END_STREAM if end else 0) | (0 if pad is None else PADDED)
    return frame(Type.DATA, flags, stream, padded(payload, pad))


def headers(
    stream: int,
    block: bytes,
    *,
    end: bool = False,
    end_headers: bool = True,
    pad: int | None = None,
    priority: bytes = b"",
) -> bytes:
    """``priority`` is what ``dependency`` gives."""
    flags = (
        (END_STREAM if end else 0)
        | (END_HEADERS if end_headers else 0)
        | (0 if pad is None else PADDED)
        | (PRIORITIZED if priority else 0)
    )
    return frame(Type.HEADERS, flags, stream, padded(priority + block, pad))


def padded(payload: bytes, pad: int | None) -> bytes:
    return payload if pad is None else bytes([pad]) + payload + bytes(pad)


def continuation(stream: int, block: bytes = b"", *, end_headers: bool = True) -> bytes:
    return frame(Type.CONTINUATION, END_HEADERS if end_headers else 0, stream, block)


def dependency(on: int, *, weight: int = 15, exclusive: bool = False) -> bytes:
    return struct.pack(">IB", on | (1 << 31 if exclusive else 0), weight)


def priority(stream: int, on: int = 0) -> bytes:
    return frame(Type.PRIORITY, 0, stream, dependency(on))


def rst_stream(stream: int, code: int = Code.CANCEL) -> bytes:
    return frame(Type.RST_STREAM, 0, stream, struct.pack(">I", code))


def settings(values: Mapping[int, int] | None = None, *, ack: bool = False) -> bytes:
    payload = b"".join(struct.pack(">HI", *item) for item in (values or {}).items())
    return frame(Type.SETTINGS, ACK if ack else 0, 0, payload)


def push_promise(stream: int, promised: int, block: bytes) -> bytes:
    return frame(Type.PUSH_PROMISE, END_HEADERS, stream, struct.pack(">I", promised) + block)


def ping(opaque: bytes = b"\0" * 8, *, ack: bool = False) -> bytes:
    return frame(Type.PING, ACK if ack else 0, 0, opaque)


def goaway(last: int = 0, code: int = Code.NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(Type.GOAWAY, 0, 0, struct.pack(">II", last, code) + debug)


def window_update(stream: int, increment: int) -> bytes:
    return frame(Type.WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))
