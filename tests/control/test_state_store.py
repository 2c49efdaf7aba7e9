"""Decisions and their journal on the disk: all or nothing, one process, and no lie about it."""

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.directory_lock import LOCK_NAME
from gateway.control.journal import GENESIS, Event, Verification
from gateway.control.state_store import FILE_NAME, StateStore, verify_directory
from gateway.control.traffic import ModelTraffic, as_table
from gateway.errors import ConfigError, InvalidRequest, StateUnavailable
from tests.control.traffics import EVENTS, TRAFFICS

IRIS = ModelTraffic(stable="2", previous=("1",), labels={"champion": "1"})
PROMOTE = Event(by="ada", verb="promote", model="iris", version="2", after=as_table(IRIS))


def on_store(
    directory: Path | None, test: Callable[[StateStore], Awaitable[Any]], **options: Any
) -> Any:
    """Run ``test`` on a loop with an open store, which is closed afterwards."""

    async def run() -> Any:
        store = StateStore(directory, **options)
        try:
            await store.open()
            return await test(store)
        finally:
            await store.close()

    return asyncio.run(run())


def filled(directory: Path, entries: int = 5) -> None:
    async def fill(store: StateStore) -> None:
        for number in range(1, entries + 1):
            event = Event(by="ada", verb="promote", model="iris", version=str(number))
            await store.commit({"iris": ModelTraffic(stable=str(number))}, event)

    on_store(directory, fill)


def edit(directory: Path, *statements: str) -> None:
    """Change the file behind the store's back."""
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as database:
        for statement in statements:
            assert database.execute(statement).rowcount != 0, statement


def loaded(store: StateStore) -> Awaitable[dict[str, ModelTraffic]]:
    return store.load()


@pytest.fixture(params=["file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "state" if request.param == "file" else None


def test_at_first_nothing_is_decided(place: Path | None) -> None:
    async def look(store: StateStore) -> None:
        assert await store.load() == {}
        assert await store.history() == []
        assert await store.verify() == Verification(0, True, head=GENESIS)

    on_store(place, look)


def test_a_decision_and_its_entry(place: Path | None) -> None:
    async def decide(store: StateStore) -> None:
        entry = await store.commit({"iris": IRIS}, PROMOTE)
        assert (entry.seq, entry.event, entry.previous) == (1, PROMOTE, GENESIS)
        assert await store.load() == {"iris": IRIS}
        assert await store.history() == [entry]
        assert await store.verify() == Verification(1, True, head=entry.hash)

    on_store(place, decide)


def test_what_was_decided_is_there_after_a_restart(tmp_path: Path) -> None:
    async def decide(store: StateStore) -> Any:
        return [
            await store.commit({"iris": IRIS, "größe": ModelTraffic()}, PROMOTE),
            await store.append(Event(by="gateway", verb="load_version", model="iris")),
        ]

    async def look(store: StateStore) -> Any:
        assert await store.load() == {"größe": ModelTraffic(), "iris": IRIS}
        return list(reversed(await store.history()))

    assert on_store(tmp_path, decide) == on_store(tmp_path, look)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TRAFFICS, EVENTS), min_size=1, max_size=5))
def test_any_traffic_and_any_event_come_back_as_they_were(
    written: list[tuple[ModelTraffic, Event]],
) -> None:
    async def write(store: StateStore) -> None:
        for traffic, event in written:
            await store.commit({event.model: traffic}, event)

    async def look(store: StateStore) -> None:
        assert await store.load() == {event.model: traffic for traffic, event in written}
        assert [e.event for e in await store.history()] == [e for _, e in reversed(written)]
        assert (await store.verify()).intact

    with tempfile.TemporaryDirectory() as directory:
        on_store(Path(directory), write)
        on_store(Path(directory), look)


def test_documents_are_kept_by_kind_and_key_with_what_led_to_them(place: Path | None) -> None:
    async def keep(store: StateStore) -> None:
        await store.keep("episode", {"a": {"n": 1}, "b": {"n": [2, None, "größe"]}}, PROMOTE)
        await store.keep("silence", {"a": {"n": 3}}, None)
        assert await store.kept("episode") == {"a": {"n": 1}, "b": {"n": [2, None, "größe"]}}
        await store.keep("episode", {"a": {"n": 4}, "b": None, "c": None}, None)
        assert await store.kept("episode") == {"a": {"n": 4}}
        assert await store.kept("silence") == {"a": {"n": 3}}
        assert await store.kept("other") == {}
        assert [entry.event for entry in await store.history()] == [PROMOTE]
        assert (await store.verify()).intact

    on_store(place, keep)


