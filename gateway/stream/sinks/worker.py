"""The thread of one sink: takes from its buffer, delivers in batches, tries again, keeps count."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from gateway.stream.block import Block
from gateway.stream.sinks.sink import Parcel, Sink, SinkSettings, Undelivered
from gateway.stream.subscription import Subscription

log = logging.getLogger(__name__)

#: Seconds after which a thread with nothing to do looks whether its sink has.
IDLE_S: Final = 1.0
#: Seconds between what the event loop puts and the thread's waking; one wake-up serves many.
WAKE_S: Final = 0.05
#: Most seconds between two tries while the server shuts down.
HURRY_S: Final = 0.2

#: Why predictions are lost: tries ended; the receiver will never take them; the server ended before
#: they were delivered; they could not be encoded, or the thread has a fault (ours, in the log).
GAVE_UP: Final = "gave_up"
REFUSED: Final = "refused"
SHUTDOWN: Final = "shutdown"
FAULT: Final = "fault"


@dataclass(slots=True)
class Health:
    """How a sink fares. Written by its thread.

    Attributes:
        up: whether the last try went well, ``None`` before the first.
        retries: tries that followed a failed one.
        last_error: of the last try that failed, or the last refusal; ``""`` where there was none.
        last_error_at: when that was, Unix seconds; 0 where there was none.
        last_delivery_at: when something arrived for the last time; 0 for never.
    """

    up: bool | None = None
    retries: int = 0
    last_error: str = ""
    last_error_at: float = 0.0
    last_delivery_at: float = 0.0


class SinkWorker:
    """Runs ``sink`` on a thread of its own.

    ``start`` and ``stop`` are for the event loop's thread, and so is ``subscription.put``.

    Args:
        scrub: takes secrets out of a message.
        later: calls a function on the event loop after so many seconds, ``loop.call_later``.
        clock: monotonic seconds.
        sleep: waits so many seconds between two tries; until ``stop`` where it is ``None``.

    Attributes:
        subscription: its buffer; whoever starts the worker connects it to the stream.
    """

    def __init__(
        self,
        settings: SinkSettings,
        sink: Sink,
        scrub: Callable[[str], str],
        *,
        later: Callable[[float, Callable[[], None]], Any],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Any] | None = None,
        chance: Random | None = None,
    ) -> None:
        self.settings: Final = settings
        self.health: Final = Health()
        self.subscription: Final = Subscription(
            settings.name,
            models=settings.models,
            max_bytes=settings.buffer_bytes,
            wants_ids=True,
            wants_event_ids=sink.wants_event_ids,
            notify=self._notify,
        )
        self._sink: Final = sink
        self._scrub: Final = scrub
        self._later: Final = later
        self._clock: Final = clock
        self._wall_clock: Final = wall_clock
        self._stop: Final = threading.Event()
        self._wake: Final = threading.Event()
        self._sleep: Final = sleep or self._stop.wait
        self._chance: Final = chance or Random()
        self._deadline = 0.0
        self._down_since = 0.0
        self._refusing = False
        # A daemon: a sink that hangs in a call of its own must not keep the process.
        self._thread: Final = threading.Thread(
            target=self._run, name=f"sink-{settings.name}", daemon=True
        )

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self, flush_s: float) -> None:
        """Deliver what waits within ``flush_s`` seconds, give the rest up, and end."""
        self._deadline = self._clock() + flush_s
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> bool:
        """Whether the thread has ended, after ``timeout_s`` seconds at most; blocks."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _notify(self) -> None:
        self._later(WAKE_S, self._wake.set)

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.wait(IDLE_S)
                self._wake.clear()
                self._turn()
            while blocks := self.subscription.take(self.settings.batch.rows):
                self._handle(blocks)
        finally:
            try:
                self._sink.close()
            except Exception as error:
                self._tell_failure(error)

    def _turn(self) -> None:
        """Deliver what is there, once there is a batch of it or it has waited long enough."""
        if not self.subscription.buffered_rows:
            self._when_idle()
            return
        self._linger()
        self._handle(self.subscription.take(self.settings.batch.rows))
        if self.subscription.buffered_rows:
            self._wake.set()

    def _when_idle(self) -> None:
        try:
            self._sink.idle()
        except Exception as error:
            self._tell_failure(error)

    def _linger(self) -> None:
        batch, subscription = self.settings.batch, self.subscription
        end = self._clock() + batch.linger_s
        while (
            subscription.buffered_rows < batch.rows
            and subscription.buffered_bytes < batch.bytes
            and (rest := end - self._clock()) > 0
            and not self._stop.wait(min(rest, WAKE_S))
        ):
            pass

    def _handle(self, blocks: Sequence[Block]) -> None:
        """Deliver ``blocks`` or count them as lost, whatever happens."""
        for group in self._groups(blocks):
            left = {id(block): block.rows for block in group}
            try:
                self._deliver(group, left)
            except Exception as error:
                log.exception("the thread of sink '%s' has a fault", self.settings.name)
                self._fail(error)
                for block in group:
                    if rows := left[id(block)]:
                        self._settle(block, rows, left, FAULT)

    def _groups(self, blocks: Sequence[Block]) -> Iterator[list[Block]]:
        """``blocks`` in groups of about as many bytes as a batch may have."""
        group: list[Block] = []
        taken = 0
        for block in blocks:
            group.append(block)
            taken += block.nbytes
            if taken >= self.settings.batch.bytes:
                yield group
                group, taken = [], 0
        if group:
            yield group

    def _deliver(self, blocks: Sequence[Block], left: dict[int, int]) -> None:
        parcels = self._encode(blocks, left)
        failures = 0
        while parcels:
            rest_s = self._rest_s()
            if rest_s <= 0:
                self._lose(parcels, left, SHUTDOWN)
                return
            error: Exception | None = None
            try:
                self._sink.deliver(parcels, min(self.settings.timeout_s, rest_s))
            except Exception as raised:
                error = raised
            remaining = self._settle_marked(parcels, left)
            progress = len(remaining) < len(parcels)
            parcels = remaining
            if error is None and (progress or not parcels):
                self._succeed()
                failures = 0
                continue
            failures = 1 if progress else failures + 1
            self._fail(error or Undelivered("it has neither delivered nor refused anything"))
            if parcels and self.settings.retry.is_over(failures):
                self._lose(parcels, left, GAVE_UP)
                return
            if parcels:
                self._back_off(failures, error)

    def _back_off(self, failures: int, error: Exception | None) -> None:
        delay_s = self.settings.retry.delay_s(failures, self._chance)
        wanted = error.retry_after_s if isinstance(error, Undelivered) else None
        if wanted is not None:
            delay_s = min(max(delay_s, wanted), self.settings.retry.most_s)
        if self._stop.is_set():
            # What waits for the event is over at once from here on.
            time.sleep(max(min(delay_s, HURRY_S, self._rest_s()), 0.0))
        else:
            self._sleep(delay_s)
        self.health.retries += 1

    def _rest_s(self) -> float:
        """Seconds that there are, infinite while nobody has said ``stop``."""
        return self._deadline - self._clock() if self._stop.is_set() else float("inf")

    def _encode(self, blocks: Sequence[Block], left: dict[int, int]) -> list[Parcel]:
        try:
            return self._sink.encode(blocks)
        except Exception as error:
            if len(blocks) > 1:
                return [p for block in blocks for p in self._encode([block], left)]
            (block,) = blocks
            self._fail(error)
            log.exception(
                "sink '%s' cannot encode predictions of model '%s'", self.settings.name, block.model
            )
            self._settle(block, block.rows, left, FAULT)
            return []

    # -- the account --------------------------------------------------------------------------

    def _settle_marked(self, parcels: Sequence[Parcel], left: dict[int, int]) -> list[Parcel]:
        """Count the parcels that are marked; gives those that are not."""
        remaining, refusal = [], ""
        for parcel in parcels:
            if parcel.refusal:
                refusal = parcel.refusal
                self._settle_all(parcel, left, REFUSED)
            elif parcel.arrived:
                self._settle_all(parcel, left)
            else:
                remaining.append(parcel)
        if refusal:
            self._tell_refusal(refusal)
        elif len(remaining) < len(parcels):
            self._refusing = False
        return remaining

    def _lose(self, parcels: Sequence[Parcel], left: dict[int, int], reason: str) -> None:
        for parcel in parcels:
            self._settle_all(parcel, left, reason)

    def _settle_all(self, parcel: Parcel, left: dict[int, int], lost: str = "") -> None:
        for block, rows in parcel.parts:
            self._settle(block, rows, left, lost)

    def _settle(self, block: Block, rows: int, left: dict[int, int], lost: str) -> None:
        self.subscription.settle(block, rows, lost)
        left[id(block)] -= rows
        if not left[id(block)]:
            self.subscription.release(block)

    # -- health -------------------------------------------------------------------------------

    def _succeed(self) -> None:
        health = self.health
        if health.up is False:
            log.info(
                "sink '%s' delivers again, after %.1f s",
                self.settings.name,
                self._clock() - self._down_since,
            )
        health.up = True
        health.last_delivery_at = self._wall_clock()

    def _fail(self, error: Exception) -> None:
        """Note ``error``; the first of an episode is logged."""
        health = self.health
        message = self._note(error)
        if health.up is not False:
            self._down_since = self._clock()
            log.warning(
                "sink '%s' does not deliver: %s; up to %d bytes of predictions wait for it, what "
                "comes beyond that is dropped and counted",
                self.settings.name,
                message,
                self.settings.buffer_bytes,
            )
        health.up = False

    def _tell_failure(self, error: Exception) -> None:
        log.warning("sink '%s': %s", self.settings.name, self._note(error))

    def _tell_refusal(self, refusal: str) -> None:
        message = self._note(Undelivered(refusal))
        if not self._refusing:
            log.warning(
                "sink '%s' has predictions refused: %s; they are counted as lost and not tried "
                "again",
                self.settings.name,
                message,
            )
        self._refusing = True

    def _note(self, error: Exception) -> str:
        message = self._scrub(f"{error}" or type(error).__name__)
        if not isinstance(error, Undelivered):
            message = f"{type(error).__name__}: {message}"
        self.health.last_error = message
        self.health.last_error_at = self._wall_clock()
        return message
