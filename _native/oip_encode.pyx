"""ModelInferResponse, written as its protobuf bytes.

Sizes are computed first, then one bytes object is filled. Between the two no Python code runs:
buffers are taken before, and only exact ints, floats and strings are looked at.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsUnsignedLongLong, PyLong_Check
from libc.stdint cimport INT32_MAX, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from gateway._native.protobuf cimport (
    FIXED64,
    VARINT,
    delimited_size,
    put_head,
    put_string,
    put_varint,
    string_size,
    varint_size,
)

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1


cdef Py_ssize_t parameter_size(object value) except -1:
    """Bytes of an InferParameter."""
    cdef int overflow = 0
    cdef long long number
    if isinstance(value, bool):
        return 2
    if PyLong_Check(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        return 1 + varint_size(PyLong_AsUnsignedLongLong(value) if overflow else <uint64_t>number)
    if isinstance(value, float):
        return 9
    if isinstance(value, str):
        return string_size(value)
    raise TypeError(f"a parameter is a bool, int, float or str, not {type(value).__name__}")


cdef char* put_parameter(char* out, object value) except NULL:
    cdef int overflow = 0
    cdef long long number
    cdef double real
    if isinstance(value, bool):
        out[0] = 1 << 3 | VARINT
        out[1] = value is True
        return out + 2
    if PyLong_Check(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        out[0] = (5 << 3 | VARINT) if overflow else (2 << 3 | VARINT)
        return put_varint(
            out + 1, PyLong_AsUnsignedLongLong(value) if overflow else <uint64_t>number
        )
    if isinstance(value, float):
        real = value
        out[0] = 4 << 3 | FIXED64
        memcpy(out + 1, &real, 8)
        return out + 9
    return put_string(out, 3, value)


cdef Py_ssize_t parameters_size(dict parameters) except -1:
    cdef Py_ssize_t total = 0
    if parameters is not None:
        for key, value in parameters.items():
            total += delimited_size(string_size(key) + delimited_size(parameter_size(value)))
    return total


cdef char* put_parameters(char* out, dict parameters) except NULL:
    cdef Py_ssize_t size
    if parameters is not None:
        for key, value in parameters.items():
            size = parameter_size(value)
            out = put_head(out, 4, string_size(key) + delimited_size(size))
            out = put_string(out, 1, key)
            out = put_head(out, 2, size)
            out = put_parameter(out, value)
    return out


cdef Py_ssize_t dimensions_size(tuple shape) except -1:
    cdef Py_ssize_t total = 0
    for dimension in shape:
        if not PyLong_Check(dimension):
            raise TypeError(f"a dimension is an int, not {type(dimension).__name__}")
        total += varint_size(<uint64_t><int64_t>dimension)
    return total


cdef Py_ssize_t output_size(tuple output) except -1:
    """Bytes of an InferOutputTensor."""
    cdef Py_ssize_t dimensions = dimensions_size(output[2])
    return (
        string_size(output[0])
        + string_size(output[1])
        + (delimited_size(dimensions) if dimensions else 0)
        + parameters_size(output[4])
    )


cdef char* put_output(char* out, tuple output) except NULL:
    cdef tuple shape = output[2]
    out = put_head(out, 5, output_size(output))
    out = put_string(out, 1, output[0])
    out = put_string(out, 2, output[1])
    if shape:
        out = put_head(out, 3, dimensions_size(shape))
        for dimension in shape:
            out = put_varint(out, <uint64_t><int64_t>dimension)
    return put_parameters(out, output[4])


cdef bytes write_response(
    str model_name,
    str model_version,
    str request_id,
    dict parameters,
    tuple outputs,
    Py_buffer* views,
    bint stream,
):
    cdef Py_ssize_t size = (
        string_size(model_name) + string_size(model_version) + parameters_size(parameters)
    )
    cdef Py_ssize_t index
    cdef tuple output
    if request_id:
        size += string_size(request_id)
    for index in range(len(outputs)):
        size += delimited_size(output_size(<tuple>outputs[index]))
        size += delimited_size(views[index].len)
    if size > INT32_MAX:
        raise ValueError(f"an answer of {size} bytes is over protobuf's limit of {INT32_MAX}")
    cdef bytes encoded = PyBytes_FromStringAndSize(NULL, delimited_size(size) if stream else size)
    cdef char* out = PyBytes_AS_STRING(encoded)
    if stream:
        out = put_head(out, 2, size)
    out = put_string(out, 1, model_name)
    out = put_string(out, 2, model_version)
    if request_id:
        out = put_string(out, 3, request_id)
    out = put_parameters(out, parameters)
    for output in outputs:
        out = put_output(out, output)
    for index in range(len(outputs)):
        out = put_head(out, 6, views[index].len)
        if views[index].len:
            memcpy(out, views[index].buf, views[index].len)
            out += views[index].len
    return encoded


def encode_infer_response(
    str model_name not None,
    str model_version not None,
    str id not None,
    dict parameters,
    outputs,
    *,
    bint stream=False,
):
    """Encode a ModelInferResponse into one ``bytes``; the tensors are copied once.

    ``outputs`` is a sequence of tuples ``(name, datatype, shape, data, parameters)``: ``data`` is
    any C-contiguous buffer with the tensor's little-endian bytes, or None where they went to
    shared memory (its ``raw_output_contents`` entry is then empty); ``parameters`` is a dict of
    bool, int, float and str values, or None. With ``stream`` the message is wrapped as the
    ``infer_response`` of a ModelStreamInferResponse.

    Raises ``TypeError`` for values of other types, ``OverflowError`` for an int beyond 64 bits,
    ``ValueError`` for an answer over protobuf's 2 GiB.
    """
    cdef tuple items = tuple(outputs)
    cdef Py_ssize_t count = len(items)
    cdef Py_ssize_t index
    cdef Py_buffer[4] few
    cdef Py_buffer* views = few
    cdef tuple output
    if count > 4:
        views = <Py_buffer*>calloc(count, sizeof(Py_buffer))
        if views == NULL:
            raise MemoryError
    else:
        memset(few, 0, sizeof(few))
    try:
        for index in range(count):
            output = items[index]
            if len(output) != 5:
                raise TypeError("an output is (name, datatype, shape, data, parameters)")
            if output[3] is not None:
                PyObject_GetBuffer(output[3], &views[index], PyBUF_SIMPLE)
        return write_response(model_name, model_version, id, parameters, items, views, stream)
    finally:
        for index in range(count):
            PyBuffer_Release(&views[index])  # does nothing for one that was never taken
        if views != few:
            free(views)
