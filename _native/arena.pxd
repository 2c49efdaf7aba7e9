"""Aligned, reused memory; see ``arena.pyx``."""

from libc.stdint cimport int64_t

cdef enum:
    # A cache line, and enough for any vector instruction.
    ALIGNMENT = 64


cdef class Arena:
    cdef int n_buffers
    cdef char** buffers
    cdef int64_t* capacities
    cdef readonly int64_t generation
    cdef readonly int64_t in_place_from

    cdef char* reserve(self, int index, int64_t nbytes) noexcept nogil
