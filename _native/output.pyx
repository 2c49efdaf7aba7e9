"""A growing run of bytes on its way out.

Writers reserve room and fill it in place; ``take`` hands over the very object that was filled. An
output that has nothing to say holds no memory, because a server has one for each connection.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.string cimport memcpy

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** bytes, Py_ssize_t size) except -1
    PyObject* PyBytes_FromStringAndSize_raw "PyBytes_FromStringAndSize" (
        const char* data, Py_ssize_t size
    ) except NULL

cdef enum:
    # A reply to a small model, and what malloc finds without looking.
    FIRST_BYTES = 480


cdef class Output:
    """Bytes that wait to be sent. For one thread at a time.

    Attributes:
        size: bytes that wait.
    """

    def __dealloc__(self):
        Py_XDECREF(self.whole)

    cdef char* reserve(self, Py_ssize_t size) except NULL:
        """Room for ``size`` more bytes, which count as written; fill it before any other call."""
        cdef Py_ssize_t at = self.size
        cdef Py_ssize_t capacity
        if self.whole == NULL:
            capacity = size if size > FIRST_BYTES else FIRST_BYTES
            self.whole = PyBytes_FromStringAndSize_raw(NULL, capacity)
            self.capacity = capacity
        elif self.capacity - at < size:
            capacity = 2 * self.capacity if 2 * self.capacity >= at + size else at + size
            # A resize that fails drops the object, and with it what waited.
            self.size = 0
            _PyBytes_Resize(&self.whole, capacity)
            self.capacity = capacity
        self.size = at + size
        return PyBytes_AS_STRING(<bytes>self.whole) + at

    cdef int append(self, const void* data, Py_ssize_t size) except -1:
        memcpy(self.reserve(size), data, size)
        return 0

    cpdef bytes take(self):
        """Everything written so far, which is forgotten here."""
        cdef bytes taken
        cdef Py_ssize_t size = self.size
        if size == 0:
            return b""
        self.size = self.capacity = 0
        _PyBytes_Resize(&self.whole, size)
        taken = <bytes>self.whole
        Py_XDECREF(self.whole)
        self.whole = NULL
        return taken
