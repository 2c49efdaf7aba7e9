"""Makes blocks of a lane's batches."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from gateway.errors import ConfigError
from gateway.serving.lane import Batch
from gateway.serving.loaded import LoadedModel
from gateway.serving.onnx.slot import Slot
from gateway.serving.settings import LabelSettings
from gateway.stream.block import Block, Int64s
from gateway.stream.columns import Column, Columns, columns_of
from gateway.stream.gathering import Gathering, event_id, first_row, gathering_of
from gateway.stream.subscription import Account, Subscription
from gateway.types import Array

log = logging.getLogger(__name__)

Flags = npt.NDArray[np.bool_]

#: Seconds for which small batches are gathered before they are published.
GATHER_S: Final = 0.05


class Chance(Protocol):
    """Where random numbers come from."""

    def random(self) -> float:
        """A number from 0 to below 1."""


class StreamTap:
    """Publishes the batches of one version's lane: a ``BatchTap``.

    For the event loop's thread. It copies a batch, whoever wants it, and not at all where nobody
    does or nobody has room; small batches are gathered for ``GATHER_S`` and published together.
    What has been gathered counts as served once it is published. Requests are sampled one by one.

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
        self._wants_ids = self._wants_event_ids = False
        self._sample: Final = settings.sample
        self._chance: Final = chance or Random()
        self._wall_clock: Final = wall_clock
        self._loaded_ms: Final = int(wall_clock() * 1000)
        _check_labels(self.labels, self.columns)
        self._broken = False
        self._gathering: Final = gathering_of(loaded.signature, self.columns)
        self._flushing: asyncio.TimerHandle | None = None

    def connect(self, subscriptions: tuple[Subscription, ...]) -> None:
        """From now on ``subscriptions`` get the blocks.

        What has been gathered goes to those of them that were there already.
        """
        self.subscriptions = tuple(s for s in self.subscriptions if s in subscriptions)
        self.flush()
        self.subscriptions = subscriptions
        self._wants_ids = any(subscription.wants_ids for subscription in subscriptions)
        self._wants_event_ids = any(subscription.wants_event_ids for subscription in subscriptions)
        if self._gathering is not None:
            self._gathering.wants_ids = self._wants_ids
            self._gathering.wants_event_ids = self._wants_event_ids

    def batch(self, batch: Batch, slot: Slot, arrays: list[Array], ended_ns: int) -> None:
        """See ``BatchTap``."""
        if not self.subscriptions:
            self.served += batch.rows
            return
        if self._gathering is not None and self._gather(batch, slot, arrays, ended_ns):
            self.served += batch.rows
            return
        table = np.frombuffer(batch.table(), np.int64).reshape(-1, 3)
        there = table[:, 2] == 0
        rows = int(table[there, 0].sum())
        self.served += rows
        chosen = self._choose(len(table), there)
        sampled = rows if chosen is None else int(table[chosen, 0].sum())
        if waiting := self._offer(rows, sampled):
            try:
                block = self._block_of(batch, slot, arrays, ended_ns, table, chosen)
            except Exception:
                self._drop_broken(waiting, sampled)
                return
            self._put(block, waiting)

    def flush(self) -> None:
        """Publish what has been gathered."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        gathering = self._gathering
        if gathering is None or gathering.is_empty:
            return
        request_rows, latency_ns = gathering.requests()
        chosen = self._choose(len(request_rows), None)
        sampled = gathering.rows if chosen is None else int(request_rows[chosen].sum())
        if waiting := self._offer(gathering.rows, sampled):
            try:
                block = self._gathered_block(gathering, request_rows, latency_ns, chosen)
            except Exception:
                self._drop_broken(waiting, sampled)
            else:
                self._put(block, waiting)
        gathering.clear()

    def _gather(self, batch: Batch, slot: Slot, arrays: list[Array], ended_ns: int) -> bool:
        """Add a batch to those before it; whether that was possible."""
        gathering = self._gathering
        assert gathering is not None
        if gathering.is_empty and not any(s.has_room() for s in self.subscriptions):
            return False
        if not gathering.add(batch, slot, arrays, ended_ns):
            # It may have been full.
            self.flush()
            if not gathering.add(batch, slot, arrays, ended_ns):
                return False
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(GATHER_S, self.flush)
        return True

    def _offer(self, rows: int, sampled: int) -> list[tuple[Subscription, Account]]:
        """Count what was served; the subscriptions that have room for what of it is published."""
        waiting = []
        for subscription in self.subscriptions:
            account = subscription.account(self.model)
            account.served += rows
            account.sampled_out += rows - sampled
            if subscription.has_room():
                waiting.append((subscription, account))
            else:
                account.drop("buffer_full", sampled)
        return waiting if sampled else []

    def _put(self, block: Block, waiting: list[tuple[Subscription, Account]]) -> None:
        self.published += block.rows
        for subscription, account in waiting:
            subscription.put(block, account)

    def batch_alone(self, rows: int) -> None:
        """See ``BatchTap``."""
        self.served += rows
        for subscription in self.subscriptions:
            account = subscription.account(self.model)
            account.served += rows
            account.drop("rerun", rows)

    def _drop_broken(self, waiting: list[tuple[Subscription, Account]], rows: int) -> None:
        """Count what could not be made a block of; called where an error is being handled."""
        if not self._broken:
            log.exception(
                "predictions of model '%s' version '%s' could not be published; those of its "
                "further batches that cannot be either are counted as dropped",
                self.model,
                self.version,
            )
        self._broken = True
        for _, account in waiting:
            account.drop("unpublishable", rows)

    def _choose(self, requests: int, there: Flags | None) -> Int64s | None:
        """The places of the requests that are published, of those that are ``there``."""
        if there is None or there.all():
            if self._sample >= 1:
                return None
            there = np.ones(requests, bool)
        if self._sample < 1:
            random = self._chance.random
            there = there & np.array([random() < self._sample for _ in range(requests)])
        return np.flatnonzero(there)

    def _block_of(
        self,
        batch: Batch,
        slot: Slot,
        arrays: list[Array],
        ended_ns: int,
        table: Int64s,
        chosen: Int64s | None,
    ) -> Block:
        """A block of one batch."""
        sinks = [ticket.sink for ticket in batch.tickets]
        given = slot.inputs(batch)
        return self._block(
            table[:, 0].copy(),
            ended_ns - table[:, 1],
            chosen,
            [(column, given[column.index]) for column in self.columns.inputs],
            [(column, arrays[column.index]) for column in self.columns.outputs],
            ids=[sink.request_id() for sink in sinks] if self._wants_ids else None,
            first_rows=[first_row(sink) for sink in sinks] if self._wants_ids else None,
            event_ids=[event_id(sink) for sink in sinks] if self._wants_event_ids else None,
        )

    def _gathered_block(
        self,
        gathering: Gathering,
        request_rows: Int64s,
        latency_ns: Int64s,
        chosen: Int64s | None,
    ) -> Block:
        inputs, outputs = gathering.tensors()
        return self._block(
            request_rows,
            latency_ns,
            chosen,
            list(zip(self.columns.inputs, inputs, strict=True)),
            list(zip(self.columns.outputs, outputs, strict=True)),
            ids=gathering.ids if self._wants_ids else None,
            first_rows=gathering.first_rows if self._wants_ids else None,
            event_ids=gathering.event_ids if self._wants_event_ids else None,
        )

    def _block(
        self,
        request_rows: Int64s,
        latency_ns: Int64s,
        chosen: Int64s | None,
        inputs: Sequence[tuple[Column, Array | None]],
        outputs: Sequence[tuple[Column, Array]],
        *,
        ids: list[str] | None,
        first_rows: list[int] | None,
        event_ids: list[str] | None,
    ) -> Block:
        """A block of the ``chosen`` requests' rows of whole tensors."""
        count, rows = int(request_rows.sum()), None
        if chosen is not None:
            rows = np.flatnonzero(
                np.repeat(np.isin(np.arange(len(request_rows)), chosen), request_rows)
            )
            request_rows, latency_ns = request_rows[chosen], latency_ns[chosen]
            ids, first_rows, event_ids = (
                kept if kept is None else [kept[place] for place in chosen]
                for kept in (ids, first_rows, event_ids)
            )
        return Block(
            self.model,
            self.version,
            self.columns,
            number=self.published,
            at=self._wall_clock(),
            request_rows=request_rows,
            latency_ns=latency_ns,
            ids=ids,
            event_ids=event_ids,
            inputs={
                column.name: column.copy(array, count, rows)
                for column, array in inputs
                if array is not None
            },
            outputs={column.name: column.copy(array, count, rows) for column, array in outputs},
            first_rows=first_rows if first_rows and any(first_rows) else None,
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
