"""Protobuf's wire form: tags, varints, delimited fields and strings, read in place and written.

A reader moves a ``Cursor`` over memory that its caller holds; whatever does not parse is a
``DecodeError`` whose offset counts from the start of the whole message. A writer is told where to
write, by a caller that has asked for the sizes first. Nothing here knows a message.
"""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t, uint64_t

from gateway._native.bytes_tensor import DecodeError


cdef int fail(Cursor* cursor, str expected) except -1:
    raise DecodeError(cursor.position - cursor.start, expected)


cdef int skip(Cursor* cursor, uint32_t tag, int depth) except -1:
    """Move past the value of an unknown field; ``depth`` groups may still be opened."""
    cdef uint64_t ignored = 0
    cdef uint32_t inner = 0
    cdef int kind = tag & 7
    if kind == VARINT:
        return read_varint(cursor, &ignored)
    if kind == FIXED64:
        return step(cursor, 8)
    if kind == DELIMITED:
        return step(cursor, read_length(cursor))
    if kind == FIXED32:
        return step(cursor, 4)
    if kind != START_GROUP:
        return fail(cursor, f"expected a wire type that can start a field, found {kind}")
    if depth <= 0:
        return fail(cursor, f"expected at most {MAX_DEPTH} levels of nesting, found more")
    while True:
        read_tag(cursor, &inner)
        if inner & 7 == END_GROUP:
            if inner >> 3 != tag >> 3:
                return fail(cursor, f"expected the end of group {tag >> 3}, found {inner >> 3}'s")
            return 0
        skip(cursor, inner, depth - 1)


cdef str read_string(Cursor* cursor):
    cdef Py_ssize_t length = read_length(cursor)
    cdef const char* data = <const char*>cursor.position
    try:
        text = PyUnicode_DecodeUTF8(data, length, NULL)
    except UnicodeDecodeError as error:
        cursor.position += error.start
        fail(cursor, f"expected UTF-8, found {error.reason}")
    cursor.position += length
    return text
