"""HPACK, RFC 7541: header fields to and from blocks of bytes; see ``hpack.pyx``."""

from libc.stdint cimport uint8_t

# Both are part of this module's interface.
from gateway._native.hpack_table cimport Field, Table

cdef struct Block:
    const uint8_t* start        # of the whole block: offsets in errors count from here
    const uint8_t* position
    const uint8_t* end


cdef class Decoder:
    cdef readonly Table table
    cdef Py_ssize_t allowed_size
    cdef Py_ssize_t max_list_size
    # Whether the last block held more than ``max_list_size``; its surplus fields were left out.
    cdef readonly bint too_large

    cdef list decode_block(self, const uint8_t* block, Py_ssize_t size)
    cdef int read_updates(self, Block* block) except -1
    cdef Field read_field(self, Block* block)
    cdef Field read_indexed(self, Block* block, int prefix)
    cdef Field read_literal(self, Block* block, int prefix, bint never_indexed)


cdef class Encoder:
    cdef readonly Table table
    cdef Py_ssize_t max_table_size
    # Whether the peer knows our table's size: no update of it stands at the next block's start.
    cdef readonly bint settled
    # Until then, the smallest size that the table has had since the last block.
    cdef Py_ssize_t pending_size

    cpdef bytes encode(self, fields)
    cdef uint8_t* put_updates(self, uint8_t* out) noexcept
    cdef uint8_t* put_field(self, uint8_t* out, Field field, int indexing) except NULL
