"""The fields of HPACK and the tables of them; see ``hpack_table.pyx``."""

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport uint64_t

cdef enum:
    # What a field counts for besides its octets, RFC 7541 4.1 and RFC 9113 6.5.2.
    FIELD_OVERHEAD = 32


cdef class Field:
    cdef readonly bytes name
    cdef readonly bytes value
    # The sender asked that no intermediary ever put it into a table.
    cdef readonly bint never_indexed
    # For whoever reads lists of fields: 0 until they keep here what they found out about it, which
    # then holds for as long as the field stays in the dynamic table.
    cdef int note


cdef class Table:
    cdef object entries         # a ring, None before the first insertion
    cdef Py_ssize_t count
    cdef uint64_t inserted      # insertions so far, and the number of the next one
    # By name and by (name, value), the last insertion of such a field; None where nobody looks.
    cdef dict insertions
    cdef readonly Py_ssize_t size
    cdef readonly Py_ssize_t max_size
    # Counts insertions and evictions: while it stays, every index means what it meant.
    cdef readonly uint64_t generation

    cdef Field field_at(self, Py_ssize_t index)
    cdef Py_ssize_t index_of(self, key) except -1
    cdef Py_ssize_t last_index(self) noexcept
    cdef int insert(self, Field field) except -1
    cdef int resize(self, Py_ssize_t max_size) except -1
    cdef Field entry(self, Py_ssize_t age)
    cdef int evict(self) except -1
    cdef int grow(self) except -1


cdef inline Field make_field(bytes name, bytes value, bint never_indexed):
    cdef Field field = Field.__new__(Field)
    field.name = name
    field.value = value
    field.never_indexed = never_indexed
    return field


cdef inline Py_ssize_t field_size(Field field) noexcept:
    return PyBytes_GET_SIZE(field.name) + PyBytes_GET_SIZE(field.value) + FIELD_OVERHEAD
