"""From bytes to HTTP/2's frames; see ``http2_framer.pyx``."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from gateway._native.http2_sender cimport Http2Sender


cdef class Http2Framer(Http2Sender):
    # What has been received of the preface, or of a frame.
    cdef int preface_seen
    cdef uint8_t* partial
    cdef Py_ssize_t partial_size
    cdef int64_t partial_since_ns
    # What is missing of the DATA frame that is being received.
    cdef Py_ssize_t data_left
    cdef Py_ssize_t padding_left
    # The largest frame that is taken, and the largest part of a header block.
    cdef Py_ssize_t most_frame_bytes
    cdef Py_ssize_t most_block_bytes
    # Whether the peer has made use of DATA frames that are larger than everybody takes.
    cdef bint large_frames
    # The connection is broken, and takes nothing more.
    cdef readonly bint failed

    cdef int split(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t take_preface(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t take_bytes(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int check_size(self, int type, Py_ssize_t length) except -1
    cdef Py_ssize_t fill_partial(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef Py_ssize_t take_payload(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int begin_payload(self, const uint8_t* frame) except -1

    # What the layer above makes of it.
    cdef int frame_received(
        self, int type, int flags, uint32_t stream, const uint8_t* payload, Py_ssize_t size
    ) except -1
    cdef int data_begun(
        self, int flags, uint32_t stream, Py_ssize_t size, Py_ssize_t padding
    ) except -1
    cdef int payload_received(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef int data_ended(self) except -1
