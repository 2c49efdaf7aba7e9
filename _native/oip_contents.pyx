"""InferTensorContents: the elements of a tensor in protobuf's own lists, one list for each kind.

They are read twice: ``count_contents`` checks each message of them and counts its elements, then
``typed_data`` writes the elements into memory of exactly that size.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport (
    INT8_MAX,
    INT8_MIN,
    INT16_MAX,
    INT16_MIN,
    UINT8_MAX,
    UINT16_MAX,
    int32_t,
    int64_t,
    uint32_t,
    uint64_t,
)
from libc.string cimport memcpy

from gateway._native.protobuf cimport (
    DELIMITED,
    FIXED32,
    FIXED64,
    MAX_DEPTH,
    VARINT,
    Cursor,
    enter,
    fail,
    read_tag,
    read_varint,
    skip,
    step,
)

# The fields of InferTensorContents.
cdef enum:
    BOOL_CONTENTS = 1
    INT_CONTENTS = 2
    INT64_CONTENTS = 3
    UINT_CONTENTS = 4
    UINT64_CONTENTS = 5
    FP32_CONTENTS = 6
    FP64_CONTENTS = 7
    BYTES_CONTENTS = 8

cdef tuple CONTENTS_NAMES = (
    "", "bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents",
    "fp32_contents", "fp64_contents", "bytes_contents",
)

# Datatype: the list of contents that carries it, bytes of an element in memory.
cdef dict TYPED_FORMS = {
    "BOOL": (BOOL_CONTENTS, 1),
    "INT8": (INT_CONTENTS, 1),
    "INT16": (INT_CONTENTS, 2),
    "INT32": (INT_CONTENTS, 4),
    "INT64": (INT64_CONTENTS, 8),
    "UINT8": (UINT_CONTENTS, 1),
    "UINT16": (UINT_CONTENTS, 2),
    "UINT32": (UINT_CONTENTS, 4),
    "UINT64": (UINT64_CONTENTS, 8),
    "FP32": (FP32_CONTENTS, 4),
    "FP64": (FP64_CONTENTS, 8),
    "BYTES": (BYTES_CONTENTS, 0),
}


cdef int count_contents(Cursor* outer, Py_ssize_t* counts) except -1:
    """Check one InferTensorContents and add to ``counts`` how many elements each list has."""
    cdef Cursor cursor
    cdef Cursor packed
    cdef uint32_t tag = 0
    cdef uint32_t field
    cdef uint32_t kind
    cdef uint64_t ignored = 0
    cdef Py_ssize_t size
    enter(outer, &cursor)
    while cursor.position < cursor.end:
        read_tag(&cursor, &tag)
        field = tag >> 3
        kind = tag & 7
        if BOOL_CONTENTS <= field <= UINT64_CONTENTS and kind == DELIMITED:
            enter(&cursor, &packed)
            while packed.position < packed.end:
                read_varint(&packed, &ignored)
                counts[field] += 1
        elif (field == FP32_CONTENTS or field == FP64_CONTENTS) and kind == DELIMITED:
            size = 4 if field == FP32_CONTENTS else 8
            enter(&cursor, &packed)
            if (packed.end - packed.position) % size:
                return fail(
                    &packed,
                    f"expected a multiple of {size} bytes of {CONTENTS_NAMES[field]}, "
                    f"found {packed.end - packed.position}",
                )
            counts[field] += (packed.end - packed.position) // size
        else:
            skip(&cursor, tag, MAX_DEPTH - 2)
            if (
                (BOOL_CONTENTS <= field <= UINT64_CONTENTS and kind == VARINT)
                or (field == FP32_CONTENTS and kind == FIXED32)
                or (field == FP64_CONTENTS and kind == FIXED64)
                or (field == BYTES_CONTENTS and kind == DELIMITED)
            ):
                counts[field] += 1
    return 0


cdef bint any_elements(Py_ssize_t* counts) noexcept:
    cdef int field
    for field in range(BOOL_CONTENTS, BYTES_CONTENTS + 1):
        if counts[field]:
            return True
    return False


cdef int store(Cursor* cursor, uint64_t bits, uint32_t field, int size, char* out) except -1:
    """Write one element that came as a varint, and refuse one that the datatype cannot hold."""
    cdef int64_t number
    if field == BOOL_CONTENTS:
        out[0] = bits != 0
        return 0
    if field == INT_CONTENTS:
        number = <int32_t>bits
        if (size == 1 and not INT8_MIN <= number <= INT8_MAX) or (
            size == 2 and not INT16_MIN <= number <= INT16_MAX
        ):
            return fail(cursor, f"expected an INT{8 * size} element, found {number}")
    elif field == UINT_CONTENTS:
        number = <uint32_t>bits
        if (size == 1 and number > UINT8_MAX) or (size == 2 and number > UINT16_MAX):
            return fail(cursor, f"expected a UINT{8 * size} element, found {number}")
    memcpy(out, &bits, size)
    return 0


# The memory that typed elements are written to. Its size comes from counting them first; the
# bound is kept all the same, for a buffer that somebody changes meanwhile.
cdef struct Sink:
    char* position
    char* end


cdef inline char* claim(Cursor* cursor, Sink* sink, Py_ssize_t size) except NULL:
    """Room for the next ``size`` bytes."""
    cdef char* out = sink.position
    if sink.end - out < size:
        fail(cursor, "expected a buffer that stays as it is, found it changed while it was read")
    sink.position += size
    return out


cdef int fill_contents(
    Cursor* outer, uint32_t wanted, int size, Sink* sink, list elements
) except -1:
    """Take the elements of the list ``wanted`` from one InferTensorContents already checked."""
    cdef Cursor cursor
    cdef Cursor packed
    cdef uint32_t tag = 0
    cdef uint64_t bits = 0
    cdef Py_ssize_t span
    enter(outer, &cursor)
    while cursor.position < cursor.end:
        read_tag(&cursor, &tag)
        if tag == (wanted << 3 | DELIMITED):
            enter(&cursor, &packed)
            if wanted == BYTES_CONTENTS:
                elements.append(
                    PyBytes_FromStringAndSize(
                        <const char*>packed.position, packed.end - packed.position
                    )
                )
            elif wanted >= FP32_CONTENTS:
                span = packed.end - packed.position
                memcpy(claim(&packed, sink, span), packed.position, span)
            else:
                while packed.position < packed.end:
                    read_varint(&packed, &bits)
                    store(&packed, bits, wanted, size, claim(&packed, sink, size))
        elif tag == (wanted << 3 | VARINT) and wanted <= UINT64_CONTENTS:
            read_varint(&cursor, &bits)
            store(&cursor, bits, wanted, size, claim(&cursor, sink, size))
        elif (tag == (FP32_CONTENTS << 3 | FIXED32) and wanted == FP32_CONTENTS) or (
            tag == (FP64_CONTENTS << 3 | FIXED64) and wanted == FP64_CONTENTS
        ):
            step(&cursor, size)
            memcpy(claim(&cursor, sink, size), cursor.position - size, size)
        else:
            skip(&cursor, tag, MAX_DEPTH - 2)
    return 0


cdef object typed_data(Cursor cursor, str name, str datatype, Py_ssize_t* counts):
    """The elements in the contents of the input at ``cursor``: ``bytes``, or a list for BYTES."""
    cdef uint32_t wanted = 0
    cdef uint32_t field
    cdef uint32_t tag = 0
    cdef int size = 0
    form = TYPED_FORMS.get(datatype)
    if form is not None:
        wanted, size = form
    for field in range(BOOL_CONTENTS, BYTES_CONTENTS + 1):
        if counts[field] and field != wanted:
            found = f"found {counts[field]} elements in {CONTENTS_NAMES[field]}"
            if form is None:
                fail(&cursor, f"expected raw_input_contents for input {name!r}, since {datatype!r} "
                     f"has no typed form, {found}")
            fail(&cursor, f"expected the elements of input {name!r} in {CONTENTS_NAMES[wanted]}, "
                 f"since its datatype is {datatype}, {found}")
    cdef list elements = []
    cdef bytes data = b""
    cdef Sink sink
    if wanted and wanted != BYTES_CONTENTS:
        data = PyBytes_FromStringAndSize(NULL, counts[wanted] * size)
    sink.position = PyBytes_AS_STRING(data)
    sink.end = sink.position + PyBytes_GET_SIZE(data)
    if counts[wanted]:
        while cursor.position < cursor.end:
            read_tag(&cursor, &tag)
            if tag == (5 << 3 | DELIMITED):
                fill_contents(&cursor, wanted, size, &sink, elements)
            else:
                skip(&cursor, tag, MAX_DEPTH - 1)
    return elements if wanted == BYTES_CONTENTS else data
