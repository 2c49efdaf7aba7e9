"""Brings messages to their channels: a bounded queue each, tries again, and counts."""

import asyncio
import logging
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

from gateway.monitor.channels import Channel
from gateway.monitor.messages import Message

log = logging.getLogger(__name__)

#: Messages that wait for one channel; the oldest goes when another one comes.
MAX_WAITING: Final = 100
#: How often a message is tried, and the seconds after the first time, doubled each time.
ATTEMPTS: Final = 5
BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0
#: Seconds that the last messages get when the server stops.
LAST_WORDS_S: Final = 2.0


class Courier:
    """One for all channels. For the event loop's thread.

    A channel that is down or slow costs its own messages, no other's.

    Attributes:
        counts: messages by channel and what became of them: ``sent``, ``failed``, ``dropped``.
    """

    def __init__(
        self,
        channels: Iterable[Channel],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Bring messages to ``channels`` once started; ``sleep`` waits between attempts."""
        self.channels: Final = tuple(channels)
        self.counts: Final[Counter[tuple[str, str]]] = Counter(
            {(c.name, outcome): 0 for c in self.channels for outcome in OUTCOMES}
        )
        self._sleep: Final = sleep
        self._waiting: Final[dict[str, deque[Message]]] = {c.name: deque() for c in self.channels}
        self._awake: Final[dict[str, asyncio.Event]] = {}
        self._idle: Final[dict[str, asyncio.Event]] = {}
        self._tasks: Final[list[asyncio.Task[None]]] = []

    def start(self) -> None:
        """Begin to send, on the running loop."""
        for channel in self.channels:
            self._awake[channel.name] = asyncio.Event()
            self._idle[channel.name] = asyncio.Event()
            self._idle[channel.name].set()
            self._tasks.append(asyncio.create_task(self._run(channel)))

    def tell(self, message: Message, names: Iterable[str] | None = None) -> None:
        """Have every channel that wants it told ``message``; those of ``names`` where given."""
        chosen = None if names is None else frozenset(names)
        for channel in self.channels:
            if (chosen is not None and channel.name not in chosen) or not channel.wanted.takes(
                message
            ):
                continue
            waiting = self._waiting[channel.name]
            if len(waiting) >= MAX_WAITING:
                waiting.popleft()
                self.counts[channel.name, "dropped"] += 1
            waiting.append(message)
            if channel.name in self._awake:
                self._awake[channel.name].set()
                self._idle[channel.name].clear()

    async def flushed(self) -> None:
        """Return once nothing waits."""
        for idle in self._idle.values():
            await idle.wait()

    async def close(self) -> None:
        """Give what waits a moment, then end; what is left is counted as dropped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self.flushed()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self.channels:
            channel.close()
            left = len(self._waiting[channel.name])
            self.counts[channel.name, "dropped"] += left
            if left:
                log.warning(
                    "channel '%s' was not told %d messages: the server stops", channel.name, left
                )

    async def _run(self, channel: Channel) -> None:
        waiting, awake = self._waiting[channel.name], self._awake[channel.name]
        while True:
            while waiting:
                message = waiting.popleft()
                try:
                    await self._send(channel, message)
                except asyncio.CancelledError:
                    waiting.appendleft(message)
                    raise
            awake.clear()
            self._idle[channel.name].set()
            await awake.wait()

    async def _send(self, channel: Channel, message: Message) -> None:
        id, delay = str(uuid.uuid4()), BACKOFF_S
        for attempt in range(1, ATTEMPTS + 1):
            answer = await channel.send(message, id)
            if answer.ok:
                self.counts[channel.name, "sent"] += 1
                return
            if attempt == ATTEMPTS or not answer.may_succeed_later:
                break
            asked = answer.retry_after_s or 0.0
            await self._sleep(min(max(delay, asked), MAX_BACKOFF_S))
            delay *= 2
        self.counts[channel.name, "failed"] += 1
        log.error(
            "channel '%s' could not be told \"%s\" in %d attempts: %s",
            channel.name,
            message.title,
            attempt,
            answer,
        )


OUTCOMES: Final = ("sent", "failed", "dropped")
