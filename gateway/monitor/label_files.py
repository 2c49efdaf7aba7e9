"""Labels as they are sent: JSON, JSON lines, CSV, Parquet.

A label has an ``id`` and a ``value``, and may have a ``row`` and a ``time``: a key of an object, or
a column of a table.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import orjson

from gateway.errors import ConfigError, InvalidRequest, MalformedRequest
from gateway.monitor.labels import Label, Value

JSON: Final = "application/json"
JSON_LINES: Final = "application/x-ndjson"
CSV: Final = "text/csv"
PARQUET: Final = "application/vnd.apache.parquet"

#: Labels that are taken at a time.
PIECE: Final = 5000
#: Characters of an id and of a text value, numbers of a value, and the highest row.
_MOST_TEXT: Final = 1024
_MOST_VALUES: Final = 1024
_MOST_ROW: Final = 2**31 - 1
_FIELDS: Final = ("id", "value", "row", "time")


def read_labels(kind: str, body: bytes) -> Iterator[list[Label]]:
    """The labels in ``body``, a media type of ``KINDS``, some thousands at a time.

    Raises:
        MalformedRequest: it is not of that kind.
        InvalidRequest: a label is wrong; the message says which one.
    """
    labels = (_label(n, fields) for n, fields in enumerate(KINDS[kind](body), 1))
    while piece := list(islice(labels, PIECE)):
        yield piece


def _json(body: bytes) -> Iterable[Any]:
    """One label, a list of them, or an object with such a list as its ``labels``."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(f"malformed JSON: {error}") from None
    if isinstance(document, dict) and "labels" in document:
        if unknown := sorted(document.keys() - {"labels"}):
            raise InvalidRequest(f"unknown key {unknown[0]!r} beside 'labels'")
        document = document["labels"]
    if isinstance(document, dict):
        return [document]
    if not isinstance(document, list):
        raise InvalidRequest("expected a label, or a list of labels")
    return document


def _json_lines(body: bytes) -> Iterator[Any]:
    for number, line in enumerate(io.BytesIO(body), 1):
        if line.strip():
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise MalformedRequest(f"line {number} is not JSON: {error}") from None


def _csv(body: bytes) -> Iterator[dict[str, Any]]:
    text = io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline="")
    try:
        reader = csv.reader(text, strict=True)
        names = next(reader, [])
        _check_columns(names)
        for cells in reader:
            if len(cells) != len(names):
                if not cells:
                    continue
                raise MalformedRequest(
                    f"line {reader.line_num} has {len(cells)} cells; the first line names "
                    f"{len(names)} columns"
                )
            yield {name: _cell(name, cell) for name, cell in zip(names, cells, strict=True)}
    except (csv.Error, UnicodeDecodeError) as error:
        raise MalformedRequest(f"malformed CSV: {error}") from None


def _cell(name: str, cell: str) -> Any:
    """What a cell says: numbers where they may be, nothing where it is empty."""
    if name == "id":
        return cell
    if not cell:
        return None
    try:
        return int(cell) if name == "row" else float(cell)
    except ValueError:
        return cell


def _parquet(body: bytes) -> Iterator[Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ConfigError(
            "Parquet is read with pyarrow, which is not installed: "
            "'pip install onnx-gateway[parquet]' where the server runs, or send CSV"
        ) from None
    try:
        file = parquet.ParquetFile(arrow.BufferReader(body))
        names = list(file.schema_arrow.names)
        _check_columns(names)
        for batch in file.iter_batches(PIECE, columns=names):
            for label in batch.to_pylist():
                if isinstance(label.get("time"), datetime):
                    label["time"] = _seconds(label["time"])
                yield label
    except (arrow.ArrowException, OSError) as error:
        raise MalformedRequest(f"malformed Parquet: {error}") from None


def _check_columns(names: list[str]) -> None:
    missing = [name for name in ("id", "value") if name not in names]
    unknown = [name for name in names if name not in _FIELDS]
    if missing or unknown or len(set(names)) < len(names):
        raise InvalidRequest(
            "expected the columns id and value, and maybe row and time, once each; got "
            f"{', '.join(names)[:200] or 'none'}"
        )


#: How each media type is read.
KINDS: Final[dict[str, Callable[[bytes], Iterable[Any]]]] = {
    JSON: _json,
    JSON_LINES: _json_lines,
    CSV: _csv,
    PARQUET: _parquet,
}


def _label(number: int, fields: Any) -> Label:
    where = f"label {number}: "
    if not isinstance(fields, Mapping):
        raise InvalidRequest(f"{where}expected an object with 'id' and 'value'")
    if unknown := [key for key in fields if key not in _FIELDS]:
        raise InvalidRequest(f"{where}unknown key {unknown[0]!r}; known are {', '.join(_FIELDS)}")
    id = fields.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= _MOST_TEXT or not _is_unicode(id):
        raise InvalidRequest(f"{where}id must be text of 1 to {_MOST_TEXT} characters")
    row = fields.get("row")
    if row is not None and (type(row) is not int or not 0 <= row <= _MOST_ROW):
        raise InvalidRequest(f"{where}row must be a whole number from 0, not {row!r:.100}")
    if fields.get("value") is None:
        raise InvalidRequest(f"{where}value is missing")
    return Label(id, _value(where, fields["value"]), row, _time(where, fields.get("time")))


def _value(where: str, value: Any) -> Value:
    if isinstance(value, str):
        if len(value) <= _MOST_TEXT and _is_unicode(value):
            return value
    elif isinstance(value, list):
        if 0 < len(value) <= _MOST_VALUES and all(map(_is_number, value)):
            return tuple(map(float, value))
    elif _is_number(value):
        return float(value)
    raise InvalidRequest(
        f"{where}value must be a finite number, true or false, text of at most {_MOST_TEXT} "
        f"characters, or a list of at most {_MOST_VALUES} finite numbers"
    )


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _time(where: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return _seconds(datetime.fromisoformat(value))
        if _is_number(value) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        pass
    raise InvalidRequest(
        f"{where}time must be Unix seconds or ISO 8601 such as 2025-01-31T12:00:00Z, "
        f"not {value!r:.100}"
    )


def _seconds(time: datetime) -> float:
    """Unix seconds; a time without a zone is of UTC."""
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
