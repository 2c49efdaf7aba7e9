"""Brings labels and predictions together, whichever comes first, and hands on what is joined."""

import asyncio
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.errors import Conflict, InvalidRequest, QueueFull, ShuttingDown, StateUnavailable
from gateway.label_metrics import LabelSample
from gateway.monitor.held import Candidate, HeldPredictions, SeveralRows
from gateway.monitor.joins import Join, joined_batches
from gateway.monitor.label_files import read_labels
from gateway.monitor.label_store import NO_ROW, LabelStore, Waiting, encode_value
from gateway.monitor.labels import Joined, Label, Outcome, TruthListener
from gateway.serving.settings import LabelSettings
from gateway.stream.block import Block
from gateway.stream.subscription import Subscription

log = logging.getLogger(__name__)

#: Labels that may wait for a prediction, of all models together.
MOST_WAITING: Final = 100_000
#: Requests with labels that may wait for the thread.
MOST_POSTS: Final = 8
#: Seconds from the first prediction that can be taken to its being taken, so that there are more.
_GATHER_S: Final = 0.05
#: Seconds between two looks at what is to be written and what has waited long enough.
_TICK_S: Final = 1.0
#: Rows that are taken from the stream in one transaction.
_TAKEN_ROWS: Final = 20_000

Table = dict[str, Any]
T = TypeVar("T")


