"""A change to the journal shows, wherever and whatever it is."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.journal import (
    GENESIS,
    Event,
    JournalEntry,
    Record,
    canonical_json,
    hash_of,
    verify_chain,
)
from tests.control.traffics import EVENTS, JSON


def chained(events: Sequence[Event]) -> list[Record]:
    records, head = [], GENESIS
    for seq, event in enumerate(events, start=1):
        time = f"2026-01-02T03:04:05.{seq:06d}+00:00"
        entry = JournalEntry.chain(event, seq=seq, time=time, previous=head)
        records.append(entry.as_record())
        head = entry.hash
    return records


def events(count: int) -> list[Event]:
    return [
        Event(by="ada", verb="promote", model="iris", version=str(n)) for n in range(1, count + 1)
    ]


def head_of(records: Sequence[Record]) -> str:
    return records[-1].hash if records else GENESIS


JOURNALS = st.lists(EVENTS, min_size=1, max_size=6).map(chained)


@given(st.lists(EVENTS, max_size=6).map(chained))
def test_what_was_written_is_intact(records: list[Record]) -> None:
    found = verify_chain(records, len(records), head_of(records))
    assert (found.intact, found.entries, found.first_broken) == (True, len(records), None)
    assert found.head == head_of(records)


@given(JOURNALS)
def test_an_entry_is_read_as_it_was_written(records: list[Record]) -> None:
    for record in records:
        assert JournalEntry.from_record(record).as_record() == record


def test_the_hash_is_of_the_entry_without_it_as_anybody_can_compute() -> None:
    (record,) = chained([Event(by="ada", verb="promote", model="größe", version="2")])
    table = JournalEntry.from_record(record).as_table()
    stated = table.pop("hash")
    text = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert text == record.content
    assert "größe" in text
    assert stated == hashlib.sha256(text.encode("utf-8")).hexdigest()
    assert table["previous"] == "0" * 64


@given(JSON)
def test_canonical_json_is_one_form_and_loses_nothing(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    text.encode("utf-8")


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=6))
def test_the_order_of_keys_does_not_matter(table: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(table.items()))) == canonical_json(table)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"hold_s": number})


@given(JOURNALS, st.data())
def test_any_field_of_any_entry_that_is_altered_is_found(
    records: list[Record], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(records) - 1), "entry")
    content = json.loads(records[place].content)
    field = data.draw(st.sampled_from(sorted(content)), "field")
    content[field] = data.draw(
        JSON.filter(lambda v: canonical_json(v) != canonical_json(content[field]))
    )
    tampered = [*records]
    tampered[place] = records[place]._replace(content=canonical_json(content))
    found = verify_chain(tampered, len(records), head_of(records))
    assert (found.intact, found.first_broken, found.entries) == (False, place + 1, place)


@given(JOURNALS, st.data())
def test_any_character_of_any_column_that_is_altered_is_found(
    records: list[Record], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(records) - 1), "entry")
    column = data.draw(st.sampled_from(("model", "content", "hash")), "column")
    text = getattr(records[place], column)
    at = data.draw(st.integers(0, len(text) - 1), "at")
    other = data.draw(st.characters().filter(lambda c: c != text[at]), "other")
    tampered = [*records]
    tampered[place] = records[place]._replace(**{column: text[:at] + other + text[at + 1 :]})
    found = verify_chain(tampered, len(records), head_of(records))
    assert (found.intact, found.first_broken) == (False, place + 1)


@given(JOURNALS, st.data())
def test_an_altered_entry_with_its_hash_made_anew_is_found_by_the_next(
    records: list[Record], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(records) - 1), "entry")
    content = json.loads(records[place].content)
    content["by"] += " and eve"
    forged = canonical_json(content)
    tampered = [*records]
    tampered[place] = records[place]._replace(content=forged, hash=hash_of(forged))
    found = verify_chain(tampered, len(records), head_of(records))
    last = place == len(records) - 1
    assert (found.intact, found.first_broken) == (False, place + 1 if last else place + 2)


@pytest.mark.parametrize("gone", range(1, 6))
def test_an_entry_that_was_removed_is_named(gone: int) -> None:
    records = chained(events(5))
    left = [record for record in records if record.seq != gone]
    found = verify_chain(left, 5, head_of(records))
    assert (found.intact, found.first_broken, found.entries) == (False, gone, gone - 1)
    assert "missing" in found.reason


@pytest.mark.parametrize("gone", range(1, 6))
def test_removing_an_entry_and_numbering_the_rest_anew_is_found(gone: int) -> None:
    records = chained(events(5))
    left = [record for record in records if record.seq != gone]
    renumbered = [record._replace(seq=n) for n, record in enumerate(left, start=1)]
    found = verify_chain(renumbered, 5, head_of(records))
    assert (found.intact, found.first_broken) == (False, gone)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(range(4), 2)))
def test_entries_that_changed_places_are_found(one: int, other: int) -> None:
    records = chained(events(4))
    moved = [*records]
    moved[one] = records[other]._replace(seq=one + 1)
    moved[other] = records[one]._replace(seq=other + 1)
    found = verify_chain(moved, 4, head_of(records))
    assert (found.intact, found.first_broken) == (False, one + 1)
    assert f"by its own words it is entry {other + 1}" in found.reason


@pytest.mark.parametrize("place", range(4))
def test_an_entry_that_was_put_in_is_found(place: int) -> None:
    records = chained(events(3))
    behind = records[place - 1].hash if place else GENESIS
    event = Event(by="eve", verb="promote", model="iris", version="9")
    forged = JournalEntry.chain(event, seq=place + 1, time="now", previous=behind).as_record()
    shifted = [record._replace(seq=record.seq + 1) for record in records[place:]]
    found = verify_chain([*records[:place], forged, *shifted], 3, head_of(records))
    assert not found.intact
    assert found.first_broken == (4 if place == 3 else place + 2)


@pytest.mark.parametrize("left", range(4))
def test_a_journal_that_was_cut_short_is_found(left: int) -> None:
    records = chained(events(4))
    found = verify_chain(records[:left], 4, head_of(records))
    assert (found.intact, found.first_broken, found.entries) == (False, left + 1, left)
    assert f"4 entries were written, {left} are there" in found.reason


def test_a_journal_that_was_written_anew_is_found_by_the_hash_noted_elsewhere() -> None:
    noted = verify_chain(records := chained(events(3)), 3, head_of(records)).head
    rewritten = [replace(event, by="eve") for event in events(3)]
    found = verify_chain(forged := chained(rewritten), 3, head_of(forged))
    assert found.intact, "nothing in the file itself can tell"
    assert found.head != noted


def test_an_entry_of_the_right_hash_that_is_no_entry_is_found() -> None:
    for content in ("", "[]", "7", '"text"', "{", "[" * 100_000, '{"seq":1}'):
        record = Record(1, "iris", content, hash_of(content))
        found = verify_chain([record], 1, record.hash)
        assert (found.intact, found.first_broken) == (False, 1)


def test_verification_keeps_no_entry() -> None:
    """Entries are made one at a time, and each is let go before the next but one is made."""
    alive = 0
    most = 0

    class Counted(Record):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Any:
        nonlocal alive, most
        for record in records:
            alive += 1
            most = max(most, alive)
            yield Counted(*record)

    records = chained(events(50))
    assert verify_chain(stream(), 50, head_of(records)).intact
    assert most <= 2
