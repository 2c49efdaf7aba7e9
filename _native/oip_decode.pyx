"""ModelInferRequest, read from its protobuf bytes.

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
from cpython.memoryview cimport PyMemoryView_FromObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from gateway._native.oip_contents cimport (
    CONTENTS_LISTS,
    any_elements,
    count_contents,
    typed_data,
)
from gateway._native.protobuf cimport (
    DELIMITED,
    FIXED64,
    MAX_DEPTH,
    VARINT,
    Cursor,
    enter,
    fail,
    read_string,
    read_tag,
    read_varint,
    skip,
    step,
)

# A view of a small tensor costs more than a copy of it does, and keeps the whole message alive.
cdef enum:
    COPY_LIMIT_BYTES = 1024
    MOST_TENSORS = 65536

COPY_LIMIT = COPY_LIMIT_BYTES
MAX_TENSORS = MOST_TENSORS


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


cdef tuple read_input(Cursor* outer, list raw, Py_ssize_t* taken):
    """One InferInputTensor; its data comes from ``raw`` at ``taken`` where there is any."""
    cdef Cursor cursor
    cdef Cursor whole
    cdef Cursor packed
    cdef uint32_t tag = 0
    cdef uint64_t bits = 0
    cdef Py_ssize_t[CONTENTS_LISTS] counts
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
