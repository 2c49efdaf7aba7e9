"""What a sink is, and what every one of them may be told in the operator's file."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType
from typing import Any, Final, Protocol

from gateway.errors import ConfigError
from gateway.monitoring_file import Part
from gateway.retry import Retry, retry_check
from gateway.setting_types import Size
from gateway.stream.block import Block
from gateway.tables import Check, integer, list_of, number, read_table, table, text, wrong

MIB: Final = 1 << 20


class Undelivered(Exception):
    """Some parcels have not arrived; they may be tried again. The message says why.

    Attributes:
        retry_after_s: seconds that the receiver wants to be left alone, ``None`` where it has not
            said.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s: Final = retry_after_s


class Parcel:
    """What arrives or is refused as one: rows of one or more blocks, as the sink sends them.

    Attributes:
        parts: the blocks, and how many rows of each.
        content: the sink's own.
        arrived: set by the sink once the receiver has it.
        refusal: set by the sink where the receiver will never take it: why.
    """

    __slots__ = ("arrived", "content", "parts", "refusal")

    def __init__(self, parts: Sequence[tuple[Block, int]], content: Any) -> None:
        self.parts = parts
        self.content = content
        self.arrived = False
        self.refusal = ""


class Sink(Protocol):
    """Carries predictions to one place. All calls come from one thread, its worker's."""

    @property
    def wants_event_ids(self) -> bool:
        """Whether it needs the ``Ce-Id`` of requests."""

    def encode(self, blocks: Sequence[Block]) -> list[Parcel]:
        """The rows of ``blocks``, each in one parcel."""

    def deliver(self, parcels: Sequence[Parcel], timeout_s: float) -> None:
        """Send ``parcels``, and mark those that have arrived or are refused.

        It takes about ``timeout_s`` at most. It may return with some of them unmarked where others
        are: they are sent with the next call.

        Raises:
            Undelivered: those that are not marked have not arrived, and why; any other exception
                is taken in the same way.
        """

    def idle(self) -> None:
        """Is called now and then while there is nothing to send."""

    def close(self) -> None:
        """Nothing follows. Must not wait long."""


@dataclass(frozen=True, slots=True)
class Batch:
    """When what waits is sent: once there is so much of it, or it has waited so long.

    Attributes:
        rows, bytes: of one batch, about; ``bytes`` in memory.
        linger_s: seconds that the first of it may wait.
    """

    rows: int
    bytes: int
    linger_s: float


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a type of sink does where it is not told otherwise."""

    buffer_bytes: int = 16 * MIB
    batch: Batch = Batch(10_000, 4 * MIB, 0.5)
    retry: Retry = field(default_factory=Retry)
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """What every sink may be told.

    Attributes:
        models: patterns of the models whose predictions it gets, as in a shell.
        buffer_bytes: what may wait for it, in memory; what comes beyond that is dropped.
        timeout_s: seconds that one try to deliver may take.
    """

    name: str
    type: str
    models: tuple[str, ...]
    buffer_bytes: int
    batch: Batch
    retry: Retry
    timeout_s: float


def read_settings(
    part: Part,
    type: str,
    defaults: Defaults,
    options: dict[str, Check],
    required: Sequence[str] = (),
) -> tuple[SinkSettings, dict[str, Any]]:
    """What ``part`` says of any sink, and its values of the type's own ``options``.

    Raises:
        ConfigError: a key is unknown, missing or wrong.
    """
    common = {
        "models": list_of(text),
        "buffer_bytes": size(64 << 10, 1 << 40),
        "batch": _batch_fields,
        "retry": retry_check(defaults.retry),
        "timeout_s": seconds,
    }
    values = part.read({**common, **options}, required)
    given = {key: values.pop(key) for key in common if key in values}
    buffer_bytes = given.get("buffer_bytes", defaults.buffer_bytes)
    batch = replace(defaults.batch, bytes=min(defaults.batch.bytes, buffer_bytes))
    settings = SinkSettings(
        part.name,
        type,
        given.get("models", ("*",)),
        buffer_bytes,
        replace(batch, **given.get("batch", {})),
        given.get("retry", defaults.retry),
        given.get("timeout_s", defaults.timeout_s),
    )
    if settings.batch.bytes > settings.buffer_bytes:
        raise ConfigError(
            f"{part.where}batch.bytes is {settings.batch.bytes}, more than buffer_bytes, which is "
            f"{settings.buffer_bytes}: a batch must fit into the buffer"
        )
    return settings, values


def size(least: int, most: int) -> Check:
    """A number of bytes from ``least`` to ``most``, as ``4194304`` or ``"4MiB"``."""
    checked = Size(least, most)
    return lambda where, value: checked.parse(value, where)


def seconds(where: str, value: Any) -> float:
    """A number above 0."""
    if number(where, value) <= 0:
        raise wrong(where, "a number of seconds above 0", value)
    return float(value)


def optional_module(name: str, extra: str, part: Part) -> ModuleType:
    """The module ``name`` of a package that only some installations have.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            f"{part.where}type needs the package of {name.partition('.')[0]}, which is not "
            f"installed: pip install 'onnx-gateway[{extra}]'"
        ) from None


def _batch_fields(where: str, value: Any) -> dict[str, Any]:
    """The fields of ``Batch`` that are given."""
    fields = {"rows": integer(1), "bytes": size(1024, 1 << 40), "linger_s": number}
    return read_table(table(where, value), fields, f"{where}.")
