"""The sending half of an HTTP/2 connection: frames out, under the peer's flow control.

What may be sent is written to ``out`` at once. DATA that the windows have no room for waits on its
stream, and the streams that wait take turns, a frame each, when room is made.
"""

from collections import OrderedDict, deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, int64_t, uint32_t
from libc.string cimport memcpy

from gateway._native.hpack cimport Encoder
from gateway._native.http2_frames cimport (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    FRAME_HEAD,
    FRAME_SIZE,
    GOAWAY,
    HEADERS,
    put_frame_head,
    put_u32,
)
from gateway._native.http2_stream cimport Http2Stream
from gateway._native.output cimport Output

cdef enum:
    # DATA is framed into ``out`` up to here, and goes on when that has been handed over: what a
    # slow peer is owed waits as it is, where it can be counted and forgotten.
    MOST_OUT = 1 << 18


cdef class Http2Sender:
    """What a connection sends. For one thread.

    Attributes:
        out: bytes that are ready to go onto the wire.
        encoder: makes header blocks; the peer's table follows it.
        streams: the open streams by number.
        now_ns: the time of the last event, monotonic nanoseconds, as whoever drives it passed it.
        waiting_bytes: DATA of all streams that waits for the peer's windows.
        write_paused: whether the transport takes no more for now; DATA waits meanwhile.
    """

    def __cinit__(self, *args, **kwargs):
        self.out = Output()
        self.encoder = Encoder()
        self.streams = {}
        self.queue = OrderedDict()
        self.send_window = FIRST_WINDOW
        self.peer_window = FIRST_WINDOW
        self.peer_frame_size = FRAME_SIZE

    # Frames

    cdef int put_control(
        self, int type, int flags, uint32_t stream, const void* payload, Py_ssize_t size
    ) except -1:
        cdef char* out = self.out.reserve(FRAME_HEAD + size)
        out = put_frame_head(out, size, type, flags, stream)
        if size:
            memcpy(out, payload, size)
        return self.output_waits()

    cdef int put_u32_frame(self, int type, uint32_t stream, uint32_t value) except -1:
        """RST_STREAM and WINDOW_UPDATE: a frame of one number."""
        put_u32(put_frame_head(self.out.reserve(FRAME_HEAD + 4), 4, type, 0, stream), value)
        return self.output_waits()

    cdef int put_goaway(self, uint32_t last_stream, int code, bytes debug) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(debug)
        cdef char* out = self.out.reserve(FRAME_HEAD + 8 + size)
        out = put_frame_head(out, 8 + size, GOAWAY, 0, 0)
        out = put_u32(put_u32(out, last_stream), code)
        memcpy(out, PyBytes_AS_STRING(debug), size)
        return self.output_waits()

    cdef int put_block(self, Http2Stream stream, bytes block, bint end) except -1:
        """A header block: HEADERS, and CONTINUATION for what the peer's frames are too small for.

        It goes out before any other block is encoded.
        """
        cdef Py_ssize_t size = PyBytes_GET_SIZE(block)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t part
        cdef int type = HEADERS
        cdef int flags = END_STREAM if end else 0
        cdef char* out
        self.moved = True
        while True:
            part = min(size - at, self.peer_frame_size)
            if at + part == size:
                flags |= END_HEADERS
            out = self.out.reserve(FRAME_HEAD + part)
            out = put_frame_head(out, part, type, flags, stream.id)
            memcpy(out, PyBytes_AS_STRING(block) + at, part)
            at += part
            if at == size:
                return self.output_waits()
            type = CONTINUATION
            flags = 0

    # Streams

    cdef bint fits(self, Http2Stream stream, Py_ssize_t size) noexcept:
        """Whether ``size`` bytes of DATA may go out now, in one frame."""
        return (
            size <= self.send_window
            and size <= stream.send_window
            and size <= self.peer_frame_size
            and not self.write_paused
            and stream.waiting is None
            and self.out.size < MOST_OUT
        )

    cdef int spend(self, Http2Stream stream, Py_ssize_t size) except -1:
        self.send_window -= size
        stream.send_window -= size
        stream.progress_ns = self.now_ns
        self.moved = True
        return 0

    cdef int send_headers(self, Http2Stream stream, fields) except -1:
        """Send the response's header fields, as ``Encoder`` takes them, once."""
        if stream.gone or stream.headers_sent:
            return 0
        stream.headers_sent = True
        return self.put_block(stream, self.encoder.encode(fields), False)

    cdef int send_data(self, Http2Stream stream, bytes data) except -1:
        """Send ``data``, now or as the windows open."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef char* out
        if stream.gone or size == 0:
            return 0
        if self.fits(stream, size):
            out = self.out.reserve(FRAME_HEAD + size)
            out = put_frame_head(out, size, DATA, 0, stream.id)
            memcpy(out, PyBytes_AS_STRING(data), size)
            self.spend(stream, size)
            return self.output_waits()
        if stream.waiting is None:
            stream.waiting = deque()
            stream.progress_ns = self.now_ns
        stream.waiting.append(data)
        stream.waiting_bytes += size
        self.waiting_bytes += size
        self.enlist(stream)
        return self.pump()

    cdef int send_trailers(self, Http2Stream stream, fields) except -1:
        """End the stream with header fields, behind the DATA that waits.

        They are encoded when they leave: the peer decodes blocks in the order in which they come.
        """
        if stream.gone:
            return 0
        if stream.waiting is not None:
            stream.trailers = fields
            return 0
        stream.headers_sent = True
        self.put_block(stream, self.encoder.encode(fields), True)
        return self.end_stream(stream)

    cdef int end_stream(self, Http2Stream stream) except -1:
        """Our side has been ended; the frame that says so is written."""
        stream.local_closed = True
        return self.stream_ended(stream)

    cdef int forget_waiting(self, Http2Stream stream) except -1:
        """Drop what waits on a stream that is gone."""
        self.waiting_bytes -= stream.waiting_bytes
        stream.waiting_bytes = 0
        stream.waiting = None
        stream.trailers = None
        self.queue.pop(stream, None)
        return 0

    cdef int enlist(self, Http2Stream stream) except -1:
        """Give a stream with waiting DATA its turn, once it has a window."""
        if stream.waiting is not None and stream.send_window > 0:
            self.queue[stream] = None
        return 0

    cdef int pump(self) except -1:
        """Send what waits, as far as there is room: a frame of each stream in turn."""
        cdef Http2Stream stream
        while (
            self.queue
            and self.send_window > 0
            and not self.write_paused
            and self.out.size < MOST_OUT
        ):
            stream = <Http2Stream>self.queue.popitem(False)[0]
            if stream.send_window > 0:
                self.send_waiting(stream)
                self.enlist(stream)
        return 0

    cdef int send_waiting(self, Http2Stream stream) except -1:
        """One frame of what waits on ``stream``, and its trailers behind the last."""
        cdef Py_ssize_t size = min(
            stream.waiting_bytes, self.peer_frame_size, self.send_window, stream.send_window
        )
        cdef char* out = self.out.reserve(FRAME_HEAD + size)
        self.take_waiting(stream, put_frame_head(out, size, DATA, 0, stream.id), size)
        self.spend(stream, size)
        self.output_waits()
        if stream.waiting_bytes:
            return 0
        stream.waiting = None
        if stream.trailers is None:
            return self.drained(stream)
        self.put_block(stream, self.encoder.encode(stream.trailers), True)
        return self.end_stream(stream)

    cdef int take_waiting(self, Http2Stream stream, char* out, Py_ssize_t size) except -1:
        """Copy the first ``size`` bytes of what waits on ``stream`` to ``out``."""
        cdef bytes data
        cdef Py_ssize_t part
        stream.waiting_bytes -= size
        self.waiting_bytes -= size
        while size:
            data = stream.waiting[0]
            part = min(size, PyBytes_GET_SIZE(data) - stream.offset)
            memcpy(out, PyBytes_AS_STRING(data) + stream.offset, part)
            out += part
            size -= part
            stream.offset += part
            if stream.offset == PyBytes_GET_SIZE(data):
                stream.waiting.popleft()
                stream.offset = 0
        return 0

    cdef bint adjust_windows(self, int64_t change) except -1:
        """The peer's SETTINGS_INITIAL_WINDOW_SIZE changed; open streams' windows follow it.

        False where that is more than a window may be.
        """
        cdef Http2Stream stream
        self.peer_window += change
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > INT32_MAX:
                return False
            self.enlist(stream)
        return True

    def resume_writing(self):
        """The transport takes more: go on with what waits."""
        self.write_paused = False
        self.pump()

    cdef int drained(self, Http2Stream stream) except -1:
        """Nothing waits on ``stream`` any more."""
        return 0

    cdef int stream_ended(self, Http2Stream stream) except -1:
        """We have ended our side of ``stream``."""
        return 0

    cdef int output_waits(self) except -1:
        """``out`` holds something; called often, so that whoever sends it hears of the first."""
        return 0
