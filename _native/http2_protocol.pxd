"""An HTTP/2 connection as an event loop drives it; see ``http2_protocol.pyx``."""

from libc.stdint cimport int64_t, uint8_t

from gateway._native.http2 cimport Http2Connection


cdef class Scheduler:
    cdef list waiting
    cdef object call_soon
    cdef object call_later

    cdef int flush_soon(self, Http2Protocol protocol) except -1


cdef class ReceiveBuffer:
    cdef bytearray memory
    cdef Py_ssize_t size
    cdef readonly object view
    cdef object start
    cdef uint8_t* data


cdef class Http2Protocol(Http2Connection):
    cdef readonly object transport
    cdef Scheduler scheduler
    cdef ReceiveBuffer buffer
    # Where the next bytes are received to, and what keeps that memory if it is not the buffer's.
    cdef uint8_t* place
    cdef Py_ssize_t place_size
    cdef object place_owner
    cdef bint receiving
    cdef bint flush_is_due
    cdef bint reading_paused
    cdef int64_t ended_ns
    # The descriptor whose low-water mark we may move, -1 for none; and where the mark is.
    cdef int socket
    cdef int64_t low_water
    cdef object impatience

    cdef int wait_for(self, int64_t size) except -1

    # What the layer above makes of it.
    cdef int64_t bytes_worth_waiting_for(self) noexcept
    cdef object room_for_data(self, uint8_t** place, Py_ssize_t* size)
