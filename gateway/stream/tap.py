"""Makes blocks of a lane's batches."""

import logging
import time
from collections.abc import Callable
from random import Random
from typing import Final, Protocol

import numpy as np

from gateway.errors import ConfigError
from gateway.serving.lane import Batch
from gateway.serving.loaded import LoadedModel
from gateway.serving.onnx.slot import Slot
from gateway.serving.settings import LabelSettings
from gateway.serving.slices import SlicePart
from gateway.stream.block import Block, Int64s
from gateway.stream.columns import Columns, columns_of
from gateway.stream.subscription import Subscription
from gateway.types import Array

log = logging.getLogger(__name__)

#: The header by which a caller names the CloudEvent that its request is.
EVENT_ID_HEADER: Final = b"ce-id"


class Chance(Protocol):
    """Where random numbers come from."""

    def random(self) -> float:
        """A number from 0 to below 1."""


class StreamTap:
    """Publishes the batches of one version's lane: a ``BatchTap``.

    For the event loop's thread. It copies a batch once, whoever wants it, and not at all where
    nobody does or nobody has room. Requests are sampled one by one.

    Attributes:
        served: rows answered since the version was loaded.
        published: rows that were made blocks of.
        labels: how they are kept for labels, ``None`` where they are not.
        subscriptions: who gets the blocks.

    Raises:
        ConfigError: the model's stream settings name a tensor or feature that it does not have, or
            its label settings an output that is not published.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        chance: Chance | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        settings = loaded.settings.stream
        self.model: Final = loaded.name
        self.version: Final = loaded.version
        self.columns: Final[Columns] = columns_of(loaded.signature, settings)
        self.labels: Final[LabelSettings | None] = loaded.settings.labels
        self.served = 0
        self.published = 0
        self.subscriptions: tuple[Subscription, ...] = ()
        self._sample: Final = settings.sample
        self._chance: Final = chance or Random()
        self._wall_clock: Final = wall_clock
        self._loaded_ms: Final = int(wall_clock() * 1000)
        _check_labels(self.labels, self.columns)
        self._broken = False

    def batch(self, batch: Batch, slot: Slot, arrays: list[Array], ended_ns: int) -> None:
        """See ``BatchTap``."""
        if not self.subscriptions:
            self.served += batch.rows
            return
        table = np.frombuffer(batch.table(), np.int64).reshape(-1, 3)
        rows = batch.rows
        if table[:, 2].any():
            rows -= int(table[table[:, 2] == 1, 0].sum())
        chosen = self._choose(table)
        sampled = rows if chosen is None else int(table[chosen, 0].sum())
        self.served += rows
        waiting = []
        for subscription in self.subscriptions:
            account = subscription.account(self.model)
            account.served += rows
            account.sampled_out += rows - sampled
            if subscription.has_room():
                waiting.append((subscription, account))
            else:
                account.drop("buffer_full", sampled)
        if not waiting or not sampled:
            return
        try:
            block = self._block(batch, slot, arrays, ended_ns, table, chosen)
        except Exception:
            self._report_broken()
            for _, account in waiting:
                account.drop("unpublishable", sampled)
            return
        self.published += sampled
        for subscription, account in waiting:
            subscription.put(block, account)

    def batch_alone(self, rows: int) -> None:
        """See ``BatchTap``."""
        self.served += rows
        for subscription in self.subscriptions:
            account = subscription.account(self.model)
            account.served += rows
            account.drop("rerun", rows)

    def _report_broken(self) -> None:
        if not self._broken:
            log.exception(
                "predictions of model '%s' version '%s' could not be published; those of its "
                "further batches that cannot be either are counted as dropped",
                self.model,
                self.version,
            )
        self._broken = True

    def _choose(self, table: Int64s) -> Int64s | None:
        """The places of the requests that are published; ``None`` for all."""
        wanted = table[:, 2] == 0
        if self._sample < 1:
            random = self._chance.random
            wanted &= np.array([random() < self._sample for _ in range(len(table))])
        return None if wanted.all() else np.flatnonzero(wanted)

    def _block(
        self,
        batch: Batch,
        slot: Slot,
        arrays: list[Array],
        ended_ns: int,
        table: Int64s,
        chosen: Int64s | None,
    ) -> Block:
        tickets, rows = batch.tickets, None
        if chosen is not None:
            tickets = [tickets[place] for place in chosen]
            rows = np.flatnonzero(np.repeat(np.isin(np.arange(len(table)), chosen), table[:, 0]))
            table = table[chosen]
        ids = event_ids = None
        if any(subscription.wants_ids for subscription in self.subscriptions):
            ids = [ticket.sink.request_id() for ticket in tickets]
        if any(subscription.wants_event_ids for subscription in self.subscriptions):
            headers = (ticket.sink.header(EVENT_ID_HEADER) for ticket in tickets)
            event_ids = ["" if h is None else h.decode("latin-1") for h in headers]
        first_rows = None
        if ids is not None and any(type(ticket.sink) is SlicePart for ticket in tickets):
            first_rows = [getattr(ticket.sink, "first_row", 0) for ticket in tickets]
        given = slot.inputs(batch)
        return Block(
            self.model,
            self.version,
            self.columns,
            number=self.published,
            at=self._wall_clock(),
            request_rows=table[:, 0],
            latency_ns=ended_ns - table[:, 1],
            ids=ids,
            event_ids=event_ids,
            inputs={
                column.name: column.copy(array, batch.rows, rows)
                for column in self.columns.inputs
                if (array := given[column.index]) is not None
            },
            outputs={
                column.name: column.copy(arrays[column.index], batch.rows, rows)
                for column in self.columns.outputs
            },
            first_rows=first_rows,
            loaded_ms=self._loaded_ms,
        )


def _check_labels(settings: LabelSettings | None, columns: Columns) -> None:
    published = [column.name for column in columns.outputs]
    for name in settings.outputs if settings is not None else ():
        if name not in published:
            raise ConfigError(
                f"labels.outputs: '{name}' is no output that is published; those are "
                f"{', '.join(published) or 'none'}"
            )
    if settings is not None and not published:
        raise ConfigError(
            "labels: predictions are kept for their outputs, and [stream] publishes none"
        )
