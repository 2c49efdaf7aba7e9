"""What requests with one head have in common: where they go, what they bring, what they get.

The layers above make a template out of the first request with a head, which they have read and
proven in full. A further request with that head needs no more than its tensors to be found, and
its answer no more than their bytes: nothing else can differ.
"""

from cpython.buffer cimport Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from gateway._native.oip_encode cimport output_size, put_output
from gateway._native.oip_head cimport MOST_RAW, Parts
from gateway._native.protobuf cimport delimited_size, put_head, put_string, string_size

#: Most inputs, and as many outputs, that a template has room for.
MOST_TENSORS = min(MOST_RAW, MOST_OUTPUTS)


cdef class InferTemplate:
    """Immutable but for what it remembers of the last answer.

    Attributes:
        target, lane: what serves the requests; the layers above know them.
        group, rows, level: as for a ``Ticket``.
        timeout_ns: how long the caller waits by the request's own parameters; 0 for ever.
        default_timeout_ns: how long a caller waits who has said nothing at all.
        copies: the group of the requests' copies in another queue; ``None`` where none are made.

    Args:
        model, version: names for the answer.
        sizes: the bytes of each entry of ``raw_input_contents``.
        raw_of_input: for each input of the group its entry, -1 for an input that is left out.
        outputs: ``(index, name, datatype)`` of each output of the answer, in order; ``index``
            is its place among the arrays that the lane gives.

    Raises:
        ValueError: more tensors than a template can hold.
    """

    def __init__(
        self, target, lane, Group group not None, rows, level, timeout_ns, default_timeout_ns,
        *, str model not None, str version not None, sizes, raw_of_input, outputs,
    ):
        cdef int i
        if max(len(sizes), len(raw_of_input)) > MOST_RAW or len(outputs) > MOST_OUTPUTS:
            raise ValueError(f"a template has at most {MOST_RAW} inputs, {MOST_OUTPUTS} outputs")
        self.target = target
        self.lane = lane
        self.group = group
        self.rows = rows
        self.level = level
        self.timeout_ns = timeout_ns
        self.default_timeout_ns = default_timeout_ns
        self.raws = <int>len(sizes)
        for i in range(self.raws):
            self.raw_size[i] = sizes[i]
        self.inputs = <int>len(raw_of_input)
        for i in range(self.inputs):
            self.raw_of_input[i] = raw_of_input[i]
        self.outputs = list(outputs)
        for i in range(<int>len(outputs)):
            self.output_index[i] = outputs[i][0]
        self.names = PyBytes_FromStringAndSize(NULL, string_size(model) + string_size(version))
        put_string(put_string(PyBytes_AS_STRING(self.names), 1, model), 2, version)

    cdef bint matches(self, const Parts* parts) noexcept:
        """Whether a message with this head brings the bytes that its shapes take."""
        cdef int i
        if parts.raws != self.raws:
            return False
        for i in range(self.raws):
            if parts.raw_size[i] != self.raw_size[i]:
                return False
        return True

    cdef bint described(self, Py_buffer* views) except -1:
        """Whether ``descriptions`` fits these outputs: mostly it does."""
        cdef int i, axis
        cdef tuple shape
        if self.shapes is None:
            return False
        for i in range(<int>len(self.outputs)):
            shape = <tuple>self.shapes[i]
            if views[i].ndim != len(shape):
                return False
            for axis in range(views[i].ndim):
                if views[i].shape[axis] != <Py_ssize_t>shape[axis]:
                    return False
        return True

    cdef int describe(self, Py_buffer* views) except -1:
        """Write the outputs' names, datatypes and shapes as the answer has them."""
        cdef Py_ssize_t size = 0
        cdef bytes descriptions
        cdef char* out
        cdef list shapes = []
        cdef list described = []
        for i, (_, name, datatype) in enumerate(self.outputs):
            shape = tuple([views[i].shape[axis] for axis in range(views[i].ndim)])
            shapes.append(shape)
            described.append((name, datatype, shape, None, None))
        for output in described:
            size += delimited_size(output_size(output))
        descriptions = PyBytes_FromStringAndSize(NULL, size)
        out = PyBytes_AS_STRING(descriptions)
        for output in described:
            out = put_output(out, output)
        self.descriptions = descriptions
        self.shapes = shapes
        return 0

    cdef Py_ssize_t answer_size(self, Py_buffer* views, Py_ssize_t id_size) noexcept:
        """Bytes of the ModelInferResponse with these outputs."""
        cdef int i
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.names) + PyBytes_GET_SIZE(self.descriptions)
        if id_size:
            size += delimited_size(id_size)
        for i in range(<int>len(self.outputs)):
            size += delimited_size(views[i].len)
        return size

    cdef char* put_answer(
        self, char* out, Py_buffer* views, const uint8_t* id, Py_ssize_t id_size
    ) noexcept:
        """Write the ModelInferResponse; returns its end."""
        cdef int i
        cdef Py_ssize_t size = PyBytes_GET_SIZE(self.names)
        memcpy(out, PyBytes_AS_STRING(self.names), size)
        out += size
        if id_size:
            out = put_head(out, 3, id_size)
            memcpy(out, id, id_size)
            out += id_size
        size = PyBytes_GET_SIZE(self.descriptions)
        memcpy(out, PyBytes_AS_STRING(self.descriptions), size)
        out += size
        for i in range(<int>len(self.outputs)):
            out = put_head(out, 6, views[i].len)
            memcpy(out, views[i].buf, views[i].len)
            out += views[i].len
        return out
