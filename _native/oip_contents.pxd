"""The typed contents of a tensor; see ``oip_contents.pyx``."""

from gateway._native.protobuf cimport Cursor

# Length of the ``counts`` below: one for each field number of InferTensorContents, and the 0th.
cdef enum:
    CONTENTS_LISTS = 9

cdef int count_contents(Cursor* outer, Py_ssize_t* counts) except -1
cdef bint any_elements(Py_ssize_t* counts) noexcept
cdef object typed_data(Cursor cursor, str name, str datatype, Py_ssize_t* counts)
