"""Follows the repositories: loads what is new or has changed there, unloads what is gone."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from gateway.control.repository import fingerprint, golden_fingerprint, scan_repositories
from gateway.errors import GatewayError

log = logging.getLogger(__name__)

#: Who loads and unloads, in the journal.
WATCHER: Final = "repository"

#: What identifies all that a repository holds of a model.
Sight: TypeAlias = tuple[object, ...]


class Loads(Protocol):
    """Who loads and unloads; ``Rollouts`` is one."""

    async def load(self, model: str, *, by: str, reason: str = "") -> None:
        """Load the model as its repository holds it now."""

    async def unload(self, model: str, *, by: str, reason: str = "") -> None:
        """Take the model out of service."""


class RepositoryWatcher:
    """Looks at the repositories every ``poll_s`` seconds.

    By polling, because a repository is often a network mount, where nothing tells of changes. Files
    that are being copied look different at each look: what differs from what is loaded is taken up
    once two looks have found the same.
    """

    def __init__(self, repositories: Sequence[Path], loads: Loads, poll_s: float) -> None:
        self._repositories = tuple(repositories)
        self._loads = loads
        self._poll_s = poll_s
        self._taken_up: dict[str, Sight] = {}
        self._last: dict[str, Sight] = {}

    async def start(self) -> None:
        """Take what is there now for loaded. To be called before it is loaded."""
        self._taken_up = self._last = await self._look()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.poll()
            except Exception:
                log.exception("the repositories could not be followed")

    async def poll(self) -> None:
        """Look once, and take up what has changed and has come to rest."""
        sight = await self._look()
        last, self._last = self._last, sight
        for model in sorted({*sight, *self._taken_up}):
            seen = sight.get(model)
            if seen == self._taken_up.get(model) or seen != last.get(model):
                continue
            if seen is None:
                del self._taken_up[model]
            else:
                self._taken_up[model] = seen
            await self._take_up(model, gone=seen is None)

    async def _take_up(self, model: str, *, gone: bool) -> None:
        try:
            if gone:
                await self._loads.unload(model, by=WATCHER, reason="its files are gone")
            else:
                await self._loads.load(model, by=WATCHER, reason="its files have changed")
        except GatewayError as error:
            # It is in the log and the journal; the next change of its files is another try.
            log.warning("model '%s' was not taken up as it is now: %s", model, error)

    async def _look(self) -> dict[str, Sight]:
        return await asyncio.to_thread(_sight, self._repositories)


def _sight(repositories: Sequence[Path]) -> dict[str, Sight]:
    """What the repositories hold of each model; blocks."""
    return {
        name: (
            source.settings,
            source.problems,
            tuple((version, fingerprint(source, path)) for version, path in source.found.items()),
            # Of the versions that serve none is loaded again for these, but one that they have kept
            # from serving may do so now.
            golden_fingerprint(source),
        )
        for name, source in scan_repositories(repositories).items()
    }
