"""One version's queue and its runners."""

import asyncio
import logging
import threading
import time
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from gateway._native.queue import Batch, BatchQueue
from gateway._native.stats import LaneStats
from gateway._native.ticket import Ticket
from gateway.clock import Clock, monotonic_ns
from gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    InferenceFailed,
    InvalidTensor,
    ModelNotReady,
    QueueFull,
)
from gateway.serving.background import stand_back
from gateway.serving.binder import Bound, InputBinder
from gateway.serving.loaded import LoadedModel
from gateway.serving.onnx.session import OnnxSession
from gateway.serving.onnx.slot import Slot
from gateway.serving.slices import Place, Sink, SlicePart, Slices, slice_rows
from gateway.types import Array, InferRequest

__all__ = ("Batch", "BatchTap", "Lane")

log = logging.getLogger(__name__)

# While the loop answers one batch of an instance, the instance fills and runs the next.
SLOTS_PER_INSTANCE = 2

#: What a run made of a batch: all rows of each output; an error for the whole batch; or, after a
#: failed run of several requests was repeated one by one, each request's own outcome.
Outcome = list[Array] | GatewayError | dict[Ticket, "list[Array] | GatewayError"]


class BatchTap(Protocol):
    """Is shown a lane's batches, each once it is answered."""

    def batch(self, batch: Batch, slot: Slot, arrays: list[Array], ended_ns: int) -> None:
        """A run went well: its tickets, and all rows of each output, valid until this returns.

        ``slot.inputs(batch)`` are the inputs, valid as long. ``ended_ns`` is when the model had
        run, monotonic nanoseconds. Runs on the loop's thread, after the answers; must not raise.
        """

    def batch_alone(self, rows: int) -> None:
        """``rows`` rows were answered whose requests had to be run one by one.

        Their batch failed as a whole; what they brought and got is not shown. Otherwise as
        ``batch``.
        """


