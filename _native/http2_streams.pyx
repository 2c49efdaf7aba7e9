"""The streams of an HTTP/2 connection: what comes in on them, and how they end.

What the peer does wrong is an error of one stream, which is reset, or of the connection, which then
has ``failed``: it says why in a GOAWAY and takes nothing more. What is not wrong but costs more
than it moves is rationed, see ``Http2Limits``.

How a stream ends:

=============  ==================  =======================  ===========  ==================
by             when                what the peer is sent    charged      ``stream_lost``
=============  ==================  =======================  ===========  ==================
stream_ended   the answer is out   RST_STREAM if it has     no, one is   no
                                   not ended its side       given back
reset          the peer's error    RST_STREAM               yes          yes
give_up        nobody's error      RST_STREAM               no           yes
refuse         it never was one    RST_STREAM               REFUSED: no  no
drop           the peer's reset    nothing                  if rapid     yes
lose           the end of all      nothing                  no           yes
=============  ==================  =======================  ===========  ==================
"""

from libc.stdint cimport INT32_MAX, int64_t, uint8_t, uint32_t

from gateway._native.http2_frames cimport (
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FIRST_WINDOW,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    STREAM_CLOSED,
    WINDOW_UPDATE,
)
from gateway._native.http2_framer cimport Http2Framer
from gateway._native.http2_limits cimport Http2Limits, afford, give_back
from gateway._native.http2_stream cimport Http2Stream

from gateway._native.http2_framer import Http2Error

cdef enum:
    # What a HEADERS frame may have beside its part of the block: a dependency, and padding.
    BESIDE_BLOCK = 5 + 1 + 255
    # Streams that we ended early and whose peer may not know yet: frames for them are no error.
    REMEMBERED_RESETS = 256
    MOST_DEBUG_BYTES = 200


