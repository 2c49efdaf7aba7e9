"""Where the monitors write what is to last; the control plane has it."""

from collections.abc import Mapping
from typing import Any, Protocol


class Record(Protocol):
    """The journal, and documents that survive a restart.

    Every method raises ``StateUnavailable`` where nothing can be written; then nothing was.
    """

    async def note(self, verb: str, model: str, version: str = "", **particulars: Any) -> None:
        """Write an entry of the journal.

        Args:
            verb, model, version: what has happened, and to what.
            particulars: ``by`` for who asked, ``outcome``, ``reason``, ``evidence``.
        """

    async def keep(
        self,
        kind: str,
        documents: Mapping[str, Mapping[str, Any] | None],
        verb: str = "",
        model: str = "",
        version: str = "",
        **particulars: Any,
    ) -> None:
        """Keep documents by their keys, forget those that are ``None``; with an entry if a verb.

        All or nothing.
        """

    async def kept(self, kind: str) -> dict[str, dict[str, Any]]:
        """The documents of ``kind``, by their keys."""
