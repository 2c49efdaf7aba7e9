"""ModelInfer and ModelStreamInfer on the native gRPC front.

A request whose head is known goes from its bytes to a ticket, and from the batch's rows to the
bytes of its answer, without an object for each step between: ``InferTemplate`` holds what those
steps would find. Any other request takes the way of the other fronts, in the subclass's
``infer_unknown``, and may leave a template behind for the next one.
"""

import cython

from cpython.buffer cimport PyBUF_ND, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from gateway._native.grpc cimport GrpcConnection
from gateway._native.grpc_receiver cimport PREFIX, UNIMPLEMENTED, GrpcStream
from gateway._native.http2_frames cimport (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    HEADERS,
    put_frame_head,
    put_u32,
)
from gateway._native.http2_stream cimport Http2Stream
from gateway._native.infer_template cimport MOST_OUTPUTS, InferTemplate
from gateway._native.oip_head cimport Parts, head_of, split_head, split_message
from gateway._native.protobuf cimport delimited_size, put_head
from gateway._native.ticket cimport Ticket

cdef enum:
    # Requests of one stream that may wait for their answer, and bytes of answers that may wait to
    # be sent, before the caller is let send no more.
    MOST_PENDING = 1024
    MOST_WAITING = 1 << 20
    # Protobuf's limit, less what a ModelStreamInferResponse adds.
    MOST_ANSWER = 0x7FFFFFF0


cdef class InferStream(GrpcStream):
    """A call, of inference or another.

    Attributes:
        errors_as_status: whether a failed request ends a ModelStreamInfer with a status.
        last_words: the error that ends a ModelStreamInfer once everything is answered; ``None``
            where it ends well.
    """


@cython.freelist(256)
cdef class InferCall:
    """One request with a known head, from its acceptance to its answer: its ticket's sink."""

    def complete(self, list arrays not None):
        """The lane's: the outputs in the signature's order; valid until this returns."""
        cdef InferConnection connection = self.connection
        cdef InferStream stream = self.stream
        self.leave_stream()
        try:
            connection.answer(self, arrays)
        except Exception as error:
            connection.infer_failed(stream, self.id[: self.id_size], error)
        finally:
            self.close()
            connection.settle(stream)

    def fail(self, error):
        """The lane's: there is no answer."""
        cdef InferConnection connection = self.connection
        cdef InferStream stream = self.stream
        self.leave_stream()
        try:
            connection.infer_failed(stream, self.id[: self.id_size], error)
        finally:
            self.close()
            connection.settle(stream)

    def cancelled(self):
        """The lane's: the caller has left. It is this object that has said so."""

    def request_id(self):
        """The id in the request, ``""`` for none; until its ticket is released."""
        return self.id[: self.id_size].decode("ascii")

    def header(self, bytes name not None):
        """Nothing: a call whose head is known is not asked for its metadata."""

    def cancel(self):
        """Nobody waits any more."""
        if self.ticket is not None:
            self.connection.dispatcher.inflight -= 1
            self.template.lane.cancel(self.ticket)
            self.close()

    cdef int leave_stream(self) except -1:
        """The answer is there: the end of the call has nothing to cancel any more."""
        self.connection.dispatcher.inflight -= 1
        return self.connection.forget(self.stream, self)

    cdef int close(self) except -1:
        """Let go of everything: the ticket and the stream know this object, too."""
        self.ticket = None
        self.stream = None
        self.connection = None
        self.template = None
        return 0


