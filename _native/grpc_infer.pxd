"""ModelInfer and ModelStreamInfer on the native gRPC front; see ``grpc_infer.pyx``."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint8_t

from gateway._native.grpc cimport GrpcConnection
from gateway._native.grpc_receiver cimport GrpcStream
from gateway._native.infer_template cimport InferTemplate
from gateway._native.oip_head cimport Parts
from gateway._native.ticket cimport Ticket


cdef class InferStream(GrpcStream):
    # The message of a unary call, once it has come.
    cdef bytes request
    cdef Py_ssize_t request_start
    cdef bint request_compressed
    # Requests of a ModelStreamInfer that are not answered yet; ``None`` for any other call.
    cdef dict pending
    cdef bint input_over
    cdef public bint errors_as_status
    cdef public object last_words


cdef class InferCall:
    cdef InferConnection connection
    cdef InferStream stream
    cdef InferTemplate template
    cdef Ticket ticket
    # Within the message that the ticket keeps alive.
    cdef const uint8_t* id
    cdef Py_ssize_t id_size

    cdef int leave_stream(self) except -1
    cdef int close(self) except -1


cdef class InferConnection(GrpcConnection):
    cdef object dispatcher
    cdef object submit_known
    cdef dict templates
    cdef object infer_method
    cdef object stream_method

    cdef int infer(
        self, InferStream stream, bytes message, Py_ssize_t start, bint compressed
    ) except -1
    cdef int submit(
        self, InferStream stream, bytes message, InferTemplate template, Parts* parts
    ) except -1
    cpdef int expect(self, InferStream stream, pending) except -1
    cpdef int forget(self, InferStream stream, pending) except -1
    cpdef int settle(self, InferStream stream) except -1
    cdef int answer(self, InferCall call, list arrays) except -1
    cdef int send_unary_answer(self, InferCall call, Py_buffer* views, Py_ssize_t size) except -1
    cdef int send_stream_answer(self, InferCall call, Py_buffer* views, Py_ssize_t size) except -1
