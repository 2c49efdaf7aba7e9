"""What is to survive a restart: the decided traffic of every model, and the journal.

One SQLite file, ``state.db`` in the state directory. A decision and its entry in the journal are
written in one transaction, and are on the disk when the commit returns. The journal's length and
its last hash are kept beside it, so that a journal that was cut short shows.
"""

import asyncio
import fcntl
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar

from gateway.control.journal import GENESIS, Event, JournalEntry, Verification, verify_chain
from gateway.control.traffic import ModelTraffic, as_table
from gateway.errors import ConfigError, StateUnavailable

FILE_NAME: Final = "state.db"
LOCK_NAME: Final = "state.lock"
#: The version of the tables, in SQLite's ``user_version``.
SCHEMA: Final = 1

_TABLES: Final = """
CREATE TABLE traffic (model TEXT PRIMARY KEY, decided TEXT NOT NULL) STRICT;
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, time TEXT NOT NULL, model TEXT NOT NULL, event TEXT NOT NULL,
    previous TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
CREATE INDEX journal_by_model ON journal (model, seq);
CREATE TABLE head (
    only INTEGER PRIMARY KEY CHECK (only = 1), entries INTEGER NOT NULL, hash TEXT NOT NULL
) STRICT;
"""
_ENTRY: Final = "SELECT seq, time, event, previous, hash FROM journal"

T = TypeVar("T")


