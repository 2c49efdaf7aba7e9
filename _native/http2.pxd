"""A server's end of an HTTP/2 connection; see ``http2.pyx``."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from gateway._native.hpack cimport Decoder
from gateway._native.http2_fields cimport RequestHead
from gateway._native.http2_stream cimport Http2Stream
from gateway._native.http2_streams cimport Http2Streams


cdef class Http2Connection(Http2Streams):
    cdef readonly Decoder decoder
    cdef object handler
    # The header block that is being received.
    cdef uint32_t block_stream
    cdef bint block_ends_stream
    cdef bytearray block
    cdef int64_t block_since_ns

    cdef bint settings_seen
    cdef readonly bint draining
    cdef bint peer_leaves
    cdef int64_t begun_ns
    cdef int64_t heard_ns
    cdef int64_t pinged_ns
    # Since when the transport takes nothing.
    cdef int64_t paused_ns

    cdef int feed(self, const uint8_t* data, Py_ssize_t size, int64_t now_ns) except -1
    cdef int take_headers(
        self, int flags, uint32_t number, const uint8_t* payload, Py_ssize_t size
    ) except -1
    cdef int take_continuation(
        self, int flags, uint32_t number, const uint8_t* payload, Py_ssize_t size
    ) except -1
    cdef int take_block(
        self, uint32_t number, bint end, const uint8_t* block, Py_ssize_t size
    ) except -1
    cdef int take_request(self, uint32_t number, bint end, list fields) except -1
    cdef int take_trailers(self, Http2Stream stream, bint end, list fields) except -1
    cdef int check_begun(self, uint32_t number, str frame) except -1
    cdef int take_reset(self, uint32_t number, Py_ssize_t size) except -1
    cdef int take_settings(self, int flags, const uint8_t* payload, Py_ssize_t size) except -1
    cdef int take_setting(self, int name, int64_t value) except -1
    cdef int take_ping(self, int flags, const uint8_t* payload, Py_ssize_t size) except -1
    cdef int take_window(self, uint32_t number, const uint8_t* payload, Py_ssize_t size) except -1
    cdef int check_streams(self) except -1

    # What the layer above makes of it.
    cdef Http2Stream make_stream(self)
    cdef int request_begun(self, Http2Stream stream, RequestHead head) except -1
    cdef int head_too_large(self, Http2Stream stream) except -1
    cdef bint may_pause(self, Http2Stream stream) noexcept
