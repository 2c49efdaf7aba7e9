"""The protobuf wire form of the two hot messages: ModelInferRequest in, ModelInferResponse out.

It knows bytes and plain Python values, no sockets and nothing of the gateway. What it accepts,
and what it makes of it, is what the protobuf library would, with four stricter rules that
protobuf has no words for; each is a ``DecodeError`` here:

- a tensor travels in ``raw_input_contents`` or in ``contents``, and a request uses one of the two;
- ``raw_input_contents`` has one entry for each input that is not in shared memory;
- elements stand in the list of ``contents`` that the tensor's datatype calls for, and fit it;
- a request has at most ``MAX_TENSORS`` inputs, and as many requested outputs.

The message's bytes are read in place, and a tensor of more than ``COPY_LIMIT`` bytes is handed
on as a view of them.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.list cimport PyList_AsTuple
from cpython.long cimport PyLong_AsUnsignedLongLong, PyLong_Check
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport (
    INT8_MAX,
    INT8_MIN,
    INT16_MAX,
    INT16_MIN,
    INT32_MAX,
    UINT8_MAX,
    UINT16_MAX,
    UINT32_MAX,
    int32_t,
    int64_t,
    uint8_t,
    uint32_t,
    uint64_t,
)
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from gateway._native.bytes_tensor import DecodeError

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1

# A view of a small tensor costs more than a copy of it does, and keeps the whole message alive.
cdef enum:
    COPY_LIMIT_BYTES = 1024
    MOST_TENSORS = 65536
    # Groups and messages inside one another; protobuf's own limit.
    MAX_DEPTH = 100

COPY_LIMIT = COPY_LIMIT_BYTES
MAX_TENSORS = MOST_TENSORS

cdef enum:
    VARINT = 0
    FIXED64 = 1
    DELIMITED = 2
    START_GROUP = 3
    END_GROUP = 4
    FIXED32 = 5

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


# ---------------------------------------------------------------- reading the wire

cdef struct Cursor:
    const uint8_t* start    # of the whole message: offsets in errors count from here
    const uint8_t* position
    const uint8_t* end      # of the message that is being read


cdef int fail(Cursor* cursor, str expected) except -1:
    raise DecodeError(cursor.position - cursor.start, expected)


cdef int read_long_varint(Cursor* cursor, uint64_t* value, int most) except -1:
    cdef const uint8_t* at = cursor.position
    cdef uint64_t result = 0
    cdef uint64_t byte
    cdef int index
    for index in range(most):
        if at >= cursor.end:
            return fail(cursor, "expected a varint, found the end of its message")
        byte = at[0]
        at += 1
        result |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            value[0] = result
            cursor.position = at
            return 0
    return fail(cursor, f"expected a varint of at most {most} bytes, found a longer one")


cdef inline int read_varint(Cursor* cursor, uint64_t* value) except -1:
    # Bits past the 64th are dropped, as protobuf does.
    if cursor.position < cursor.end and cursor.position[0] < 0x80:
        value[0] = cursor.position[0]
        cursor.position += 1
        return 0
    return read_long_varint(cursor, value, 10)


cdef inline int read_tag(Cursor* cursor, uint32_t* tag) except -1:
    cdef uint64_t value = 0
    cdef const uint8_t* at = cursor.position
    if at < cursor.end and at[0] < 0x80:
        value = at[0]
        cursor.position += 1
    else:
        read_long_varint(cursor, &value, 5)
    if value > UINT32_MAX or value >> 3 == 0:
        cursor.position = at
        return fail(cursor, f"expected a field's tag, found {value}")
    tag[0] = <uint32_t>value
    return 0


cdef inline Py_ssize_t read_length(Cursor* cursor) except -1:
    cdef const uint8_t* at = cursor.position
    cdef uint64_t length = 0
    read_varint(cursor, &length)
    if length > <uint64_t>(cursor.end - cursor.position):
        left = cursor.end - cursor.position
        cursor.position = at
        return fail(cursor, f"expected a length of at most {left}, found {length}")
    return <Py_ssize_t>length


cdef inline int enter(Cursor* cursor, Cursor* inner) except -1:
    """Set ``inner`` to the delimited field at ``cursor``, and move ``cursor`` past it."""
    cdef Py_ssize_t length = read_length(cursor)
    inner.start = cursor.start
    inner.position = cursor.position
    inner.end = cursor.position + length
    cursor.position += length
    return 0


cdef inline int step(Cursor* cursor, Py_ssize_t size) except -1:
    if cursor.end - cursor.position < size:
        return fail(
            cursor, f"expected {size} bytes, found {cursor.end - cursor.position} bytes left"
        )
    cursor.position += size
    return 0


cdef int skip(Cursor* cursor, uint32_t tag, int depth) except -1:
    """Move past the value of an unknown field; ``depth`` groups may still be opened."""
    cdef uint64_t ignored = 0
    cdef uint32_t inner = 0
    cdef int kind = tag & 7
    if kind == VARINT:
        return read_varint(cursor, &ignored)
    if kind == FIXED64:
        return step(cursor, 8)
    if kind == DELIMITED:
        return step(cursor, read_length(cursor))
    if kind == FIXED32:
        return step(cursor, 4)
    if kind != START_GROUP:
        return fail(cursor, f"expected a wire type that can start a field, found {kind}")
    if depth <= 0:
        return fail(cursor, f"expected at most {MAX_DEPTH} levels of nesting, found more")
    while True:
        read_tag(cursor, &inner)
        if inner & 7 == END_GROUP:
            if inner >> 3 != tag >> 3:
                return fail(cursor, f"expected the end of group {tag >> 3}, found {inner >> 3}'s")
            return 0
        skip(cursor, inner, depth - 1)


cdef str read_string(Cursor* cursor):
    cdef Py_ssize_t length = read_length(cursor)
    cdef const char* data = <const char*>cursor.position
    try:
        text = PyUnicode_DecodeUTF8(data, length, NULL)
    except UnicodeDecodeError as error:
        cursor.position += error.start
        fail(cursor, f"expected UTF-8, found {error.reason}")
    cursor.position += length
    return text


cdef object read_parameter(Cursor* cursor, object value, int depth):
    """An InferParameter; ``value`` is what an earlier part of it set, and stays if none does."""
    cdef uint32_t tag = 0
    cdef uint64_t bits = 0
    cdef double real = 0
    while cursor.position < cursor.end:
        read_tag(cursor, &tag)
        if tag == (1 << 3 | VARINT):
            read_varint(cursor, &bits)
            value = bits != 0
        elif tag == (2 << 3 | VARINT):
            read_varint(cursor, &bits)
            value = <int64_t>bits
        elif tag == (3 << 3 | DELIMITED):
            value = read_string(cursor)
        elif tag == (4 << 3 | FIXED64):
            step(cursor, 8)
            memcpy(&real, cursor.position - 8, 8)
            value = real
        elif tag == (5 << 3 | VARINT):
            read_varint(cursor, &bits)
            value = bits
        else:
            skip(cursor, tag, depth)
    return value


cdef dict read_parameters_entry(Cursor* outer, dict parameters, int depth):
    """Add one entry of a parameters map, made if it is None; the last entry of a key counts."""
    cdef Cursor cursor
    cdef Cursor inner
    cdef uint32_t tag = 0
    cdef str key = ""
    cdef object value = None
    cdef bint unknown = False
    enter(outer, &cursor)
    while cursor.position < cursor.end:
        read_tag(&cursor, &tag)
        if tag == (1 << 3 | DELIMITED):
            key = read_string(&cursor)
        elif tag == (2 << 3 | DELIMITED):
            enter(&cursor, &inner)
            value = read_parameter(&inner, value, depth - 1)
        else:
            skip(&cursor, tag, depth)
            unknown = True
    # protobuf for Python sets an entry with unknown fields aside as a whole.
    if unknown:
        return parameters
    if parameters is None:
        parameters = {}
    if value is None:
        parameters.pop(key, None)
    else:
        parameters[key] = value
    return parameters


# ---------------------------------------------------------------- typed contents

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


# ---------------------------------------------------------------- ModelInferRequest

cdef tuple read_input(Cursor* outer, list raw, Py_ssize_t* taken):
    """One InferInputTensor; its data comes from ``raw`` at ``taken`` where there is any."""
    cdef Cursor cursor
    cdef Cursor whole
    cdef Cursor packed
    cdef uint32_t tag = 0
    cdef uint64_t bits = 0
    cdef Py_ssize_t[9] counts
    cdef bint typed = False
    cdef str name = ""
    cdef str datatype = ""
    cdef list shape = []
    cdef dict parameters = None
    cdef object data
    enter(outer, &cursor)
    whole = cursor
    while cursor.position < cursor.end:
        read_tag(&cursor, &tag)
        if tag == (1 << 3 | DELIMITED):
            name = read_string(&cursor)
        elif tag == (2 << 3 | DELIMITED):
            datatype = read_string(&cursor)
        elif tag == (3 << 3 | DELIMITED):
            enter(&cursor, &packed)
            while packed.position < packed.end:
                read_varint(&packed, &bits)
                shape.append(<int64_t>bits)
        elif tag == (3 << 3 | VARINT):
            read_varint(&cursor, &bits)
            shape.append(<int64_t>bits)
        elif tag == (4 << 3 | DELIMITED):
            parameters = read_parameters_entry(&cursor, parameters, MAX_DEPTH - 2)
        elif tag == (5 << 3 | DELIMITED):
            if not typed:
                memset(counts, 0, sizeof(counts))
                typed = True
            count_contents(&cursor, counts)
        else:
            skip(&cursor, tag, MAX_DEPTH - 1)
    if typed:
        typed = any_elements(counts)
    if parameters is not None and "shared_memory_region" in parameters:
        if typed:
            fail(&whole, f"expected no contents for input {name!r}, which is in shared memory")
        data = None
    elif raw:
        if typed:
            fail(&whole, f"expected raw_input_contents or contents, found both for input {name!r}")
        if taken[0] == len(raw):
            fail(&whole, f"expected an entry of raw_input_contents for input {name!r}, "
                 f"found only {len(raw)}, all taken by the inputs before it")
        data = raw[taken[0]]
        taken[0] += 1
    else:
        if not typed:
            memset(counts, 0, sizeof(counts))
        data = typed_data(whole, name, datatype, counts)
    return name, datatype, PyList_AsTuple(shape), parameters or None, data


cdef bint any_elements(Py_ssize_t* counts) noexcept:
    cdef int field
    for field in range(BOOL_CONTENTS, BYTES_CONTENTS + 1):
        if counts[field]:
            return True
    return False


cdef tuple read_output(Cursor* outer):
    """One InferRequestedOutputTensor."""
    cdef Cursor cursor
    cdef uint32_t tag = 0
    cdef str name = ""
    cdef dict parameters = None
    enter(outer, &cursor)
    while cursor.position < cursor.end:
        read_tag(&cursor, &tag)
        if tag == (1 << 3 | DELIMITED):
            name = read_string(&cursor)
        elif tag == (2 << 3 | DELIMITED):
            parameters = read_parameters_entry(&cursor, parameters, MAX_DEPTH - 2)
        else:
            skip(&cursor, tag, MAX_DEPTH - 1)
    return name, parameters or None


cdef list read_inputs(Cursor cursor, list raw):
    """All inputs of a message whose top level is known to parse."""
    cdef uint32_t tag = 0
    cdef Py_ssize_t taken = 0
    cdef list inputs = []
    cdef Cursor whole = cursor
    while cursor.position < cursor.end:
        read_tag(&cursor, &tag)
        if tag == (5 << 3 | DELIMITED):
            inputs.append(read_input(&cursor, raw, &taken))
        else:
            skip(&cursor, tag, MAX_DEPTH)
    if taken != len(raw):
        fail(&whole, f"expected {taken} entries of raw_input_contents, one for each input that is "
             f"not in shared memory, found {len(raw)}")
    return inputs


cdef tuple read_request(object owner, Cursor cursor):
    cdef Cursor whole = cursor
    cdef Cursor inner
    cdef uint32_t tag = 0
    cdef str model_name = ""
    cdef str model_version = ""
    cdef str request_id = ""
    cdef dict parameters = None
    cdef list outputs = []
    cdef list raw = []
    cdef Py_ssize_t inputs = 0
    cdef object view = None
    while cursor.position < cursor.end:
        read_tag(&cursor, &tag)
        if tag == (1 << 3 | DELIMITED):
            model_name = read_string(&cursor)
        elif tag == (2 << 3 | DELIMITED):
            model_version = read_string(&cursor)
        elif tag == (3 << 3 | DELIMITED):
            request_id = read_string(&cursor)
        elif tag == (4 << 3 | DELIMITED):
            parameters = read_parameters_entry(&cursor, parameters, MAX_DEPTH - 1)
        elif tag == (6 << 3 | DELIMITED):
            if len(outputs) == MOST_TENSORS:
                fail(&cursor, f"expected at most {MOST_TENSORS} requested outputs, found more")
            outputs.append(read_output(&cursor))
        elif tag == (7 << 3 | DELIMITED):
            enter(&cursor, &inner)
            if inner.end - inner.position <= COPY_LIMIT_BYTES:
                raw.append(
                    PyBytes_FromStringAndSize(
                        <const char*>inner.position, inner.end - inner.position
                    )
                )
            else:
                if view is None:
                    view = PyMemoryView_FromObject(owner)
                    if not PyBytes_CheckExact(owner):
                        view = view.cast("B")
                raw.append(view[inner.position - inner.start : inner.end - inner.start])
        else:
            inputs += tag == (5 << 3 | DELIMITED)
            if inputs > MOST_TENSORS:
                fail(&cursor, f"expected at most {MOST_TENSORS} inputs, found more")
            skip(&cursor, tag, MAX_DEPTH)
    return (
        model_name, model_version, request_id, parameters or None, read_inputs(whole, raw), outputs
    )


def decode_infer_request(buf):
    """Decode a ModelInferRequest.

    ``buf`` is ``bytes`` or another contiguous buffer that nobody changes while the answer lives.

    Returns ``(model_name, model_version, id, parameters, inputs, outputs)``. ``parameters`` is a
    dict, or None where there are none; a parameter without a value is left out. ``inputs`` is a
    list of ``(name, datatype, shape, parameters, data)``: ``shape`` a tuple as sent, unchecked;
    ``data`` None for an input in shared memory, else the tensor's little-endian bytes as ``bytes``
    or, above ``COPY_LIMIT`` bytes, a flat ``memoryview`` of ``buf``, of whatever size was sent; the
    typed contents of a BYTES tensor are a list of ``bytes``. ``outputs`` is a list of
    ``(name, parameters)``.

    Raises ``DecodeError`` for anything malformed.
    """
    cdef Py_buffer view
    cdef Cursor cursor
    if PyBytes_CheckExact(buf):
        cursor.start = <const uint8_t*>PyBytes_AS_STRING(buf)
        cursor.position = cursor.start
        cursor.end = cursor.start + PyBytes_GET_SIZE(buf)
        return read_request(buf, cursor)
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        cursor.start = <const uint8_t*>view.buf
        cursor.position = cursor.start
        cursor.end = cursor.start + view.len
        return read_request(buf, cursor)
    finally:
        PyBuffer_Release(&view)


# ---------------------------------------------------------------- ModelInferResponse

# Sizes are computed first, then one bytes object is filled. Between the two no Python code runs:
# buffers are taken before, and only exact ints, floats and strings are looked at.

cdef inline Py_ssize_t varint_size(uint64_t value) noexcept:
    cdef Py_ssize_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline char* put_varint(char* out, uint64_t value) noexcept:
    while value >= 0x80:
        out[0] = <char>(value | 0x80)
        value >>= 7
        out += 1
    out[0] = <char>value
    return out + 1


cdef inline Py_ssize_t delimited_size(Py_ssize_t size) noexcept:
    """Bytes of a delimited field with a one-byte tag."""
    return 1 + varint_size(size) + size


cdef inline char* put_head(char* out, int field, Py_ssize_t size) noexcept:
    out[0] = <char>(field << 3 | DELIMITED)
    return put_varint(out + 1, size)


cdef inline Py_ssize_t string_size(str text) except -1:
    cdef Py_ssize_t size = 0
    PyUnicode_AsUTF8AndSize(text, &size)
    return delimited_size(size)


cdef inline char* put_string(char* out, int field, str text) except NULL:
    cdef Py_ssize_t size = 0
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    out = put_head(out, field, size)
    memcpy(out, data, size)
    return out + size


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
