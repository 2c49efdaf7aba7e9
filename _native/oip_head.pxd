"""The head of a ModelInferRequest: what it says besides its id and its tensors' bytes."""

from libc.stdint cimport uint8_t

cdef enum:
    MOST_RAW = 16
    LONGEST_HEAD = 4096

cdef struct Parts:
    # The head in two runs, around the id.
    const uint8_t* first
    Py_ssize_t first_size
    const uint8_t* second
    Py_ssize_t second_size
    # NULL where there is none.
    const uint8_t* id
    Py_ssize_t id_size
    # The entries of raw_input_contents.
    int raws
    const uint8_t* raw[MOST_RAW]
    Py_ssize_t raw_size[MOST_RAW]


cdef bint split_head(const uint8_t* data, Py_ssize_t size, Parts* parts) noexcept nogil
cdef bint split_message(const uint8_t* data, Py_ssize_t size, Parts* parts) noexcept nogil
cdef bytes head_of(const Parts* parts)
