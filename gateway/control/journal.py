"""What was decided, by whom and why: entries that are chained, so that a change to one shows.

Each entry's hash is the SHA-256 of its canonical JSON (keys sorted, no spaces, UTF-8), the hash of
the entry before it included; the first one is chained to ``GENESIS``. Whoever alters, removes or
inserts an entry has to make all later hashes anew, the last of which may have been written down
elsewhere.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

#: The hash before the first entry.
GENESIS: Final = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that was decided or has happened.

    Attributes:
        by: who asked; ``"gateway"`` for what follows by itself.
        verb: what was asked for, e.g. ``"promote"``.
        model, version: what it is about; ``""`` where it is about no version.
        outcome: ``"ok"``; ``"refused"``, not possible as things stood; ``"failed"``, tried in vain.
        reason: why, in words: the caller's own, or the error.
        digest: of the version's model file, where it is known.
        before, after: the model's traffic, where it changed.
    """

    by: str
    verb: str
    model: str
    version: str = ""
    outcome: str = "ok"
    reason: str = ""
    digest: str = ""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """An event with its place in the journal.

    ``seq`` counts from 1, ``time`` is UTC in ISO 8601 with microseconds, ``previous`` is the hash
    of the entry before it.
    """

    seq: int
    time: str
    event: Event
    previous: str
    hash: str

    @classmethod
    def chain(cls, event: Event, *, seq: int, time: str, previous: str) -> "JournalEntry":
        """The entry of ``event`` behind the one whose hash is ``previous``."""
        made = entry_hash(seq, time, event, previous)
        return cls(seq=seq, time=time, event=event, previous=previous, hash=made)

    def as_table(self) -> dict[str, Any]:
        """The entry as JSON values, the event's fields among its own."""
        return {
            "seq": self.seq,
            "time": self.time,
            **asdict(self.event),
            "previous": self.previous,
            "hash": self.hash,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a journal is as it was written; ``first_broken`` is the ``seq`` that shows not."""

    entries: int
    intact: bool
    first_broken: int | None = None
    reason: str = ""


def entry_hash(seq: int, time: str, event: Event, previous: str) -> str:
    """The hash of an entry, in lower-case hexadecimal."""
    content = {"seq": seq, "time": time, **asdict(event), "previous": previous}
    return hashlib.sha256(canonical_json(content)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """``value`` in the one form in which it is hashed."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def verify_chain(entries: Iterable[JournalEntry], count: int, head: str) -> Verification:
    """Check every entry against the one before it, and the last one against ``head``.

    Args:
        entries: from the first on, in the order of ``seq``; read once, none is kept.
        count, head: how many there should be, and the hash of the last one.
    """
    seen, previous = 0, GENESIS
    for entry in entries:
        seen += 1
        if entry.seq != seen:
            return Verification(
                seen - 1, False, seen, f"entry {seen} is missing: entry {entry.seq} is in its place"
            )
        if entry.previous != previous:
            return Verification(
                seen, False, seen, f"entry {seen} does not follow the entry that is before it"
            )
        if entry_hash(entry.seq, entry.time, entry.event, entry.previous) != entry.hash:
            return Verification(seen, False, seen, f"entry {seen} was altered")
        previous = entry.hash
    if seen != count:
        return Verification(
            seen, False, min(seen, count) + 1, f"{count} entries were written, {seen} are there"
        )
    if previous != head:
        return Verification(seen, False, seen or None, "the last entry is not the one written last")
    return Verification(seen, True)
