"""Metadata between its two forms: HTTP/2's fields, and the pairs that handlers know.

As the document "gRPC over HTTP2" of the gRPC project has it: the values of keys that end with
``-bin`` are bytes, and travel in base64.
"""

import base64
import binascii
from typing import TYPE_CHECKING, Final

from gateway.front.grpc_calls import Metadata

if TYPE_CHECKING:
    from gateway._native.http2_fields import RequestHead

_BINARY: Final = "-bin"


def decode_metadata(head: "RequestHead") -> Metadata:
    """What a caller sent with its call; a ``-bin`` value that is no base64 is left out."""
    pairs: list[tuple[str, str | bytes]] = []
    for name, value in head.metadata():
        key = name.decode("ascii")
        if not key.endswith(_BINARY):
            pairs.append((key, value.decode("latin-1")))
            continue
        # Several values may have been joined on the way.
        for item in value.split(b","):
            try:
                pairs.append((key, _decode(item.strip())))
            except binascii.Error:
                continue
    return pairs


def encode_metadata(pairs: Metadata) -> list[tuple[bytes, bytes]]:
    """``pairs`` as fields; a ``-bin`` value is sent in base64 without padding."""
    return [
        (
            key.encode("ascii"),
            value.encode("latin-1")
            if isinstance(value, str)
            else base64.b64encode(value).rstrip(b"="),
        )
        for key, value in pairs
    ]


def _decode(text: bytes) -> bytes:
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