cdef class Http2Streams(Http2Framer):
    """The streams that the peer has opened, under our flow control.

    Attributes:
        limits: what the peer is held to.
        last_stream: the highest stream that the peer has opened; 0 for none.
        failed: whether the connection is broken: send what is in ``out``, then close it.
    """

    def __init__(self, Http2Limits limits not None):
        self.limits = limits
        self.reset_lately = {}
        self.served_until = INT32_MAX
        self.recv_window = FIRST_WINDOW
        self.owed = limits.connection_window - FIRST_WINDOW
        self.most_frame_bytes = limits.max_frame_bytes
        self.most_block_bytes = max(limits.max_header_bytes + BESIDE_BLOCK, FRAME_SIZE)

    # DATA

    cdef int data_begun(
        self, int flags, uint32_t number, Py_ssize_t size, Py_ssize_t padding
    ) except -1:
        cdef Http2Stream stream
        if number & 1 == 0 or number > self.last_stream:
            raise Http2Error(PROTOCOL_ERROR, f"DATA for stream {number}, which is not open")
        self.recv_window -= size
        if self.recv_window < 0:
            raise Http2Error(FLOW_CONTROL_ERROR, "more DATA than the connection's window allows")
        self.owed += size
        self.grant_connection()
        stream = self.streams.get(number)
        if not self.accepts_data(stream, number, size, self.data_left):
            stream = None
        self.data_stream = stream
        self.data_ends_stream = flags & END_STREAM
        if self.data_left == 0 and not flags & END_STREAM:
            self.nuisance("empty DATA")
        if stream is not None:
            stream.progress_ns = self.now_ns
            if size != self.data_left:
                self.grant(stream, size - self.data_left)
        return 0

    cdef bint accepts_data(
        self, Http2Stream stream, uint32_t number, Py_ssize_t size, Py_ssize_t data
    ) except -1:
        """Whether anybody wants a DATA frame of ``size`` bytes; resets the stream if it is wrong."""
        if stream is None:
            # What was on its way when we reset the stream is no error.
            if number not in self.reset_lately and number <= self.served_until:
                self.refuse(number, STREAM_CLOSED)
            return False
        if stream.remote_closed:
            self.reset(stream, STREAM_CLOSED)
            return False
        stream.recv_window -= size
        if stream.recv_window < 0:
            self.reset(stream, FLOW_CONTROL_ERROR)
            return False
        if stream.length_left >= 0:
            stream.length_left -= data
            if stream.length_left < 0:
                self.reset(stream, PROTOCOL_ERROR)
                return False
        return True

    cdef int payload_received(self, const uint8_t* data, Py_ssize_t size) except -1:
        if self.data_stream is not None and not self.data_stream.gone:
            self.data_received(self.data_stream, data, size)
        return 0

    cdef int data_ended(self) except -1:
        cdef Http2Stream stream = self.data_stream
        self.data_stream = None
        if stream is not None and self.data_ends_stream and not stream.gone:
            self.remote_end(stream)
        return 0

    cdef int remote_end(self, Http2Stream stream) except -1:
        """The peer has ended its side."""
        if stream.length_left > 0:
            return self.reset(stream, PROTOCOL_ERROR)
        stream.remote_closed = True
        return self.request_ended(stream)

    # What the peer may send

    cdef int grant(self, Http2Stream stream, int64_t size) except -1:
        """``size`` bytes of the stream were taken: the peer may send as many, in time."""
        stream.owed += size
        if 2 * stream.owed >= self.limits.stream_window and not stream.remote_closed:
            self.put_u32_frame(WINDOW_UPDATE, stream.id, <uint32_t>stream.owed)
            stream.recv_window += stream.owed
            stream.owed = 0
        return 0

    cdef int widen(self, Http2Stream stream, int64_t size) except -1:
        """``size`` more bytes are expected and wanted: let the peer send them without waiting."""
        size = min(size - stream.recv_window, INT32_MAX - stream.recv_window)
        if size > 0 and not stream.remote_closed:
            self.put_u32_frame(WINDOW_UPDATE, stream.id, <uint32_t>size)
            stream.recv_window += size
            stream.owed -= size
        return 0

    cdef int grant_connection(self) except -1:
        """Let the peer send on: what it has sent is taken at once, or refused by stream."""
        if 2 * self.owed >= self.limits.connection_window and self.owed > 0:
            self.put_u32_frame(WINDOW_UPDATE, 0, <uint32_t>self.owed)
            self.recv_window += self.owed
            self.owed = 0
        return 0

    # Rations

    cdef int nuisance(self, str what) except -1:
        """Charge for a frame that moves nothing."""
        if not afford(
            &self.nuisances_paid_ns,
            self.now_ns,
            self.limits.nuisances_per_s,
            self.limits.burst,
        ):
            raise Http2Error(ENHANCE_YOUR_CALM, f"too many frames that move nothing: {what}")
        return 0

    cdef int charge_reset(self) except -1:
        """Charge for a stream that was begun in vain."""
        if not afford(
            &self.resets_paid_ns, self.now_ns, self.limits.resets_per_s, self.limits.burst
        ):
            raise Http2Error(ENHANCE_YOUR_CALM, "too many streams are reset")
        return 0

    # Ends

    cdef int fail(self, int code, str message) except -1:
        """Say why the connection ends, and end it; requests in flight are lost."""
        if self.failed:
            return 0
        # What an earlier GOAWAY has said of the last stream, a later one may not take back.
        self.put_goaway(
            min(self.last_stream, self.served_until), code, message.encode()[:MOST_DEBUG_BYTES]
        )
        self.lose()
        return 0

    def lose(self):
        """The connection is gone: nobody waits for its streams any more."""
        self.failed = True
        for stream in list(self.streams.values()):
            self.drop(stream, True)

    cdef int refuse(self, uint32_t number, int code) except -1:
        """Reset a stream that is not, or no more, among ``streams``."""
        cdef Http2Stream stream = self.streams.get(number)
        if stream is not None:
            return self.reset(stream, code)
        self.put_u32_frame(RST_STREAM, number, code)
        self.remember(number)
        # To be refused is no fault: there was no work in it either.
        return 0 if code == REFUSED_STREAM else self.charge_reset()

    cdef int reset(self, Http2Stream stream, int code) except -1:
        """Reset a stream over an error of the peer's."""
        if stream.gone:
            return 0
        self.give_up(stream, code)
        return self.charge_reset()

    cdef int give_up(self, Http2Stream stream, int code) except -1:
        """Reset a stream that came to nothing by nobody's fault."""
        if stream.gone:
            return 0
        self.put_u32_frame(RST_STREAM, stream.id, code)
        self.remember(stream.id)
        return self.drop(stream, True)

    cdef int remember(self, uint32_t number) except -1:
        """The peer may go on sending on a stream that we ended, until it hears of it."""
        self.reset_lately[number] = None
        if len(self.reset_lately) > REMEMBERED_RESETS:
            del self.reset_lately[next(iter(self.reset_lately))]
        return 0

    cdef int drop(self, Http2Stream stream, bint lost) except -1:
        """Take a stream off the books; ``lost`` if its request or its answer came to nothing."""
        if stream.gone:
            return 0
        stream.gone = True
        self.streams.pop(stream.id, None)
        if stream.waiting is not None:
            self.forget_waiting(stream)
        if lost:
            self.stream_lost(stream)
        return 0

    cdef int stream_ended(self, Http2Stream stream) except -1:
        if not stream.remote_closed:
            # Answered early: what the peer has still to say is not wanted.
            self.put_u32_frame(RST_STREAM, stream.id, NO_ERROR)
            self.remember(stream.id)
        # So the ration limits the share of what is begun in vain, not its rate.
        give_back(&self.resets_paid_ns, self.limits.resets_per_s)
        return self.drop(stream, False)

    # The layer above

    cdef int data_received(
        self, Http2Stream stream, const uint8_t* data, Py_ssize_t size
    ) except -1:
        """A part of a request's data has come; ``grant`` tells the peer once it has been taken."""
        return 0

    cdef int request_ended(self, Http2Stream stream) except -1:
        """A request is complete."""
        return 0

    cdef int stream_lost(self, Http2Stream stream) except -1:
        """Nobody waits for the answer any more."""
        return 0