class GroundTruth:
    """Keeps predictions, takes labels, and tells its listeners of both together.

    The methods are for the event loop's thread. Everything else happens on one thread of its own,
    to which SQLite and the listeners belong.

    Args:
        directory: where ``labels.sqlite`` is; ``None`` for a file that goes with the process.
        settings: how a model's predictions are kept now, ``None`` where they are not.
        flush: has what was answered until now published.
        wall_clock: Unix seconds.

    Attributes:
        subscription: what it takes predictions from; whoever makes it subscribes and unsubscribes.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        settings: Callable[[str], LabelSettings | None],
        flush: Callable[[], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.subscription: Final = Subscription(
            "labels", wants_ids=True, labelled_only=True, notify=self._notify
        )
        self._directory: Final = directory
        self._settings_of: Final = settings
        self._flush: Final = flush
        self._wall_clock: Final = wall_clock
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="labels")
        self._listeners: Final[list[TruthListener]] = []
        self._posts = 0
        self._closed = False
        self._ticker: asyncio.TimerHandle | None = None
        # The thread's alone, from here on.
        self._store: LabelStore
        self._held: Final[dict[str, HeldPredictions]] = {}
        self._waiting: Final[dict[str, Counter[str]]] = {}
        self._waiting_count: Final[Counter[str]] = Counter()
        self._counts: Final[dict[str, Counter[str]]] = {}
        self._too_late: Final[Counter[tuple[str, str]]] = Counter()
        self._next_number = 0
        self._broken = False
        # Written by the thread as a whole, read by the loop.
        self._shown: Mapping[str, Table] = {}
        # Written by the loop as a whole, read by the thread.
        self._settings: Mapping[str, LabelSettings] = {}

    async def open(self) -> None:
        """Open the file and hold what it holds. Raises ``ConfigError``."""
        await self._run(self._open)
        self._tick()

    def listen(self, listener: TruthListener) -> None:
        """From now on ``listener`` gets what is joined."""
        self._listeners.append(listener)

    async def submit(self, model: str, kind: str, body: bytes) -> Table:
        """Take the labels in ``body``; how many ended how, and how many wait.

        Args:
            kind: the media type of ``body``, one of ``label_files.KINDS``.

        Raises:
            Conflict: predictions of ``model`` are not kept.
            MalformedRequest, InvalidRequest: a label is wrong; those before it are taken.
            QueueFull: too many such requests wait.
            StateUnavailable: the file cannot be written; what is not counted is not taken.
        """
        self._look_up_settings(model)
        if model not in self._settings and model not in self._shown:
            raise Conflict(
                f"predictions of model '{model}' are not kept, so there is nothing to join labels "
                "with; add a table [labels] to its model.toml and load it again"
            )
        if self._posts >= MOST_POSTS:
            raise QueueFull(f"{self._posts} requests with labels wait already, which is the most")
        self._posts += 1
        # A label may come right behind the answer.
        self._flush()
        try:
            return await self._run(lambda: self._take(model, kind, body))
        finally:
            self._posts -= 1

    def report(self, model: str) -> Table:
        """How many labels of ``model`` were received, how they ended, and what is held."""
        settings = self._settings_of(model)
        shown = self._shown.get(model) or _shown(Counter(), 0, 0, {})
        return {
            "model": model,
            "settings": None if settings is None else _as_table(settings),
            **shown,
        }

    def samples(self) -> list[LabelSample]:
        """The same of all models, for the metrics."""
        return [
            LabelSample(
                model,
                {outcome.value: shown[outcome.value] for outcome in Outcome},
                shown["received"],
                shown["waiting"],
                shown["held"],
                shown["too_late"],
            )
            for model, shown in sorted(self._shown.items())
        ]

    async def close(self) -> None:
        """Take what is in the subscription, write everything, and close the file."""
        if self._closed:
            return
        if self._ticker is not None:
            self._ticker.cancel()
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._closed = True
        self._thread.shutdown(wait=False)
        await asyncio.shield(closing)

    # -- on the event loop --------------------------------------------------------------------

    def _notify(self) -> None:
        asyncio.get_running_loop().call_later(_GATHER_S, self._begin_absorbing)

    def _begin_absorbing(self) -> None:
        if not self._closed:
            self._look_up_settings(*self.subscription.accounts)
            self._thread.submit(self._absorb)

    def _tick(self) -> None:
        if not self._closed:
            self._thread.submit(self._look_after)
            self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _look_up_settings(self, *models: str) -> None:
        found = {model: self._settings_of(model) for model in models}
        known = {model: settings for model, settings in found.items() if settings is not None}
        if any(self._settings.get(model) != settings for model, settings in known.items()):
            self._settings = {**self._settings, **known}

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise ShuttingDown("the server is shutting down and takes no labels any more")
        # What was begun is finished, even if whoever asked is gone.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    # -- on the thread ------------------------------------------------------------------------

    def _open(self) -> None:
        self._store = LabelStore(self._directory)
        self._restore()

    def _restore(self) -> None:
        """Hold what the file holds, and nothing else."""
        for table in (self._held, self._waiting, self._waiting_count, self._counts):
            table.clear()
        for number, model, version, body in self._store.chunks():
            self._held_of(model).restore(number, version, body)
            self._next_number = max(self._next_number, number + 1)
        for model, id, count in self._store.all_waiting():
            self._waiting.setdefault(model, Counter())[id] = count
            self._waiting_count[model] += count
        for model, name, count in self._store.outcomes():
            self._counts.setdefault(model, Counter())[name] = count
        self._show()

    def _held_of(self, model: str) -> HeldPredictions:
        settings = self._settings.get(model)
        held = self._held.get(model)
        if held is None:
            held = HeldPredictions(model, settings or LabelSettings(), self._store)
            self._held[model] = held
        elif settings is not None:
            held.settings = settings
        return held

    def _close(self) -> None:
        self._look_after()
        self._store.close()

    def _absorb(self) -> None:
        """Hold the predictions that have come, and end the waiting of labels for them."""
        while blocks := self.subscription.take(_TAKEN_ROWS):
            joins: list[tuple[str, Join]] = []
            try:
                with self._store.transaction():
                    for block in blocks:
                        held = self._held_of(block.model)
                        self._next_number = held.add(block, self._next_number)
                        joins += self._end_waiting(held, block)
                batches = self._batches(joins)
            except sqlite3.Error as error:
                self.subscription.lost(blocks, "storage")
                self._recover(error)
            else:
                self._broken = False
                self.subscription.delivered(blocks)
                self._tell(batches)
        self._show()

    def _end_waiting(self, held: HeldPredictions, block: Block) -> list[tuple[str, Join]]:
        waiting = self._waiting.get(block.model)
        if not waiting:
            return []
        counts = self._counts.setdefault(block.model, Counter())
        joins: list[tuple[str, Join]] = []
        for id in waiting.keys() & set(block.request_ids()):
            for label in self._store.waiting(block.model, id):
                outcome, join = self._settle(block.model, held, label, ())
                if outcome is None:
                    continue
                self._forget_waiting(block.model, label)
                counts[outcome.value] += 1
                if join is not None:
                    joins.append((block.model, join))
        self._store.set_outcomes(block.model, counts)
        return joins

    def _take(self, model: str, kind: str, body: bytes) -> Table:
        """See ``submit``."""
        total: Counter[str] = Counter()
        try:
            for labels in read_labels(kind, body):
                self._absorb()
                total += self._take_piece(model, labels)
        except InvalidRequest as error:
            if taken := total["received"]:
                raise type(error)(f"{error}; the first {taken} labels are taken") from None
            raise
        finally:
            self._show()
        return {name: total[name] for name in ("received", *map(str, Outcome), "waiting")}

    def _take_piece(self, model: str, labels: Sequence[Label]) -> Counter[str]:
        held = self._held_of(model)
        counts = self._counts.setdefault(model, Counter())
        joins: list[tuple[str, Join]] = []
        ended: Counter[str] = Counter(received=len(labels))
        try:
            with self._store.transaction():
                ids = [label.id for label in labels]
                candidates = held.candidates(ids)
                gone = held.were_held(ids)
                # Chunk by chunk, so that each is read once; of one id in their order.
                order = sorted(
                    range(len(labels)),
                    key=lambda n: candidates[n][0][0].number if candidates[n] else -1,
                )
                now = self._wall_clock()
                for n in order:
                    outcome, join = self._take_label(
                        model, held, _as_waiting(labels[n], now), candidates[n], gone[n]
                    )
                    ended["waiting" if outcome is None else outcome.value] += 1
                    if join is not None:
                        joins.append((model, join))
                counts.update(ended)
                del counts["waiting"]
                self._store.set_outcomes(model, counts)
            batches = self._batches(joins)
        except sqlite3.Error as error:
            self._recover(error)
            raise StateUnavailable(
                f"the labels cannot be written, and of {len(labels)} none was: {error}"
            ) from error
        self._tell(batches)
        return ended

    def _take_label(
        self,
        model: str,
        held: HeldPredictions,
        label: Waiting,
        candidates: Sequence[Candidate],
        gone: bool,
    ) -> tuple[Outcome | None, Join | None]:
        """What becomes of a label that was received; ``None`` where it waits."""
        outcome, join = self._settle(model, held, label, candidates)
        if outcome is not None:
            return outcome, join
        waiting = self._waiting.setdefault(model, Counter())
        if label.id in waiting:
            for other in self._store.waiting(model, label.id):
                if other.row == label.row:
                    if other.value == label.value:
                        return Outcome.DUPLICATE, None
                    self._store.set_waiting(model, label)
                    return Outcome.CORRECTED, None
        if gone:
            return Outcome.LATE, None
        if self._waiting_count.total() >= MOST_WAITING:
            return Outcome.UNMATCHED, None
        self._store.set_waiting(model, label)
        waiting[label.id] += 1
        self._waiting_count[model] += 1
        return None, None

    def _settle(
        self, model: str, held: HeldPredictions, label: Waiting, candidates: Sequence[Candidate]
    ) -> tuple[Outcome | None, Join | None]:
        """What becomes of a label whose prediction is held; ``None`` where it is not."""
        try:
            place = held.find(label.id, None if label.row == NO_ROW else label.row, candidates)
        except SeveralRows:
            return Outcome.ROW_MISSING, None
        if place is None:
            return None, None
        number = place.chunk.number
        earlier = self._store.label(model, label.id, place.row, number)
        if earlier == label.value:
            return Outcome.DUPLICATE, None
        self._store.set_label(model, label.id, place.row, label.value, label.time, number)
        join = Join(place.chunk, place.index, label.value, label.time, earlier)
        return (Outcome.JOINED if earlier is None else Outcome.CORRECTED), join

    def _forget_waiting(self, model: str, label: Waiting) -> None:
        self._store.end_waiting(model, label.id, label.row)
        self._waiting_count[model] -= 1
        waiting = self._waiting[model]
        waiting[label.id] -= 1
        if waiting[label.id] <= 0:
            del waiting[label.id]

    def _batches(self, joins: Sequence[tuple[str, Join]]) -> list[Joined]:
        by_model: dict[str, list[Join]] = {}
        for model, join in joins:
            by_model.setdefault(model, []).append(join)
        return [
            batch
            for model, found in by_model.items()
            for batch in joined_batches(model, found, self._held[model].data)
        ]

    def _tell(self, batches: Sequence[Joined]) -> None:
        for batch in batches:
            for listener in tuple(self._listeners):
                try:
                    self._too_late[batch.model, listener.name] += listener.joined(batch)
                except Exception:
                    log.exception(
                        "labels of model '%s' are lost to '%s'", batch.model, listener.name
                    )

    def _look_after(self) -> None:
        """Take what has come, end what has waited long enough, and write what is not yet."""
        self._absorb()
        now = self._wall_clock()
        try:
            with self._store.transaction():
                for model, waiting in self._waiting.items():
                    if waiting:
                        self._expire_waiting(model, now)
                for held in self._held.values():
                    held.expire(now)
                    held.save()
        except sqlite3.Error as error:
            self._recover(error)
        self._show()

    def _expire_waiting(self, model: str, now: float) -> None:
        since = now - self._held_of(model).settings.wait_hours * 3600
        if expired := self._store.waited_since(model, since):
            for label in expired:
                self._forget_waiting(model, label)
            counts = self._counts.setdefault(model, Counter())
            counts[Outcome.UNMATCHED.value] += len(expired)
            self._store.set_outcomes(model, counts)

    def _recover(self, error: sqlite3.Error) -> None:
        """A transaction has failed: hold what is in the file."""
        if not self._broken:
            log.error("the predictions that labels wait for cannot be written: %s", error)
        self._broken = True
        try:
            self._restore()
        except sqlite3.Error:
            # The file cannot be read either; it is tried again with the next transaction.
            log.debug("nor read", exc_info=True)

    def _show(self) -> None:
        models = {*self._held, *self._counts, *self._waiting_count}
        self._shown = {
            model: _shown(
                self._counts.get(model, Counter()),
                self._waiting_count[model],
                self._held[model].rows if model in self._held else 0,
                {name: rows for (of, name), rows in self._too_late.items() if of == model},
            )
            for model in models
        }


def _shown(
    counts: Counter[str], waiting: int, held: int, too_late: Mapping[str, int]
) -> dict[str, Any]:
    return {
        **{name: counts[name] for name in ("received", *map(str, Outcome))},
        "waiting": waiting,
        "held": held,
        "too_late": dict(too_late),
    }


def _as_waiting(label: Label, now: float) -> Waiting:
    row = NO_ROW if label.row is None else label.row
    time_s = now if label.time is None else label.time
    return Waiting(label.id, row, encode_value(label.value), time_s, now)


def _as_table(settings: LabelSettings) -> Table:
    return {**asdict(settings), "outputs": list(settings.outputs)}
