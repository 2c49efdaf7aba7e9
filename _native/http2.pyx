"""A server's end of an HTTP/2 connection, RFC 9113, without sockets, loops or clocks.

Bytes that were received go in with the time; what is to be sent waits in ``out``. The layer above
is a subclass in the core, or any object given as ``handler``. It is told of a request's head, its
data and its end, and answers with the methods of the sending half; ``stream_lost`` tells it that
nobody wants the answer any more.
"""

import re

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, int64_t, uint8_t, uint32_t

from gateway._native.hpack cimport Decoder
from gateway._native.http2_fields cimport RequestHead, check_trailers, read_request_head
from gateway._native.http2_frames cimport (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    LARGEST_FRAME_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    put_u32,
    read_u32,
)
from gateway._native.http2_limits cimport Http2Limits
from gateway._native.http2_stream cimport Http2Stream
from gateway._native.http2_streams cimport Http2Streams

from gateway._native.hpack import HpackError
from gateway._native.http2_framer import Http2Error, NotHttp2

cdef enum:
    # A stream that the peer resets earlier than this is one that it never wanted.
    RAPID_NS = 20_000_000

# A request line of any method, but not a preface that went wrong.
_HTTP1 = re.compile(rb"(?!PRI \*)[A-Z]+ [/*h]")
_HTTP1_TEXT = (
    b"This port speaks gRPC, that is HTTP/2 with prior knowledge; HTTP/1.1 has a port of its own.\n"
)
_HTTP1_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_HTTP1_TEXT), _HTTP1_TEXT)
)
_DRAIN_PING = b"draining"
_KEEPALIVE_PING = b"are you?"