def test_what_cannot_be_written_changes_no_document(tmp_path: Path) -> None:
    async def keep(store: StateStore) -> None:
        await store.keep("episode", {"a": {}}, PROMOTE)
        with pytest.raises(InvalidRequest):
            await store.keep("episode", {"a": None}, replace(PROMOTE, model="\ud800"))
        with pytest.raises(ValueError, match="Out of range"):
            await store.keep("episode", {"a": {"n": float("nan")}}, PROMOTE)

    async def look(store: StateStore) -> None:
        assert await store.kept("episode") == {"a": {}}
        assert len(await store.history()) == 1

    on_store(tmp_path, keep)
    on_store(tmp_path, look)


def test_a_failure_in_the_middle_writes_neither_document_nor_entry(tmp_path: Path) -> None:
    async def fail(store: StateStore) -> None:
        await store.keep("episode", {"a": {"n": 1}}, PROMOTE)
        edit(tmp_path, "DROP TABLE head")
        with pytest.raises(StateUnavailable, match="nothing was"):
            await store.keep("episode", {"a": {"n": 2}}, PROMOTE)
        assert await store.kept("episode") == {"a": {"n": 1}}

    on_store(tmp_path, fail)


def test_a_document_that_was_damaged_is_told(tmp_path: Path) -> None:
    async def keep(store: StateStore) -> None:
        await store.keep("episode", {"a": {}}, None)

    async def look(store: StateStore) -> None:
        await store.kept("episode")

    on_store(tmp_path, keep)
    for content, told in (("{", "cannot be read"), ("[]", "is no table")):
        edit(tmp_path, f"UPDATE document SET content = '{content}'")
        with pytest.raises(ConfigError, match=told):
            on_store(tmp_path, look)


def test_a_file_of_the_release_before_gets_the_new_table_and_keeps_all_else(
    tmp_path: Path,
) -> None:
    filled(tmp_path, entries=3)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as database:
        database.execute("DROP TABLE document")
        database.execute("PRAGMA user_version = 1")
    assert verify_directory(tmp_path).entries == 3

    async def look(store: StateStore) -> None:
        assert (await store.load())["iris"].stable == "3"
        assert (await store.verify()).entries == 3
        await store.keep("episode", {"a": {}}, PROMOTE)
        assert (await store.verify()).entries == 4

    on_store(tmp_path, look)


def test_history_is_of_a_model_newest_first_and_in_pages(place: Path | None) -> None:
    async def look(store: StateStore) -> None:
        for number in range(6):
            await store.append(Event(by="ada", verb="promote", model=f"m{number % 2}"))

        async def seqs(*args: Any, **options: Any) -> list[int]:
            return [entry.seq for entry in await store.history(*args, **options)]

        assert await seqs() == [6, 5, 4, 3, 2, 1]
        assert await seqs("m0") == [5, 3, 1]
        assert await seqs("m0", limit=2) == [5, 3]
        assert await seqs("m0", limit=2, before=3) == [1]
        assert await seqs(before=1) == []
        assert await seqs("nobody") == []
        assert await seqs(limit=0) == await seqs(limit=-1) == []
        assert len(await seqs(limit=2**80, before=2**80)) == 6

    on_store(place, look)


def test_the_clock_is_told_in_utc_with_microseconds(place: Path | None) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    async def decide(store: StateStore) -> None:
        assert (await store.append(PROMOTE)).time == "2026-03-01T10:00:00.000000+00:00"

    on_store(place, decide, now=lambda: noon)


