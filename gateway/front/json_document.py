"""Parsing a JSON document from a caller, with the limits and messages of the protocol."""

import json
import re
from typing import Any, Final

import numpy as np
import orjson

from gateway.errors import MalformedRequest

#: Deepest nesting of lists and objects that is read.
MAX_DEPTH: Final = 100

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'[]{}"'))


def parse_json(document: bytes | memoryview) -> Any:
    """Parse ``document``; numbers may be ``NaN``, ``Infinity`` and ``-Infinity``.

    Raises ``MalformedRequest``, which says where it broke, or that it is nested too deep.
    """
    try:
        parsed = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        parsed = _parse_special_numbers(bytes(document), error)
    _check_depth(document if isinstance(document, bytes) else bytes(document))
    return parsed


def _parse_special_numbers(document: bytes, error: orjson.JSONDecodeError) -> Any:
    """Read again with Python's parser what orjson refused, where it may be for a NaN."""
    # Whatever the parser made of it: brackets that were never closed are deep, too.
    _check_depth(document)
    if b"NaN" in document or b"Infinity" in document:
        try:
            parsed = json.loads(document.decode())
            if b"\\u" in document:
                # Python's parser lets lone surrogates pass, which no tensor can hold.
                json.dumps(parsed, ensure_ascii=False).encode()
            return parsed
        except ValueError:
            pass
    raise MalformedRequest(f"malformed JSON: {error}") from None


def _check_depth(document: bytes) -> None:
    # Few brackets cannot nest deep; only other documents are measured.
    brackets = document.count(b"[") + document.count(b"{")
    if brackets > MAX_DEPTH and _depth(document) > MAX_DEPTH:
        raise MalformedRequest(f"the JSON is nested deeper than {MAX_DEPTH} levels, the limit")


def _depth(document: bytes) -> int:
    """The deepest nesting of a document, measured at C speed; a guess where it is not valid."""
    if b"\\" in document:
        document = _ESCAPE.sub(b"", document)
    structure = b"".join(document.translate(None, _NOT_STRUCTURE).split(b'"')[::2])
    brackets = np.frombuffer(structure, np.uint8)
    # '[' and '{' have bit 1 set, ']' and '}' have not.
    steps = np.where(brackets & 2, 1, -1)
    return int(np.cumsum(steps).max(initial=0))


def shown(value: Any) -> str:
    """A parsed JSON value as the caller wrote it, cut to a line, for an error's message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
