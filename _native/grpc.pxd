"""A server's end of gRPC over HTTP/2; see ``grpc.pyx``."""

from libc.stdint cimport int64_t, uint64_t

from gateway._native.grpc_receiver cimport GrpcReceiver, GrpcStream
from gateway._native.hpack cimport Encoder


cdef class RepeatedBlock:
    cdef bytes block
    # The encoder's table when it was made.
    cdef uint64_t generation

    cdef bytes encode(self, Encoder encoder, fields)


cdef class GrpcConnection(GrpcReceiver):
    cdef readonly dict methods
    # The timer of the earliest deadline.
    cdef object alarm
    cdef int64_t alarm_ns
    cdef RepeatedBlock response_head
    cdef RepeatedBlock ok_trailers

    cdef int refuse_http(self, GrpcStream stream, int status) except -1
    cdef int wake_by(self, int64_t deadline_ns) except -1
    cdef bytes head_block(self)
    cdef bytes ok_block(self)
    cpdef int send_message(self, GrpcStream stream, bytes message, bint compressed=*) except -1
    cpdef int complete_call(self, GrpcStream stream, metadata=*) except -1
    cdef int end_call(self, GrpcStream stream) except -1

    # What the layer above makes of it.
    cdef int call_begun(self, GrpcStream stream) except -1