def test_the_file_can_be_read_with_common_tools(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        rows = database.execute("SELECT content ->> 'by', content ->> 'version' FROM journal")
        assert rows.fetchall() == [("ada", "1"), ("ada", "2")]
        ((decided, entry),) = database.execute("SELECT decided, entry FROM traffic")
    assert json.loads(decided)["stable"] == "2"
    assert entry == 2, "the entry that decided it"


# -- all or nothing ---------------------------------------------------------------------------


class Hooks:
    """Does at a point of a commit what a test asks for, once."""

    def __init__(self) -> None:
        self.at: dict[str, Callable[[], None]] = {}

    def __call__(self, point: str) -> None:
        self.at.pop(point, lambda: None)()


@pytest.mark.parametrize("point", ["begin", "state written", "journal written"])
def test_a_commit_that_fails_has_written_nothing(place: Path | None, point: str) -> None:
    hooks = Hooks()

    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def decide(store: StateStore) -> None:
        first = await store.commit({"iris": IRIS}, PROMOTE)
        hooks.at[point] = fail
        with pytest.raises(StateUnavailable, match="disk I/O error"):
            await store.commit({"iris": ModelTraffic(stable="9")}, PROMOTE)
        assert await store.load() == {"iris": IRIS}
        assert await store.history() == [first]
        assert (await store.append(PROMOTE)).seq == 2
        assert (await store.verify()).intact

    on_store(place, decide, fault=hooks)


@contextmanager
def no_file_may_grow() -> Iterator[None]:
    """The system refuses every write behind the present end of the file: a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(tmp_path: Path) -> None:
    async def decide(store: StateStore) -> None:
        first = await store.commit({"iris": IRIS}, PROMOTE)
        with no_file_may_grow(), pytest.raises(StateUnavailable, match="nothing was: ") as told:
            await store.commit({"iris": ModelTraffic(stable="9")}, PROMOTE)
        assert str(tmp_path / FILE_NAME) in str(told.value)
        assert await store.load() == {"iris": IRIS}
        assert await store.history() == [first]
        second = await store.commit({"iris": ModelTraffic(stable="3")}, PROMOTE)
        assert second.previous == first.hash

    on_store(tmp_path, decide)
    assert on_store(tmp_path, loaded) == {"iris": ModelTraffic(stable="3")}
    assert verify_directory(tmp_path).entries == 2


def test_a_name_that_is_no_unicode_is_refused(place: Path | None) -> None:
    async def decide(store: StateStore) -> None:
        with pytest.raises(InvalidRequest, match="is not Unicode"):
            await store.commit({os.fsdecode(b"m\xff"): IRIS}, PROMOTE)
        assert await store.history() == []

    on_store(place, decide)


# -- concurrency ------------------------------------------------------------------------------


class Gate:
    """Holds the store's thread at a point until it is opened."""

    def __init__(self, point: str) -> None:
        self.reached = threading.Event()
        self._point = point
        self._open = threading.Event()

    def __call__(self, point: str) -> None:
        if point == self._point and not self._open.is_set():
            self.reached.set()
            assert self._open.wait(30)

    def open(self) -> None:
        self._open.set()


def test_a_slow_disk_does_not_hold_the_loop(tmp_path: Path) -> None:
    gate = Gate("journal written")

    async def decide(store: StateStore) -> None:
        commit = asyncio.create_task(store.commit({"iris": IRIS}, PROMOTE))
        # This wait, and the open gate after it, are only reached if the loop runs on.
        await asyncio.to_thread(gate.reached.wait, 30)
        assert not commit.done()
        gate.open()
        assert (await commit).seq == 1

    on_store(tmp_path, decide, fault=gate)


@pytest.mark.parametrize("point", ["begin", "journal written", "committed"])
def test_a_commit_whose_caller_leaves_is_made_once(tmp_path: Path, point: str) -> None:
    gate = Gate(point)

    async def decide(store: StateStore) -> None:
        under_way = asyncio.create_task(store.commit({"iris": IRIS}, PROMOTE))
        waiting = asyncio.create_task(store.append(PROMOTE))
        await asyncio.to_thread(gate.reached.wait, 30)
        under_way.cancel()
        waiting.cancel()
        await asyncio.wait([under_way, waiting])
        assert under_way.cancelled()
        assert waiting.cancelled()
        gate.open()
        assert await store.load() == {"iris": IRIS}
        assert [entry.seq for entry in await store.history()] == [2, 1]

    on_store(tmp_path, decide, fault=gate)
    assert verify_directory(tmp_path).entries == 2


def test_commits_follow_one_another_in_the_order_of_their_calls(place: Path | None) -> None:
    async def decide(store: StateStore) -> None:
        events = [Event(by="ada", verb="promote", model="iris", version=str(n)) for n in range(40)]
        entries = await asyncio.gather(
            *(store.commit({"iris": ModelTraffic(stable=e.version)}, e) for e in events)
        )
        assert [entry.seq for entry in entries] == list(range(1, 41))
        assert [entry.event for entry in entries] == events
        assert (await store.load())["iris"].stable == "39"
        assert (await store.verify()).intact

    on_store(place, decide)


def test_closing_waits_for_what_was_begun_and_refuses_the_rest(tmp_path: Path) -> None:
    gate = Gate("begin")

    async def decide(store: StateStore) -> None:
        begun = asyncio.create_task(store.commit({"iris": IRIS}, PROMOTE))
        await asyncio.to_thread(gate.reached.wait, 30)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)  # its first turn
        with pytest.raises(StateUnavailable, match="the server is stopping"):
            await store.append(PROMOTE)
        gate.open()
        await closing
        assert (await begun).seq == 1
        await store.close()

    on_store(tmp_path, decide, fault=gate)
    assert on_store(tmp_path, loaded) == {"iris": IRIS}


