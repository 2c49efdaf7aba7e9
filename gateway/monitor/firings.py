"""Runs the actions of episodes: written down before each attempt, tried again, journaled."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from gateway.errors import GatewayError
from gateway.monitor.actions import Action
from gateway.monitor.episode import Episode, Firing, Phase
from gateway.monitor.episode_book import EpisodeBook
from gateway.monitor.outcome import Outcome
from gateway.monitor.plain import plain

log = logging.getLogger(__name__)

#: Seconds until it is tried again to write what has become of an attempt.
WRITE_AGAIN_S: Final = 5.0
#: What the metrics count attempts by.
OUTCOMES: Final = ("succeeded", "failed", "interrupted")


class Firings:
    """One for all actions. For the event loop's thread.

    An action runs for one episode at a time: the others wait for their turn.

    Attributes:
        counts: attempts, by action, model and outcome.
    """

    def __init__(
        self,
        book: EpisodeBook,
        actions: Iterable[Action],
        told: Callable[[Episode, Firing], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Run ``actions`` for the episodes of ``book``.

        Args:
            told: called with what an action came to at its end.
            clock: Unix seconds.
        """
        self.actions: Final = {action.name: action for action in actions}
        self.counts: Final[Counter[tuple[str, str, str]]] = Counter()
        self._book: Final = book
        self._told: Final = told
        self._clock: Final = clock
        self._turns: Final = {name: asyncio.Lock() for name in self.actions}
        self._tasks: Final[dict[tuple[str, str], asyncio.Task[None]]] = {}
        self._over: Final[dict[str, asyncio.Event]] = {}

    def start(self, episode: Episode) -> None:
        """Run what is left to be done for ``episode`` and is not at work yet."""
        for firing in episode.firings:
            key = (episode.id, firing.action)
            if not firing.phase.final and key not in self._tasks:
                self._over.setdefault(episode.id, asyncio.Event())
                self._tasks[key] = task = asyncio.create_task(self._run(*key))
                task.add_done_callback(partial(self._leave, *key))

    def stop(self, id: str) -> None:
        """Try nothing more for the episode ``id``, which is over; what runs ends by itself."""
        if (over := self._over.get(id)) is not None:
            over.set()

    async def finished(self) -> None:
        """Return once nothing runs and nothing waits."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())
            # Their callbacks run in the next turn of the loop.
            await asyncio.sleep(0)

    async def close(self) -> None:
        """End what runs; it is tried again when the server comes back."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for action in self.actions.values():
            await action.run.close()

    def _leave(self, id: str, name: str, task: asyncio.Task[None]) -> None:
        del self._tasks[id, name]
        if not any(of == id for of, _ in self._tasks):
            self._over.pop(id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("action '%s' of episode '%s' ended in an error", name, id, exc_info=error)

    async def _run(self, id: str, name: str) -> None:
        action = self.actions.get(name)
        if action is None:
            firing = replace(
                self._book[id].firing(name),
                phase=Phase.FAILED,
                result=f"there is no action '{name}' any more in the file of --monitoring",
            )
            await self._write(id, firing, firing.attempts, "failed", firing.result, {})
            return
        if self._book[id].firing(name).phase is Phase.RUNNING:
            await self._interrupted(id, action, "the server ended while it ran")
        while not self._book[id].firing(name).phase.final:
            wait_s = self._book[id].firing(name).next_at - self._clock()
            if wait_s > 0 and not await self._is_over_within(id, wait_s):
                continue
            async with self._turns[name]:
                # An episode that ends cancels what is pending.
                if not self._book[id].firing(name).phase.final:
                    await self._attempt(id, action)

    async def _is_over_within(self, id: str, wait_s: float) -> bool:
        try:
            async with asyncio.timeout(wait_s):
                await self._over[id].wait()
        except TimeoutError:
            return False
        return True

    async def _attempt(self, id: str, action: Action) -> None:
        before = self._book[id].firing(action.name)
        running = replace(before, phase=Phase.RUNNING, attempts=before.attempts + 1)
        # Not fired before it is written that it is: a process that dies now knows that it may have.
        try:
            episode = await self._book.mark(id, running)
        except GatewayError:
            log.exception("action '%s' waits: it cannot be written down", action.name)
            await asyncio.sleep(WRITE_AGAIN_S)
            return
        try:
            outcome = await action.run.attempt(episode, running.attempts)
        except asyncio.CancelledError:
            await self._interrupted(id, action, "the server was stopped while it ran")
            raise
        except Exception as error:
            log.exception("action '%s' raised", action.name)
            outcome = Outcome(ok=False, text=f"{type(error).__name__}: {error}")
        await self._finish(id, action, running, outcome)

    async def _interrupted(self, id: str, action: Action, why: str) -> None:
        firing = self._book[id].firing(action.name)
        await self._finish(id, action, firing, Outcome(ok=False, text=why), "interrupted", 0.0)

    async def _finish(
        self,
        id: str,
        action: Action,
        firing: Firing,
        outcome: Outcome,
        counted: str = "failed",
        delay_s: float | None = None,
    ) -> None:
        """Write what an attempt came to, and whether there is another one."""
        phase, next_at = Phase.SUCCEEDED, 0.0
        if not outcome.ok:
            phase = Phase.PENDING
            if delay_s is None:
                delay_s = action.delay_s(firing.attempts, outcome.wait_s)
            next_at = self._clock() + delay_s
            if not outcome.again or firing.attempts >= action.attempts:
                phase, next_at = Phase.FAILED, 0.0
            elif self._book[id].ended is not None:
                phase, next_at = Phase.CANCELLED, 0.0
        after = replace(firing, phase=phase, next_at=next_at, result=outcome.text)
        counted = "succeeded" if outcome.ok else counted
        reason = f"action '{action.name}': {outcome.text}" if outcome.text else action.name
        if phase is Phase.PENDING:
            reason += f"; again in {max(next_at - self._clock(), 0):.3g} s"
        await self._write(id, after, firing.attempts, counted, reason, outcome.details)

    async def _write(
        self,
        id: str,
        firing: Firing,
        attempt: int,
        counted: str,
        reason: str,
        details: Any,
    ) -> None:
        episode = self._book[id]
        self.counts[firing.action, episode.model, counted] += 1
        evidence = {
            "episode": id,
            "action": firing.action,
            "attempt": attempt,
            "phase": firing.phase.value,
            "because": _cause(episode),
            **plain(details),
        }
        await _until_done(
            lambda: self._book.mark(
                id,
                firing,
                verb="action",
                outcome="ok" if firing.phase is Phase.SUCCEEDED else "failed",
                reason=reason,
                evidence=evidence,
            )
        )
        if firing.phase.final:
            self._told(episode, firing)


def _cause(episode: Episode) -> dict[str, Any]:
    """What the action was begun for, in short; the episode's first entry has all of it."""
    findings = episode.evidence.get("findings", ())
    return {
        "alerts": [key.text for key in episode.alerts],
        "window": episode.evidence.get("window"),
        "drifted": [
            {key: finding[key] for key in ("subject", "test", "value", "threshold")}
            for finding in findings
            if finding["level"] == "drifted"
        ],
    }


async def _until_done(write: Callable[[], Awaitable[Any]]) -> None:
    """Write what is so in any case: tried until the store takes it, or the server stops."""
    while True:
        try:
            await write()
        except GatewayError:
            log.exception("what an action came to cannot be written down; trying again")
            await asyncio.sleep(WRITE_AGAIN_S)
        else:
            return
