"""From DATA to gRPC's messages, and the memory that they may take on their way in.

As the document "gRPC over HTTP2" of the gRPC project has it: each message has a prefix of five
octets, and DATA frames are cut wherever it pleases the caller.

A message is copied once, into the ``bytes`` that is handed on, and what comes in large frames is
received there. Nothing is believed about a message that only says how long it is: memory grows with
what came, within the budget of all connections.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport int64_t, uint8_t, uintptr_t
from libc.string cimport memcpy

from gateway._native.arena cimport ALIGNMENT
from gateway._native.copying cimport copy_bytes
from gateway._native.http2_frames cimport read_u32
from gateway._native.http2_protocol cimport Http2Protocol
from gateway._native.http2_stream cimport Http2Stream

cdef extern from "Python.h":
    void Py_SET_SIZE(PyObject* object, Py_ssize_t size)
    PyObject* new_bytes "PyBytes_FromStringAndSize" (const char* data, Py_ssize_t size) except NULL

cdef enum:
    # A message is given so much memory on its own word, and so many times what came with it; and
    # when that has been filled, again as many times.
    FIRST_BYTES = 1 << 12
    GROWTH = 32
    # What is missing of a message is taken in pieces of this size where the peer is fast enough to
    # bring one, and with it whatever else it says, within a few milliseconds.
    PIECE = 1 << 19
    SMALLEST_PIECE = 1 << 15
    FAST_BYTES_PER_MS = 1 << 17
    # So much a connection may hold whatever the others do: they cannot keep its small calls out.
    OWN_BYTES = 1 << 16


cdef class ReceiveBudget:
    """Memory for messages on their way in, beyond 64 KiB of each connection of a server.

    Attributes:
        held_bytes: what they hold.
        max_bytes: what they may.
    """

    def __init__(self, Py_ssize_t max_bytes):
        self.max_bytes = max_bytes


cdef class GrpcStream(Http2Stream):
    """A call.

    Attributes:
        head: its request's head.
        method: what the table of methods has for its path.
        deadline_ns: when the caller stops waiting, monotonic nanoseconds; 0 for never.
        call: whoever serves it; its ``cancel()`` is called when nobody waits any more.
        answered: whether its status has been given.
        endless: whether its input may pause between messages for as long as it likes; set by
            whoever serves it.
    """

    def __dealloc__(self):
        Py_XDECREF(self.message)

    @property
    def reply_encoding(self):
        """What messages to the caller may be coded in, ``None`` for nothing.

        It is what its own come in, where it takes that back; once the response has begun, its head
        has to say so.
        """
        if self.headers_sent:
            return self.head.encoding if self.coded else None
        encoding = self.head.encoding
        if is_plain(encoding):
            return None
        accepted = self.head.accept_encoding
        if accepted is not None and encoding not in accepted.replace(b" ", b"").split(b","):
            return None
        return encoding


cdef class GrpcReceiver(Http2Protocol):
    """A connection whose streams bring messages. For the event loop's thread only.

    Attributes:
        max_message_bytes: the largest message that is taken.
        budget: shared by all connections.
        held_bytes: what this one holds of messages that are not complete or not taken.
    """

    def __init__(
        self,
        limits,
        scheduler,
        buffer,
        Py_ssize_t max_message_bytes,
        ReceiveBudget budget not None,
        now_ns=None,
    ):
        super().__init__(limits, scheduler, buffer, now_ns)
        self.max_message_bytes = max_message_bytes
        self.budget = budget

    cdef int data_received(
        self, Http2Stream stream, const uint8_t* data, Py_ssize_t size
    ) except -1:
        cdef GrpcStream call = <GrpcStream>stream
        cdef Py_ssize_t left = size
        cdef Py_ssize_t used
        while left and not call.answered and not call.gone:
            if call.message == NULL:
                used = self.begin_message(call, data, left)
            else:
                used = self.fill_message(call, data, left)
            data += used
            left -= used
        if call.throttled:
            call.ungranted += size
        elif call.endless and not call.gone:
            # The one message of a unary call has the window that it needs, see ``widen``.
            self.grant(call, size)
        return 0

    cdef Py_ssize_t begin_message(
        self, GrpcStream stream, const uint8_t* data, Py_ssize_t size
    ) except -1:
        """Read a message's prefix, and the message if it is there as a whole."""
        cdef Py_ssize_t used = min(size, PREFIX - stream.prefix_seen)
        cdef Py_ssize_t length
        memcpy(stream.prefix + stream.prefix_seen, data, used)
        stream.prefix_seen += used
        if stream.prefix_seen < PREFIX:
            return used
        length = read_u32(stream.prefix + 1)
        if not self.may_begin(stream, length):
            return used
        if length >= SMALLEST_PIECE:
            stream.aligned_at = self.part_to_align(stream, data + used, min(size - used, length))
        else:
            stream.aligned_at = -1
        if size - used < length:
            self.keep_message(stream, length, size - used)
            return used
        place_message(stream, length)
        copy_bytes(bytes_of(stream), data + used, length)
        self.message_ended(stream)
        return used + length

    cdef bint may_begin(self, GrpcStream stream, Py_ssize_t length) except -1:
        """Whether a message with this prefix is one to be taken; fails the call otherwise."""
        if stream.prefix[0] > 1:
            self.fail_call(stream, INTERNAL, "the DATA is not cut into gRPC's messages")
        elif length > self.max_message_bytes:
            self.message_too_large(stream, length)
        elif stream.prefix[0] == 1 and is_plain(stream.head.encoding):
            self.fail_call(stream, INTERNAL, "a compressed message, but no grpc-encoding")
        else:
            return True
        return False

    cdef int keep_message(
        self, GrpcStream stream, Py_ssize_t length, Py_ssize_t there
    ) except -1:
        """Make room for a message of which only the first ``there`` bytes are there."""
        cdef Py_ssize_t capacity = min(length, max(FIRST_BYTES, GROWTH * there))
        if not self.hold(stream, capacity):
            return 0
        stream.message_size = length
        stream.received = 0
        place_message(stream, capacity)
        if self.missing_bytes == 0:
            self.burst_since_ns = self.now_ns
            self.burst_bytes = 0
        # Of a caller that may send no more nothing is sure to come.
        if not stream.throttled:
            stream.awaited = True
            self.missing_bytes += length
            self.widen(stream, length - there)
        return 0

    cdef Py_ssize_t fill_message(
        self, GrpcStream stream, const uint8_t* data, Py_ssize_t size
    ) except -1:
        """Go on with a message that began in an earlier piece."""
        cdef Py_ssize_t part = min(size, stream.message_size - stream.received)
        cdef Py_ssize_t capacity = capacity_of(stream)
        cdef uint8_t* place
        if stream.received + part > capacity:
            capacity = min(stream.message_size, max(GROWTH * capacity, stream.received + part))
            if not self.hold(stream, capacity):
                return size
            place_message(stream, capacity)
        place = bytes_of(stream) + stream.received
        if data != place:
            copy_bytes(place, data, part)
        stream.received += part
        self.burst_bytes += part
        if stream.awaited:
            self.missing_bytes -= part
        if stream.received == stream.message_size:
            self.message_ended(stream)
        return part

    cdef int message_ended(self, GrpcStream stream) except -1:
        """Hand on a message that is whole."""
        cdef bytes message = <bytes>stream.message
        stream.prefix_seen = 0
        self.let_go(stream)
        return self.message_received(
            stream, message, stream.message_start, stream.prefix[0] == 1
        )

    cdef object room_for_data(self, uint8_t** place, Py_ssize_t* size):
        cdef GrpcStream stream = <GrpcStream>self.data_stream
        if self.data_left < SMALLEST_PIECE or stream is None or stream.message == NULL:
            return None
        size[0] = min(self.data_left, capacity_of(stream) - stream.received)
        if size[0] < SMALLEST_PIECE:
            return None
        place[0] = bytes_of(stream) + stream.received
        return <bytes>stream.message

    cdef bint hold(self, GrpcStream stream, Py_ssize_t size) except -1:
        """Reserve ``size`` bytes in all for the message of ``stream``, or fail the call."""
        if not self.reserve(stream, size - stream.held_bytes):
            return False
        stream.held_bytes = size
        return True

    cdef int let_go(self, GrpcStream stream) except -1:
        """Forget the message that is being received."""
        Py_XDECREF(stream.message)
        stream.message = NULL
        if stream.awaited:
            stream.awaited = False
            self.missing_bytes -= stream.message_size - stream.received
        self.account(-stream.held_bytes)
        stream.held_bytes = 0
        return 0

    cdef bint keep(self, GrpcStream stream, Py_ssize_t size) except -1:
        """Reserve ``size`` bytes for a message that is whole but not taken, or fail the call."""
        if not self.reserve(stream, size):
            return False
        stream.kept_bytes += size
        return True

    cpdef int release(self, GrpcStream stream, Py_ssize_t size) except -1:
        """Messages of ``size`` bytes were taken."""
        size = min(size, stream.kept_bytes)
        stream.kept_bytes -= size
        self.account(-size)
        return 0

    cdef bint reserve(self, GrpcStream stream, Py_ssize_t size) except -1:
        if (
            self.held_bytes + size > OWN_BYTES
            and self.budget.held_bytes + size > self.budget.max_bytes
        ):
            self.fail_call(
                stream,
                RESOURCE_EXHAUSTED,
                f"the server holds {self.budget.held_bytes} bytes of messages that are not complete "
                f"or not taken yet, of at most {self.budget.max_bytes}; send it again later",
            )
            return False
        self.account(size)
        return True

    cdef int account(self, Py_ssize_t size) noexcept:
        """Hold ``size`` bytes more; what goes beyond the connection's own is the budget's."""
        cdef Py_ssize_t before = max(self.held_bytes - OWN_BYTES, 0)
        self.held_bytes += size
        self.budget.held_bytes += max(self.held_bytes - OWN_BYTES, 0) - before
        return 0

    cdef int64_t bytes_worth_waiting_for(self) noexcept:
        """A good part of what large messages still lack, while their peer is fast."""
        cdef int64_t size = min(<int64_t>self.missing_bytes, self.recv_window)
        if (
            size < SMALLEST_PIECE
            or self.burst_bytes < FAST_BYTES_PER_MS
            or self.burst_bytes * 1000000
            < FAST_BYTES_PER_MS * (self.now_ns - self.burst_since_ns)
        ):
            return 0
        return min(size, <int64_t>PIECE)

    cdef int request_ended(self, Http2Stream stream) except -1:
        cdef GrpcStream call = <GrpcStream>stream
        if call.answered:
            return 0
        if call.prefix_seen:
            return self.fail_call(call, INTERNAL, "the request ends within a message")
        return self.input_ended(call)

    def throttle(self, GrpcStream stream not None):
        """Let the caller send no more than the window that it has."""
        stream.throttled = True

    def unthrottle(self, GrpcStream stream not None):
        """Let the caller send on."""
        stream.throttled = False
        size, stream.ungranted = stream.ungranted, 0
        if size and not stream.gone:
            self.grant(stream, size)

    # The layer above

    cdef Py_ssize_t part_to_align(
        self, GrpcStream stream, const uint8_t* message, Py_ssize_t size
    ) except -2:
        """What of a message should lie at a multiple of ``ALIGNMENT``, by its first bytes.

        Returns how far behind the message's beginning it is, -1 if nothing need lie anywhere.
        """
        return -1

    cdef int message_received(
        self, GrpcStream stream, bytes message, Py_ssize_t start, bint compressed
    ) except -1:
        """A message of the call has come; it begins at ``start``, which is 0 for unaligned ones."""
        return 0

    cdef int input_ended(self, GrpcStream stream) except -1:
        """The caller sends no more."""
        return 0

    cpdef int fail_call(self, GrpcStream stream, int code, str details, metadata=()) except -1:
        """End a call with a status other than OK."""
        return 0

    def message_too_large(self, stream, size):
        """A message of ``size`` bytes is announced, which is over the limit: fail the call."""
        raise NotImplementedError


