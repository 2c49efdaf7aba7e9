"""A growing run of bytes on its way out; see ``output.pyx``."""


from cpython.object cimport PyObject


cdef class Output:
    cdef PyObject* whole        # the bytes object that is being filled; NULL while nothing waits
    cdef readonly Py_ssize_t size
    cdef Py_ssize_t capacity

    cdef char* reserve(self, Py_ssize_t size) except NULL
    cdef int append(self, const void* data, Py_ssize_t size) except -1
    cpdef bytes take(self)
