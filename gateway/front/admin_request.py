"""What a request to the admin port must be, before anything is done for it.

A browser reaches loopback, too, so whatever page it shows can send requests here. Two rules keep
such requests out. A request names the server by an address or by a name that is known to be its
own, so that a page whose name was bound to this address afterwards (DNS rebinding) gets nothing. A
request that changes something either has a method or a ``Content-Type`` that no page may send
elsewhere without being allowed to, and nobody is allowed here.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import ConfigError, MalformedRequest, RequestCancelled, RequestTooLarge
from gateway.front.http_control import json_response
from gateway.front.json_document import parse_json
from gateway.tables import Check, read_table, wrong

#: Largest body, in bytes.
MAX_BODY_BYTES: Final = 1 << 20
#: Longest reason and longest name of an actor, in characters.
MAX_REASON: Final = 2000
MAX_ACTOR: Final = 200

_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
_JSON: Final = "application/json"
_TOML: Final = "application/toml"


class HostCheck:
    """Answers 403 to requests whose ``Host`` may be a name that leads here by deceit.

    ``localhost`` and any IP address pass, because nobody can bind those to another server, and so
    do ``names``: the host that is listened on, and names that a proxy or a cluster has for it.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app: Final = app
        self._names: Final = {"localhost", *(name.lower().rstrip(".") for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        given = Headers(scope=scope).getlist("host")
        if len(given) == 1 and self._is_known(_host_name(given[0])):
            await self._app(scope, receive, send)
            return
        named = f"'{given[0][:100]}'" if given else "none"
        message = (
            f"the Host header names {named}, which this server does not go by; use its address "
            "or localhost, or start the server with --admin-allowed-host and that name"
        )
        await json_response({"error": message}, 403)(scope, receive, send)

    def _is_known(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


def _host_name(host: str) -> str:
    """The name or address in a ``Host`` header, without its port; ``""`` where it is neither."""
    match = _HOST.fullmatch(host)
    return "" if match is None else (match[1] or match[2]).lower().rstrip(".")


def actor(request: Request) -> str:
    """Who asks: the ``X-Actor`` header, else the client's address. Raises ``MalformedRequest``."""
    given = request.headers.get("x-actor", "").strip()
    if not given:
        return f"http:{request.client.host}" if request.client else "http"
    # Starlette reads headers as Latin-1; names come as UTF-8.
    name = given.encode("latin-1").decode("utf-8", "replace")
    if len(name) > MAX_ACTOR or not name.isprintable():
        raise MalformedRequest(f"X-Actor must be at most {MAX_ACTOR} printable characters")
    return name


def reason(where: str, value: Any) -> str:
    """A check of ``gateway.tables``: why something is done; it may be empty."""
    if not isinstance(value, str) or len(value) > MAX_REASON:
        raise wrong(where, f"text of at most {MAX_REASON} characters", value)
    return value


def read_query(request: Request, fields: Mapping[str, Check]) -> dict[str, Any]:
    """The query's parameters, each checked. Raises ``ConfigError``, for unknown ones too."""
    query = request.scope["query_string"].decode("latin-1")
    pairs = parse_qsl(query, keep_blank_values=True)
    return read_table(dict(pairs), fields, "query parameter ")


async def read_fields(
    request: Request, fields: Mapping[str, Check], required: str = ""
) -> dict[str, Any]:
    """The keys of the JSON body, each checked.

    Raises ``ConfigError`` for unknown keys, wrong values and where ``required`` is missing, and
    whatever ``read_object`` does.
    """
    values = read_table(await read_object(request), fields, "")
    if required and required not in values:
        raise ConfigError(f"{required} is missing; known are {', '.join(fields)}")
    return values


async def read_object(request: Request) -> dict[str, Any]:
    """The body, a JSON object; an empty body is an empty object.

    Raises:
        HTTPException: 415 where the ``Content-Type`` is another.
        MalformedRequest: it is no JSON, or no object.
        RequestTooLarge: it has more than ``MAX_BODY_BYTES``.
        RequestCancelled: the client left.
    """
    media_type(request, _JSON)
    return _json_object(await read_body(request))


async def read_document(request: Request) -> tuple[dict[str, Any], str]:
    """The body, a JSON object or TOML, and the reason that goes with it.

    JSON has the reason under its key ``reason``, TOML beside it, as the query parameter. Raises
    what ``read_object`` does.
    """
    if media_type(request, _JSON, _TOML) == _JSON:
        document = _json_object(await read_body(request))
        return document, reason("reason", document.pop("reason", ""))
    query = read_query(request, {"reason": reason})
    try:
        return tomllib.loads((await read_body(request)).decode()), query.get("reason", "")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MalformedRequest(f"malformed TOML: {error}") from None
    except RecursionError:
        raise MalformedRequest("the TOML is nested too deep") from None


async def read_reason(request: Request) -> str:
    """The reason of a DELETE, a query parameter.

    Raises ``MalformedRequest`` where a body came, because proxies may drop it on their way.
    """
    query = read_query(request, {"reason": reason})
    if await read_body(request):
        raise MalformedRequest("a DELETE has no body; its reason is given as ?reason=...")
    return str(query.get("reason", ""))


def media_type(request: Request, *kinds: str) -> str:
    """The body's media type, one of ``kinds``. Raises ``HTTPException`` 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        expected = " or ".join(kinds)
        raise HTTPException(415, f"Content-Type must be {expected}; got '{kind[:100]}'")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise HTTPException(415, f"the body must be sent as it is, not as '{coding[:100]}'")
    return kind


async def read_body(request: Request, most: int = MAX_BODY_BYTES) -> bytes:
    """The body. Raises ``RequestTooLarge`` over ``most`` bytes, ``RequestCancelled``."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise RequestTooLarge(
                    f"the request body is larger than {most} bytes, the limit here"
                )
    except ClientDisconnect:
        raise RequestCancelled("the client left before its request was complete") from None
    return bytes(body)


def _json_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    document = parse_json(body)
    if not isinstance(document, dict):
        raise MalformedRequest("the request must be a JSON object")
    return document
