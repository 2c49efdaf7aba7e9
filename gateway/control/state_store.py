"""What is to survive a restart: the decided traffic of every model, the journal, and documents.

One SQLite file, ``state.db`` in the state directory. A decision and its entry in the journal are
written in one transaction, and are on the disk when the commit returns. The journal's length and
its last hash are kept beside it, so that a journal that was cut short shows. Documents are tables
of JSON values that others keep by kind and key: episodes of drift, silenced alerts.
"""

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.control.directory_lock import DirectoryLock
from gateway.control.journal import (
    GENESIS,
    Event,
    JournalEntry,
    Record,
    Verification,
    canonical_json,
    verify_chain,
)
from gateway.control.traffic import ModelTraffic, as_table
from gateway.errors import ConfigError, InvalidRequest, StateUnavailable

FILE_NAME: Final = "state.db"
#: The version of the tables, in SQLite's ``user_version``.
SCHEMA: Final = 2
#: Marks the file as ours, in SQLite's ``application_id``: "OGst" in ASCII.
APPLICATION_ID: Final = 0x4F477374

_TABLES: Final = """
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, model TEXT NOT NULL, content TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
CREATE INDEX journal_by_model ON journal (model, seq);
CREATE TABLE traffic (
    model TEXT PRIMARY KEY, decided TEXT NOT NULL,
    entry INTEGER NOT NULL REFERENCES journal (seq) DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE TABLE head (
    only INTEGER PRIMARY KEY CHECK (only = 1), entries INTEGER NOT NULL, hash TEXT NOT NULL
) STRICT;
"""
#: What was added by the second version.
_DOCUMENTS: Final = """
CREATE TABLE document (
    kind TEXT NOT NULL, key TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (kind, key)
) STRICT
"""
_TRAFFIC: Final = "model, decided FROM traffic"
_JOURNAL: Final = "seq, model, content, hash FROM journal"
#: What SQLite can count to.
_MOST: Final = 2**63 - 1
#: SQLite's codes for a file that does not hold what it should.
_DAMAGE: Final = frozenset((sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_WAY_OUT: Final = (
    f"Put a copy of {FILE_NAME} in its place, or move it away to start with nothing decided; "
    "either way together with the -wal and -shm files beside it"
)

T = TypeVar("T")


def utc_now() -> datetime:
    """The time of the wall."""
    return datetime.now(UTC)


class StateStore:
    """Keeps decisions and the journal. One process at a time has a directory open.

    The methods are for the event loop's thread; SQLite is used on a thread of the store's own, so
    that a slow disk delays nothing but the decision that is written to it. Calls are served in
    their order. What was begun is finished, once, even if the caller is cancelled.

    Every method but ``open`` and ``close`` raises ``StateUnavailable`` where the file cannot be
    read or written, or is not open; then nothing was written. (Where the disk failed in the last
    moment of a commit and the process dies before the next one, a restart may still find it made.)
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        now: Callable[[], datetime] = utc_now,
        fault: Callable[[str], None] | None = None,
    ) -> None:
        """Keep the state in ``directory``, which is made where it is not there.

        Args:
            directory: ``None`` keeps it in memory, for as long as the store.
            now: the time that the journal's entries bear, in any time zone.
            fault: called, on the store's thread, with the name of each point at which a process
                might die: ``"begin"``, ``"state written"``, ``"journal written"``,
                ``"committed"``; for tests.
        """
        self._directory = directory
        self._file = directory and directory / FILE_NAME
        self._now = now
        self._fault = fault or _no_fault
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._database: sqlite3.Connection | None = None
        self._lock: DirectoryLock | None = None
        self._closed = False

    async def open(self) -> None:
        """Open the directory.

        Raises:
            ConfigError: it cannot be used, another process has it, or its file is damaged or was
                written by a later release.
        """
        await self._run(self._open)

    async def load(self) -> dict[str, ModelTraffic]:
        """What is decided, by model.

        Raises:
            ConfigError: the file says something that no decision can be.
        """
        return await self._run(self._load)

    async def commit(self, decisions: Mapping[str, ModelTraffic], event: Event) -> JournalEntry:
        """Write decisions and what led to them, all or nothing; returns the journal's entry.

        Raises:
            InvalidRequest: a model's name is not Unicode.
        """
        for model in (*decisions, event.model):
            _check_unicode(model)
        rows = {model: canonical_json(as_table(traffic)) for model, traffic in decisions.items()}
        return await self._run(lambda: self._commit(rows, event))

    async def append(self, event: Event) -> JournalEntry:
        """Write what has happened without a decision; raises as ``commit`` does."""
        return await self.commit({}, event)

    async def keep(
        self, kind: str, documents: Mapping[str, Mapping[str, Any] | None], event: Event | None
    ) -> None:
        """Keep ``documents`` by their keys, forget those that are ``None``; all or nothing.

        Args:
            event: what led to it; ``None`` writes no entry. Raises as ``commit`` does.
        """
        if event is not None:
            _check_unicode(event.model)
        rows = {
            key: None if document is None else canonical_json(document)
            for key, document in documents.items()
        }
        await self._run(lambda: self._keep(kind, rows, event))

    async def kept(self, kind: str) -> dict[str, dict[str, Any]]:
        """The documents of ``kind``, by their keys.

        Raises:
            ConfigError: one of them is no document.
        """
        return await self._run(lambda: self._kept(kind))

    async def history(
        self, model: str = "", *, limit: int = 100, before: int = 0
    ) -> list[JournalEntry]:
        """Entries, the newest first: of one model, and those before ``before``, where given."""
        return await self._run(lambda: self._history(model, limit, before))

    async def verify(self) -> Verification:
        """Whether the journal is as it was written. Commits do not wait for the end of it."""
        if self._directory is None:
            return await self._run(lambda: _verify(self._opened()))
        await self._run(self._opened)
        try:
            return await asyncio.to_thread(verify_directory, self._directory)
        except ConfigError as error:
            raise StateUnavailable(str(error)) from error

    async def close(self) -> None:
        """Close the directory, once everything that was begun is written; again does nothing."""
        if self._closed:
            return
        closed = self._begin(self._close)
        self._closed = True
        self._thread.shutdown(wait=False)
        await asyncio.shield(closed)

    async def _run(self, work: Callable[[], T]) -> T:
        # Cancelled in the queue, the work would never be done; and its caller could not know.
        return await asyncio.shield(self._begin(work))

    def _begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        if self._closed:
            raise StateUnavailable("the state is closed: the server is stopping")
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    # On the store's own thread.

    def _open(self) -> None:
        if self._file is None:
            self._database = sqlite3.connect(":memory:", isolation_level=None)
            _prepare(self._database)
            return
        try:
            self._open_file(self._file)
        except BaseException:
            self._close()
            raise

    def _open_file(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._lock = DirectoryLock.acquire(file.parent)
        except OSError as error:
            raise ConfigError(
                f"the state directory {file.parent} cannot be used: {error.strerror}"
            ) from error
        with _failure_told(file):
            self._database = sqlite3.connect(file, isolation_level=None)
            _check_ours(self._database, file)
            _prepare(self._database)
            _check_whole(self._database)

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise StateUnavailable("the state is not open")
        return self._database

    def _load(self) -> dict[str, ModelTraffic]:
        database = self._opened()
        with _refusing(self._file, "read"):
            rows = database.execute(f"SELECT {_TRAFFIC} ORDER BY model").fetchall()
        return {model: self._decided(model, text) for model, text in rows}

    def _decided(self, model: str, text: str) -> ModelTraffic:
        where = f"{self._file}: what is decided about model '{model}'"
        try:
            return ModelTraffic.from_table(json.loads(text), f"{where}: ")
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"{where} cannot be read: {error}. {_WAY_OUT}") from error

    def _commit(self, rows: Mapping[str, str], event: Event) -> JournalEntry:
        database = self._opened()
        with _refusing(self._file, "written, and nothing was"), _transaction(database):
            self._fault("begin")
            number, head = _end(database)
            database.executemany(
                "INSERT INTO traffic VALUES (?, ?, ?) ON CONFLICT (model) "
                "DO UPDATE SET decided = excluded.decided, entry = excluded.entry",
                [(model, decided, number + 1) for model, decided in rows.items()],
            )
            self._fault("state written")
            entry = self._append(database, event, number, head)
            self._fault("journal written")
        self._fault("committed")
        return entry

    def _append(
        self, database: sqlite3.Connection, event: Event, number: int, head: str
    ) -> JournalEntry:
        """Write the entry behind the one of ``number``, whose hash is ``head``."""
        time = self._now().astimezone(UTC).isoformat(timespec="microseconds")
        entry = JournalEntry.chain(event, seq=number + 1, time=time, previous=head)
        database.execute("INSERT INTO journal VALUES (?, ?, ?, ?)", entry.as_record())
        database.execute("UPDATE head SET entries = ?, hash = ?", (entry.seq, entry.hash))
        return entry

    def _keep(self, kind: str, rows: Mapping[str, str | None], event: Event | None) -> None:
        database = self._opened()
        with _refusing(self._file, "written, and nothing was"), _transaction(database):
            for key, content in rows.items():
                if content is None:
                    database.execute("DELETE FROM document WHERE kind = ? AND key = ?", (kind, key))
                else:
                    database.execute(
                        "INSERT OR REPLACE INTO document VALUES (?, ?, ?)", (kind, key, content)
                    )
            if event is not None:
                self._append(database, event, *_end(database))

    def _kept(self, kind: str) -> dict[str, dict[str, Any]]:
        database = self._opened()
        with _refusing(self._file, "read"):
            rows = database.execute(
                "SELECT key, content FROM document WHERE kind = ? ORDER BY key", (kind,)
            ).fetchall()
        documents = {}
        for key, content in rows:
            where = f"{self._file}: what is kept as {kind} '{key}'"
            try:
                documents[key] = json.loads(content)
            except ValueError as error:
                raise ConfigError(f"{where} cannot be read: {error}. {_WAY_OUT}") from error
            if not isinstance(documents[key], dict):
                raise ConfigError(f"{where} is no table. {_WAY_OUT}")
        return documents

    def _history(self, model: str, limit: int, before: int) -> list[JournalEntry]:
        where = "seq < ?"
        values: list[str | int] = [min(before, _MOST) if before > 0 else _MOST]
        if model:
            where, values = f"model = ? AND {where}", [model, *values]
        values.append(min(max(limit, 0), _MOST))
        database = self._opened()
        with _refusing(self._file, "read"):
            found = database.execute(
                f"SELECT {_JOURNAL} WHERE {where} ORDER BY seq DESC LIMIT ?", values
            ).fetchall()
        try:
            return [JournalEntry.from_record(Record(*row)) for row in found]
        except ValueError as error:
            raise StateUnavailable(f"the journal was altered: {error}; verify it") from error

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def verify_directory(directory: Path) -> Verification:
    """Whether the journal in ``directory`` is as it was written; a server may have it open.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    file = directory / FILE_NAME
    if not file.is_file():
        raise ConfigError(f"there is no journal in {directory}: it would be {file}")
    with _failure_told(file), closing(_open_to_read(file)) as database:
        _check_ours(database, file)
        return _verify(database)


def _open_to_read(file: Path) -> sqlite3.Connection:
    log = file.with_name(f"{file.name}-wal")
    # SQLite reads beside a writer by files of its own next to the database. Where it may not make
    # them and no writer has, nobody writes.
    still = not os.access(file.parent, os.W_OK) and not log.exists()
    options = "immutable=1" if still else "mode=ro"
    database = sqlite3.connect(
        f"{file.absolute().as_uri()}?{options}", uri=True, isolation_level=None
    )
    # Bytes that are no text are no reason to stop reading: they make another hash.
    database.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    return database


def _verify(database: sqlite3.Connection) -> Verification:
    with _transaction(database, "DEFERRED"):
        noted = database.execute("SELECT entries, hash FROM head").fetchone()
        if noted is None:
            return Verification(0, False, None, "the journal's length and last hash are missing")
        rows = database.execute(f"SELECT {_JOURNAL} ORDER BY seq")
        return verify_chain((Record(*row) for row in rows), *noted)


def _end(database: sqlite3.Connection) -> tuple[int, str]:
    """The number and hash of the last entry; what somebody put behind it only takes a number."""
    number, head = database.execute(
        "SELECT max(entries, (SELECT coalesce(max(seq), 0) FROM journal)), hash FROM head"
    ).fetchone()
    return number, head


def _check_ours(database: sqlite3.Connection, file: Path) -> None:
    """Raise ``ConfigError`` where ``file`` is not empty and not of a format that is known here."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (schema,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise ConfigError(
            f"{file} is a database of something else than onnx-gateway: use another state directory"
        )
    if schema > SCHEMA:
        raise ConfigError(
            f"{file} was written by a later release of onnx-gateway (schema {schema}; this one "
            f"knows up to {SCHEMA}): run that release, or use another state directory"
        )


def _prepare(database: sqlite3.Connection) -> None:
    """Set the connection up, and make the tables that are not there yet."""
    database.execute("PRAGMA journal_mode = WAL")
    # A decision is on the disk before anybody acts on it, even if the power fails.
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    with _transaction(database):
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        if schema < 1:
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute("INSERT INTO head VALUES (1, 0, ?)", (GENESIS,))
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        if schema < 2:
            database.execute(_DOCUMENTS)
        # Written in any case: a file that may only be read is met now, not at the first decision.
        database.execute(f"PRAGMA user_version = {SCHEMA}")


def _check_whole(database: sqlite3.Connection) -> None:
    """Meet damage now, not at the first decision: reads the file, about 1 s for 1 GB."""
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    for columns in (_TRAFFIC, _JOURNAL, "kind, key, content FROM document"):
        database.execute(f"SELECT {columns} LIMIT 0")
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    if not database.execute("SELECT entries, hash FROM head").fetchall():
        raise sqlite3.DatabaseError("the journal's length and last hash are missing")


@contextmanager
def _transaction(database: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All of the block or nothing of it."""
    database.execute(f"BEGIN {kind}")
    try:
        yield
        database.execute("COMMIT")
    finally:
        # After some failures SQLite has rolled back by itself.
        if database.in_transaction:
            database.execute("ROLLBACK")


@contextmanager
def _refusing(file: Path | None, what: str) -> Iterator[None]:
    """Failures of the block as errors for whoever asked for it."""
    try:
        yield
    except sqlite3.Error as error:
        raise StateUnavailable(f"{file or 'the state'} cannot be {what}: {error}") from error


@contextmanager
def _failure_told(file: Path) -> Iterator[None]:
    """Failures of the block, in which ``file`` is opened, as ``ConfigError``."""
    try:
        yield
    except sqlite3.Error as error:
        # An error of our own making has no code; it is about what the file holds.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in _DAMAGE:
            raise ConfigError(f"{file} is damaged: {error}. {_WAY_OUT}") from error
        raise ConfigError(f"{file} cannot be used: {error}") from error


def _check_unicode(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the model's name {name!r} is not Unicode: nothing can be decided about it before it "
            "is renamed"
        ) from None


def _no_fault(point: str) -> None:
    """Where nothing is to fail."""
