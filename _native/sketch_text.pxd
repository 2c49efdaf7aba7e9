"""Texts in a list, as bytes that can be read without the GIL."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_Check

from gateway._native.sketch_input cimport TILE

cdef struct text_t:
    const char* data
    Py_ssize_t size


cdef inline Py_ssize_t read_texts(list values, Py_ssize_t at, text_t* texts) except -1:
    """Look at up to ``TILE`` elements from ``at`` on; returns how many.

    The bytes belong to the elements: the list must hold them for as long as they are read. Text is
    read as UTF-8; ``None`` and a NaN, which is what a missing text is in a table, are empty.
    """
    cdef Py_ssize_t count = min(<Py_ssize_t>TILE, len(values) - at), i
    cdef object value
    for i in range(count):
        value = values[at + i]
        if PyUnicode_Check(value):
            texts[i].data = PyUnicode_AsUTF8AndSize(value, &texts[i].size)
        elif PyBytes_Check(value):
            texts[i].data = PyBytes_AS_STRING(value)
            texts[i].size = PyBytes_GET_SIZE(value)
        elif value is None or value != value:
            texts[i].data = b""
            texts[i].size = 0
        else:
            raise TypeError(f"expected str, bytes or None, not {type(value).__name__}")
    return count
