"""The head of a ModelInferRequest: what it says besides its id and its tensors' bytes.

A client sends requests that differ in little else. Once one has been read, the same head can mean
nothing else, so it is found again by its bytes, and what follows is found by its place. For that a
message must be as every protobuf library writes it: the fields in the order of their numbers, the
id once, and the raw contents last. Any other is left to ``oip_decode``.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

# Tags of one byte, all of delimited fields.
cdef enum:
    ID = 3 << 3 | 2
    RAW = 7 << 3 | 2
    MOST_LENGTH_BYTES = 5


cdef bint split_head(const uint8_t* data, Py_ssize_t size, Parts* parts) noexcept nogil:
    """Find the head of a message, and its first raw contents: where they begin, how long they are.

    For a message of which only the first ``size`` bytes may be there. False where it is not of the
    usual form, or its head not complete.
    """
    cdef const uint8_t* at = data
    cdef const uint8_t* end = data + size
    cdef const uint8_t* field
    cdef uint64_t length
    cdef uint8_t tag
    cdef uint8_t last = 0
    parts.first = data
    parts.first_size = -1
    parts.second = data
    parts.id = NULL
    parts.id_size = 0
    while at < end:
        field = at
        tag = at[0]
        if tag < last or tag & 7 != 2 or tag > RAW:
            return False
        last = tag
        at = read_length(at + 1, end, &length)
        if at == NULL:
            return False
        if tag == RAW:
            parts.second_size = field - parts.second
            parts.raws = 1
            parts.raw[0] = at
            parts.raw_size[0] = <Py_ssize_t>length
            if parts.id == NULL:
                # Without an id the head is one run.
                parts.first_size = parts.second_size
                parts.second_size = 0
            return parts.first_size + parts.second_size <= LONGEST_HEAD
        if length > <uint64_t>(end - at):
            return False
        if tag == ID:
            if parts.id != NULL:
                return False
            parts.id = at
            parts.id_size = <Py_ssize_t>length
            parts.first_size = field - data
            parts.second = at + length
        at += length
    return False


cdef bint split_message(const uint8_t* data, Py_ssize_t size, Parts* parts) noexcept nogil:
    """Find the parts of a message; False where it is not of the usual form."""
    cdef const uint8_t* at
    cdef const uint8_t* end = data + size
    cdef uint64_t length
    if not split_head(data, size, parts):
        return False
    at = parts.raw[0]
    length = <uint64_t>parts.raw_size[0]
    while True:
        if length > <uint64_t>(end - at):
            return False
        at += length
        if at == end:
            return True
        if at[0] != RAW or parts.raws == MOST_RAW:
            return False
        at = read_length(at + 1, end, &length)
        if at == NULL:
            return False
        parts.raw[parts.raws] = at
        parts.raw_size[parts.raws] = <Py_ssize_t>length
        parts.raws += 1


cdef const uint8_t* read_length(
    const uint8_t* at, const uint8_t* end, uint64_t* length
) noexcept nogil:
    """Read the length of a field; returns its end, ``NULL`` where there is none."""
    cdef int shift = 0
    length[0] = 0
    while at < end and shift < 7 * MOST_LENGTH_BYTES:
        length[0] |= <uint64_t>(at[0] & 0x7F) << shift
        shift += 7
        at += 1
        if (at - 1)[0] < 0x80:
            return at
    return NULL


cdef bytes head_of(const Parts* parts):
    """The head as one ``bytes``, by which it is known."""
    cdef bytes head = PyBytes_FromStringAndSize(NULL, parts.first_size + parts.second_size)
    memcpy(PyBytes_AS_STRING(head), parts.first, parts.first_size)
    memcpy(PyBytes_AS_STRING(head) + parts.first_size, parts.second, parts.second_size)
    return head


def split(bytes message not None):
    """``(head, id, raws)`` of a message of the usual form, else ``None``.

    The head is itself a message, the same without the id and the raw contents.
    """
    cdef Parts parts
    if not split_message(
        <const uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), &parts
    ):
        return None
    raws = [parts.raw[i][: parts.raw_size[i]] for i in range(parts.raws)]
    return head_of(&parts), (parts.id[: parts.id_size] if parts.id != NULL else b""), raws
