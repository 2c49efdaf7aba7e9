"""What the monitors have to say, in the journal and the state store."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.control.decisions import ITSELF
from gateway.control.journal import Event
from gateway.control.state_store import StateStore
from gateway.serving.registry import Registry


class MonitorRecord:
    """Writes for the monitors, which know neither the journal's form nor its store.

    For the event loop's thread. Every method raises ``StateUnavailable`` where nothing can be
    written; then nothing was.
    """

    def __init__(self, store: StateStore, registry: Registry) -> None:
        self._store: Final = store
        self._registry: Final = registry

    async def note(self, verb: str, model: str, version: str = "", **particulars: Any) -> None:
        """Write an entry; ``particulars`` are further fields of ``Event``."""
        await self._store.append(self._event(verb, model, version, particulars))

    async def keep(
        self,
        kind: str,
        documents: Mapping[str, Mapping[str, Any] | None],
        verb: str = "",
        model: str = "",
        version: str = "",
        **particulars: Any,
    ) -> None:
        """Keep documents, together with an entry where a ``verb`` is given."""
        event = self._event(verb, model, version, particulars) if verb else None
        await self._store.keep(kind, documents, event)

    async def kept(self, kind: str) -> dict[str, dict[str, Any]]:
        """The documents of ``kind``; raises ``ConfigError`` where one is damaged."""
        return await self._store.kept(kind)

    def _event(self, verb: str, model: str, version: str, particulars: Mapping[str, Any]) -> Event:
        entry = self._registry.get(model, version)
        loaded = entry.lane.loaded if entry is not None and entry.lane else None
        known = {"by": ITSELF, "digest": loaded.digest if loaded else ""}
        return Event(verb=verb, model=model, version=version, **{**known, **particulars})
