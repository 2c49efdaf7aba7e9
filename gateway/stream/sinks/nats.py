"""Predictions to NATS JetStream, in the binary mode of CloudEvents' binding: ``ce-`` headers.

Each message carries ``Nats-Msg-Id``, so that a stream drops what it gets twice within its window.
NATS' client wants an event loop; it has one on a thread of its own, apart from the server's.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Sequence
from typing import Any, Final

import orjson

from gateway.errors import ConfigError
from gateway.monitoring_file import Part, Secret
from gateway.stream.block import Block
from gateway.stream.sinks.encoding import Breather
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
from gateway.stream.sinks.sink import (
    MIB,
    Batch,
    Defaults,
    Parcel,
    SinkSettings,
    Undelivered,
    optional_module,
    read_settings,
)
from gateway.tables import list_of, text, wrong

#: Small batches, soon: the client's work for a large one would keep the interpreter busy for long.
DEFAULTS: Final = Defaults(batch=Batch(1000, MIB, 0.1))

#: Messages that wait for their acknowledgements at once.
_WINDOW: Final = 256
#: Seconds to connect, and between two signs of life that are asked for.
_CONNECT_S: Final = 2
_PING_S: Final = 5
#: The status of the answer where nobody listens.
_NO_RESPONDERS: Final = "503"
#: JetStream's error for a message that is larger than the stream takes.
_TOO_LARGE: Final = 10054


def make(part: Part) -> tuple[SinkSettings, "Nats"]:
    """The sink that ``part`` describes. Raises ``ConfigError``."""
    fields = {
        **EVENT_FIELDS,
        "servers": list_of(part.secret),
        "subject": text,
        "stream": text,
        "user": part.secret,
        "password": part.secret,
        "token": part.secret,
        "credentials": part.path,
    }
    settings, options = read_settings(part, "nats", DEFAULTS, fields, ["servers", "subject"])
    events = event_settings(options)
    servers = [secret.reveal() for secret in options.pop("servers")]
    if not servers:
        raise wrong(f"{part.where}servers", "a list of at least one server's URL", [])
    subject = options.pop("subject")
    if any(c.isspace() or c in "*>" for c in subject):
        raise wrong(f"{part.where}subject", "a subject without spaces, '*' and '>'", subject)
    if "credentials" in options and not options["credentials"].is_file():
        raise ConfigError(f"{part.where}credentials: there is no file {options['credentials']}")
    package = optional_module("nats", "nats", part)
    return settings, Nats(
        package, servers, subject, events, stream=options.pop("stream", None), login=_login(options)
    )


def _login(options: dict[str, Any]) -> dict[str, Any]:
    login = {name: value.reveal() for name, value in options.items() if isinstance(value, Secret)}
    if "credentials" in options:
        login["user_credentials"] = str(options["credentials"])
    return login


class Nats:
    """Publishes messages. Delivered is a request all of whose messages a stream has acknowledged.

    Args:
        package: ``nats``.
        subject: of the messages; ``{model}`` in it stands for the model's name.
        stream: that must take them, ``None`` for any.
        login: options of the client's by which it logs in.
    """

    wants_event_ids: Final = True

    def __init__(
        self,
        package: Any,
        servers: list[str],
        subject: str,
        events: EventSettings,
        *,
        stream: str | None,
        login: dict[str, Any],
    ) -> None:
        self._package: Final = package
        self._servers: Final = servers
        self._subject: Final = subject
        self._events: Final = EventWriter(events)
        self._stream: Final = stream
        self._login: Final = login
        self._client: Any = None
        self._inbox = ""
        self._count = 0
        self._waiting: dict[str, Letter] = {}
        self._failure: Undelivered | None = None
        self._acknowledged = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def encode(self, blocks: Sequence[Block]) -> list[Parcel]:
        """See ``Sink``."""
        return self._events.parcels(blocks, _head, _message)

    def deliver(self, parcels: Sequence[Parcel], timeout_s: float) -> None:
        """See ``Sink``."""
        work = self._publish_all(letters_of(parcels), timeout_s)
        task = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        try:
            task.result(timeout_s + 1)
        except concurrent.futures.TimeoutError:
            task.cancel()
            raise Undelivered("NATS: the client does not come back") from None
        finally:
            mark(parcels)

    def idle(self) -> None:
        """See ``Sink``."""

    def close(self) -> None:
        """See ``Sink``."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(self._disconnect(), loop).result(1)
        loop.call_soon_threadsafe(loop.stop)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = self._loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="sink-nats-loop", daemon=True).start()
        return self._loop

    # -- on that loop -------------------------------------------------------------------------

    async def _publish_all(self, letters: Sequence[Letter], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._connect()
                for start in range(0, len(letters), _WINDOW):
                    await self._publish(letters[start : start + _WINDOW])
        except TimeoutError:
            # Whether the connection is any good, nobody knows: the next try has one of its own.
            await self._disconnect()
            raise Undelivered("NATS: not everything was acknowledged in time") from None
        except Undelivered:
            raise
        except Exception as error:
            await self._disconnect()
            raise Undelivered(f"NATS: {error or type(error).__name__}") from None

    async def _publish(self, letters: Sequence[Letter]) -> None:
        """Publish ``letters`` and wait for their acknowledgements."""
        most = self._client.max_payload
        breather = Breather()
        self._waiting, self._failure = {}, None
        for letter in letters:
            subject, headers, data = self._message(letter)
            size = len(data) + _size(headers)
            if size > most:
                letter.refusal = f"NATS: {size} bytes, the server takes {most}"
                continue
            self._count += 1
            reply = f"{self._inbox}.{self._count}"
            self._waiting[reply] = letter
            await self._client.publish(subject, data, reply=reply, headers=headers)
            breather.did(1)
        while self._waiting and not self._client.is_closed:
            self._acknowledged.clear()
            await self._acknowledged.wait()
        if self._waiting:
            raise Undelivered("NATS: the connection was lost")
        if self._failure is not None:
            raise self._failure

    def _message(self, letter: Letter) -> tuple[str, dict[str, str], bytes]:
        headers, data = letter.content
        subject = self._subject.replace("{model}", _token(letter.model))
        headers = {**headers, "Nats-Msg-Id": letter.name}
        if self._stream is not None:
            headers["Nats-Expected-Stream"] = self._stream
        return subject, headers, data

    # The client's own publish_async never ends for a message that JetStream has an error for, and
    # its publish would take a task for each message; so acknowledgements are read here.
    async def _on_acknowledgement(self, message: Any) -> None:
        letter = self._waiting.pop(message.subject, None)
        if letter is not None:
            self._take(letter, message)
        if not self._waiting:
            self._acknowledged.set()

    def _take(self, letter: Letter, message: Any) -> None:
        """Take in what became of ``letter``."""
        if message.headers and message.headers.get("Status") == _NO_RESPONDERS:
            self._failure = Undelivered(
                f"NATS: no stream takes the subject of model '{letter.model}'"
            )
            return
        error = orjson.loads(message.data).get("error")
        if error is None:
            letter.arrived = True
        elif error.get("err_code") == _TOO_LARGE:
            letter.refusal = f"NATS: {error.get('description')}"
        else:
            self._failure = Undelivered(f"NATS: {error.get('description')}")

    async def _on_closed(self) -> None:
        self._acknowledged.set()

    async def _connect(self) -> None:
        if self._client is not None and self._client.is_connected:
            return
        await self._disconnect()
        self._client = await self._package.connect(
            self._servers,
            name="onnx-gateway",
            # The worker tries again, and counts; the client's own tries would not be seen.
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=_CONNECT_S,
            ping_interval=_PING_S,
            error_cb=_ignore,
            closed_cb=self._on_closed,
            **self._login,
        )
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_acknowledgement)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CONNECT_S):
                await client.close()


async def _ignore(error: Exception) -> None:
    """What goes wrong is seen by whoever waits for it."""


def _size(headers: dict[str, str]) -> int:
    """Bytes of ``headers`` in a message, its first line and the empty one included."""
    return 14 + sum(len(name) + len(value) + 4 for name, value in headers.items())


def _token(model: str) -> str:
    """A model's name as one token of a subject."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in model)


def _head(attributes: dict[str, str]) -> dict[str, str]:
    """The headers that events share."""
    headers = {f"ce-{name}": header_text(value) for name, value in attributes.items()}
    return {**headers, "content-type": CONTENT_TYPE}


def _message(id: str, head: dict[str, str], data: bytes) -> tuple[dict[str, str], bytes]:
    return {"ce-id": header_text(id), **head}, data
