"""Content codings: gzip and deflate bodies, in both directions."""

import zlib
from functools import lru_cache
from typing import Final

from gateway.errors import MalformedRequest, RequestTooLarge

#: Bodies from this size on are worth compressing.
COMPRESS_FROM: Final = 1024
#: Up to this many uncompressed bytes the event loop does the work itself, in about a millisecond;
#: a thread does it beyond.
INLINE_BYTES: Final = 64 * 1024

#: Concatenated gzip members that one body may have.
_MAX_MEMBERS: Final = 16
#: ``wbits`` of zlib by coding, for compression.
_WBITS: Final = {b"gzip": 31, b"deflate": 15}


def decompress(coding: bytes, data: bytes, limit: int) -> bytes:
    """Undo the ``Content-Encoding`` ``coding`` of a request body.

    A deflate body may be a zlib stream, as the standard says, or a raw one, as some clients send.
    Raises ``MalformedRequest`` for an unknown coding or a broken stream, and ``RequestTooLarge``
    as soon as more than ``limit`` bytes come out, so that a small body cannot fill the memory.
    """
    name = coding.strip().lower()
    if name == b"identity":
        return data
    if name not in (b"gzip", b"x-gzip", b"deflate"):
        raise MalformedRequest(
            "Content-Encoding must be gzip, deflate or identity; "
            f"got {coding.decode('ascii', 'replace')!r}"
        )
    try:
        if name == b"deflate":
            try:
                return _inflate(data, zlib.MAX_WBITS, limit)
            except zlib.error:
                return _inflate(data, -zlib.MAX_WBITS, limit)
        return _inflate(data, 16 + zlib.MAX_WBITS, limit)
    except zlib.error as error:
        raise MalformedRequest(f"the body is not valid {name.decode()}: {error}") from None


def _inflate(data: bytes, wbits: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    # Each member copies what follows it, so their number is bounded.
    for _ in range(_MAX_MEMBERS):
        stream = zlib.decompressobj(wbits)
        # One byte more than allowed tells a body that is too large from one that just fits.
        part = stream.decompress(data, limit + 1 - size)
        parts.append(part)
        size += len(part)
        if size > limit:
            raise RequestTooLarge(
                f"the decompressed body is larger than {limit} bytes; "
                "--max-request-bytes raises the limit"
            )
        if not stream.eof:
            raise zlib.error("the stream is truncated")
        data = stream.unused_data
        if not data:
            return b"".join(parts)
    raise zlib.error(f"more than {_MAX_MEMBERS} members")


@lru_cache(maxsize=256)
def choose_coding(accept: bytes) -> bytes | None:
    """Return the coding to answer in by the ``Accept-Encoding`` ``accept``; ``None`` for none."""
    accepted: dict[bytes, float] = {}
    for item in accept.lower().split(b","):
        name, _, parameter = item.partition(b";")
        key, _, value = parameter.partition(b"=")
        try:
            quality = float(value) if key.strip() == b"q" else 1.0
        except ValueError:
            quality = 0.0
        accepted[name.strip()] = quality
    best = max(_WBITS, key=lambda coding: accepted.get(coding, 0.0))
    return best if accepted.get(best, 0.0) > 0 else None


def compress(coding: bytes, data: bytes) -> bytes:
    """Apply ``coding``, one that ``choose_coding`` gave, at the fastest level."""
    return zlib.compress(data, 1, _WBITS[coding])
