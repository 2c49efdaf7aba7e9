"""One stream of an HTTP/2 connection; see ``http2_stream.pyx``."""

from libc.stdint cimport int64_t, uint32_t


cdef class Http2Stream:
    cdef readonly uint32_t id
    # Who has ended its side; a stream that both have ended is gone, and so is one that was reset.
    cdef readonly bint remote_closed
    cdef readonly bint local_closed
    cdef readonly bint gone
    cdef bint headers_sent
    # What each side may still send.
    cdef int64_t recv_window
    cdef int64_t send_window
    # Bytes that were taken from the stream and not granted again.
    cdef int64_t owed
    # What content-length still promises; -1 where it does not.
    cdef int64_t length_left
    # DATA that waits for a window: bytes objects, the first one sent up to ``offset``.
    cdef object waiting
    cdef Py_ssize_t offset
    cdef readonly Py_ssize_t waiting_bytes
    cdef object trailers
    cdef int64_t begun_ns
    # When either side last got on with it.
    cdef int64_t progress_ns
