"""A server's end of gRPC over HTTP/2; see ``grpc.pyx``."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from cpython.object cimport PyObject

from gateway._native.http2_fields cimport RequestHead
from gateway._native.http2_protocol cimport Http2Protocol
from gateway._native.http2_stream cimport Http2Stream


cdef class ReceiveBudget:
    cdef readonly Py_ssize_t held_bytes
    cdef readonly Py_ssize_t max_bytes


cdef class GrpcStream(Http2Stream):
    cdef readonly RequestHead head
    # How the method is served, as the service's table has it.
    cdef readonly object method
    cdef readonly int64_t deadline_ns
    # Whoever serves the call: told of messages, of their end, and of the caller's leaving.
    cdef public object call
    # The message that is being received: its prefix, then its bytes.
    cdef uint8_t[5] prefix
    cdef int prefix_seen
    cdef PyObject* message
    cdef Py_ssize_t message_size
    cdef Py_ssize_t received
    cdef Py_ssize_t held_bytes
    # Messages that are whole, and not taken yet.
    cdef Py_ssize_t kept_bytes
    cdef public bint endless
    # Whether the caller may send no more for now, and what it is owed then.
    cdef bint throttled
    cdef Py_ssize_t ungranted
    cdef readonly bint answered
    # Whether the response's head names an encoding.
    cdef bint coded


cdef class GrpcConnection(Http2Protocol):
    cdef readonly dict methods
    cdef readonly ReceiveBudget budget
    cdef readonly Py_ssize_t max_message_bytes
    cdef readonly Py_ssize_t held_bytes
    # The timer of the earliest deadline.
    cdef object alarm
    cdef int64_t alarm_ns
    cdef bytes response_block
    cdef uint64_t response_generation
    cdef bytes trailers_block
    cdef uint64_t trailers_generation

    cdef int wake_by(self, int64_t deadline_ns) except -1
    cdef Py_ssize_t begin_message(
        self, GrpcStream stream, const uint8_t* data, Py_ssize_t size
    ) except -1
    cdef Py_ssize_t fill_message(
        self, GrpcStream stream, const uint8_t* data, Py_ssize_t size
    ) except -1
    cdef int refuse_http(self, GrpcStream stream, int status) except -1
    cdef bint hold(self, GrpcStream stream, Py_ssize_t size) except -1
    cdef int let_go(self, GrpcStream stream) except -1
    cdef bint keep(self, GrpcStream stream, Py_ssize_t size) except -1
    cpdef int release(self, GrpcStream stream, Py_ssize_t size) except -1
    cdef bint reserve(self, GrpcStream stream, Py_ssize_t size) except -1
    cdef int account(self, Py_ssize_t size) noexcept
    cdef bytes head_block(self)
    cdef bytes ok_block(self)
    cpdef int send_message(self, GrpcStream stream, bytes message, bint compressed=*) except -1
    cpdef int complete_call(self, GrpcStream stream, metadata=*) except -1
    cpdef int fail_call(self, GrpcStream stream, int code, str details, metadata=*) except -1
    cdef int end_call(self, GrpcStream stream) except -1

    # What the layer above makes of it.
    cdef int call_begun(self, GrpcStream stream) except -1
    cdef int message_received(self, GrpcStream stream, bytes message, bint compressed) except -1
    cdef int input_ended(self, GrpcStream stream) except -1
