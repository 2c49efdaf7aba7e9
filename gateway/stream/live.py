"""Live subscriptions: whoever attaches to a running gateway and watches predictions go by."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

import numpy as np

from gateway.errors import ConfigError, QueueFull, ShuttingDown
from gateway.stream.block import Block
from gateway.stream.columns import Column, Columns
from gateway.stream.stream import PredictionStream
from gateway.stream.subscription import Subscription
from gateway.types import Array, DataType

#: Memory of what waits for one subscriber, in bytes, about.
MAX_BYTES: Final = 4 << 20
#: Blocks of which nothing is wanted that are looked at in one turn of the event loop.
_BLOCKS_A_TURN: Final = 16


@dataclass(frozen=True, slots=True)
class LiveTensor:
    """A tensor of some requests, or the features of it that were asked for.

    Attributes:
        features: the names of what lies along its last axis, ``()`` where they have none.
        array: of all requests, the rows first.
    """

    name: str
    datatype: DataType
    features: tuple[str, ...]
    array: Array


class LiveRequest(NamedTuple):
    """A request among the rows of a ``LiveBatch``.

    Attributes:
        row: the place of its first row in the request; above 0 for a slice of a long one.
        first, rows: where its rows are, and how many.
        latency_ns: from its acceptance to the end of the run.
    """

    id: str
    row: int
    first: int
    rows: int
    latency_ns: int


@dataclass(frozen=True, slots=True)
class LiveBatch:
    """Requests that were run together, as one subscriber wants them; ``at`` is in Unix seconds."""

    model: str
    version: str
    at: float
    requests: Sequence[LiveRequest]
    inputs: Sequence[LiveTensor]
    outputs: Sequence[LiveTensor]


class LiveFeed:
    """What one subscriber gets, until it is closed. For the event loop's thread.

    Attributes:
        ended: nothing more will come, because the server is shutting down.
    """

    def __init__(
        self,
        subscription: Subscription,
        sample: float,
        fields: frozenset[str],
        wakeup: asyncio.Event,
        closed: "Callable[[LiveFeed], None]",
    ) -> None:
        self._subscription: Final = subscription
        self._sample: Final = sample
        self._fields: Final = fields
        self._wakeup: Final = wakeup
        self._closed: Final = closed
        self._random: Final = Random()
        self._told: Final[dict[tuple[str, str], int]] = {}
        self._taken: Final[list[Block]] = []
        self._unwanted_rows = 0
        self._draining = False
        self._open = True
        self.ended = False

    async def next(self, timeout_s: float) -> LiveBatch | None:
        """The next batch; ``None`` where none comes in time, or ever.

        Whoever asks has dealt with the one before, as after ``delivered``.
        """
        try:
            async with asyncio.timeout(timeout_s):
                passed_over = 0
                while True:
                    self.delivered()
                    self._taken.extend(self._subscription.take(1))
                    if self._taken:
                        if (batch := self._wanted(self._taken[0])) is not None:
                            return batch
                        passed_over += 1
                        if passed_over % _BLOCKS_A_TURN == 0:
                            await asyncio.sleep(0)
                    elif self._draining:
                        self.ended = True
                        return None
                    else:
                        self._wakeup.clear()
                        await self._wakeup.wait()
        except TimeoutError:
            return None

    def dropped(self) -> Mapping[str, Mapping[str, int]]:
        """Predictions (rows) that did not get here since the last call, by model and reason."""
        found: dict[str, dict[str, int]] = {}
        for model, account in self._subscription.accounts.items():
            for reason, rows in account.dropped.items():
                more = rows - self._told.get((model, reason), 0)
                if more:
                    self._told[model, reason] = rows
                    found.setdefault(model, {})[reason] = more
        return found

    def drain(self) -> None:
        """Nothing more is put; what is there may still be taken."""
        self._draining = True
        self._wakeup.set()

    def close(self) -> None:
        """Free everything; again does nothing."""
        if self._open:
            self._open = False
            self._subscription.lost((*self._taken, *self._subscription.take()), "closed")
            self._taken.clear()
            self._closed(self)

    def delivered(self) -> None:
        """The batch that was given last is dealt with."""
        self._subscription.delivered(self._taken)
        if self._unwanted_rows:
            self._subscription.pass_over(self._taken[0].model, self._unwanted_rows)
            self._unwanted_rows = 0
        self._taken.clear()

    def _wanted(self, block: Block) -> LiveBatch | None:
        """What is wanted of ``block``, ``None`` for nothing."""
        counts = block.request_rows
        chosen: Array | None = None
        if self._sample < 1:
            random = self._random.random
            chosen = np.array([random() < self._sample for _ in counts], bool)
            if not chosen.any():
                self._unwanted_rows = block.rows
                return None
        rows: Array | None = None
        if chosen is not None and not chosen.all():
            rows = np.flatnonzero(np.repeat(chosen, counts))
            self._unwanted_rows = block.rows - len(rows)
        ids = block.request_ids()
        first_rows = block.first_rows or [0] * len(ids)
        latency = block.latency_ns.tolist()
        requests = []
        first = 0
        for place, count in enumerate(counts.tolist()):
            if chosen is None or chosen[place]:
                requests.append(
                    LiveRequest(ids[place], first_rows[place], first, count, latency[place])
                )
                first += count
        return LiveBatch(
            block.model,
            block.version,
            block.at,
            requests,
            self._tensors(block.columns.inputs, block.inputs, rows),
            self._tensors(block.columns.outputs, block.outputs, rows),
        )

    def _tensors(
        self, columns: Sequence[Column], arrays: Mapping[str, Array], rows: Array | None
    ) -> list[LiveTensor]:
        tensors = []
        for column in columns:
            array, features = arrays.get(column.name), column.features
            if array is None:
                continue
            if self._fields and column.name not in self._fields:
                places = [n for n, feature in enumerate(features) if feature in self._fields]
                if not places:
                    continue
                features = tuple(features[n] for n in places)
                array = array[..., places]
            if rows is not None:
                array = array[rows]
            tensors.append(LiveTensor(column.name, column.datatype, features, array))
        return tensors


class LiveStream:
    """Opens feeds, as many as there may be. For the event loop's thread.

    Args:
        max_subscribers: most feeds that are open at once.
    """

    def __init__(self, stream: PredictionStream, max_subscribers: int) -> None:
        self._stream: Final = stream
        self._most: Final = max_subscribers
        self._feeds: Final[dict[LiveFeed, Subscription]] = {}
        self._draining = False

    def open(
        self, name: str, models: Sequence[str], sample: float = 1.0, fields: Sequence[str] = ()
    ) -> LiveFeed:
        """A feed of what is answered from now on; whoever opens it closes it.

        Args:
            name: the way by which the subscriber came, for the metrics.
            models: patterns of the models' names, as in a shell.
            sample: the share of the requests that is wanted, above 0 and at most 1.
            fields: tensors and features that are wanted, ``()`` for all.

        Raises:
            QueueFull: there are as many as there may be.
            ConfigError: of the models that are loaded none has such a field.
            ShuttingDown: the server is.
        """
        if self._draining:
            raise ShuttingDown("the server is shutting down")
        if len(self._feeds) >= self._most:
            raise QueueFull(
                f"{self._most} subscribers watch predictions, which is the most "
                "(--max-stream-subscribers)"
            )
        wakeup = asyncio.Event()
        subscription = Subscription(
            name, models=models, max_bytes=MAX_BYTES, wants_ids=True, notify=wakeup.set
        )
        self._check_fields(subscription, fields)
        feed = LiveFeed(subscription, sample, frozenset(fields), wakeup, self._close)
        self._feeds[feed] = subscription
        self._stream.subscribe(subscription)
        return feed

    def drain(self) -> None:
        """Open no more feeds; those there are end once what is in them is taken."""
        self._draining = True
        self._stream.flush()
        for feed in self._feeds:
            feed.drain()

    def __len__(self) -> int:
        return len(self._feeds)

    def _close(self, feed: LiveFeed) -> None:
        self._stream.unsubscribe(self._feeds.pop(feed))

    def _check_fields(self, subscription: Subscription, fields: Sequence[str]) -> None:
        watched = [c for model, c in self._stream.columns() if subscription.watches(model)]
        known = dict.fromkeys(name for columns in watched for name in _names(columns))
        for field in fields:
            if watched and field not in known:
                raise ConfigError(
                    f"fields: {field!r:.100} is neither a tensor nor a feature that is published; "
                    f"those are {', '.join(known)}"
                )


def _names(columns: Columns) -> list[str]:
    return [
        name
        for column in (*columns.inputs, *columns.outputs)
        for name in (column.name, *column.features)
    ]
