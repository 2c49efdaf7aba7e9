"""What gRPC writes as text into HTTP/2's fields; see ``grpc_text.pyx``."""

from libc.stdint cimport int64_t

cdef int64_t timeout_ns(bytes text) except -2
cpdef bytes percent_encode(str text)
