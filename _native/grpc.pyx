"""A server's end of gRPC over HTTP/2: calls, their messages, and their statuses.

As the document "gRPC over HTTP2" of the gRPC project has it. A call is a stream; its messages are
cut out of the DATA, and its status goes into the trailers. What a method does with them is the
business of the layer above, which is told of a call's beginning, of each message, and of the end
of the input.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from gateway._native.clock cimport monotonic_ns
from gateway._native.grpc_receiver cimport (
    DEADLINE_EXCEEDED,
    INVALID_ARGUMENT,
    PREFIX,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    GrpcReceiver,
    GrpcStream,
)
from gateway._native.grpc_text cimport percent_encode, timeout_ns
from gateway._native.hpack cimport Encoder
from gateway._native.http2_fields cimport RequestHead
from gateway._native.http2_frames cimport DATA, FRAME_HEAD, put_frame_head, put_u32
from gateway._native.http2_stream cimport Http2Stream

cdef enum:
    # Of what a caller sent so much is said back to it, and so much is said at all.
    MOST_ECHOED = 100
    MOST_DETAILS = 4096
    # By which a deadline is found later than it passes: a queue that holds the request finds it
    # first, and can tell more.
    LATE_NS = 5_000_000
    # The longest that a timer is set for: a day.
    LONGEST_S = 86400

_CONTENT_TYPE = b"application/grpc"
_ENCODINGS = (b"identity", b"gzip", b"deflate")
_ACCEPTED = (b"grpc-accept-encoding", b",".join(_ENCODINGS), "index")
_HEAD = ((b":status", b"200", "index"), (b"content-type", _CONTENT_TYPE, "index"), _ACCEPTED)
_OK = ((b"grpc-status", b"0", "index"),)


cdef class RepeatedBlock:
    """A header block that is sent again and again on one connection.

    Once it changes no table it means the same, octet by octet, until something else changes one.
    """

    cdef bytes encode(self, Encoder encoder, fields):
        """The block of ``fields``, the same ones each time; it goes out before another is made."""
        cdef uint64_t generation = encoder.table.generation
        cdef bytes block
        if self.block is not None and generation == self.generation and encoder.settled:
            return self.block
        block = encoder.encode(fields)
        if generation == encoder.table.generation:
            self.block = block
            self.generation = generation
        return block


cdef class GrpcConnection(GrpcReceiver):
    """A connection whose streams are calls. For the event loop's thread only.

    Args:
        limits, scheduler, buffer, max_message_bytes, budget, now_ns: as for ``GrpcReceiver``.
        methods: by path, as bytes; what they are is the layer above's to know.
    """

    def __init__(
        self,
        limits,
        scheduler,
        buffer,
        dict methods not None,
        max_message_bytes,
        budget,
        now_ns=None,
    ):
        super().__init__(limits, scheduler, buffer, max_message_bytes, budget, now_ns)
        self.methods = methods
        self.response_head = RepeatedBlock()
        self.ok_trailers = RepeatedBlock()

    cdef bytes head_block(self):
        """The header block of a response that goes well."""
        return self.response_head.encode(self.encoder, _HEAD)

    cdef bytes ok_block(self):
        """The trailers of a call that went well."""
        return self.ok_trailers.encode(self.encoder, _OK)

    cdef Http2Stream make_stream(self):
        return GrpcStream.__new__(GrpcStream)

    # A call's beginning

    cdef int request_begun(self, Http2Stream stream, RequestHead head) except -1:
        cdef GrpcStream call = <GrpcStream>stream
        call.head = head
        if not is_grpc(head.content_type):
            return self.refuse_http(call, 415)
        if head.method != b"POST":
            return self.refuse_http(call, 405)
        if head.timeout is not None:
            timeout = timeout_ns(head.timeout)
            if timeout < 0:
                return self.fail_call(
                    call, INVALID_ARGUMENT, f"{shown(head.timeout)!r} is no grpc-timeout"
                )
            if timeout == 0:
                return self.fail_call(call, DEADLINE_EXCEEDED, "the call's deadline is its start")
            call.deadline_ns = self.now_ns + timeout
            self.wake_by(call.deadline_ns)
        if head.encoding is not None and head.encoding not in _ENCODINGS:
            return self.fail_call(
                call,
                UNIMPLEMENTED,
                f"the messages' encoding is one of {', '.join(e.decode() for e in _ENCODINGS)}, "
                f"not {shown(head.encoding)}",
            )
        call.method = self.methods.get(head.path)
        if call.method is None:
            return self.fail_call(
                call,
                UNIMPLEMENTED,
                f"there is no method {shown(head.path)} here",
            )
        return self.call_begun(call)

    cdef int head_too_large(self, Http2Stream stream) except -1:
        return self.fail_call(
            <GrpcStream>stream,
            RESOURCE_EXHAUSTED,
            f"the metadata is larger than {self.limits.max_header_bytes} bytes "
            "(--max-header-bytes)",
        )

    cdef int refuse_http(self, GrpcStream stream, int status) except -1:
        """Answer what is no gRPC in HTTP's own way."""
        fields = [(b":status", b"%d" % status)]
        if status == 405:
            fields.append((b"allow", b"POST"))
        stream.answered = True
        return self.send_trailers(stream, fields)

    # Deadlines

    cdef int wake_by(self, int64_t deadline_ns) except -1:
        """See to it that a call that is open at its deadline ends.

        A connection has one timer, for the earliest deadline; later ones are found when it fires.
        """
        if self.alarm is not None:
            if self.alarm_ns <= deadline_ns:
                return 0
            self.alarm.cancel()
        self.alarm_ns = deadline_ns
        delay_ns = max(deadline_ns - self.now_ns, 0) + LATE_NS
        self.alarm = self.scheduler.call_later(min(delay_ns / 1e9, LONGEST_S), self.expire)
        return 0

    def expire(self, now_ns=None):
        """End the calls whose deadline has passed."""
        cdef GrpcStream stream
        cdef int64_t earliest_ns = 0
        self.alarm = None
        self.now_ns = monotonic_ns() if now_ns is None else now_ns
        for stream in list(self.streams.values()):
            if stream.deadline_ns == 0 or stream.answered:
                continue
            if stream.deadline_ns <= self.now_ns:
                self.fail_call(stream, DEADLINE_EXCEEDED, "the call's deadline has passed")
            elif earliest_ns == 0 or stream.deadline_ns < earliest_ns:
                earliest_ns = stream.deadline_ns
        if earliest_ns:
            self.wake_by(earliest_ns)

    def connection_lost(self, exc):
        """Asyncio's: nobody waits for answers any more."""
        super().connection_lost(exc)
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None

    # Messages and statuses out

    cpdef int send_message(
        self, GrpcStream stream, bytes message, bint compressed=False
    ) except -1:
        """Send a message, behind the response's head if it is the first."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(message)
        cdef char[PREFIX] prefix
        cdef char* out
        if stream.gone or stream.answered:
            return 0
        if not stream.headers_sent:
            encoding = stream.reply_encoding
            stream.coded = encoding is not None
            self.send_headers(
                stream, (*_HEAD, (b"grpc-encoding", encoding)) if stream.coded else _HEAD
            )
        if self.fits(stream, PREFIX + size):
            out = self.out.reserve(FRAME_HEAD + PREFIX + size)
            out = put_frame_head(out, PREFIX + size, DATA, 0, stream.id)
            out[0] = compressed
            out = put_u32(out + 1, <uint32_t>size)
            memcpy(out, PyBytes_AS_STRING(message), size)
            self.spend(stream, PREFIX + size)
            return self.output_waits()
        prefix[0] = compressed
        put_u32(prefix + 1, <uint32_t>size)
        self.send_data(stream, prefix[:PREFIX])
        return self.send_data(stream, message)

    cpdef int complete_call(self, GrpcStream stream, metadata=()) except -1:
        """End a call well; ``metadata`` are ``(name, value)`` pairs of bytes for the trailers."""
        if stream.gone or stream.answered:
            return 0
        if not stream.headers_sent:
            self.send_headers(stream, _HEAD)
        self.end_call(stream)
        return self.send_trailers(stream, (*_OK, *metadata))

    cpdef int fail_call(self, GrpcStream stream, int code, str details, metadata=()) except -1:
        """End a call with a status other than OK; in the head's place where none was sent."""
        if stream.gone or stream.answered:
            return 0
        fields = [
            (b"grpc-status", b"%d" % code),
            (b"grpc-message", percent_encode(details[:MOST_DETAILS])),
            *metadata,
        ]
        if not stream.headers_sent:
            fields = [*_HEAD, *fields]
        self.end_call(stream)
        return self.send_trailers(stream, fields)

    cdef int end_call(self, GrpcStream stream) except -1:
        """The status is about to be sent, or nobody waits for it: nobody need serve the call."""
        served_by, stream.call = stream.call, None
        stream.answered = True
        self.let_go(stream)
        self.release(stream, stream.kept_bytes)
        if served_by is not None:
            served_by.cancel()
        return 0

    cdef int stream_lost(self, Http2Stream stream) except -1:
        return self.end_call(<GrpcStream>stream)

    cdef bint may_pause(self, Http2Stream stream) noexcept:
        cdef GrpcStream call = <GrpcStream>stream
        return call.throttled or (call.endless and call.prefix_seen == 0)

    cdef int drained(self, Http2Stream stream) except -1:
        cdef GrpcStream call = <GrpcStream>stream
        if call.call is not None:
            call.call.drained()
        return 0

    # The layer above

    cdef int call_begun(self, GrpcStream stream) except -1:
        """A call of a known method begins."""
        self.begin(stream)
        return 0

    cdef int message_received(
        self, GrpcStream stream, bytes message, Py_ssize_t start, bint compressed
    ) except -1:
        """A message of the call has come."""
        if self.keep(stream, PyBytes_GET_SIZE(message)):
            stream.call.receive(message, compressed)
        return 0

    cdef int input_ended(self, GrpcStream stream) except -1:
        """The caller sends no more."""
        stream.call.end()
        return 0

    def begin(self, stream):
        """A call begins; sets ``stream.call`` to what takes its messages.

        That has the methods ``receive(message, compressed)``, whose message counts as kept until
        ``release``; ``end()``; ``cancel()``; and ``drained()``, which is called when nothing waits
        to be sent any more.
        """
        raise NotImplementedError


cdef bint is_grpc(bytes content_type) except -1:
    """Whether a content type is gRPC's, with or without a format or parameters."""
    return content_type is not None and (
        content_type == _CONTENT_TYPE
        or content_type.startswith((b"application/grpc+", b"application/grpc;"))
    )


cdef str shown(bytes text):
    """The beginning of what a caller sent, for a message to it."""
    plain = text[:MOST_ECHOED].decode("ascii", "backslashreplace")
    return plain if len(text) <= MOST_ECHOED else plain + "..."
