"""Swaps in place: the old version goes before the new one comes, and comes back if need be."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from gateway.control.loading import Loading, Mark, mark_of
from gateway.control.memory_budget import estimate
from gateway.control.repository import ModelSource
from gateway.control.routing import Routing, Swap
from gateway.errors import LoadError, ShuttingDown
from gateway.serving.registry import ModelVersion

log = logging.getLogger(__name__)


class InPlaceSwaps:
    """Loads versions of models of which memory holds but one. Event loop's thread only.

    Every method is called with the model's turn, so that nothing else is loaded of it meanwhile.
    """

    def __init__(self, loading: Loading, routing: Routing) -> None:
        self._loading = loading
        self._routing = routing

    async def swap(
        self, source: ModelSource, version: str, mark: Mark, leaving: list[ModelVersion]
    ) -> ModelVersion:
        """Unload ``leaving``, then load the version; if that fails, what served serves again.

        It is not given up half-way where its caller is cancelled, but at the end of the server,
        when nothing is to come any more.

        Raises:
            LoadError: the version cannot be served; the message says what serves.
        """
        return await self._to_the_end(self._swap(source, version, mark, leaving))

    async def restore(self, name: str, source: ModelSource | None) -> None:
        """Load again what served before a swap, if one goes on to which nothing has followed."""
        if (swap := self._routing.swap(name)) is not None:
            leaving = self._loading.beside(name, self._routing.needed(name))
            await self._make_room(name, leaving)
            log.warning("model '%s': %s", name, await self._bring_back(name, source, swap))

    async def _swap(
        self, source: ModelSource, version: str, mark: Mark, leaving: list[ModelVersion]
    ) -> ModelVersion:
        name, routing, loading = source.name, self._routing, self._loading
        path = source.found[version]
        needed = await asyncio.to_thread(estimate, path, source.settings.instances)
        # What cannot fit costs nobody the version that serves.
        await self._refuse_unfit(ModelVersion(name, version), needed, leaving)
        default = routing.default(name)
        before = loading.mark(default) if default else None
        if default is not None and default in leaving:
            routing.begin_swap(default)
        log.info("model '%s' is swapped in place: version '%s' comes next", name, version)
        await self._make_room(name, leaving)
        try:
            return await loading.load(source, version, mark)
        except LoadError as error:
            swap = routing.swap(name)
            if swap is None:
                raise
            failed = str(error)
        replaced = swap.entry.version == version and before is not None and before[0] != mark[0]
        told = await self._bring_back(name, source, swap, replaced=replaced)
        raise LoadError(f"{failed}; {told}")

    async def _make_room(self, name: str, leaving: list[ModelVersion]) -> None:
        """Unload versions of the model; waits for their last requests."""
        self._loading.retire(leaving)
        await self._loading.wait_until_gone(name)

    async def _refuse_unfit(
        self, entry: ModelVersion, needed: int, leaving: list[ModelVersion]
    ) -> None:
        try:
            self._loading.budget.check(entry, needed, leaving)
        except LoadError as error:
            await self._loading.refuse(entry, error)
            raise

    async def _bring_back(
        self, name: str, source: ModelSource | None, swap: Swap, *, replaced: bool = False
    ) -> str:
        """Load what served before a swap in place; a sentence about how that went.

        Args:
            source: what the repository holds of the model now.
            replaced: its files are not those that it was loaded from.
        """
        routing, version = self._routing, swap.entry.version
        routing.set_policy(name, routing.policy(name) | {version})
        if source is None or version not in source.found or replaced:
            routing.end_swap(name)
            return f"what served before cannot serve again: the file of version '{version}' is gone"
        # With the settings that it served with.
        source = replace(source, settings=swap.loaded.settings)
        try:
            await self._loading.load(source, version, await mark_of(source, version), again=True)
        except (LoadError, ShuttingDown) as error:
            routing.end_swap(name)
            return f"version '{version}', which served before, could not be loaded again: {error}"
        return f"version '{version}', which served before, is loaded again"

    async def _to_the_end(self, swap: Coroutine[Any, Any, ModelVersion]) -> ModelVersion:
        task = asyncio.get_running_loop().create_task(swap)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._loading.closing:
                task.cancel()
            # The model's lock is kept until it is over; how it ended is in the log and the journal.
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()
            raise
