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
    # Few brackets cannot nest deep; only other documents are measured.
    text = document if isinstance(document, bytes) else bytes(document)
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise _too_deep()
    return parsed


def _parse_special_numbers(document: bytes, error: orjson.JSONDecodeError) -> Any:
    """Read again with Python's parser what orjson refused, where it may be for a NaN."""
    if "depth limit" in str(error) or "ecursion limit" in str(error):
        raise _too_deep() from None
    if b"NaN" in document or b"Infinity" in document:
        try:
            parsed = json.loads(document.decode())
            if b"\\u" in document:
                # Python's parser lets lone surrogates pass, which no tensor can hold.
                json.dumps(parsed, ensure_ascii=False).encode()
            return parsed
        except RecursionError:
            raise _too_deep() from None
        except ValueError:
            pass
    raise MalformedRequest(f"malformed JSON: {error}") from None


def _too_deep() -> MalformedRequest:
    return MalformedRequest(f"the JSON is nested deeper than {MAX_DEPTH} levels, the limit")


def _depth(document: bytes) -> int:
    """The deepest nesting of a valid document, measured at C speed."""
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
