"""Signs what is posted, as the Standard Webhooks specification has it (standardwebhooks.com).

Three headers go with a body::

    webhook-id: ID                 the same whenever the same thing is sent again
    webhook-timestamp: 1760000000  Unix seconds of this attempt
    webhook-signature: v1,BASE64   HMAC-SHA256 over "ID.TIMESTAMP.BODY", in Base64

The receiver makes the signature anew over the bytes that it got, compares the two in constant
time, and refuses timestamps that are minutes away. Libraries for it exist in most languages.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Final

from gateway.errors import ConfigError

#: What a secret begins with that is Base64 of its bytes; any other is taken as it is written.
PREFIX: Final = "whsec_"
#: Fewest bytes of a secret; HMAC-SHA256 gains nothing beyond 64.
MIN_SECRET_BYTES: Final = 24


def signature_headers(secret: bytes, id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of ``body``."""
    signed = f"{id}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{digest}",
    }


def parse_secret(text: str, where: str) -> bytes:
    """The secret that ``text`` holds.

    Raises:
        ConfigError: it is no Base64 behind its prefix, or too short to be a secret.
    """
    try:
        if text.startswith(PREFIX):
            secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        else:
            secret = text.encode()
    except (UnicodeEncodeError, binascii.Error):
        raise ConfigError(f"{where} is no secret: expected text, or {PREFIX} and Base64") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(
            f"{where} has {len(secret)} bytes, {MIN_SECRET_BYTES} are the fewest: make one with "
            "'openssl rand -base64 32'"
        )
    return secret
