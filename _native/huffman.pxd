"""HPACK's Huffman code; see ``huffman.pyx``."""

from libc.stdint cimport uint8_t

cdef bytes decode_huffman(const uint8_t* data, Py_ssize_t size, Py_ssize_t offset)
cdef Py_ssize_t huffman_size(const uint8_t* data, Py_ssize_t size) noexcept nogil
cdef uint8_t* put_huffman(uint8_t* out, const uint8_t* data, Py_ssize_t size) noexcept nogil
