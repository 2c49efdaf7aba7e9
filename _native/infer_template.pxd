"""What requests with one head have in common; see ``infer_template.pyx``."""

from cpython.buffer cimport Py_buffer
from libc.stdint cimport int64_t, uint8_t

from gateway._native.oip_head cimport MOST_RAW, Parts
from gateway._native.ticket cimport Group

cdef enum:
    MOST_OUTPUTS = 16


cdef class InferTemplate:
    cdef readonly object target
    cdef readonly object lane
    cdef readonly Group group
    cdef readonly int64_t rows
    cdef readonly int level
    cdef readonly int64_t timeout_ns
    cdef readonly int64_t default_timeout_ns
    cdef public Group copies
    cdef int raws
    cdef Py_ssize_t[MOST_RAW] raw_size
    # For each input of the group the entry of raw_input_contents, -1 for an input left out.
    cdef int inputs
    cdef int[MOST_RAW] raw_of_input
    cdef list outputs
    cdef int[MOST_OUTPUTS] output_index
    # The answer's fields before its id, and between that and its raw contents.
    cdef bytes names
    cdef bytes descriptions
    # The shapes that the descriptions were made for.
    cdef list shapes

    cdef bint matches(self, const Parts* parts) noexcept
    cdef bint described(self, Py_buffer* views) except -1
    cdef int describe(self, Py_buffer* views) except -1
    cdef Py_ssize_t answer_size(self, Py_buffer* views, Py_ssize_t id_size) noexcept
    cdef char* put_answer(
        self, char* out, Py_buffer* views, const uint8_t* id, Py_ssize_t id_size
    ) noexcept