cdef class Http2Connection(Http2Streams):
    """One connection. For one thread.

    Attributes:
        decoder: reads header blocks.
        draining: whether ``drain`` was called: the connection ends with its last stream.
        done: whether there is nothing left to do but to send what is in ``out`` and to close.

    Args:
        limits: see there.
        now_ns: monotonic nanoseconds, as for every method that takes them.
        handler: where no subclass takes them, an object whose methods ``request_begun(stream,
            head)``, ``data_received(stream, data)``, ``request_ended(stream)`` and
            ``stream_lost(stream)`` are called.
    """

    def __init__(self, Http2Limits limits not None, int64_t now_ns, handler=None):
        super().__init__(limits)
        self.handler = handler
        self.decoder = Decoder(max_list_size=limits.max_header_bytes)
        self.now_ns = self.begun_ns = self.heard_ns = now_ns
        self.announce()

    def announce(self):
        """Our preface: SETTINGS, and the connection's window beyond what HTTP/2 begins with."""
        cdef uint8_t[24] settings
        cdef char* out = <char*>settings
        limits = self.limits
        for name, value in (
            (MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams),
            (INITIAL_WINDOW_SIZE, limits.stream_window),
            (MAX_FRAME_SIZE, limits.max_frame_bytes),
            (MAX_HEADER_LIST_SIZE, limits.max_header_bytes),
        ):
            out[0] = 0
            out[1] = name
            out = put_u32(out + 2, value)
        self.put_control(SETTINGS, 0, 0, settings, 24)
        self.grant_connection()

    @property
    def done(self):
        return self.failed or (
            (self.served_until != <uint32_t>INT32_MAX or self.peer_leaves) and not self.streams
        )

    # Input

    def receive(self, const uint8_t[::1] data, int64_t now_ns):
        """Take bytes from the peer.

        Raises what the layer above raises, nothing of its own; the connection has ``failed`` then.
        """
        if data.shape[0]:
            self.feed(&data[0], data.shape[0], now_ns)

    cdef int feed(self, const uint8_t* data, Py_ssize_t size, int64_t now_ns) except -1:
        self.now_ns = self.heard_ns = now_ns
        if self.failed:
            return 0
        try:
            self.split(data, size)
        except Http2Error as error:
            self.fail(error.code, str(error))
        except NotHttp2 as error:
            self.refuse_http1(error.args[0])
        except BaseException:
            self.fail(INTERNAL_ERROR, "the server failed")
            raise
        return 0

    def refuse_http1(self, bytes begun):
        """Tell a client of HTTP/1.1 so in its own words; anything else learns it from a GOAWAY."""
        if _HTTP1.match(begun):
            self.out.take()
            self.out.append(PyBytes_AS_STRING(_HTTP1_ANSWER), PyBytes_GET_SIZE(_HTTP1_ANSWER))
            self.output_waits()
            self.failed = True
        else:
            self.fail(PROTOCOL_ERROR, "the connection does not begin with HTTP/2's preface")

    cdef int frame_received(
        self, int type, int flags, uint32_t stream, const uint8_t* payload, Py_ssize_t size
    ) except -1:
        if self.block_stream and (type != CONTINUATION or stream != self.block_stream):
            raise Http2Error(PROTOCOL_ERROR, "another frame within a header block")
        if not self.settings_seen and type != SETTINGS:
            raise Http2Error(PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if type == SETTINGS or type == PING or type == GOAWAY:
            if stream:
                raise Http2Error(PROTOCOL_ERROR, f"a frame of type {type} for stream {stream}")
        elif stream == 0 and type <= CONTINUATION and type != WINDOW_UPDATE:
            raise Http2Error(PROTOCOL_ERROR, f"a frame of type {type} for stream 0")
        if type == HEADERS:
            self.take_headers(flags, stream, payload, size)
        elif type == WINDOW_UPDATE:
            self.take_window(stream, payload, size)
        elif type == RST_STREAM:
            self.take_reset(stream, size)
        elif type == PING:
            self.take_ping(flags, payload, size)
        elif type == SETTINGS:
            self.take_settings(flags, payload, size)
        elif type == CONTINUATION:
            self.take_continuation(flags, stream, payload, size)
        elif type == GOAWAY:
            if size < 8:
                raise Http2Error(FRAME_SIZE_ERROR, f"a GOAWAY of {size} bytes")
            self.peer_leaves = True
        elif type == PUSH_PROMISE:
            raise Http2Error(PROTOCOL_ERROR, "PUSH_PROMISE from a client")
        elif type == PRIORITY and size != 5:
            if stream > self.last_stream:
                raise Http2Error(FRAME_SIZE_ERROR, f"a PRIORITY of {size} bytes")
            self.refuse(stream, FRAME_SIZE_ERROR)
        else:
            self.nuisance(f"frames of type {type}")
        return 0

    cdef int data_begun(
        self, int flags, uint32_t number, Py_ssize_t size, Py_ssize_t padding
    ) except -1:
        if self.block_stream or not self.settings_seen:
            raise Http2Error(PROTOCOL_ERROR, "DATA before SETTINGS or within a header block")
        return Http2Streams.data_begun(self, flags, number, size, padding)

    # Header blocks

    cdef int take_headers(
        self, int flags, uint32_t number, const uint8_t* payload, Py_ssize_t size
    ) except -1:
        cdef Py_ssize_t padding = 0
        cdef bint end = flags & END_STREAM
        if number & 1 == 0:
            raise Http2Error(PROTOCOL_ERROR, f"a client's stream has an odd number, not {number}")
        if flags & PADDED:
            if size == 0:
                raise Http2Error(FRAME_SIZE_ERROR, "a padded HEADERS frame without a length")
            padding = payload[0]
            payload += 1
            size -= 1
        if flags & HAS_PRIORITY:
            if size < 5:
                raise Http2Error(FRAME_SIZE_ERROR, "a HEADERS frame too short for its priority")
            payload += 5
            size -= 5
        if padding > size:
            raise Http2Error(PROTOCOL_ERROR, "a HEADERS frame with more padding than it is long")
        size -= padding
        if flags & END_HEADERS:
            return self.take_block(number, end, payload, size)
        self.block_stream = number
        self.block_ends_stream = end
        self.block = bytearray(payload[:size])
        self.block_since_ns = self.now_ns
        return 0

    cdef int take_continuation(
        self, int flags, uint32_t number, const uint8_t* payload, Py_ssize_t size
    ) except -1:
        cdef bytearray block = self.block
        if self.block_stream == 0:
            raise Http2Error(PROTOCOL_ERROR, "CONTINUATION without a header block")
        if size == 0 and not flags & END_HEADERS:
            self.nuisance("empty CONTINUATION")
        if len(block) + size > self.limits.max_header_bytes:
            raise Http2Error(
                ENHANCE_YOUR_CALM,
                f"a header block of over {self.limits.max_header_bytes} bytes",
            )
        block.extend(payload[:size])
        if flags & END_HEADERS:
            self.block_stream = 0
            self.block = None
            self.take_block(number, self.block_ends_stream, block, len(block))
        return 0

    cdef int take_block(
        self, uint32_t number, bint end, const uint8_t* block, Py_ssize_t size
    ) except -1:
        cdef list fields
        cdef Http2Stream stream
        cdef bint new
        try:
            # Every block is decoded, wanted or not: the table lives on what is in it.
            fields = self.decoder.decode_block(block, size)
        except HpackError as error:
            raise Http2Error(COMPRESSION_ERROR, str(error)) from None
        new = number > self.last_stream
        if new:
            self.last_stream = number
        if number > self.served_until:
            return 0
        if new:
            return self.take_request(number, end, fields)
        stream = self.streams.get(number)
        if stream is not None:
            return self.take_trailers(stream, end, fields)
        if number not in self.reset_lately:
            raise Http2Error(STREAM_CLOSED, f"HEADERS for stream {number}, which is closed")
        return self.nuisance("HEADERS for streams that were reset")

    cdef int take_request(self, uint32_t number, bint end, list fields) except -1:
        cdef Http2Stream stream
        cdef RequestHead head
        if (
            <int64_t>len(self.streams) >= self.limits.max_concurrent_streams
            or self.waiting_bytes > self.limits.max_waiting_bytes
        ):
            return self.refuse(number, REFUSED_STREAM)
        stream = self.make_stream()
        stream.id = number
        stream.remote_closed = end
        stream.recv_window = self.limits.stream_window
        stream.send_window = self.peer_window
        stream.begun_ns = stream.progress_ns = self.now_ns
        head = RequestHead.__new__(RequestHead)
        if self.decoder.too_large:
            self.streams[number] = stream
            return self.head_too_large(stream)
        wrong = read_request_head(head, fields)
        if wrong is None and end and head.content_length > 0:
            wrong = "a content-length without content"
        if wrong is not None:
            return self.refuse(number, PROTOCOL_ERROR)
        stream.length_left = head.content_length
        self.streams[number] = stream
        self.request_begun(stream, head)
        if end and not stream.gone:
            self.request_ended(stream)
        return 0

    cdef int take_trailers(self, Http2Stream stream, bint end, list fields) except -1:
        if stream.remote_closed:
            return self.reset(stream, STREAM_CLOSED)
        if not end or self.decoder.too_large or check_trailers(fields) is not None:
            return self.reset(stream, PROTOCOL_ERROR)
        return self.remote_end(stream)

    # Control frames

    cdef int check_begun(self, uint32_t number, str frame) except -1:
        """Whether ``number`` is, or was, a stream of the peer's."""
        if number > self.last_stream or number & 1 == 0:
            raise Http2Error(PROTOCOL_ERROR, f"{frame} for stream {number}, which is idle")
        return 0

    cdef int take_reset(self, uint32_t number, Py_ssize_t size) except -1:
        cdef Http2Stream stream
        if size != 4:
            raise Http2Error(FRAME_SIZE_ERROR, f"an RST_STREAM of {size} bytes")
        self.check_begun(number, "RST_STREAM")
        stream = self.streams.get(number)
        if stream is None:
            return 0
        self.drop(stream, True)
        # Giving up after a while is any client's right, and cannot be done faster than streams
        # may be open at a time.
        if self.now_ns - stream.begun_ns < RAPID_NS:
            self.charge_reset()
        return 0

    cdef int take_settings(self, int flags, const uint8_t* payload, Py_ssize_t size) except -1:
        cdef Py_ssize_t at
        cdef int64_t window = self.peer_window
        cdef int64_t value
        cdef int name
        if size % 6 or (flags & ACK and size):
            raise Http2Error(FRAME_SIZE_ERROR, f"a SETTINGS of {size} bytes")
        if flags & ACK:
            if not self.settings_seen:
                raise Http2Error(PROTOCOL_ERROR, "the first SETTINGS acknowledges")
            return self.nuisance("SETTINGS")
        if self.settings_seen:
            self.nuisance("SETTINGS")
        self.settings_seen = True
        for at in range(0, size, 6):
            name = payload[at] << 8 | payload[at + 1]
            value = read_u32(payload + at + 2)
            if name == INITIAL_WINDOW_SIZE:
                if value > INT32_MAX:
                    raise Http2Error(FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
                window = value
            else:
                self.take_setting(name, value)
        # Once, by the last value: it touches every stream.
        if window != self.peer_window and not self.adjust_windows(window - self.peer_window):
            raise Http2Error(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a window")
        self.put_control(SETTINGS, ACK, 0, NULL, 0)
        return self.pump()

    cdef int take_setting(self, int name, int64_t value) except -1:
        if name == HEADER_TABLE_SIZE:
            self.encoder.resize(value)
        elif name == ENABLE_PUSH:
            if value > 1:
                raise Http2Error(PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
        elif name == MAX_FRAME_SIZE:
            if not 16384 <= value <= LARGEST_FRAME_SIZE:
                raise Http2Error(PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
            self.peer_frame_size = value
        return 0

    cdef int take_ping(self, int flags, const uint8_t* payload, Py_ssize_t size) except -1:
        if size != 8:
            raise Http2Error(FRAME_SIZE_ERROR, f"a PING of {size} bytes")
        # A peer measures its way to us with PINGs while answers come, and may.
        if self.moved:
            self.moved = False
        else:
            self.nuisance("PING")
        if not flags & ACK:
            return self.put_control(PING, ACK, 0, payload, 8)
        self.pinged_ns = 0
        if payload[:8] == _DRAIN_PING and self.draining:
            # Whatever the peer sent before it heard of the drain has come by now.
            self.leave()
        return 0

    cdef int take_window(self, uint32_t number, const uint8_t* payload, Py_ssize_t size) except -1:
        cdef Http2Stream stream
        cdef int64_t increment
        if size != 4:
            raise Http2Error(FRAME_SIZE_ERROR, f"a WINDOW_UPDATE of {size} bytes")
        increment = read_u32(payload) & 0x7FFFFFFF
        if number == 0:
            if increment == 0:
                raise Http2Error(PROTOCOL_ERROR, "a WINDOW_UPDATE by nothing")
            self.send_window += increment
            if self.send_window > INT32_MAX:
                raise Http2Error(FLOW_CONTROL_ERROR, "WINDOW_UPDATE overflows the window")
            return self.pump()
        self.check_begun(number, "WINDOW_UPDATE")
        stream = self.streams.get(number)
        if stream is None:
            return 0
        if increment == 0:
            return self.reset(stream, PROTOCOL_ERROR)
        stream.send_window += increment
        if stream.send_window > INT32_MAX:
            return self.reset(stream, FLOW_CONTROL_ERROR)
        if stream.waiting is None:
            return 0
        self.enlist(stream)
        return self.pump()

    # The end

    def drain(self, now_ns):
        """Take what is on its way, then no more streams; ends with the last of them.

        The first GOAWAY only asks for an end, because streams may be on their way; the second, when
        the peer has answered a PING, says which one is the last.
        """
        if self.draining or self.failed:
            return
        if self.preface_seen == 0:
            # A peer that has said nothing would not understand it.
            self.lose()
            return
        self.now_ns = now_ns
        self.draining = True
        self.put_goaway(INT32_MAX, NO_ERROR, b"")
        self.put_control(PING, 0, 0, PyBytes_AS_STRING(_DRAIN_PING), 8)

    def leave(self):
        """Serve no stream beyond those that are there."""
        if self.served_until == <uint32_t>INT32_MAX and not self.failed:
            self.draining = True
            self.served_until = self.last_stream
            self.put_goaway(self.last_stream, NO_ERROR, b"")

    # Time

    def pause_writing(self):
        """The transport is full: DATA waits from now on."""
        self.write_paused = True
        self.paused_ns = self.now_ns

    def tick(self, int64_t now_ns):
        """See what has taken too long; to be called about every second."""
        cdef int64_t late_ns = now_ns - self.limits.read_timeout_ns
        if self.failed:
            return
        self.now_ns = now_ns
        try:
            if not self.settings_seen and self.begun_ns < late_ns:
                raise Http2Error(ENHANCE_YOUR_CALM, "no SETTINGS for too long")
            if self.partial_size and self.partial_since_ns < late_ns:
                raise Http2Error(ENHANCE_YOUR_CALM, "a frame takes too long")
            if self.block_stream and self.block_since_ns < late_ns:
                raise Http2Error(ENHANCE_YOUR_CALM, "a header block takes too long")
            if self.write_paused and self.paused_ns < late_ns:
                raise Http2Error(ENHANCE_YOUR_CALM, "nothing was read for too long")
            self.check_streams()
            self.check_peer()
        except Http2Error as error:
            self.fail(error.code, str(error))

    cdef int check_streams(self) except -1:
        cdef Http2Stream stream
        cdef int64_t late_ns = self.now_ns - self.limits.read_timeout_ns
        for stream in list(self.streams.values()):
            if stream.progress_ns >= late_ns:
                continue
            if stream.waiting is not None or not (stream.remote_closed or self.may_pause(stream)):
                self.give_up(stream, CANCEL)
        return 0

    def check_peer(self):
        """Send a PING into a long silence, and give up a peer that does not answer it."""
        if self.pinged_ns:
            if self.now_ns - self.pinged_ns > self.limits.keepalive_timeout_ns:
                raise Http2Error(NO_ERROR, "a PING was not answered")
        elif self.now_ns - self.heard_ns > self.limits.keepalive_time_ns:
            self.pinged_ns = self.now_ns
            self.put_control(PING, 0, 0, PyBytes_AS_STRING(_KEEPALIVE_PING), 8)

    # The layer above

    cdef Http2Stream make_stream(self):
        return Http2Stream.__new__(Http2Stream)

    cdef int request_begun(self, Http2Stream stream, RequestHead head) except -1:
        """A request's head has come."""
        self.handler.request_begun(stream, head)
        return 0

    cdef int head_too_large(self, Http2Stream stream) except -1:
        """A request's head was larger than ``max_header_bytes``; answer it, or reset it."""
        return self.reset(stream, ENHANCE_YOUR_CALM)

    cdef int data_received(
        self, Http2Stream stream, const uint8_t* data, Py_ssize_t size
    ) except -1:
        """A part of a request's data has come; ``grant`` tells the peer once it has been taken."""
        self.handler.data_received(stream, data[:size])
        return self.grant(stream, size)

    cdef int request_ended(self, Http2Stream stream) except -1:
        """A request is complete."""
        self.handler.request_ended(stream)
        return 0

    cdef int stream_lost(self, Http2Stream stream) except -1:
        """Nobody waits for the answer any more."""
        if self.handler is not None:
            self.handler.stream_lost(stream)
        return 0

    cdef bint may_pause(self, Http2Stream stream) noexcept:
        """Whether the request of ``stream`` may take as long as it likes."""
        return False

    # For who drives it from Python

    def respond(self, Http2Stream stream not None, fields):
        """Send the head of a response: an iterable of header fields as ``Encoder`` takes them."""
        self.send_headers(stream, fields)

    def send(self, Http2Stream stream not None, bytes data not None):
        """Send DATA, now or as the peer's windows open."""
        self.send_data(stream, data)

    def finish(self, Http2Stream stream not None, fields):
        """End the response with trailers."""
        self.send_trailers(stream, fields)

    def reset_stream(self, Http2Stream stream not None, int code):
        """Give a stream up."""
        self.give_up(stream, code)
