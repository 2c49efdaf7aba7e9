"""What the fronts need to know of live predictions, and how much of the event loop they may take.

The stream itself is another part's; these are its shapes as the fronts see them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, Self

from gateway.clock import Clock, monotonic_ns
from gateway.types import Array, DataType

#: Seconds after which a subscriber that takes nothing is given up.
STALL_S: Final = 30.0
#: Nanoseconds of work between two turns of the loop, about, and the rest after it as a multiple:
#: encoding for all subscribers together takes at most a tenth of the loop.
PIECE_NS: Final = 1_000_000
_REST: Final = 9


class Tensor(Protocol):
    """A tensor of some requests, the rows first."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def datatype(self) -> DataType: ...  # noqa: D102
    @property
    def features(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def array(self) -> Array: ...  # noqa: D102


class Watched(Protocol):
    """A request: where its rows are among those of the batch."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def row(self) -> int: ...  # noqa: D102
    @property
    def first(self) -> int: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def latency_ns(self) -> int: ...  # noqa: D102


class Batch(Protocol):
    """Requests that were run together; ``at`` is in Unix seconds."""

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def at(self) -> float: ...  # noqa: D102
    @property
    def requests(self) -> Sequence[Watched]: ...  # noqa: D102
    @property
    def inputs(self) -> Sequence[Tensor]: ...  # noqa: D102
    @property
    def outputs(self) -> Sequence[Tensor]: ...  # noqa: D102


class Feed(Protocol):
    """What one subscriber gets, until it is closed.

    Attributes:
        ended: nothing more will come, because the server is shutting down.
    """

    ended: bool

    async def next(self, timeout_s: float) -> Batch | None:
        """The next batch, ``None`` where none comes in time; the one before is dealt with."""

    def delivered(self) -> None:
        """The batch that was given last is dealt with."""

    def dropped(self) -> Mapping[str, Mapping[str, int]]:
        """Rows that were dropped since the last call, by model and reason."""

    def close(self) -> None:
        """Free everything; again does nothing."""


class LiveStream(Protocol):
    """Opens feeds."""

    def open(
        self, name: str, models: Sequence[str], sample: float = 1.0, fields: Sequence[str] = ()
    ) -> Feed:
        """A feed; whoever opens it closes it. Raises ``GatewayError``."""


class Pace:
    """Lets one subscriber at a time work, and then rests, so that answering goes first.

    ``async with pace:`` around a piece of work that takes about ``PIECE_NS`` at most. Small pieces
    rest together, because a timer is no finer than a millisecond; each lets the loop turn.
    """

    def __init__(self, clock: Clock = monotonic_ns) -> None:
        self._clock: Final = clock
        self._lock: Final = asyncio.Lock()
        self._began_ns = 0
        self._worked_ns = 0

    async def __aenter__(self) -> Self:
        await self._lock.acquire()
        self._began_ns = self._clock()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._worked_ns += self._clock() - self._began_ns
        rest_s = 0.0
        if self._worked_ns >= PIECE_NS:
            rest_s = _REST * self._worked_ns / 1e9
            self._worked_ns = 0
        try:
            await asyncio.sleep(rest_s)
        finally:
            self._lock.release()
