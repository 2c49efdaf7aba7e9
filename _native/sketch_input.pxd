"""What all sketches share: tables of numbers read as doubles, hashing, random bits, one user.

A table is any buffer of numbers with one or two dimensions, rows first, whatever its strides. Its
columns are copied into doubles a tile at a time, so that the loops that count see one type.
"""

from cpython.buffer cimport (
    PyBUF_RECORDS_RO,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport (
    int8_t,
    int16_t,
    int32_t,
    int64_t,
    uint8_t,
    uint16_t,
    uint32_t,
    uint64_t,
)
from libc.string cimport memcpy

cdef enum:
    # Values of a column that are read at once: they and their places stay in the fastest cache.
    TILE = 256

ctypedef fused number_t:
    int8_t
    int16_t
    int32_t
    int64_t
    uint8_t
    uint16_t
    uint32_t
    uint64_t
    float
    double

cdef enum number_kind_t:
    I8, I16, I32, I64, U8, U16, U32, U64, F32, F64

cdef struct table_t:
    const char* data
    Py_ssize_t rows
    Py_ssize_t columns
    Py_ssize_t row_stride
    Py_ssize_t column_stride
    number_kind_t kind


cdef inline int kind_of(Py_buffer* view, number_kind_t* kind) except -1:
    """The kind of a buffer's elements; ``TypeError`` where they are no numbers that are read."""
    cdef bytes form = b"B" if view.format == NULL else <bytes>view.format
    cdef bytes letter = form.lstrip(b"@=<|")
    cdef Py_ssize_t size = view.itemsize
    if letter in (b"b", b"h", b"i", b"l", b"q", b"n") and size in (1, 2, 4, 8):
        kind[0] = I8 if size == 1 else I16 if size == 2 else I32 if size == 4 else I64
    elif letter in (b"B", b"H", b"I", b"L", b"Q", b"N", b"?") and size in (1, 2, 4, 8):
        kind[0] = U8 if size == 1 else U16 if size == 2 else U32 if size == 4 else U64
    elif letter == b"f" and size == 4:
        kind[0] = F32
    elif letter == b"d" and size == 8:
        kind[0] = F64
    else:
        raise TypeError(
            "expected a table of integers, booleans, float32 or float64 in the machine's byte "
            f"order, not of format {form.decode('latin-1')!r}; convert it first"
        )
    return 0


cdef inline int open_table(object array, Py_buffer* view, table_t* table) except -1:
    """Look into ``array``; whoever gets 0 releases ``view`` when it has been read.

    Raises ``TypeError`` for what is no buffer of numbers, ``ValueError`` for more dimensions.
    """
    PyObject_GetBuffer(array, view, PyBUF_RECORDS_RO)
    try:
        if view.ndim not in (1, 2):
            raise ValueError(
                f"expected a table of shape [rows] or [rows, columns], not of {view.ndim} dimensions"
            )
        kind_of(view, &table.kind)
    except BaseException:
        PyBuffer_Release(view)
        raise
    table.data = <const char*>view.buf
    table.rows = view.shape[0]
    table.row_stride = view.strides[0]
    table.columns = view.shape[1] if view.ndim == 2 else 1
    table.column_stride = view.strides[1] if view.ndim == 2 else 0
    return 0


cdef inline void gather_as(
    const char* at, Py_ssize_t stride, Py_ssize_t count, double* out, number_t* like
) noexcept nogil:
    cdef Py_ssize_t i
    cdef number_t value
    for i in range(count):
        memcpy(&value, at, sizeof(value))
        out[i] = <double>value
        at += stride


cdef inline void gather(
    number_kind_t kind, const char* at, Py_ssize_t stride, Py_ssize_t count, double* out
) noexcept nogil:
    """``count`` numbers, ``stride`` bytes apart, as doubles."""
    if kind == F32:
        gather_as(at, stride, count, out, <float*>NULL)
    elif kind == F64:
        gather_as(at, stride, count, out, <double*>NULL)
    elif kind == I64:
        gather_as(at, stride, count, out, <int64_t*>NULL)
    elif kind == I32:
        gather_as(at, stride, count, out, <int32_t*>NULL)
    elif kind == I16:
        gather_as(at, stride, count, out, <int16_t*>NULL)
    elif kind == I8:
        gather_as(at, stride, count, out, <int8_t*>NULL)
    elif kind == U64:
        gather_as(at, stride, count, out, <uint64_t*>NULL)
    elif kind == U32:
        gather_as(at, stride, count, out, <uint32_t*>NULL)
    elif kind == U16:
        gather_as(at, stride, count, out, <uint16_t*>NULL)
    else:
        gather_as(at, stride, count, out, <uint8_t*>NULL)


cdef inline int enter(bint* busy) except -1:
    """Begin to use a sketch, with the GIL; ``RuntimeError`` where another thread does already."""
    if busy[0]:
        raise RuntimeError(
            "this sketch is in use by another thread: give each thread one of its own and merge them"
        )
    busy[0] = True
    return 0


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    """Spread the bits of ``x``, one to one (the finalizer of SplitMix64)."""
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef inline uint64_t draw(uint64_t* state) noexcept nogil:
    """The next 64 random bits (SplitMix64, Steele, Lea, Flood 2014)."""
    state[0] += <uint64_t>0x9E3779B97F4A7C15
    return mix(state[0])


cdef inline uint64_t hash_number(double value) noexcept nogil:
    """A hash of a number; -0 is 0."""
    cdef uint64_t bits
    value += 0.0
    memcpy(&bits, &value, sizeof(bits))
    return mix(bits + <uint64_t>0x9E3779B97F4A7C15)


cdef inline uint64_t hash_bytes(const char* data, Py_ssize_t size) noexcept nogil:
    """A hash of bytes (MurmurHash64A, Austin Appleby, public domain), spread once more."""
    cdef uint64_t m = <uint64_t>0xC6A4A7935BD1E995
    cdef uint64_t h = <uint64_t>0x8445D61A4E774912 ^ (<uint64_t>size * m)
    cdef uint64_t k
    while size >= 8:
        memcpy(&k, data, 8)
        k *= m
        k ^= k >> 47
        h = (h ^ (k * m)) * m
        data += 8
        size -= 8
    if size:
        k = 0
        memcpy(&k, data, size)
        h = (h ^ k) * m
    h = (h ^ (h >> 47)) * m
    return mix(h ^ (h >> 47))
