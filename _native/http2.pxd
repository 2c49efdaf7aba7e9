"""A server's end of an HTTP/2 connection; see ``http2.pyx``."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from gateway._native.hpack cimport Decoder
from gateway._native.http2_fields cimport RequestHead
from gateway._native.http2_framer cimport Http2Framer
from gateway._native.http2_limits cimport Http2Limits
from gateway._native.http2_stream cimport Http2Stream


cdef class Http2Connection(Http2Framer):
    cdef readonly Http2Limits limits
    cdef readonly Decoder decoder
    cdef object handler
    # The highest stream that the peer has opened, and the highest that is served.
    cdef readonly uint32_t last_stream
    cdef uint32_t served_until
    cdef int64_t recv_window
    cdef int64_t owed
    cdef dict reset_lately
    # The DATA frame that is being received; no stream where nobody wants it.
    cdef Http2Stream data_stream
    cdef bint data_ends_stream
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
    cdef int64_t paused_ns
    cdef int64_t resets_paid_ns
    cdef int64_t nuisances_paid_ns

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
    cdef int take_reset(self, uint32_t number, Py_ssize_t size) except -1
    cdef int take_settings(self, int flags, const uint8_t* payload, Py_ssize_t size) except -1
    cdef int take_setting(self, int name, int64_t value) except -1
    cdef int take_ping(self, int flags, const uint8_t* payload, Py_ssize_t size) except -1
    cdef int take_window(self, uint32_t number, const uint8_t* payload, Py_ssize_t size) except -1
    cdef bint accepts_data(
        self, Http2Stream stream, uint32_t number, Py_ssize_t size, Py_ssize_t data
    ) except -1
    cdef int remote_end(self, Http2Stream stream) except -1
    cdef int nuisance(self, str what) except -1
    cdef int charge_reset(self) except -1
    cdef int fail(self, int code, str message) except -1
    cdef int refuse(self, uint32_t number, int code) except -1
    cdef int reset(self, Http2Stream stream, int code) except -1
    cdef int drop(self, Http2Stream stream, bint lost) except -1
    cdef int grant(self, Http2Stream stream, int64_t size) except -1
    cdef int grant_connection(self) except -1
    cdef int remember(self, uint32_t number) except -1
    cdef int widen(self, Http2Stream stream, int64_t size) except -1
    cdef int check_streams(self) except -1

    # What the layer above makes of it.
    cdef Http2Stream make_stream(self)
    cdef int request_begun(self, Http2Stream stream, RequestHead head) except -1
    cdef int head_too_large(self, Http2Stream stream) except -1
    cdef int data_received(
        self, Http2Stream stream, const uint8_t* data, Py_ssize_t size
    ) except -1
    cdef int request_ended(self, Http2Stream stream) except -1
    cdef int stream_lost(self, Http2Stream stream) except -1
    cdef bint may_pause(self, Http2Stream stream) noexcept