def test_a_store_that_is_not_open_says_so(tmp_path: Path) -> None:
    async def ask() -> None:
        store = StateStore(tmp_path)
        for question in (store.load(), store.append(PROMOTE), store.history(), store.verify()):
            with pytest.raises(StateUnavailable, match="not open"):
                await question
        await store.close()

    asyncio.run(ask())


def test_verification_goes_on_beside_a_commit(tmp_path: Path) -> None:
    gate = Gate("journal written")
    filled(tmp_path)

    async def look(store: StateStore) -> None:
        commit = asyncio.create_task(store.commit({"iris": IRIS}, PROMOTE))
        await asyncio.to_thread(gate.reached.wait, 30)
        assert verify_directory(tmp_path).entries == 5, "what is not committed is not seen"
        gate.open()
        await commit
        assert (await store.verify()).entries == 6

    on_store(tmp_path, look, fault=gate)


# -- the directory ----------------------------------------------------------------------------


def test_one_store_at_a_time_has_a_directory(tmp_path: Path) -> None:
    async def open_another(store: StateStore) -> None:
        await store.commit({"iris": IRIS}, PROMOTE)
        other = StateStore(tmp_path)
        with pytest.raises(ConfigError, match=rf"in use by another server \(process {os.getpid()}"):
            await other.open()
        await other.close()
        assert await store.load() == {"iris": IRIS}, "the one that has it goes on"

    on_store(tmp_path, open_another)
    assert on_store(tmp_path, loaded) == {"iris": IRIS}


def test_a_store_that_could_not_open_leaves_the_directory_free(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)

    async def run() -> None:
        broken = StateStore(tmp_path)
        with pytest.raises(ConfigError):
            await broken.open()
        (tmp_path / FILE_NAME).unlink()
        other = StateStore(tmp_path)
        await other.open()
        await other.close()
        await broken.close()

    asyncio.run(run())


def refusal(directory: Path) -> str:
    with pytest.raises(ConfigError) as told:
        on_store(directory, loaded)
    return str(told.value)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    assert refusal(tmp_path / "state").endswith("state cannot be used: File exists")


def test_a_file_of_a_later_release(tmp_path: Path) -> None:
    filled(tmp_path)
    edit(tmp_path, "PRAGMA user_version = 3")
    before = (tmp_path / FILE_NAME).read_bytes()
    assert "written by a later release of onnx-gateway (schema 3; this one knows up to 2)" in (
        refusal(tmp_path)
    )
    assert (tmp_path / FILE_NAME).read_bytes() == before
    with pytest.raises(ConfigError, match="later release"):
        verify_directory(tmp_path)


def test_a_database_of_something_else(tmp_path: Path) -> None:
    edit(tmp_path, "CREATE TABLE accounts (name TEXT)")
    assert "is a database of something else than onnx-gateway" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_short(tmp_path: Path, share: float) -> None:
    filled(tmp_path, 30)
    file = tmp_path / FILE_NAME
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    check_damage_told(tmp_path)


@pytest.mark.parametrize("page", range(8))
def test_a_page_that_was_overwritten(tmp_path: Path, page: int) -> None:
    filled(tmp_path, 30)
    with (tmp_path / FILE_NAME).open("r+b") as file:
        assert file.seek(page * 4096) < file.seek(0, os.SEEK_END)
        file.seek(page * 4096)
        file.write(b"\xa5" * 4096)
    check_damage_told(tmp_path)


@pytest.mark.parametrize("statement", ["DROP TABLE traffic", "DROP TABLE head", "DELETE FROM head"])
def test_a_table_that_is_gone(tmp_path: Path, statement: str) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database, database:
        database.execute(statement)
    check_damage_told(tmp_path)


def check_damage_told(directory: Path) -> None:
    told = refusal(directory)
    assert f"{directory / FILE_NAME} is damaged: " in told
    assert "move it away to start with nothing decided" in told


@pytest.mark.parametrize("text", ["{", "[]", '{"stable": 1.5}', '{"unknown": 1}'])
def test_a_decision_that_is_none(tmp_path: Path, text: str) -> None:
    filled(tmp_path)
    edit(tmp_path, f"UPDATE traffic SET decided = '{text}'")
    assert f"{tmp_path / FILE_NAME}: what is decided about model 'iris'" in refusal(tmp_path)


