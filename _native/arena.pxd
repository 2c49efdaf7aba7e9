"""Aligned, reused memory; see ``arena.pyx``."""

from libc.stdint cimport int64_t


cdef class Arena:
    cdef int n_buffers
    cdef char** buffers
    cdef int64_t* capacities
    cdef readonly int64_t generation

    cdef char* reserve(self, int index, int64_t nbytes) noexcept nogil
