"""A client of the admin port, over the standard library alone."""

import json
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from gateway.errors import ConfigError, GatewayError, StartupError

DEFAULT_URL: Final = "http://127.0.0.1:8003"

#: Seconds to wait for a connection, and for an answer: a promotion may load a large model first.
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 900.0
#: Seconds of silence after which a stream of events is taken for dead; the server says every 10
#: seconds that it is there.
EVENT_TIMEOUT_S: Final = 60.0


class Event(NamedTuple):
    """A server-sent event."""

    name: str
    data: str


class Refused(StartupError):
    """The server has refused; the message is its own, ``status`` that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status: Final = status


class Unreachable(GatewayError):
    """There is no admin port, or it has not answered."""


class AdminClient:
    """Calls the admin port at ``url`` in the name of ``by``; ``""`` lets the server name it."""

    def __init__(self, url: str, by: str = "", answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Prepare calls; each has a connection of its own. Raises ``ConfigError``."""
        self._url: Final = url
        self._by: Final = by
        self._answer_timeout_s: Final = answer_timeout_s
        try:
            parts = urlsplit(url)
            self._address: Final = (parts.hostname or "", parts.port)
        except ValueError as error:
            raise ConfigError(f"--admin: '{url}' is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ConfigError(f"--admin: expected a URL such as {DEFAULT_URL}; got '{url}'")
        self._secure: Final = parts.scheme == "https"
        self._prefix: Final = parts.path.rstrip("/")

    def get(self, *path: str, **query: Any) -> Any:
        """What is at ``/admin/`` and the segments of ``path``; see ``call``."""
        return self.call("GET", path, query=query)

    def post(self, *path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a POST of JSON; see ``call``."""
        return self.call("POST", path, json.dumps(body).encode())

    def put(self, *path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a PUT of JSON; see ``call``."""
        return self.call("PUT", path, json.dumps(body).encode())

    def delete(self, *path: str, **query: Any) -> Any:
        """The answer to a DELETE; see ``call``."""
        return self.call("DELETE", path, query=query)

    def events(self, *path: str, **query: Any) -> Iterator[Event]:
        """The events of a stream, until the server ends it; raises as ``call`` does."""
        target = self._target(path, query)
        connection = self._connection()
        try:
            connection.connect()
            connection.sock.settimeout(EVENT_TIMEOUT_S)
            connection.request("GET", target, headers={"Accept": "text/event-stream"})
            response = connection.getresponse()
            if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                self._answer(response.status, response.read())
                raise self._stranger(response.status)
            for event in _events(response):
                yield event
                if event.name == "end":
                    return
            raise ConnectionResetError("the connection ended before the stream did")
        except (OSError, HTTPException) as error:
            raise self._silent(error) from None
        finally:
            connection.close()

    def call(
        self,
        method: str,
        path: tuple[str, ...],
        body: bytes | None = None,
        kind: str = "application/json",
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """The JSON of an answer; query parameters that are empty are left out.

        Raises:
            Refused: the server says no.
            Unreachable: nothing answers there, or nothing that is an admin port.
        """
        target = self._target(path, query or {})
        headers: dict[str, Any] = {} if body is None else {"Content-Type": kind}
        if self._by:
            headers["X-Actor"] = self._by.encode()
        return self._answer(*self._exchange(method, target, body, headers))

    def _target(self, path: tuple[str, ...], query: Mapping[str, Any]) -> str:
        target = "/".join((self._prefix, "admin", *(quote(part, safe="") for part in path)))
        given = {key: value for key, value in query.items() if value not in ("", None)}
        return f"{target}?{urlencode(given)}" if given else target

    def _answer(self, status: int, content: bytes) -> Any:
        try:
            answer = json.loads(content)
            if status >= 400:
                raise Refused(str(answer["error"]), status)
        except (ValueError, KeyError, TypeError):
            answer = None
        if answer is None or status >= 300:
            raise self._stranger(status)
        return answer

    def _stranger(self, status: int) -> Unreachable:
        return Unreachable(
            f"what answers at {self._url} (status {status}) is not the admin API of an "
            "onnx-gateway: is it the --admin-port?"
        )

    def _silent(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"no answer from the admin API at {self._url} ({error or type(error).__name__}): "
            "is the server running, and is --admin its --admin-port?"
        )

    def _connection(self) -> HTTPConnection:
        made = HTTPSConnection if self._secure else HTTPConnection
        return made(*self._address, timeout=CONNECT_TIMEOUT_S)

    def _exchange(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, Any]
    ) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.connect()
            connection.sock.settimeout(self._answer_timeout_s)
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as error:
            raise self._silent(error) from None
        finally:
            connection.close()


def _events(response: HTTPResponse) -> Iterator[Event]:
    """The events in a body; comments are passed over."""
    name, data = "", list[str]()
    for raw in response:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if data:
                yield Event(name, "\n".join(data))
            name, data = "", []
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
