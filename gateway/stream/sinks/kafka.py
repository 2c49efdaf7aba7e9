"""Predictions to Kafka, in the binary mode of CloudEvents' binding: attributes as ``ce_`` headers.

A message's key is the event's id, so that both events of a request are in one partition.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.monitoring_file import Part
from gateway.stream.block import Block
from gateway.stream.sinks.events import (
    CONTENT_TYPE,
    EVENT_FIELDS,
    EventSettings,
    EventWriter,
    Letter,
    event_settings,
    letters_of,
    mark,
)
from gateway.stream.sinks.sink import (
    Defaults,
    Parcel,
    SinkSettings,
    Undelivered,
    optional_module,
    read_settings,
)
from gateway.tables import table_of, text

DEFAULTS: Final = Defaults()

log = logging.getLogger(__name__)

#: Errors of a message that no further try can mend.
_REFUSALS: Final = frozenset(
    {
        "MSG_SIZE_TOO_LARGE",
        "INVALID_MSG",
        "INVALID_MSG_SIZE",
        "INVALID_RECORD",
        "RECORD_LIST_TOO_LARGE",
        "POLICY_VIOLATION",
    }
)
#: Messages that are handed over before reports are taken in.
_STRIDE: Final = 200
#: Settings of librdkafka that the sink makes itself.
_OWN: Final = frozenset({"bootstrap.servers", "message.timeout.ms", "delivery.timeout.ms"})
#: Seconds at the end of a try for reports about what was called back.
_PURGE_S: Final = 0.5


def make(part: Part) -> tuple[SinkSettings, "Kafka"]:
    """The sink that ``part`` describes. Raises ``ConfigError``."""
    fields = {
        **EVENT_FIELDS,
        "brokers": text,
        "topic": text,
        "options": table_of(_option(part)),
    }
    settings, options = read_settings(part, "kafka", DEFAULTS, fields, ["brokers", "topic"])
    events = event_settings(options)
    given = options.get("options", {})
    for name in given:
        if name in _OWN:
            raise ConfigError(f"{part.where}options.{name} is set by the sink's own keys")
    package = optional_module("confluent_kafka", "kafka", part)
    configuration = {
        "enable.idempotence": True,
        "linger.ms": 5,
        **{name: getattr(value, "reveal", lambda v=value: v)() for name, value in given.items()},
        "bootstrap.servers": options["brokers"],
        "message.timeout.ms": max(int(settings.timeout_s * 1000), 100),
    }
    try:
        sink = Kafka(package, configuration, options["topic"], events)
    except (package.KafkaException, ValueError, TypeError) as error:
        message = part.scrub(str(error))
        raise ConfigError(
            f"{part.where}options: librdkafka does not take them: {message}"
        ) from None
    return settings, sink


def _option(part: Part) -> Callable[[str, Any], Any]:
    def check(where: str, value: Any) -> Any:
        return value if isinstance(value, bool | int | float) else part.secret(where, value)

    return check


class Kafka:
    """Produces messages. Delivered is a request both of whose messages the brokers have confirmed.

    Args:
        package: ``confluent_kafka``.
        configuration: librdkafka's.
        topic: of the messages; ``{model}`` in it stands for the model's name.
    """

    wants_event_ids: Final = True

    def __init__(
        self, package: Any, configuration: dict[str, Any], topic: str, events: EventSettings
    ) -> None:
        self._package: Final = package
        self._configuration: Final = {**configuration, "error_cb": self._on_error, "logger": log}
        self._topic: Final = topic
        self._events: Final = EventWriter(events)
        self._producer = package.Producer(self._configuration)
        self._last_error = ""
        self._waiting = 0

    def encode(self, blocks: Sequence[Block]) -> list[Parcel]:
        """See ``Sink``."""
        return self._events.parcels(blocks, _head, _message)

    def deliver(self, parcels: Sequence[Parcel], timeout_s: float) -> None:
        """See ``Sink``."""
        deadline = time.monotonic() + timeout_s
        letters = letters_of(parcels)
        self._last_error = ""
        try:
            self._hand_over(letters, deadline)
            while self._waiting and (rest := deadline - time.monotonic()) > 0:
                self._producer.poll(min(rest, 0.5))
            if self._waiting:
                self._call_back()
        finally:
            mark(parcels)
        left = sum(not letter.arrived and not letter.refusal for letter in letters)
        if left:
            raise Undelivered(self._last_error or f"{left} messages were not confirmed in time")

    def idle(self) -> None:
        """See ``Sink``."""
        self._producer.poll(0)

    def close(self) -> None:
        """See ``Sink``."""
        self._producer.purge()
        self._producer.poll(0)

    def _hand_over(self, letters: Sequence[Letter], deadline: float) -> None:
        for count, letter in enumerate(letters, 1):
            while not self._produce(letter):
                if time.monotonic() > deadline:
                    return
                self._producer.poll(0.1)
            if count % _STRIDE == 0:
                self._producer.poll(0)

    def _produce(self, letter: Letter) -> bool:
        """Hand ``letter`` to librdkafka; whether there was room for it."""
        key, headers, data = letter.content
        topic = self._topic.replace("{model}", letter.model)
        try:
            self._producer.produce(
                topic, data, key, headers=headers, on_delivery=self._reporter(letter)
            )
        except BufferError:
            return False
        except self._package.KafkaException as raised:
            self._take(letter, raised.args[0])
        else:
            self._waiting += 1
        return True

    def _reporter(self, letter: Letter) -> Callable[[Any, Any], None]:
        def report(error: Any, _: Any) -> None:
            self._waiting -= 1
            self._take(letter, error)

        return report

    def _take(self, letter: Letter, error: Any) -> None:
        """Take in what became of ``letter``."""
        if error is None:
            letter.arrived = True
        elif error.name() in _REFUSALS:
            letter.refusal = f"Kafka: {error.str()}"
        elif not error.name().startswith("_PURGE"):
            self._last_error = f"Kafka: {error.str()}"
            if error.fatal():
                self._renew()

    def _call_back(self) -> None:
        """Have librdkafka give up what has not arrived, so that it is not sent behind our back."""
        self._producer.purge()
        end = time.monotonic() + _PURGE_S
        while self._waiting and time.monotonic() < end:
            self._producer.poll(0.05)
        if self._waiting:
            self._renew()

    def _renew(self) -> None:
        self._producer = self._package.Producer(self._configuration)
        self._waiting = 0

    def _on_error(self, error: Any) -> None:
        self._last_error = f"Kafka: {error.str()}"


_Headers = list[tuple[str, bytes]]


def _head(attributes: dict[str, str]) -> _Headers:
    """The headers that events share; the binding has their values be the attributes' UTF-8."""
    headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
    return [*headers, ("content-type", CONTENT_TYPE.encode())]


def _message(id: str, head: _Headers, data: bytes) -> tuple[bytes, _Headers, bytes]:
    """Key, headers and value."""
    key = id.encode()
    return key, [("ce_id", key), *head], data
