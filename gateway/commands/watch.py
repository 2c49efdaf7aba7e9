"""Watching predictions go by, and telling what was true of them."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from gateway.commands.admin_client import AdminClient, Event
from gateway.commands.show import clean, flat
from gateway.errors import ConfigError

#: Values of a tensor that a line shows.
_SHOWN: Final = 8
#: Bytes of labels that are sent at a time; the server takes 16 MiB.
_PIECE_BYTES: Final = 8 << 20
#: How the files of labels end, and the media type of each.
_KINDS: Final = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".pq": "application/vnd.apache.parquet",
}


# -- tail -------------------------------------------------------------------------------------


def tail(client: AdminClient, options: argparse.Namespace) -> int:
    """Print predictions as they come, until they end or the user has seen enough."""
    watched = _Watched(options.json)
    query = {"limit": options.limit, "sample": options.sample, "fields": options.fields}
    try:
        for event in client.events("models", options.model, "stream", **query):
            watched.take(event)
    except KeyboardInterrupt:
        # The way to end it; the shell has shown ^C.
        print(file=sys.stderr)
    except BrokenPipeError:
        # Whoever read has left, as head does; the rest of the buffer must not be an error either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    print(watched.summary(), file=sys.stderr)
    return 0


class _Watched:
    """Prints events, predictions on stdout and all else on stderr, and counts them."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._features: dict[str, dict[str, list[str]]] = {}
        self._count = 0
        self._dropped = 0

    def take(self, event: Event) -> None:
        """Print one event."""
        data = json.loads(event.data)
        if event.name == "prediction":
            self._count += 1
            text = event.data if self._as_json else _line(data, self._features[data["version"]])
            print(text, flush=True)
        elif event.name == "columns":
            self._features[data["version"]] = {
                tensor["name"]: tensor["features"]
                for side in ("inputs", "outputs")
                for tensor in data[side]
            }
        elif event.name == "dropped":
            self._dropped += data["dropped"]
            why = ", ".join(f"{rows} {clean(reason)}" for reason, rows in data["reasons"].items())
            print(f"onnx-gateway: {data['dropped']} rows were dropped: {why}", file=sys.stderr)
        elif event.name == "end" and data["reason"] == "shutdown":
            print("onnx-gateway: the server is shutting down", file=sys.stderr)

    def summary(self) -> str:
        """What there was."""
        many = "prediction" if self._count == 1 else "predictions"
        return f"{self._count} {many}, {self._dropped} rows dropped"


def _line(prediction: Mapping[str, Any], features: Mapping[str, list[str]]) -> str:
    """A prediction on one line."""
    time = datetime.fromtimestamp(prediction["time"]).strftime("%H:%M:%S.%f")[:-3]
    place = f"[{prediction['first_row']}:]" if prediction["first_row"] else ""
    sides = [
        " ".join(
            _tensor(name, values, features.get(name, ()), prediction["rows"])
            for name, values in prediction[side].items()
        )
        for side in ("inputs", "outputs")
    ]
    return (
        f"{time}  {clean(prediction['version'])}  {clean(prediction['id'])}{place}  "
        f"{prediction['latency_ms']:.2f} ms  {sides[0]} -> {sides[1]}"
    )


def _tensor(name: str, values: Any, features: list[str] | tuple[str, ...], rows: int) -> str:
    found = list(flat(values, _SHOWN + 1))
    if rows == 1 and features and len(features) <= _SHOWN and len(found) == len(features):
        return " ".join(f"{clean(f)}={_value(v)}" for f, v in zip(features, found, strict=True))
    cells = ", ".join(map(_value, found[:_SHOWN])) + (", ..." if len(found) > _SHOWN else "")
    rows_told = f"{rows} rows " if rows > 1 else ""
    only = rows == 1 and len(found) == 1
    return f"{clean(name)}={cells}" if only else f"{clean(name)}={rows_told}[{cells}]"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else clean(value)


# -- labels -----------------------------------------------------------------------------------


def labels(client: AdminClient, options: argparse.Namespace) -> Any:
    """Send a file of labels; what became of them, or of all there were where no file is named."""
    path = ("models", options.model, "labels")
    if options.file is None:
        return client.get(*path)
    total: Counter[str] = Counter()
    for kind, piece in _pieces(options.file, options.format):
        total.update(client.call("POST", path, piece, kind))
    return dict(total)


def shown_labels(answer: Mapping[str, Any]) -> str:
    """What became of labels, a line."""
    names = ("joined", "corrected", "duplicate", "waiting", "late", "unmatched", "row_missing")
    told = [f"{answer[name]:,} {name.replace('_', ' ')}" for name in names if answer.get(name)]
    text = f"{answer.get('received', 0):,} labels: {', '.join(told) or 'none'}"
    if "held" in answer:
        text += f"\n{answer['held']:,} predictions are kept for labels"
        for name, rows in answer["too_late"].items():
            text += f"\n{rows:,} labels came too late for {clean(name)}: their window was closed"
    return text


def _pieces(name: str, form: str | None) -> Iterator[tuple[str, bytes]]:
    """The media type and content of a file of labels, cut where it is long and may be cut."""
    suffix = f".{form}" if form else Path(name).suffix.lower()
    kind = _KINDS.get(suffix)
    if kind is None:
        raise ConfigError(
            f"{name}: a file of labels ends with one of {', '.join(_KINDS)}; or say which it is "
            "with --format"
        )
    try:
        with sys.stdin.buffer if name == "-" else open(name, "rb") as file:
            if kind in ("text/csv", "application/x-ndjson"):
                head = file.readline() if kind == "text/csv" else b""
                for piece in _whole_lines(file):
                    yield kind, head + piece
            else:
                yield kind, file.read()
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from None


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """The rest of ``file`` in pieces that end with a line, one at least."""
    piece = bytearray()
    for line in file:
        piece += line
        # Within quotes a line's end is a part of the cell.
        if len(piece) >= _PIECE_BYTES and piece.count(b'"') % 2 == 0:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
