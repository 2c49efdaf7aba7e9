"""The binary form of BYTES tensors: each element a 4-byte little-endian length and its bytes.

The form is the same in HTTP's binary tensors, in gRPC's raw contents and in shared memory.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_Check,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_Check
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t
from libc.string cimport memcpy


class DecodeError(ValueError):
    """Bytes from the wire do not parse.

    Attributes:
        offset: where, in bytes from the start of the buffer that was given.
        expected: what should have stood there, and what did.
    """

    def __init__(self, offset, expected):
        super().__init__(f"at byte {offset}: {expected}")
        self.offset = offset
        self.expected = expected


cdef const char* element(object value, Py_ssize_t* size) except NULL:
    """The bytes of one element, owned by ``value``."""
    if PyBytes_Check(value):
        size[0] = PyBytes_GET_SIZE(value)
        return PyBytes_AS_STRING(value)
    if PyUnicode_Check(value):
        return PyUnicode_AsUTF8AndSize(value, size)
    raise TypeError(f"an element of a BYTES tensor is bytes or str, not {type(value).__name__}")


def encode_bytes_tensor(elements):
    """The binary form of a BYTES tensor, as one ``bytes``.

    ``elements`` is a list of ``bytes`` or ``str`` (written as UTF-8), or an ``ndarray`` of dtype
    object with such elements, taken in row-major order. Raises ``TypeError`` for an element of
    another type, ``ValueError`` for one of 4 GiB or more.
    """
    # A private list: nothing can change it between the two passes.
    cdef list values = list(elements) if isinstance(elements, list) else elements.ravel().tolist()
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t size = 0
    cdef uint32_t length
    cdef const char* data
    for value in values:
        element(value, &size)
        if <size_t>size > UINT32_MAX:
            raise ValueError(f"an element of a BYTES tensor has {size} bytes; the most is {UINT32_MAX}")
        total += 4 + size
    cdef bytes encoded = PyBytes_FromStringAndSize(NULL, total)
    cdef char* out = PyBytes_AS_STRING(encoded)
    for value in values:
        data = element(value, &size)
        length = <uint32_t>size
        memcpy(out, &length, 4)
        memcpy(out + 4, data, size)
        out += 4 + size
    return encoded


def decode_bytes_tensor(buf, Py_ssize_t count):
    """The ``count`` elements of a BYTES tensor, as a list of ``bytes``.

    ``buf`` is any contiguous buffer and must hold exactly these elements. Raises ``DecodeError``
    where it ends early or has bytes left, and ``ValueError`` for a negative count.
    """
    cdef Py_buffer view
    if count < 0:
        raise ValueError(f"a tensor cannot have {count} elements")
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        return split(<const uint8_t*>view.buf, view.len, count)
    finally:
        PyBuffer_Release(&view)


cdef list split(const uint8_t* data, Py_ssize_t size, Py_ssize_t count):
    cdef Py_ssize_t position = 0
    cdef Py_ssize_t index
    cdef uint32_t length = 0
    cdef list values = []
    for index in range(count):
        if size - position < 4:
            raise DecodeError(
                position,
                f"expected the 4-byte length of BYTES element {index} of {count}, "
                f"found {size - position} bytes left",
            )
        memcpy(&length, data + position, 4)
        position += 4
        if size - position < <Py_ssize_t>length:
            raise DecodeError(
                position,
                f"expected {length} bytes of BYTES element {index} of {count}, "
                f"found {size - position} bytes left",
            )
        values.append(PyBytes_FromStringAndSize(<const char*>data + position, length))
        position += length
    if position != size:
        raise DecodeError(
            position, f"expected the end after {count} BYTES elements, found {size - position} bytes"
        )
    return values
