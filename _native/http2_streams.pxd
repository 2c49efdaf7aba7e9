"""The streams of an HTTP/2 connection: what comes in on them, and how they end."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from gateway._native.http2_framer cimport Http2Framer
from gateway._native.http2_limits cimport Http2Limits
from gateway._native.http2_stream cimport Http2Stream


cdef class Http2Streams(Http2Framer):
    cdef readonly Http2Limits limits
    # The highest stream that the peer has opened, and the highest that is served.
    cdef readonly uint32_t last_stream
    cdef uint32_t served_until
    # What the peer may still send on the connection, and what it is to be granted.
    cdef int64_t recv_window
    cdef int64_t owed
    cdef dict reset_lately
    # The DATA frame that is being received; no stream where nobody wants it.
    cdef Http2Stream data_stream
    cdef bint data_ends_stream
    cdef int64_t resets_paid_ns
    cdef int64_t nuisances_paid_ns

    cdef bint accepts_data(
        self, Http2Stream stream, uint32_t number, Py_ssize_t size, Py_ssize_t data
    ) except -1
    cdef int remote_end(self, Http2Stream stream) except -1
    cdef int grant(self, Http2Stream stream, int64_t size) except -1
    cdef int widen(self, Http2Stream stream, int64_t size) except -1
    cdef int grant_connection(self) except -1
    cdef int nuisance(self, str what) except -1
    cdef int charge_reset(self) except -1
    cdef int fail(self, int code, str message) except -1
    cdef int refuse(self, uint32_t number, int code) except -1
    cdef int reset(self, Http2Stream stream, int code) except -1
    cdef int give_up(self, Http2Stream stream, int code) except -1
    cdef int remember(self, uint32_t number) except -1
    cdef int drop(self, Http2Stream stream, bint lost) except -1

    # What the layer above makes of it.
    cdef int data_received(
        self, Http2Stream stream, const uint8_t* data, Py_ssize_t size
    ) except -1
    cdef int request_ended(self, Http2Stream stream) except -1
    cdef int stream_lost(self, Http2Stream stream) except -1
