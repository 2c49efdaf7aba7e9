"""What HTTP/2 makes of a list of header fields: a request's head or its trailers, or neither.

RFC 9113 section 8 says which lists are malformed. A field's own part in that is found out once and
kept as its ``note``: fields of the dynamic table come again with every request.
"""

import cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from libc.stdint cimport uint8_t

from gateway._native.hpack cimport Field

#: Section 8.2.2: a connection of HTTP/2 has no fields of its own.
_OF_CONNECTIONS = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_MEANINGS = {
    b":method": METHOD,
    b":scheme": SCHEME,
    b":authority": AUTHORITY,
    b":path": PATH,
    b"content-length": CONTENT_LENGTH,
    b"content-type": CONTENT_TYPE,
    b"grpc-timeout": GRPC_TIMEOUT,
    b"grpc-encoding": GRPC_ENCODING,
    b"grpc-accept-encoding": GRPC_ACCEPT_ENCODING,
    b"grpc-message-type": RESERVED,
    b"te": RESERVED,
    b"host": RESERVED,
}


cdef bint is_name(bytes name) noexcept:
    """Whether a field may be called so, section 8.2.1: no upper case, no blanks, no colon."""
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(name)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef Py_ssize_t i
    for i in range(size):
        if at[i] <= 0x20 or 0x41 <= at[i] <= 0x5A or at[i] >= 0x7F or at[i] == c":":
            return False
    return size > 0


cdef bint is_value(bytes value) noexcept:
    """Whether a field may hold this, section 8.2.1: no NUL or line's end, no blanks around it."""
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(value)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    cdef Py_ssize_t i
    for i in range(size):
        if at[i] == 0 or at[i] == c"\r" or at[i] == c"\n":
            return False
    return size == 0 or not (is_blank(at[0]) or is_blank(at[size - 1]))


cdef bint is_blank(uint8_t octet) noexcept:
    return octet == c" " or octet == c"\t"


cdef int classify(Field field) except -1:
    cdef bytes name = field.name
    cdef bytes value = field.value
    cdef int meaning = _MEANINGS.get(name, UNSEEN)
    if meaning == UNSEEN:
        meaning = ORDINARY if is_name(name) and name not in _OF_CONNECTIONS else MALFORMED
    if not is_value(value):
        meaning = MALFORMED
    elif name == b"te" and value.lower() != b"trailers":
        meaning = MALFORMED
    elif meaning == METHOD and not value:
        meaning = MALFORMED
    elif meaning == CONTENT_LENGTH and not (value.isdigit() and len(value) < 19):
        meaning = MALFORMED
    field.note = meaning
    return meaning


cdef int meaning_of(Field field) except -1:
    """The field's ``Meaning``."""
    return field.note if field.note != UNSEEN else classify(field)


@cython.freelist(256)
cdef class RequestHead:
    """A request's head: what the server looks at by name, and all fields in order.

    Attributes:
        method, path, content_type, timeout, encoding, accept_encoding: the values of ``:method``,
            ``:path``, ``content-type``, ``grpc-timeout``, ``grpc-encoding`` and
            ``grpc-accept-encoding``; ``None`` for a field that did not come.
        content_length: -1 where it was not said.
        fields: every field.
    """

    def __cinit__(self):
        self.content_length = -1

    def metadata(self):
        """The caller's own fields, as ``(name, value)`` pairs of bytes."""
        return [(field.name, field.value) for field in self.fields if field_is_metadata(field)]

    def get(self, bytes name not None, /):
        """The value of the first field called ``name``, as it is on the wire; ``None`` for none."""
        cdef Field field
        for field in self.fields:
            if field.name == name:
                return field.value
        return None


cdef bint field_is_metadata(Field field) except -1:
    return meaning_of(field) == ORDINARY


cdef str read_request_head(RequestHead head, list fields):
    """Fill ``head`` from ``fields``; returns what is malformed about them, or ``None``."""
    cdef Py_ssize_t index
    cdef Field field
    cdef int meaning
    cdef bint scheme = False
    cdef bint regular = False
    cdef bytes authority = None
    head.fields = fields
    for index in range(PyList_GET_SIZE(fields)):
        field = <Field>PyList_GET_ITEM(fields, index)
        meaning = field.note
        if meaning == UNSEEN:
            meaning = classify(field)
        if meaning >= CONTENT_LENGTH or meaning == ORDINARY:
            regular = True
            # Of a field that should come once the first counts.
            if meaning == CONTENT_TYPE and head.content_type is None:
                head.content_type = field.value
            elif meaning == GRPC_TIMEOUT and head.timeout is None:
                head.timeout = field.value
            elif meaning == GRPC_ENCODING and head.encoding is None:
                head.encoding = field.value
            elif meaning == GRPC_ACCEPT_ENCODING and head.accept_encoding is None:
                head.accept_encoding = field.value
            elif meaning == CONTENT_LENGTH:
                if head.content_length >= 0 and head.content_length != int(field.value):
                    return "two values of content-length"
                head.content_length = int(field.value)
            continue
        if meaning == MALFORMED:
            return f"the field {field.name!r}: {field.value!r}"
        if regular:
            return f"{field.name!r} after a field that is no pseudo-header"
        if meaning == METHOD and head.method is None:
            head.method = field.value
        elif meaning == PATH and head.path is None:
            head.path = field.value
        elif meaning == SCHEME and not scheme:
            scheme = True
        elif meaning == AUTHORITY and authority is None:
            authority = field.value
        else:
            return f"a second {field.name!r}"
    if head.method is None:
        return "no :method"
    if head.method == b"CONNECT":
        return None if authority and head.path is None and not scheme else "a wrong CONNECT"
    if not scheme or not head.path:
        return "no :scheme" if not scheme else "no :path"
    if head.path[0] != 0x2F and head.path != b"*":
        return f"the :path {head.path!r}, which does not start with a slash"
    return None


cdef str check_trailers(list fields):
    """What is malformed about ``fields`` as trailers, or ``None``."""
    cdef Field field
    for field in fields:
        if meaning_of(field) == MALFORMED or field.name[0] == 0x3A:
            return f"the field {field.name!r} among the trailers"
    return None