#: Run as nobody: opens the state, then verifies it.
AS_NOBODY = """
import asyncio, os, sys
from pathlib import Path
from gateway.control.state_store import StateStore, verify_directory
from gateway.errors import ConfigError
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    asyncio.run(StateStore(Path(sys.argv[1])).open())
except ConfigError as error:
    print(error)
print(verify_directory(Path(sys.argv[1])).entries)
"""


@pytest.mark.parametrize(
    ("directory_mode", "file_mode", "told"),
    [
        (0o555, 0o644, "cannot be used: Permission denied"),
        (0o777, 0o444, "cannot be used: attempt to write a readonly database"),
    ],
)
def test_what_may_only_be_read_is_refused_at_once_and_can_be_verified(
    directory_mode: int, file_mode: int, told: str
) -> None:
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        directory = Path(parent) / "state"
        filled(directory)
        (directory / LOCK_NAME).unlink()
        (directory / FILE_NAME).chmod(file_mode)
        directory.chmod(directory_mode)
        command = [sys.executable, "-c", AS_NOBODY, str(directory)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        directory.chmod(0o755)
    refused, entries = ran.stdout.splitlines()
    assert refused.endswith(told)
    assert entries == "5"


# -- verification -----------------------------------------------------------------------------


def test_a_directory_without_a_journal(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no journal in"):
        verify_directory(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match=r"state.db is damaged"):
        verify_directory(tmp_path)


@pytest.mark.parametrize(
    ("statement", "first_broken"),
    [
        ("UPDATE journal SET content = replace(content, 'ada', 'eve') WHERE seq = 2", 2),
        ("UPDATE journal SET content = content || ' ' WHERE seq = 2", 2),
        ("UPDATE journal SET content = CAST(x'ff' AS TEXT) || content WHERE seq = 2", 2),
        ("UPDATE journal SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE seq = 2", 2),
        ("UPDATE journal SET model = 'other' WHERE seq = 2", 2),
        ("UPDATE journal SET seq = 9 WHERE seq = 2", 2),
        ("DELETE FROM journal WHERE seq = 2", 2),
        ("DELETE FROM journal WHERE seq >= 4", 4),
        ("DELETE FROM journal", 1),
        ("INSERT INTO journal SELECT 6, model, content, hash FROM journal WHERE seq = 5", 6),
        ("UPDATE head SET entries = 4", 5),
        ("UPDATE head SET hash = 'x'", 5),
        ("DELETE FROM head", None),
    ],
)
def test_an_edit_of_the_file_is_found(
    tmp_path: Path, statement: str, first_broken: int | None
) -> None:
    filled(tmp_path)
    edit(tmp_path, statement)
    found = verify_directory(tmp_path)
    assert (found.intact, found.first_broken) == (False, first_broken)
    assert found.reason


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM journal WHERE seq = 5",
        "INSERT INTO journal SELECT 6, model, content, hash FROM journal WHERE seq = 5",
        "UPDATE journal SET content = '{}' WHERE seq = 2",
    ],
)
def test_an_edit_stops_no_decision_and_is_not_hidden_by_later_ones(
    tmp_path: Path, statement: str
) -> None:
    filled(tmp_path)
    edit(tmp_path, statement)
    first_broken = verify_directory(tmp_path).first_broken

    async def go_on(store: StateStore) -> None:
        for _ in range(3):
            await store.commit({"iris": IRIS}, PROMOTE)
        assert await store.load() == {"iris": IRIS}
        found = await store.verify()
        assert not found.intact
        assert found.first_broken <= first_broken + 1

    on_store(tmp_path, go_on)


def test_history_with_an_entry_that_is_none_says_to_verify(tmp_path: Path) -> None:
    filled(tmp_path)
    edit(tmp_path, "UPDATE journal SET content = '{}' WHERE seq = 2")

    async def look(store: StateStore) -> None:
        with pytest.raises(StateUnavailable, match="entry 2 is no entry; verify it"):
            await store.history()
        assert [entry.seq for entry in await store.history(limit=3)] == [5, 4, 3]

    on_store(tmp_path, look)


def test_utc_is_the_clock_by_default() -> None:
    async def decide(store: StateStore) -> None:
        before = datetime.now(UTC)
        entry = await store.append(PROMOTE)
        assert before <= datetime.fromisoformat(entry.time) <= datetime.now(UTC)

    on_store(None, decide)
