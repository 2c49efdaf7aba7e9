"""Predictions as lines of JSON in files, a line for each row.

Files are rolled by size and age. While a file is written its name ends in ``.part``; without
compression it can be followed all the same. Compressed, each batch is a gzip member of its own, so
what was written before a crash can be read.
"""

import gzip
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.errors import ConfigError
from gateway.monitoring_file import Part
from gateway.stream.block import Block
from gateway.stream.sinks.encoding import JSON_OPTIONS, Breather, block_values, timestamp
from gateway.stream.sinks.sink import (
    MIB,
    Defaults,
    Parcel,
    SinkSettings,
    read_settings,
    seconds,
    size,
)
from gateway.tables import choice

DEFAULTS: Final = Defaults()
_OPTIONS: Final = JSON_OPTIONS | orjson.OPT_APPEND_NEWLINE
#: Level of compression: the fastest takes a third of the time of gzip's own default.
_LEVEL: Final = 1


def make(part: Part) -> tuple[SinkSettings, "JsonLines"]:
    """The sink that ``part`` describes. Raises ``ConfigError``."""
    fields = {
        "directory": part.path,
        "roll_bytes": size(1024, 1 << 40),
        "roll_s": seconds,
        "fsync": choice("batch", "roll", "never"),
        "compression": choice("none", "gzip"),
    }
    settings, options = read_settings(part, "json_lines", DEFAULTS, fields, ["directory"])
    make_directory(options["directory"], f"{part.where}directory")
    return settings, JsonLines(
        part.name,
        options["directory"],
        roll_bytes=options.get("roll_bytes", 64 * MIB),
        roll_s=options.get("roll_s", 3600.0),
        fsync=options.get("fsync", "batch"),
        compress=options.get("compression") == "gzip",
    )


def make_directory(path: Path, where: str) -> None:
    """Make the directory ``path`` where it is not there. Raises ``ConfigError``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "it is not writable")
    except OSError as error:
        raise ConfigError(f"{where}: cannot write into {path}: {error.strerror}") from None


class JsonLines:
    """Writes lines; delivered is what the file has, and with ``fsync = "batch"`` the disk.

    Args:
        roll_bytes, roll_s: the size and age after which a new file is begun.
        fsync: when the disk must have it: after each ``batch``, each file (``roll``), or ``never``.
        wall_clock: Unix seconds.
    """

    wants_event_ids: Final = False

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        roll_bytes: int,
        roll_s: float,
        fsync: str,
        compress: bool,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._name: Final = name
        self._directory: Final = directory
        self._roll_bytes: Final = roll_bytes
        self._roll_s: Final = roll_s
        self._fsync: Final = fsync
        self._compress: Final = compress
        self._wall_clock: Final = wall_clock
        self._number = 0
        self._file = -1
        self._path = directory
        self._size = 0
        self._began = 0.0

    def encode(self, blocks: Sequence[Block]) -> list[Parcel]:
        """See ``Sink``."""
        lines: list[bytes] = []
        breather = Breather()
        for block in blocks:
            lines += _lines(block)
            breather.did(block.rows)
        content = b"".join(lines)
        if self._compress:
            content = gzip.compress(content, _LEVEL, mtime=0)
        return [Parcel([(block, block.rows) for block in blocks], content)]

    def deliver(self, parcels: Sequence[Parcel], timeout_s: float) -> None:
        """See ``Sink``."""
        self._roll_old()
        for parcel in parcels:
            if self._file < 0:
                self._open()
            try:
                self._write(parcel.content)
            except OSError:
                self._undo()
                raise
            parcel.arrived = True
            if self._size >= self._roll_bytes:
                self._roll()

    def idle(self) -> None:
        """See ``Sink``."""
        self._roll_old()

    def close(self) -> None:
        """See ``Sink``."""
        self._roll()

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        if self._fsync == "batch":
            os.fdatasync(self._file)
        self._size += len(content)

    def _undo(self) -> None:
        """Take back what a failed write has left, so that no line is torn."""
        try:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
        except OSError:
            # The file is left as it is, torn at its end; what follows goes into another one.
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        at = self._wall_clock()
        stamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
        suffix = ".jsonl.gz" if self._compress else ".jsonl"
        name = f"{self._name}-{stamp}-{os.getpid()}-{self._number:06}{suffix}"
        self._number += 1
        self._path = self._directory / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(f"{self._path}.part", flags, 0o640)
        self._size, self._began = 0, at

    def _roll_old(self) -> None:
        if self._file >= 0 and self._wall_clock() - self._began >= self._roll_s:
            self._roll()

    def _roll(self) -> None:
        if self._file < 0:
            return
        file, self._file = self._file, -1
        try:
            if self._fsync != "never":
                os.fsync(file)
        finally:
            os.close(file)
        os.rename(f"{self._path}.part", self._path)
        if self._fsync != "never":
            sync_directory(self._directory)


def sync_directory(path: Path) -> None:
    """Have the disk know the names in ``path``."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lines(block: Block) -> list[bytes]:
    inputs, outputs = block_values(block)
    at = timestamp(block.at)
    lines = []
    place = 0
    latencies = (block.latency_ns / 1e6).tolist()
    requests = zip(block.request_ids(), block.request_rows.tolist(), latencies, strict=True)
    for id, rows, latency_ms in requests:
        for row in range(rows):
            line: dict[str, Any] = {
                "id": id,
                "row": row,
                "model": block.model,
                "version": block.version,
                "time": at,
                "latency_ms": latency_ms,
                "inputs": {name: values[place] for name, values in inputs.items()},
                "outputs": {name: values[place] for name, values in outputs.items()},
            }
            lines.append(orjson.dumps(line, option=_OPTIONS))
            place += 1
    return lines