def utc_now() -> str:
    """The time of the wall, as the journal writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class StateStore:
    """Keeps decisions and the journal. One process at a time has a directory open.

    The methods are for the event loop's thread; SQLite is used on a thread of the store's own, so
    that a slow disk delays nothing but the decision that is written to it. What was begun is
    finished even if nobody waits for it any more.

    Each method raises ``StateUnavailable`` where the disk fails; then nothing was written.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        now: Callable[[], str] = utc_now,
        fault: Callable[[str], None] | None = None,
    ) -> None:
        """Keep the state in ``directory``, which is made where it is not there.

        Args:
            directory: ``None`` keeps it in memory, for as long as the process.
            fault: called with the name of each point at which a process might die; for tests.
        """
        self._directory = directory
        self._now = now
        self._fault = fault or _no_fault
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._database: sqlite3.Connection | None = None
        self._lock: TextIO | None = None

    async def open(self) -> None:
        """Open the directory.

        Raises:
            ConfigError: it cannot be used, another process has it, or its file is damaged or was
                written by a later release.
        """
        await self._run(self._open)

    async def load(self) -> dict[str, ModelTraffic]:
        """What is decided, by model."""
        return await self._run(self._load)

    async def commit(self, decisions: Mapping[str, ModelTraffic], event: Event) -> JournalEntry:
        """Write decisions and what led to them, all or nothing; returns the journal's entry."""
        rows = {model: _dumps(as_table(traffic)) for model, traffic in decisions.items()}
        return await self._run(lambda: self._commit(rows, event))

    async def append(self, event: Event) -> JournalEntry:
        """Write what has happened without a decision."""
        return await self._run(lambda: self._commit({}, event))

    async def history(
        self, model: str = "", *, limit: int = 100, before: int = 0
    ) -> list[JournalEntry]:
        """Entries, the newest first: of one model, and those before ``before``, where given."""
        return await self._run(lambda: self._history(model, limit, before))

    async def verify(self) -> Verification:
        """Whether the journal is as it was written."""
        return await self._run(lambda: _verify(self._open_database()))

    async def close(self) -> None:
        """Close the directory, once everything that was begun is written."""
        await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        return await asyncio.shield(future)

    # On the store's own thread.

    def _open(self) -> None:
        if self._directory is None:
            self._database = sqlite3.connect(":memory:", isolation_level=None)
            _prepare(self._database, "memory")
            return
        file = self._directory / FILE_NAME
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self._directory / LOCK_NAME)
        except OSError as error:
            raise ConfigError(
                f"the state directory {self._directory} cannot be used: {error.strerror}"
            ) from error
        with _damage_told(file):
            self._database = sqlite3.connect(file, isolation_level=None)
            _prepare(self._database, str(file))

    def _open_database(self) -> sqlite3.Connection:
        assert self._database is not None, "the store is open"
        return self._database

    def _load(self) -> dict[str, ModelTraffic]:
        rows = self._open_database().execute("SELECT model, decided FROM traffic ORDER BY model")
        return {
            model: ModelTraffic.from_table(json.loads(decided), f"the state of model '{model}': ")
            for model, decided in rows
        }

    def _commit(self, rows: Mapping[str, str], event: Event) -> JournalEntry:
        database = self._open_database()
        self._fault("begin")
        with _transaction(database):
            database.executemany(
                "INSERT INTO traffic VALUES (?, ?) "
                "ON CONFLICT (model) DO UPDATE SET decided = excluded.decided",
                rows.items(),
            )
            self._fault("state written")
            count, head = database.execute("SELECT entries, hash FROM head").fetchone()
            entry = JournalEntry.chain(event, seq=count + 1, time=self._now(), previous=head)
            database.execute(
                "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)",
                (entry.seq, entry.time, event.model, _dumps(asdict(event)), head, entry.hash),
            )
            database.execute("UPDATE head SET entries = ?, hash = ?", (entry.seq, entry.hash))
            self._fault("journal written")
        self._fault("committed")
        return entry

    def _history(self, model: str, limit: int, before: int) -> list[JournalEntry]:
        wanted = "WHERE (? = '' OR model = ?) AND (? = 0 OR seq < ?) ORDER BY seq DESC LIMIT ?"
        rows = self._open_database().execute(
            f"{_ENTRY} {wanted}", (model, model, before, before, limit)
        )
        return [_entry(row) for row in rows]

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def verify_directory(directory: Path) -> Verification:
    """Whether the journal in ``directory`` is as it was written; a server may have it open.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    file = directory / FILE_NAME
    if not file.is_file():
        raise ConfigError(f"there is no journal in {directory}: it would be {file}")
    with (
        _damage_told(file),
        closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database,
    ):
        return _verify(database)


def _verify(database: sqlite3.Connection) -> Verification:
    database.execute("BEGIN")
    try:
        count, head = database.execute("SELECT entries, hash FROM head").fetchone()
        return verify_chain(_entries(database), count, head)
    finally:
        database.execute("ROLLBACK")


def _entries(database: sqlite3.Connection) -> Iterator[JournalEntry]:
    for row in database.execute(f"{_ENTRY} ORDER BY seq"):
        yield _entry(row)


def _entry(row: tuple[int, str, str, str, str]) -> JournalEntry:
    seq, time, event, previous, made = row
    return JournalEntry(
        seq=seq, time=time, event=Event(**json.loads(event)), previous=previous, hash=made
    )


def _prepare(database: sqlite3.Connection, name: str) -> None:
    """Set the connection up, and make the tables where there are none."""
    database.execute("PRAGMA journal_mode = WAL")
    # A decision is on the disk before anybody acts on it, even if the power fails.
    database.execute("PRAGMA synchronous = FULL")
    (schema,) = database.execute("PRAGMA user_version").fetchone()
    if schema > SCHEMA:
        raise ConfigError(
            f"{name} was written by a later release of onnx-gateway (schema {schema}, this one "
            f"knows up to {SCHEMA}): run that release, or use another state directory"
        )
    if schema == 0:
        with _transaction(database):
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute("INSERT INTO head VALUES (1, 0, ?)", (GENESIS,))
            database.execute(f"PRAGMA user_version = {SCHEMA}")


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it."""
    try:
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
    except sqlite3.Error as error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise StateUnavailable(f"the state cannot be written, and nothing was: {error}") from error


@contextmanager
def _damage_told(file: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.DatabaseError, StateUnavailable) as error:
        raise ConfigError(
            f"the state file {file} cannot be read: {error}. Put a copy of it in its place, or "
            "move it away to start with nothing decided"
        ) from error


def _locked(path: Path) -> TextIO:
    """``path`` opened and locked for as long as it is open; the system unlocks for a dead process.

    Raises:
        ConfigError: another process has it.
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(
            f"another process uses the state directory {path.parent}: every server needs one of "
            "its own (--state-dir)"
        ) from None
    return file


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _no_fault(point: str) -> None:
    """Where nothing is to fail."""
