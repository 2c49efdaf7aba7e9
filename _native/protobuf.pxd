"""Reading and writing protobuf's wire form; see ``protobuf.pyx``.

What runs for every field is inline here, so that it is compiled into the module that uses it.
"""

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

# The wire types.
cdef enum:
    VARINT = 0
    FIXED64 = 1
    DELIMITED = 2
    START_GROUP = 3
    END_GROUP = 4
    FIXED32 = 5

# Groups and messages inside one another; protobuf's own limit.
cdef enum:
    MAX_DEPTH = 100

cdef struct Cursor:
    const uint8_t* start    # of the whole message: offsets in errors count from here
    const uint8_t* position
    const uint8_t* end      # of the message that is being read

cdef int fail(Cursor* cursor, str expected) except -1
cdef int skip(Cursor* cursor, uint32_t tag, int depth) except -1
cdef str read_string(Cursor* cursor)


cdef inline int read_long_varint(Cursor* cursor, uint64_t* value, int most) except -1:
    cdef const uint8_t* at = cursor.position
    cdef uint64_t result = 0
    cdef uint64_t byte
    cdef inline int index
    for index in range(most):
        if at >= cursor.end:
            return fail(cursor, "expected a varint, found the end of its message")
        byte = at[0]
        at += 1
        result |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            value[0] = result
            cursor.position = at
            return 0
    return fail(cursor, f"expected a varint of at most {most} bytes, found a longer one")


cdef inline int read_varint(Cursor* cursor, uint64_t* value) except -1:
    # Bits past the 64th are dropped, as protobuf does.
    if cursor.position < cursor.end and cursor.position[0] < 0x80:
        value[0] = cursor.position[0]
        cursor.position += 1
        return 0
    return read_long_varint(cursor, value, 10)


cdef inline int read_tag(Cursor* cursor, uint32_t* tag) except -1:
    cdef uint64_t value = 0
    cdef const uint8_t* at = cursor.position
    if at < cursor.end and at[0] < 0x80:
        value = at[0]
        cursor.position += 1
    else:
        read_long_varint(cursor, &value, 5)
    if value > UINT32_MAX or value >> 3 == 0:
        cursor.position = at
        return fail(cursor, f"expected a field's tag, found {value}")
    tag[0] = <uint32_t>value
    return 0


cdef inline Py_ssize_t read_length(Cursor* cursor) except -1:
    cdef const uint8_t* at = cursor.position
    cdef uint64_t length = 0
    read_varint(cursor, &length)
    if length > <uint64_t>(cursor.end - cursor.position):
        left = cursor.end - cursor.position
        cursor.position = at
        return fail(cursor, f"expected a length of at most {left}, found {length}")
    return <Py_ssize_t>length


cdef inline int enter(Cursor* cursor, Cursor* inner) except -1:
    """Set ``inner`` to the delimited field at ``cursor``, and move ``cursor`` past it."""
    cdef Py_ssize_t length = read_length(cursor)
    inner.start = cursor.start
    inner.position = cursor.position
    inner.end = cursor.position + length
    cursor.position += length
    return 0


cdef inline int step(Cursor* cursor, Py_ssize_t size) except -1:
    if cursor.end - cursor.position < size:
        return fail(
            cursor, f"expected {size} bytes, found {cursor.end - cursor.position} bytes left"
        )
    cursor.position += size
    return 0


cdef inline Py_ssize_t varint_size(uint64_t value) noexcept:
    cdef Py_ssize_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline char* put_varint(char* out, uint64_t value) noexcept:
    while value >= 0x80:
        out[0] = <char>(value | 0x80)
        value >>= 7
        out += 1
    out[0] = <char>value
    return out + 1


cdef inline Py_ssize_t delimited_size(Py_ssize_t size) noexcept:
    """Bytes of a delimited field with a one-byte tag."""
    return 1 + varint_size(size) + size


cdef inline char* put_head(char* out, int field, Py_ssize_t size) noexcept:
    out[0] = <char>(field << 3 | DELIMITED)
    return put_varint(out + 1, size)


cdef inline Py_ssize_t string_size(str text) except -1:
    cdef Py_ssize_t size = 0
    PyUnicode_AsUTF8AndSize(text, &size)
    return delimited_size(size)


cdef inline char* put_string(char* out, int field, str text) except NULL:
    cdef Py_ssize_t size = 0
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    out = put_head(out, field, size)
    memcpy(out, data, size)
    return out + size
