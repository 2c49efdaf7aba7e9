"""The bounded queue of one lane, and the batches taken from it; see ``queue.pyx``."""

from libc.stdint cimport int64_t

from gateway._native.arena cimport Arena
from gateway._native.ticket cimport Group, chain_t


cdef class Batch:
    cdef chain_t taken
    cdef chain_t late
    cdef readonly int64_t rows
    cdef readonly int64_t taken_ns
    cdef readonly int64_t gathered_ns
    cdef readonly bint gathered
    cdef readonly bint in_place
    cdef readonly Group group
    cdef readonly list tickets
    cdef readonly list expired

    cdef void stage(self, Arena arena) noexcept nogil
    cdef adopt(self)
