"""An HTTP/2 connection as an event loop drives it; see ``http2_protocol.pyx``."""

from libc.stdint cimport uint8_t

from gateway._native.http2 cimport Http2Connection


cdef class Outlet:
    cdef list waiting
    cdef object call_soon

    cdef int add(self, Http2Protocol protocol) except -1


cdef class ReceiveBuffer:
    cdef bytearray memory
    cdef readonly object view
    cdef uint8_t* data


cdef class Http2Protocol(Http2Connection):
    cdef readonly object transport
    cdef Outlet outlet
    cdef ReceiveBuffer buffer
    cdef object view
    cdef bint receiving
    cdef bint flush_is_due
    cdef bint reading_paused
