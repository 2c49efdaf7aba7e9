"""The SQLite file of ground truth: held predictions, labels, and what became of labels.

``labels.sqlite`` in the state directory; without one, a file that SQLite makes for itself and that
is gone with the process. Losing the last second of it costs labels, not decisions, so it is not
synced at each commit, as the state is.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from gateway.errors import ConfigError
from gateway.monitor.labels import Value

FILE_NAME: Final = "labels.sqlite"
#: The version of the tables, in SQLite's ``user_version``.
SCHEMA: Final = 1
#: Marks the file as ours, in SQLite's ``application_id``: "OGlb" in ASCII.
APPLICATION_ID: Final = 0x4F476C62
#: The row of a label that names none, while it waits.
NO_ROW: Final = -1

_TABLES: Final = """
CREATE TABLE chunk (
    number INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE label (
    model TEXT NOT NULL, id TEXT NOT NULL, row INTEGER NOT NULL, value TEXT NOT NULL,
    time REAL NOT NULL, chunk INTEGER NOT NULL, PRIMARY KEY (model, id, row)
) STRICT, WITHOUT ROWID;
CREATE INDEX label_by_chunk ON label (chunk);
CREATE TABLE waiting (
    model TEXT NOT NULL, id TEXT NOT NULL, row INTEGER NOT NULL, value TEXT NOT NULL,
    time REAL NOT NULL, received REAL NOT NULL, PRIMARY KEY (model, id, row)
) STRICT, WITHOUT ROWID;
CREATE TABLE outcome (
    model TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (model, name)
) STRICT, WITHOUT ROWID;
"""


class Waiting(NamedTuple):
    """A label that waits for its prediction; ``received`` and ``time`` are Unix seconds."""

    id: str
    row: int
    value: str
    time: float
    received: float


class LabelStore:
    """The file. For one thread, which must be the one that makes it.

    Every method raises ``sqlite3.Error`` where the file cannot be read or written.

    Raises:
        ConfigError: the file is damaged, not ours, or of a later release.
    """

    def __init__(self, directory: Path | None) -> None:
        self._name: Final = str(directory / FILE_NAME) if directory else ""
        try:
            self._database: Final = sqlite3.connect(self._name, isolation_level=None)
            self._prepare()
        except sqlite3.Error as error:
            raise ConfigError(
                f"{self._name or 'a temporary file of labels'} cannot be used: {error}. Move it "
                "away, together with the -wal and -shm files beside it, to start without labels"
            ) from error

    def _prepare(self) -> None:
        database = self._database
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != APPLICATION_ID:
            raise ConfigError(f"{self._name} is a database of something else than onnx-gateway")
        if schema > SCHEMA:
            raise ConfigError(
                f"{self._name} was written by a later release of onnx-gateway (schema {schema}; "
                f"this one knows up to {SCHEMA}): run that release, or move the file away"
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        # Memory for pages, in KiB: what is beyond it is read again.
        database.execute("PRAGMA cache_size = -4096")
        with self.transaction():
            if schema < SCHEMA:
                for statement in _TABLES.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA}")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it; a block within another one is a part of that."""
        if self._database.in_transaction:
            yield
            return
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    # -- held predictions ---------------------------------------------------------------------

    def save_chunk(self, number: int, model: str, version: str, body: bytes) -> None:
        """Write a chunk, or write it again."""
        self._database.execute(
            "INSERT OR REPLACE INTO chunk VALUES (?, ?, ?, ?)", (number, model, version, body)
        )

    def read_chunk(self, number: int) -> bytes:
        """What was written."""
        found = self._database.execute(
            "SELECT body FROM chunk WHERE number = ?", (number,)
        ).fetchone()
        if found is None:
            raise sqlite3.DataError(f"predictions that were written are gone (chunk {number})")
        return bytes(found[0])

    def drop_chunk(self, number: int) -> None:
        """Forget a chunk, and the labels of its predictions."""
        self._database.execute("DELETE FROM chunk WHERE number = ?", (number,))
        self._database.execute("DELETE FROM label WHERE chunk = ?", (number,))

    def chunks(self) -> Iterator[tuple[int, str, str, bytes]]:
        """Number, model, version and body of every chunk, the oldest first."""
        yield from self._database.execute("SELECT * FROM chunk ORDER BY number")

    # -- labels -------------------------------------------------------------------------------

    def label(self, model: str, id: str, row: int, chunk: int) -> str | None:
        """The value that a prediction in the chunk of that number is labelled with."""
        found = self._database.execute(
            "SELECT value FROM label WHERE model = ? AND id = ? AND row = ? AND chunk = ?",
            (model, id, row, chunk),
        ).fetchone()
        return found and str(found[0])

    def set_label(self, model: str, id: str, row: int, value: str, time: float, chunk: int) -> None:
        """Label a prediction that the chunk of that number holds."""
        self._database.execute(
            "INSERT OR REPLACE INTO label VALUES (?, ?, ?, ?, ?, ?)",
            (model, id, row, value, time, chunk),
        )

    def waiting(self, model: str, id: str) -> list[Waiting]:
        """The labels that wait for a prediction of that id, the first one first."""
        return [
            Waiting(*found)
            for found in self._database.execute(
                "SELECT id, row, value, time, received FROM waiting WHERE model = ? AND id = ? "
                "ORDER BY received",
                (model, id),
            )
        ]

    def set_waiting(self, model: str, label: Waiting) -> None:
        """Have a label wait."""
        self._database.execute(
            "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?)", (model, *label)
        )

    def end_waiting(self, model: str, id: str, row: int) -> None:
        """A label waits no more."""
        self._database.execute(
            "DELETE FROM waiting WHERE model = ? AND id = ? AND row = ?", (model, id, row)
        )

    def all_waiting(self) -> Iterator[tuple[str, str, int]]:
        """Model, id, and how many labels wait for it."""
        yield from self._database.execute(
            "SELECT model, id, count(*) FROM waiting GROUP BY model, id"
        )

    def waited_since(self, model: str, before: float) -> list[Waiting]:
        """The labels of a model that were received before then."""
        return [
            Waiting(*found)
            for found in self._database.execute(
                "SELECT id, row, value, time, received FROM waiting "
                "WHERE model = ? AND received < ?",
                (model, before),
            )
        ]

    # -- what became of them ------------------------------------------------------------------

    def outcomes(self) -> Iterator[tuple[str, str, int]]:
        """Model, outcome, and how many labels ended so."""
        yield from self._database.execute("SELECT model, name, count FROM outcome")

    def set_outcomes(self, model: str, counts: Mapping[str, int]) -> None:
        """Write how many labels ended how."""
        self._database.executemany(
            "INSERT OR REPLACE INTO outcome VALUES (?, ?, ?)",
            [(model, name, count) for name, count in counts.items()],
        )


def encode_value(value: Value) -> str:
    """``value`` as text; the same value has the same text."""
    return orjson.dumps(value).decode()


def decode_value(text: str) -> Value:
    """The value of that text."""
    value = orjson.loads(text)
    return tuple(value) if isinstance(value, list) else value