class Lane:
    """The batch queue of one model version, and the runners that empty it.

    A *short* model, whose largest batch is known to take less than ``inline_threshold_ns``, runs
    on the event loop: its batches are taken once all sockets that were ready have been read, so
    they fill by themselves, and no thread is crossed. Any other model has a runner thread for
    each instance.

    Every method is for the event loop's thread.

    Args:
        loaded: the version.
        loop: the loop that requests come from and answers go to.
        inline_threshold_ns: see above; 0 keeps every model off the loop.
        background: for a lane whose answers nobody waits for: it never runs on the loop, and its
            threads get what time the others leave over.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        loop: asyncio.AbstractEventLoop,
        *,
        inline_threshold_ns: int,
        background: bool = False,
        clock: Clock = monotonic_ns,
    ) -> None:
        settings = loaded.settings
        self.loaded = loaded
        self.label = f"model '{loaded.name}' version '{loaded.version}'"
        self.stats = LaneStats()
        #: Where each output stands in the signature, by name.
        self.output_index = {spec.name: i for i, spec in enumerate(loaded.signature.outputs)}
        self.max_rows = max(loaded.signature.max_batch_size, 1)
        self._levels = max(settings.priority_levels, 1)
        self._default_level = (
            settings.default_priority_level - 1
            if settings.default_priority_level
            else self._levels // 2
        )
        self.binder = InputBinder(self.label, loaded.signature, self._levels)
        self.inline = not background and _runs_inline(loaded, self.binder, inline_threshold_ns)
        #: Who is shown the batches.
        self.taps: tuple[BatchTap, ...] = ()
        self._background = background
        self._loop = loop
        self._clock = clock
        self._max_count = settings.max_queue_size
        #: How long a request may wait that says nothing of it; 0 for ever.
        self.default_timeout_ns = settings.default_timeout_us * 1000
        self._queue = BatchQueue(
            self.max_rows,
            settings.max_queue_size,
            settings.max_queue_delay_us * 1000,
            # A short model's batches are made by the loop's own rhythm; waiting adds nothing.
            0 if self.inline else int(settings.latency_objective_ms * 1e6),
            settings.preferred_batch_size,
        )
        for rows, ns in loaded.latency_ns.items():
            self._queue.observe(rows, ns)
        self._output_axes = [spec.batch_axis or 0 for spec in loaded.signature.outputs]
        self._plain_split = not any(self._output_axes)
        self._only_output = self._plain_split and len(self._output_axes) == 1
        self._pending = 0
        self._settled = 0
        self._slices = 0
        self._empty: asyncio.Future[None] | None = None
        self._scheduled = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ns = 0
        self._slots: list[Slot] = []
        self._runners: list[threading.Thread] = []
        if self.inline:
            self._slots.append(Slot(loaded.sessions[0], loaded.signature))
        else:
            self._start_runners()

    @property
    def pending(self) -> int:
        """Requests accepted and not yet answered."""
        return self._pending

    @property
    def accepted(self) -> int:
        """Requests accepted since the beginning; one in slices is one."""
        return self._settled + self._pending - self._slices

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def submit(self, request: InferRequest, sink: Sink) -> Place:
        """Accept a request: prove its inputs and put it into the queue.

        Returns:
            what ``cancel`` takes.

        Raises:
            InvalidTensor: the inputs do not fit the signature.
            QueueFull: the queue holds as many requests as it may.
        """
        group, rows, buffers, inputs = self.binder.bind(request.inputs)
        now_ns = request.received_ns
        deadline_ns = request.deadline_ns
        if not deadline_ns and self.default_timeout_ns:
            deadline_ns = now_ns + self.default_timeout_ns
        level = self.level_of(request)
        if rows > self.max_rows:
            bound = Bound(group, rows, buffers, inputs)
            return self._submit_slices(bound, sink, deadline_ns, level, now_ns)
        ticket = Ticket(group, rows, buffers, sink, deadline_ns, level)
        self.accept(ticket, now_ns)
        return ticket

    def accept(self, ticket: Ticket, now_ns: int) -> None:
        """Put a ticket, whose inputs are proven, into the queue.

        Raises:
            QueueFull: the queue holds as many requests as it may.
        """
        if ticket.deadline_ns:
            self._set_alarm(ticket.deadline_ns)
        # What may fail comes before this: a ticket in the queue is not the caller's any more.
        if not self._queue.put(ticket, now_ns):
            raise self._full(1)
        self._pending += 1
        if self.inline and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run_inline)

    def cancel(self, place: Place) -> None:
        """Nobody waits any more: free the place if it still waits; its sink gets no answer.

        For a request that has not been answered.
        """
        self.stats.requests_cancelled += 1
        place.sink.cancelled()
        if isinstance(place, Slices):
            place.abandon()
        else:
            self._drop(place)

    def _drop(self, ticket: Ticket) -> None:
        if self._queue.cancel(ticket):
            ticket.release()
            self._settle(1)

    async def drain(self) -> None:
        """Wait until every accepted request has been answered."""
        if self._pending:
            self._empty = self._empty or self._loop.create_future()
            await self._empty

    async def close(self) -> None:
        """Stop the runners and free the sessions' memory; what still waits fails as not ready."""
        left = self._queue.close()
        for ticket in left:
            self._fail(ticket, ModelNotReady(f"{self.label} was unloaded"))
        self._settle(len(left))
        if self._alarm is not None:
            self._alarm.cancel()
        for runner in self._runners:
            await self._loop.run_in_executor(None, runner.join)
        # The last answers of the runners are on their way through the loop.
        await self.drain()
        for slot in self._slots:
            slot.close()

    # -- running ------------------------------------------------------------------------------

    def _start_runners(self) -> None:
        for number, session in enumerate(self.loaded.sessions):
            free: SimpleQueue[Slot] = SimpleQueue()
            for _ in range(SLOTS_PER_INSTANCE):
                slot = Slot(session, self.loaded.signature)
                self._slots.append(slot)
                free.put(slot)
            name = f"lane-{self.loaded.name}-{self.loaded.version}-{number}"
            runner = threading.Thread(
                target=self._run_forever, args=(session, free), name=name, daemon=True
            )
            self._runners.append(runner)
            runner.start()

    def _run_forever(self, session: OnnxSession, free: "SimpleQueue[Slot]") -> None:
        """The life of a runner thread."""
        if self._background:
            stand_back()
        while True:
            slot = free.get()
            batch = self._queue.take(slot.arena)
            if batch is None:
                return
            started_ns = self._clock()
            outcome = self._run(slot, batch) if batch.tickets else []
            ended_ns = self._clock()
            if batch.tickets:
                self._queue.observe(batch.rows, ended_ns - started_ns)
            self._loop.call_soon_threadsafe(
                self._finish, free, slot, batch, outcome, started_ns, ended_ns
            )

    def _finish(
        self,
        free: "SimpleQueue[Slot]",
        slot: Slot,
        batch: Batch,
        outcome: Outcome,
        started_ns: int,
        ended_ns: int,
    ) -> None:
        try:
            self._answer(slot, batch, outcome, started_ns, ended_ns)
        finally:
            free.put(slot)

    def _run_inline(self) -> None:
        """Run one batch on the loop, then let the loop read its sockets again."""
        self._scheduled = False
        slot = self._slots[0]
        batch = self._queue.poll(slot.arena, self._clock())
        if batch is not None:
            started_ns = batch.gathered_ns
            outcome = self._run(slot, batch) if batch.tickets else []
            self._answer(slot, batch, outcome, started_ns, self._clock())
        if len(self._queue) and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run_inline)

    def _run(self, slot: Slot, batch: Batch) -> Outcome:
        try:
            return slot.run(batch)
        except GatewayError as error:
            if len(batch.tickets) == 1:
                return error
        # One request's data may have failed the run; its neighbours are owed their answers.
        outcomes: dict[Ticket, list[Array] | GatewayError] = {}
        for ticket in batch.tickets:
            try:
                arrays = slot.run(batch.alone(ticket, slot.arena))
                outcomes[ticket] = [array.copy() for array in arrays]
            except GatewayError as error:
                outcomes[ticket] = error
        return outcomes

    # -- answering ----------------------------------------------------------------------------

    def _answer(
        self, slot: Slot, batch: Batch, outcome: Outcome, started_ns: int, ended_ns: int
    ) -> None:
        for ticket in batch.expired:
            self._expire(ticket)
        tickets = batch.tickets
        if tickets:
            failed = told = 0
            if isinstance(outcome, list):
                self._complete(batch, outcome)
            else:
                for ticket in tickets:
                    made = outcome if isinstance(outcome, GatewayError) else outcome[ticket]
                    if isinstance(made, GatewayError):
                        failed += 1
                        told += not ticket.cancelled
                        self._fail(ticket, made)
                    else:
                        self._give(ticket, made)
            self.stats.record(batch, started_ns, ended_ns, self._clock(), failed < len(tickets))
            if failed < len(tickets):
                self.stats.requests_ok -= told
                self.stats.requests_failed += told
            self.stats.last_inference_ms = int(time.time() * 1000)
            for tap in self.taps:
                if isinstance(outcome, list):
                    tap.batch(batch, slot, outcome, ended_ns)
                elif isinstance(outcome, dict):
                    tap.batch_alone(_answered_rows(outcome))
            for ticket in tickets:
                ticket.release()
        self._settle(len(tickets) + len(batch.expired))

    def _complete(self, batch: Batch, arrays: list[Array]) -> None:
        """Give each ticket its rows."""
        tickets = batch.tickets
        if len(tickets) == 1:
            self._give(tickets[0], arrays)
            return
        start = 0
        for ticket in tickets:
            stop = start + ticket.rows
            if self._only_output:
                self._give(ticket, [arrays[0][start:stop]])
            elif self._plain_split:
                self._give(ticket, [array[start:stop] for array in arrays])
            else:
                parts = [
                    np.ascontiguousarray(array[(slice(None),) * axis + (slice(start, stop),)])
                    for array, axis in zip(arrays, self._output_axes, strict=True)
                ]
                self._give(ticket, parts)
            start = stop

    def _give(self, ticket: Ticket, arrays: list[Array]) -> None:
        if not ticket.cancelled:
            try:
                ticket.sink.complete(arrays)
            except Exception:
                log.exception("the answer of a request of %s could not be delivered", self.label)

    def _fail(self, ticket: Ticket, error: GatewayError) -> None:
        if not ticket.cancelled:
            try:
                ticket.sink.fail(error)
            except Exception:
                log.exception("the error of a request of %s could not be delivered", self.label)
        ticket.release()

    def _settle(self, count: int) -> None:
        self._pending -= count
        self._settled += count
        if self._pending == 0 and self._empty is not None:
            self._empty.set_result(None)
            self._empty = None

    # -- deadlines, priorities, limits --------------------------------------------------------

    def _set_alarm(self, deadline_ns: int) -> None:
        """See to it that waiting requests are told of their deadline when it passes."""
        if self._alarm is not None:
            if self._alarm_ns <= deadline_ns:
                return
            self._alarm.cancel()
        delay_s = max(deadline_ns - self._clock(), 0) / 1e9
        self._alarm_ns = deadline_ns
        # The loop's timers tick in milliseconds: a tick late is right, a tick early is not.
        self._alarm = self._loop.call_later(delay_s + 0.001, self._sweep)

    def _sweep(self) -> None:
        self._alarm = None
        expired = self._queue.expire(self._clock())
        for ticket in expired:
            self._expire(ticket)
        self._settle(len(expired))
        following = self._queue.next_deadline()
        if following:
            self._set_alarm(following)

    def _expire(self, ticket: Ticket) -> None:
        if ticket.cancelled:
            # It was taken with others, and what one of them was told made its caller leave.
            ticket.release()
            return
        self.stats.reject("deadline")
        waited_ms = (self._clock() - ticket.enqueued_ns) / 1e6
        allowed_ms = (ticket.deadline_ns - ticket.enqueued_ns) / 1e6
        self._fail(
            ticket,
            DeadlineExceeded(
                f"the request waited {waited_ms:.1f} ms in the queue of {self.label}, its "
                f"deadline was {allowed_ms:.1f} ms after its arrival"
            ),
        )

    def level_of(self, request: InferRequest) -> int:
        """The priority level of ``request``. Raises ``InvalidTensor`` for one that is not there."""
        if self._levels == 1:
            return 0
        given = request.parameters.get("priority", 0)
        if not isinstance(given, int) or not 0 <= given <= self._levels:
            raise InvalidTensor(
                f"priority must be an integer from 1 (most urgent) to {self._levels} for "
                f"{self.label}, or 0 for its default, got {given!r}"
            )
        return given - 1 if given else self._default_level

    def _full(self, count: int) -> QueueFull:
        self.stats.reject("queue_full")
        return QueueFull(
            f"the request exceeds maximum queue size of {self.label}: {len(self._queue)} "
            f"requests wait, {count} more would pass max_queue_size = {self._max_count}"
        )

    # -- requests larger than a batch ---------------------------------------------------------

    def _submit_slices(
        self, bound: Bound, sink: Sink, deadline_ns: int, level: int, now_ns: int
    ) -> Place:
        """Run a request with more rows than a batch may have in slices, answered whole."""
        if not self.loaded.settings.allow_slicing:
            raise InvalidTensor(
                f"the request brings {bound.rows} rows, {self.label} takes at most "
                f"{self.max_rows} (max_batch_size) and allow_slicing is off"
            )
        starts = range(0, bound.rows, self.max_rows)
        if len(self._queue) + len(starts) > self._max_count:
            raise self._full(len(starts))
        slices = Slices(self._drop, sink, len(starts), self._output_axes)
        for number, start in enumerate(starts):
            stop = min(start + self.max_rows, bound.rows)
            buffers = slice_rows(bound.inputs, bound.group.shapes, start, stop)
            part = SlicePart(slices, number, start)
            ticket = Ticket(bound.group, stop - start, buffers, part, deadline_ns, level)
            if not self._queue.put(ticket, now_ns):
                raise InferenceFailed(f"{self.label} closed its queue while accepting a request")
            slices.tickets.append(ticket)
        self._pending += len(starts)
        self._slices += len(starts) - 1
        if deadline_ns:
            self._set_alarm(deadline_ns)
        if self.inline and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run_inline)
        return slices


def _answered_rows(outcome: "dict[Ticket, list[Array] | GatewayError]") -> int:
    return sum(
        ticket.rows
        for ticket, made in outcome.items()
        if isinstance(made, list) and not ticket.cancelled
    )


def _runs_inline(loaded: LoadedModel, binder: InputBinder, threshold_ns: int) -> bool:
    settings = loaded.settings
    if settings.inline is not None:
        return settings.inline
    measured: Any = loaded.latency_ns
    return (
        bool(measured)
        and binder.fixed
        and settings.max_queue_delay_us == 0
        and len(loaded.sessions) == 1
        and loaded.sessions[0].device == "cpu"
        and max(measured.values()) < threshold_ns
    )
