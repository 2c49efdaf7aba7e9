"""What was decided, by whom and why: entries that are chained, so that a change to one shows.

An entry is kept as its *content*: the canonical JSON (keys sorted, no spaces, UTF-8) of all its
fields, the hash of the entry before it included. Its own hash is the SHA-256 of just these bytes,
so that anybody can check a journal with the commonest of tools. The first entry is chained to
``GENESIS``.

Whoever alters, removes, moves or inserts an entry has to make all later hashes anew, and the one
kept beside the journal too. What a chain cannot tell is that somebody did all of that: against
this the last hash, ``Verification.head``, is written down elsewhere.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, Self

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
        evidence: what it was decided on: golden requests, a shadow's report, a canary's gates.
        lineage: where the version comes from: data, code, parameters, training run.

    The tables hold JSON values alone, with text as keys and no infinite number.
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
    evidence: dict[str, Any] | None = None
    lineage: dict[str, Any] | None = None


class Record(NamedTuple):
    """An entry as it is stored: what it says of itself is in ``content``, which ``hash`` is of."""

    seq: int
    model: str
    content: str
    hash: str


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
    def chain(cls, event: Event, *, seq: int, time: str, previous: str) -> Self:
        """The entry of ``event`` behind the one whose hash is ``previous``."""
        content = {"seq": seq, "time": time, **asdict(event), "previous": previous}
        made = hash_of(canonical_json(content))
        return cls(seq=seq, time=time, event=event, previous=previous, hash=made)

    @classmethod
    def from_record(cls, record: Record) -> Self:
        """The entry that is stored as ``record``, unverified.

        Raises:
            ValueError: the content is not that of an entry.
        """
        content = json.loads(record.content)
        try:
            seq, time, previous = (content.pop(key) for key in ("seq", "time", "previous"))
            event = Event(**content)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"the content of entry {record.seq} is no entry") from error
        return cls(seq=seq, time=time, event=event, previous=previous, hash=record.hash)

    def as_record(self) -> Record:
        """The entry as it is stored."""
        content = self.as_table()
        del content["hash"]
        return Record(self.seq, self.event.model, canonical_json(content), self.hash)

    def as_table(self) -> dict[str, Any]:
        """The entry as JSON values, the event's fields among its own.

        Without ``hash``, and as canonical JSON, it is what the hash is of.
        """
        return {
            "seq": self.seq,
            "time": self.time,
            **asdict(self.event),
            "previous": self.previous,
            "hash": self.hash,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a journal is as it was written.

    Attributes:
        entries: how many hold, from the first one on.
        intact: whether all do, and none is missing at the end.
        first_broken: the ``seq`` at which it shows that they do not.
        reason: what shows there.
        head: the hash of the last entry that holds; to be compared with one noted elsewhere.
    """

    entries: int
    intact: bool
    first_broken: int | None = None
    reason: str = ""
    head: str = GENESIS


def canonical_json(value: Any) -> str:
    """``value`` in the one form in which it is hashed and stored.

    Half a surrogate pair, which UTF-8 has no bytes for, stays the escape that it came as.

    Raises:
        ValueError: there is a number that JSON has no form for.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8", "backslashreplace").decode()


def hash_of(content: str) -> str:
    """The hash of an entry's content, in lower-case hexadecimal."""
    # Bytes that are no text come as such escapes from whoever reads a file that was altered.
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def verify_chain(records: Iterable[Record], count: int, head: str) -> Verification:
    """Check every entry against the one before it, and the last one against ``head``.

    Args:
        records: from the first on, in the order of ``seq``; read once, none is kept.
        count, head: how many there should be, and the hash of the last one, as they were noted
            when it was written.
    """
    intact, previous = 0, GENESIS
    for record in records:
        expected = intact + 1
        if reason := _flaw(record, expected, previous):
            return Verification(intact, False, expected, reason, previous)
        intact, previous = expected, record.hash
    if intact < count:
        reason = f"{count} entries were written, {intact} are there: the last are missing"
        return Verification(intact, False, intact + 1, reason, previous)
    if intact > count:
        reason = f"{count} entries were written, {intact} are there: entries were added"
        return Verification(intact, False, count + 1, reason, previous)
    if previous != head:
        reason = "its hash is not the one noted when the last entry was written"
        return Verification(intact, False, intact, reason, previous)
    return Verification(intact, True, head=previous)


def _flaw(record: Record, seq: int, previous: str) -> str:
    """What is wrong with ``record`` in the place ``seq``, behind the hash ``previous``."""
    if record.seq != seq:
        return f"entry {seq} is missing: the next one that is there is {record.seq}"
    try:
        if hash_of(record.content) != record.hash:
            return f"entry {seq} was altered: its hash is of something else"
        content = json.loads(record.content)
        told = (content["seq"], content["model"], content["previous"])
    except (ValueError, RecursionError, TypeError, KeyError):
        return f"entry {seq} was altered: it is no entry"
    if told[0] != seq:
        return f"entry {seq} was moved or put there: by its own words it is entry {told[0]}"
    if told[1] != record.model:
        return f"entry {seq} was altered: it is about model '{told[1]}', not '{record.model}'"
    if told[2] != previous:
        return f"entry {seq} does not follow the entry before it: one of the two was replaced"
    return ""
