"""What all connections of one HTTP front share."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias
from urllib.parse import unquote_to_bytes

import httptools

from gateway.errors import MalformedRequest
from gateway.front.http_heads import ResponseHeads
from gateway.front.known_heads import KnownHeads
from gateway.front.wire_json import Describe, InferenceCodec, SharedMemory
from gateway.types import InferRequest, InferResponse, Reply

#: Writes one line of the access log: client, method, path, status, response bytes, nanoseconds.
AccessLog: TypeAlias = Callable[[str, str, str, int, int, int], None]

_INFER: Final = re.compile(rb"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
#: Request targets that are remembered.
_MAX_TARGETS: Final = 1024


class Pending(Protocol):
    """A request that the dispatcher has accepted and not yet answered."""

    def cancel(self) -> None:
        """Drop the request; its reply is not called after this returns."""


class Dispatcher(Protocol):
    """Where inference requests go; ``gateway.dispatch`` has the real one."""

    def submit(self, request: InferRequest, reply: Reply) -> Pending:
        """Accept the request and call ``reply`` once, later; or raise ``GatewayError``."""

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer the request with arrays that are safe to keep; or raise ``GatewayError``."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds on what one client may make the HTTP front hold.

    Attributes:
        max_request_bytes: largest request body, before and after decompression.
        max_header_bytes: largest request line and headers, beyond what the first read of them
            brings.
        max_pipelined: requests of one connection that are in flight at once; the connection is
            not read while more are waiting.
        keep_alive_timeout_s: how long a connection may be idle between requests.
        read_timeout_s: how long a request's head may take, and how long its body may pause.
    """

    max_request_bytes: int = 64 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    max_pipelined: int = 16
    keep_alive_timeout_s: float = 75.0
    read_timeout_s: float = 60.0

    @property
    def shortest_s(self) -> float:
        """The shortest of the times."""
        return min(self.keep_alive_timeout_s, self.read_timeout_s)


class HttpContext:
    """The collaborators, limits and caches of one HTTP front; lives on the loop's thread.

    Attributes:
        loop: the event loop, set when the front starts.
        inference_targets: model and version by the inference URLs seen lately.
        known_heads: heads of inference requests seen lately.
        length_digits: digits that a ``Content-Length`` over the limit has at least.
        draining: set once the front closes: every connection ends after its requests in flight.
    """

    __slots__ = (
        "access_log", "codec", "dispatcher", "draining", "heads", "inference_targets",
        "known_heads", "length_digits", "limits", "loop",
    )  # fmt: skip

    def __init__(
        self,
        dispatcher: Dispatcher,
        shared_memory: SharedMemory,
        describe: Describe,
        limits: HttpLimits,
        access_log: AccessLog | None,
    ) -> None:
        self.dispatcher = dispatcher
        self.codec = InferenceCodec(shared_memory, describe)
        self.limits = limits
        self.loop: asyncio.AbstractEventLoop
        self.access_log = access_log
        self.heads = ResponseHeads()
        self.draining = False
        self.inference_targets: dict[bytes, tuple[str, str]] = {}
        self.known_heads = KnownHeads()
        self.length_digits = len(str(limits.max_request_bytes))

    def parse_target(self, url: bytes) -> tuple[str, str] | None:
        """Return the model and version (or ``""``) that an inference URL names, and remember it.

        ``None`` for any other URL. Raises ``MalformedRequest`` for what is no URL.
        """
        try:
            path = httptools.parse_url(url).path
        except httptools.HttpParserInvalidURLError:
            path = None
        if not path or not path.startswith(b"/") or not path.isascii():
            raise MalformedRequest("the request target is not a URL path")
        match = _INFER.fullmatch(path)
        if match is None:
            return None
        try:
            model, version = (unquote_to_bytes(part or b"").decode() for part in match.groups())
        except UnicodeDecodeError:
            raise MalformedRequest(
                "the model's name in the URL is not percent-encoded UTF-8"
            ) from None
        if len(self.inference_targets) >= _MAX_TARGETS:
            self.inference_targets.clear()
        self.inference_targets[url] = (model, version)
        return model, version
