"""The sending half of an HTTP/2 connection; see ``http2_sender.pyx``."""

from libc.stdint cimport int64_t, uint32_t

from gateway._native.hpack cimport Encoder
from gateway._native.http2_stream cimport Http2Stream
from gateway._native.output cimport Output


cdef class Http2Sender:
    cdef readonly Output out
    cdef readonly Encoder encoder
    cdef readonly dict streams
    cdef readonly int64_t now_ns
    cdef int64_t send_window
    cdef int64_t peer_window
    cdef Py_ssize_t peer_frame_size
    # Streams whose DATA waits for its turn, in that order; one without a window is not among them.
    cdef object queue
    cdef readonly Py_ssize_t waiting_bytes
    cdef readonly bint write_paused
    # Whether any part of an answer was sent since the peer's last PING.
    cdef bint moved

    cdef int put_control(
        self, int type, int flags, uint32_t stream, const void* payload, Py_ssize_t size
    ) except -1
    cdef int put_u32_frame(self, int type, uint32_t stream, uint32_t value) except -1
    cdef int put_goaway(self, uint32_t last_stream, int code, bytes debug) except -1
    cdef int put_block(self, Http2Stream stream, bytes block, bint end) except -1
    cdef bint fits(self, Http2Stream stream, Py_ssize_t size) noexcept
    cdef int spend(self, Http2Stream stream, Py_ssize_t size) except -1
    cdef int send_headers(self, Http2Stream stream, fields) except -1
    cdef int send_data(self, Http2Stream stream, bytes data) except -1
    cdef int send_trailers(self, Http2Stream stream, fields) except -1
    cdef int end_stream(self, Http2Stream stream) except -1
    cdef int forget_waiting(self, Http2Stream stream) except -1
    cdef int enlist(self, Http2Stream stream) except -1
    cdef int pump(self) except -1
    cdef int send_waiting(self, Http2Stream stream) except -1
    cdef int take_waiting(self, Http2Stream stream, char* out, Py_ssize_t size) except -1
    cdef bint adjust_windows(self, int64_t change) except -1
    cdef int drained(self, Http2Stream stream) except -1
    cdef int stream_ended(self, Http2Stream stream) except -1
    cdef int output_waits(self) except -1