cdef inline uint8_t* bytes_of(GrpcStream stream) noexcept:
    """Where the message that is being received begins."""
    return <uint8_t*>PyBytes_AS_STRING(<bytes>stream.message) + stream.message_start


cdef inline Py_ssize_t capacity_of(GrpcStream stream) noexcept:
    return PyBytes_GET_SIZE(<bytes>stream.message) - stream.message_start


cdef int place_message(GrpcStream stream, Py_ssize_t capacity) except -1:
    """Make room for ``capacity`` bytes of the message, and move there what has been received."""
    cdef PyObject* message
    cdef Py_ssize_t start = 0
    if stream.aligned_at < 0:
        message = new_bytes(NULL, capacity)
    else:
        message = new_bytes(NULL, capacity + ALIGNMENT - 1)
        start = -(<uintptr_t>PyBytes_AS_STRING(<bytes>message) + stream.aligned_at) % ALIGNMENT
        # Whoever gets it finds the message's end at its end.
        Py_SET_SIZE(message, start + capacity)
        PyBytes_AS_STRING(<bytes>message)[start + capacity] = 0
    if stream.message != NULL:
        copy_bytes(PyBytes_AS_STRING(<bytes>message) + start, bytes_of(stream), stream.received)
        Py_XDECREF(stream.message)
    stream.message = message
    stream.message_start = start
    return 0


cdef bint is_plain(bytes encoding) except -1:
    """Whether messages in ``encoding`` are as they are."""
    return encoding is None or encoding == b"identity"
