"""Predictions as CloudEvents 1.0 over HTTP, in binary mode, as KServe's logger posts them.

An event is a request of its own. Several connections go at once: one is written while the receiver
works on what the others have brought.
"""

import ssl
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from gateway.errors import ConfigError
from gateway.monitoring_file import Part, Secret
from gateway.stream.block import Block
from gateway.stream.sinks.events import (
    CONTENT_TYPE,
    EVENT_FIELDS,
    EventSettings,
    EventWriter,
    Letter,
    event_settings,
    header_text,
    letters_of,
    mark,
)
from gateway.stream.sinks.http_connection import HttpConnection
from gateway.stream.sinks.sink import (
    MIB,
    Batch,
    Defaults,
    Parcel,
    SinkSettings,
    Undelivered,
    read_settings,
)
from gateway.tables import integer, table_of

DEFAULTS: Final = Defaults(batch=Batch(1000, MIB, 0.1))

#: Statuses that say "not now", besides all of 500 and above.
_LATER: Final = frozenset({408, 421, 425, 429})
#: Attributes whose text is JSON, which goes into a header as it is, as KServe sends it.
_VERBATIM: Final = frozenset({"metadata", "annotations"})
_OWN_HEADERS: Final = frozenset({"host", "content-length", "content-type", "connection"})


def make(part: Part) -> tuple[SinkSettings, "CloudEvents"]:
    """The sink that ``part`` describes. Raises ``ConfigError``."""
    fields = {
        **EVENT_FIELDS,
        "url": part.secret,
        "headers": table_of(part.secret),
        "ca": part.path,
        "connections": integer(1),
    }
    settings, options = read_settings(part, "cloud_events", DEFAULTS, fields, ["url"])
    events = event_settings(options)
    address = _address(part, options["url"].reveal())
    return settings, CloudEvents(
        address,
        events,
        headers=_headers(part, options.get("headers", {})),
        tls=_tls(part, address, options.get("ca")),
        connections=options.get("connections", 8),
    )


def _address(part: Part, url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        address.port  # noqa: B018 - raises where it is no number
    except ValueError:
        address = urlsplit("")
    plain = url.isascii() and url.isprintable() and " " not in url
    if address.scheme not in ("http", "https") or not address.hostname or not plain:
        raise ConfigError(f"{part.where}url must be a URL such as http://logger:8080/")
    if address.username is not None:
        raise ConfigError(
            f"{part.where}url has a name or password in it; give headers.Authorization instead"
        )
    return address


def _headers(part: Part, given: dict[str, Secret]) -> dict[str, str]:
    headers = {name: secret.reveal() for name, secret in given.items()}
    for name, value in headers.items():
        where = f"{part.where}headers.{name}"
        if name.lower() in _OWN_HEADERS or name.lower().startswith("ce-"):
            raise ConfigError(f"{where} is written by the sink itself")
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            raise ConfigError(f"{where} is no name of a header")
        if not value.isascii() or not value.isprintable():
            raise ConfigError(f"{where} must be printable ASCII")
    return headers


def _tls(part: Part, address: SplitResult, ca: Any) -> ssl.SSLContext | None:
    if address.scheme == "http":
        if ca is not None:
            raise ConfigError(f"{part.where}ca is for a url of https")
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigError(f"{part.where}ca: cannot read {ca}: {error}") from None


class CloudEvents:
    """Posts events. Delivered is a request all of whose events were answered with 2xx.

    Args:
        address: where to, taken apart.
        headers: further headers of each post.
        connections: how many are used at once.
    """

    wants_event_ids: Final = True

    def __init__(
        self,
        address: SplitResult,
        events: EventSettings,
        *,
        headers: dict[str, str],
        tls: ssl.SSLContext | None,
        connections: int,
    ) -> None:
        self._events: Final = EventWriter(events)
        self._where: Final = f"{address.scheme}://{address.netloc}"
        target = (address.path or "/") + (f"?{address.query}" if address.query else "")
        lines = [f"POST {target} HTTP/1.1", f"Host: {address.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += ["User-Agent: onnx-gateway", f"Content-Type: {CONTENT_TYPE}", "Content-Length: "]
        self._head: Final = "\r\n".join(lines)
        self._connections: Final = [HttpConnection(address, tls) for _ in range(connections)]

    def encode(self, blocks: Sequence[Block]) -> list[Parcel]:
        """See ``Sink``."""
        return self._events.parcels(blocks, _head, self._post)

    def deliver(self, parcels: Sequence[Parcel], timeout_s: float) -> None:
        """See ``Sink``."""
        began = time.monotonic()
        letters = letters_of(parcels)
        try:
            for start in range(0, len(letters), len(self._connections)):
                # What is sent now may still take half of the time to be answered.
                if time.monotonic() - began > timeout_s / 2:
                    break
                self._round(letters[start : start + len(self._connections)], began + timeout_s)
        finally:
            mark(parcels)

    def idle(self) -> None:
        """See ``Sink``."""

    def close(self) -> None:
        """See ``Sink``."""
        for connection in self._connections:
            connection.close()

    def _round(self, letters: Sequence[Letter], deadline: float) -> None:
        """Post each of ``letters`` on a connection of its own."""
        failure: Undelivered | None = None
        sent = []
        for letter, connection in zip(letters, self._connections, strict=False):
            try:
                connection.send(letter.content, deadline)
            except OSError as error:
                failure = self._undelivered(error)
                # The others would only wait as long for the same.
                break
            sent.append((letter, connection))
        for letter, connection in sent:
            try:
                status, retry_after = connection.receive(deadline)
            except OSError as error:
                failure = failure or self._undelivered(error)
                continue
            if 200 <= status < 300:
                letter.arrived = True
            elif status >= 500 or status in _LATER:
                failure = Undelivered(
                    f"{self._where} answers with status {status}", _seconds(retry_after)
                )
            else:
                letter.refusal = f"{self._where} answers with status {status}"
        if failure is not None:
            raise failure

    def _undelivered(self, error: OSError) -> Undelivered:
        return Undelivered(f"{self._where}: {error.strerror or error or type(error).__name__}")

    def _post(self, id: str, head: str, data: bytes) -> bytes:
        return f"{self._head}{len(data)}\r\nce-id: {header_text(id)}\r\n{head}".encode() + data


def _head(attributes: dict[str, str]) -> str:
    """The headers that events share, and the end of all headers."""
    lines = [
        f"ce-{name}: {value if name in _VERBATIM else header_text(value)}\r\n"
        for name, value in attributes.items()
    ]
    return "".join([*lines, "\r\n"])


def _seconds(retry_after: str) -> float | None:
    """The seconds of a ``Retry-After``; of one that is a date nothing is taken."""
    return float(retry_after) if retry_after.isdecimal() else None