cdef class InferConnection(GrpcConnection):
    """A connection that serves inference itself. For the event loop's thread only.

    Args:
        dispatcher: where requests go: its ``submit_known(template, ticket, now_ns)`` accepts one
            that is proven or raises, its ``inflight`` counts those that are not answered, and its
            ``templates`` are the known heads.
        infer_method, stream_method: what ``methods`` has for the two calls.
    """

    def __init__(self, *args, dispatcher, infer_method, stream_method, **more):
        super().__init__(*args, **more)
        self.dispatcher = dispatcher
        self.submit_known = dispatcher.submit_known
        self.templates = dispatcher.templates
        self.infer_method = infer_method
        self.stream_method = stream_method

    cdef Http2Stream make_stream(self):
        return InferStream.__new__(InferStream)

    # The call

    cdef int call_begun(self, GrpcStream stream) except -1:
        if stream.method is self.infer_method:
            return 0
        if stream.method is self.stream_method:
            (<InferStream>stream).pending = {}
            stream.endless = True
        self.begin(stream)
        return 0

    cdef Py_ssize_t part_to_align(
        self, GrpcStream stream, const uint8_t* message, Py_ssize_t size
    ) except -2:
        """The first tensor, where the head is known: it may be run where it lies."""
        cdef Parts parts
        if stream.method is not self.infer_method and stream.method is not self.stream_method:
            return -1
        if stream.prefix[0] or not split_head(message, size, &parts):
            return -1
        if head_of(&parts) not in self.templates:
            return -1
        return parts.raw[0] - message

    cdef int message_received(
        self, GrpcStream stream, bytes message, Py_ssize_t start, bint compressed
    ) except -1:
        cdef InferStream call = <InferStream>stream
        if stream.method is self.infer_method:
            if call.request is not None:
                return self.fail_call(
                    stream, UNIMPLEMENTED, "ModelInfer takes one message, and a second one came"
                )
            # It may be long until the caller ends its side.
            if self.keep(stream, PyBytes_GET_SIZE(message)):
                call.request = message
                call.request_start = start
                call.request_compressed = compressed
            return 0
        if stream.method is self.stream_method:
            if not call.input_over:
                self.infer(call, message, start, compressed)
            if len(call.pending) >= MOST_PENDING or call.waiting_bytes > MOST_WAITING:
                call.throttled = True
            return 0
        return GrpcConnection.message_received(self, stream, message, start, compressed)

    cdef int input_ended(self, GrpcStream stream) except -1:
        cdef InferStream call = <InferStream>stream
        cdef bytes message = call.request
        if stream.method is self.infer_method:
            if message is None:
                return self.fail_call(
                    stream, UNIMPLEMENTED, "ModelInfer takes one message, and none came"
                )
            call.request = None
            self.release(stream, PyBytes_GET_SIZE(message))
            return self.infer(call, message, call.request_start, call.request_compressed)
        if stream.method is self.stream_method:
            call.input_over = True
            return self.settle(call)
        return GrpcConnection.input_ended(self, stream)

    # One request

    cdef int infer(
        self, InferStream stream, bytes message, Py_ssize_t start, bint compressed
    ) except -1:
        cdef Parts parts
        cdef bytes head = None
        if not compressed and split_message(
            <const uint8_t*>PyBytes_AS_STRING(message) + start,
            PyBytes_GET_SIZE(message) - start,
            &parts,
        ):
            head = head_of(&parts)
            template = self.templates.get(head)
            if (
                template is not None
                and (<InferTemplate>template).matches(&parts)
                and is_ascii(parts.id, parts.id_size)
            ):
                return self.submit(stream, message, <InferTemplate>template, &parts)
        self.infer_unknown(stream, message[start:], compressed, head)
        return 0

    cdef int submit(
        self, InferStream stream, bytes message, InferTemplate template, Parts* parts
    ) except -1:
        cdef Ticket ticket = Ticket.__new__(Ticket)
        cdef InferCall call = InferCall.__new__(InferCall)
        cdef int64_t deadline_ns = stream.deadline_ns
        cdef int i
        if template.timeout_ns and (
            deadline_ns == 0 or self.now_ns + template.timeout_ns < deadline_ns
        ):
            deadline_ns = self.now_ns + template.timeout_ns
        if deadline_ns == 0 and template.default_timeout_ns:
            deadline_ns = self.now_ns + template.default_timeout_ns
        ticket.prepare(template.group, template.rows, deadline_ns, template.level)
        for i in range(template.inputs):
            if template.raw_of_input[i] >= 0:
                ticket.c.sources[i] = <const char*>parts.raw[template.raw_of_input[i]]
        ticket.inputs = message
        ticket.c.constant = True
        ticket.sink = call
        call.connection = self
        call.stream = stream
        call.template = template
        call.ticket = ticket
        call.id = parts.id
        call.id_size = parts.id_size
        try:
            self.submit_known(template, ticket, self.now_ns)
        except Exception as error:
            self.infer_failed(stream, parts.id[: parts.id_size], error)
            call.close()
            ticket.release()
            return 0
        return self.expect(stream, call)

    cpdef int expect(self, InferStream stream, pending) except -1:
        """A request was accepted: ``pending.cancel()`` is called if nobody waits any more."""
        if stream.pending is None:
            stream.call = pending
        else:
            stream.pending[pending] = None
        return 0

    cpdef int forget(self, InferStream stream, pending) except -1:
        """The answer of a request is there; to be called before it is sent, then ``settle``."""
        if stream.pending is None:
            stream.call = None
        else:
            stream.pending.pop(pending, None)
        return 0

    cpdef int settle(self, InferStream stream) except -1:
        """A request has been answered; the last one of a ModelStreamInfer may end the call."""
        if stream.pending is None:
            return 0
        if stream.input_over and not stream.pending and not stream.answered:
            if stream.last_words is None:
                return self.complete_call(stream)
            self.end_with(stream, stream.last_words)
            return 0
        return self.drained(stream)

    cdef int drained(self, Http2Stream stream) except -1:
        cdef InferStream call = <InferStream>stream
        if call.method is self.infer_method:
            return 0
        if call.pending is None:
            return GrpcConnection.drained(self, stream)
        if call.throttled and 2 * len(call.pending) < MOST_PENDING and call.waiting is None:
            self.unthrottle(call)
        return 0

    cdef int end_call(self, GrpcStream stream) except -1:
        cdef InferStream call = <InferStream>stream
        GrpcConnection.end_call(self, stream)
        call.request = None
        if call.pending:
            pending, call.pending = call.pending, {}
            for request in pending:
                request.cancel()
        return 0

    def drain_inference(self, error):
        """Serve no further request by itself: ``infer_unknown`` has to refuse it.

        Every ModelStreamInfer ends with ``error`` once what it has read is answered.
        """
        self.templates = {}
        for stream in list(self.streams.values()):
            self.drain_stream(stream, error)

    def drain_stream(self, InferStream stream not None, error):
        """Read no further requests of a ModelStreamInfer; ``error`` ends it when all is answered."""
        if stream.pending is not None and not stream.input_over:
            stream.input_over = True
            stream.last_words = error
            self.settle(stream)

    # Its answer

    # Whether the lane gave as many arrays as it has outputs is the one thing not proven here.
    @cython.boundscheck(True)
    cdef int answer(self, InferCall call, list arrays) except -1:
        """Send the outputs of ``call``."""
        cdef InferTemplate template = call.template
        cdef InferStream stream = call.stream
        cdef Py_buffer[MOST_OUTPUTS] views
        cdef int count = <int>len(template.outputs)
        cdef int taken = 0
        cdef Py_ssize_t size
        if stream.gone or stream.answered:
            return 0
        try:
            while taken < count:
                PyObject_GetBuffer(arrays[template.output_index[taken]], &views[taken], PyBUF_ND)
                taken += 1
            if not template.described(views):
                template.describe(views)
            size = template.answer_size(views, call.id_size)
            if size > MOST_ANSWER:
                raise ValueError(f"an answer of {size} bytes is over protobuf's limit of {INT32_MAX}")
            if stream.pending is not None:
                return self.send_stream_answer(call, views, size)
            if self.fits(stream, PREFIX + size) and not stream.headers_sent:
                return self.send_unary_answer(call, views, size)
            self.send_message(stream, answer_bytes(call, views, size, 0))
            return self.complete_call(stream)
        finally:
            for i in range(taken):
                PyBuffer_Release(&views[i])

    cdef int send_unary_answer(self, InferCall call, Py_buffer* views, Py_ssize_t size) except -1:
        """The whole response, from its head to its trailers, written in one go."""
        cdef InferStream stream = call.stream
        cdef bytes head = self.head_block()
        cdef bytes trailers = self.ok_block()
        cdef Py_ssize_t head_size = PyBytes_GET_SIZE(head)
        cdef Py_ssize_t trailers_size = PyBytes_GET_SIZE(trailers)
        cdef char* out = self.out.reserve(
            3 * FRAME_HEAD + PREFIX + head_size + size + trailers_size
        )
        out = put_frame_head(out, head_size, HEADERS, END_HEADERS, stream.id)
        memcpy(out, PyBytes_AS_STRING(head), head_size)
        out = put_frame_head(out + head_size, PREFIX + size, DATA, 0, stream.id)
        out[0] = 0
        out = put_u32(out + 1, <uint32_t>size)
        out = call.template.put_answer(out, views, call.id, call.id_size)
        out = put_frame_head(out, trailers_size, HEADERS, END_HEADERS | END_STREAM, stream.id)
        memcpy(out, PyBytes_AS_STRING(trailers), trailers_size)
        stream.headers_sent = True
        self.spend(stream, PREFIX + size)
        self.end_call(stream)
        self.output_waits()
        return self.end_stream(stream)

    cdef int send_stream_answer(self, InferCall call, Py_buffer* views, Py_ssize_t size) except -1:
        """One message of a ModelStreamInfer: the answer within a ModelStreamInferResponse."""
        cdef InferStream stream = call.stream
        cdef Py_ssize_t whole = delimited_size(size)
        cdef char* out
        if not stream.headers_sent:
            stream.headers_sent = True
            self.put_block(stream, self.head_block(), False)
        if not self.fits(stream, PREFIX + whole):
            return self.send_message(stream, answer_bytes(call, views, size, 2))
        out = self.out.reserve(FRAME_HEAD + PREFIX + whole)
        out = put_frame_head(out, PREFIX + whole, DATA, 0, stream.id)
        out[0] = 0
        out = put_head(put_u32(out + 1, <uint32_t>whole), 2, size)
        call.template.put_answer(out, views, call.id, call.id_size)
        self.spend(stream, PREFIX + whole)
        return self.output_waits()

    # What the subclass does in Python

    def infer_unknown(self, stream, message, compressed, head):
        """Serve a request that no template fits; ``head`` is ``None`` where there can be none."""
        raise NotImplementedError

    def infer_failed(self, stream, id, error):
        """Tell the caller of ``stream`` what became of the request ``id``."""
        raise NotImplementedError

    def end_with(self, stream, error):
        """End the call of ``stream`` with the status of ``error``."""
        raise NotImplementedError


cdef bint is_ascii(const uint8_t* text, Py_ssize_t size) noexcept:
    cdef Py_ssize_t i
    cdef uint8_t bits = 0
    for i in range(size):
        bits |= text[i]
    return bits < 0x80


cdef bytes answer_bytes(InferCall call, Py_buffer* views, Py_ssize_t size, int field):
    """The ModelInferResponse as ``bytes``, as the given field of another message if not 0."""
    cdef bytes message = PyBytes_FromStringAndSize(NULL, delimited_size(size) if field else size)
    cdef char* out = PyBytes_AS_STRING(message)
    if field:
        out = put_head(out, field, size)
    call.template.put_answer(out, views, call.id, call.id_size)
    return message
