"""What HTTP/2 makes of a list of header fields; see ``http2_fields.pyx``."""

from libc.stdint cimport int64_t

from gateway._native.hpack cimport Field

cdef enum Meaning:
    """What a field's name means here, kept as its ``note``."""
    UNSEEN = 0
    MALFORMED
    ORDINARY
    METHOD
    SCHEME
    AUTHORITY
    PATH
    CONTENT_LENGTH
    CONTENT_TYPE
    GRPC_TIMEOUT
    GRPC_ENCODING
    GRPC_ACCEPT_ENCODING
    # Of the protocol, and no metadata of the caller's.
    RESERVED


cdef class RequestHead:
    cdef readonly bytes method
    cdef readonly bytes path
    cdef readonly bytes content_type
    cdef readonly bytes timeout
    cdef readonly bytes encoding
    cdef readonly bytes accept_encoding
    cdef readonly int64_t content_length
    cdef readonly list fields


cdef int meaning_of(Field field) except -1
cdef str read_request_head(RequestHead head, list fields)
cdef str check_trailers(list fields)
