"""What of a ModelInferResponse is written elsewhere, too; see ``oip_encode.pyx``."""

cdef Py_ssize_t output_size(tuple output) except -1
cdef char* put_output(char* out, tuple output) except NULL
