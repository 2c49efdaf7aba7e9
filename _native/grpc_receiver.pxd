"""From DATA to gRPC's messages; see ``grpc_receiver.pyx``."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t

from gateway._native.http2_fields cimport RequestHead
from gateway._native.http2_protocol cimport Http2Protocol
from gateway._native.http2_stream cimport Http2Stream

cdef enum:
    # A message's prefix: whether it is compressed, and its length.
    PREFIX = 5

cdef enum Status:
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13


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
    # The message that is being received: its prefix, then its bytes, from ``message_start`` on.
    cdef uint8_t[5] prefix
    cdef int prefix_seen
    cdef PyObject* message
    cdef Py_ssize_t message_start
    cdef Py_ssize_t message_size
    # What of it is to lie at a multiple of ``ALIGNMENT``; -1 for nothing.
    cdef Py_ssize_t aligned_at
    cdef Py_ssize_t received
    # Whether what it lacks counts among what the connection waits for.
    cdef bint awaited
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


cdef class GrpcReceiver(Http2Protocol):
    cdef readonly ReceiveBudget budget
    cdef readonly Py_ssize_t max_message_bytes
    cdef readonly Py_ssize_t held_bytes
    # What messages that came in part still lack; what came since the first of them, and when.
    cdef Py_ssize_t missing_bytes
    cdef int64_t burst_bytes
    cdef int64_t burst_since_ns

    cdef Py_ssize_t begin_message(
        self, GrpcStream stream, const uint8_t* data, Py_ssize_t size
    ) except -1
    cdef bint may_begin(self, GrpcStream stream, Py_ssize_t length) except -1
    cdef int keep_message(
        self, GrpcStream stream, Py_ssize_t length, Py_ssize_t there
    ) except -1
    cdef int message_ended(self, GrpcStream stream) except -1
    cdef Py_ssize_t fill_message(
        self, GrpcStream stream, const uint8_t* data, Py_ssize_t size
    ) except -1
    cdef bint hold(self, GrpcStream stream, Py_ssize_t size) except -1
    cdef int let_go(self, GrpcStream stream) except -1
    cdef bint keep(self, GrpcStream stream, Py_ssize_t size) except -1
    cpdef int release(self, GrpcStream stream, Py_ssize_t size) except -1
    cdef bint reserve(self, GrpcStream stream, Py_ssize_t size) except -1
    cdef int account(self, Py_ssize_t size) noexcept

    # What the layer above makes of it.
    cdef Py_ssize_t part_to_align(
        self, GrpcStream stream, const uint8_t* message, Py_ssize_t size
    ) except -2
    cdef int message_received(
        self, GrpcStream stream, bytes message, Py_ssize_t start, bint compressed
    ) except -1
    cdef int input_ended(self, GrpcStream stream) except -1
    cpdef int fail_call(self, GrpcStream stream, int code, str details, metadata=*) except -1


cdef bint is_plain(bytes encoding) except -1
