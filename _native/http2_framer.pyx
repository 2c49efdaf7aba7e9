"""From bytes to HTTP/2's frames, however the bytes were cut.

A frame that is there as a whole is read where it lies; of one that is not, the part that came is
kept. DATA is handed on as it comes, so that a large tensor is copied once at most, to its place.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from gateway._native.http2_frames cimport (
    CONTINUATION,
    DATA,
    ENHANCE_YOUR_CALM,
    FRAME_HEAD,
    FRAME_SIZE,
    FRAME_SIZE_ERROR,
    HEADERS,
    PADDED,
    PROTOCOL_ERROR,
    read_u24,
    read_u32,
)
from gateway._native.http2_sender cimport Http2Sender

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

cdef enum:
    PREFACE_SIZE = 24

cdef const char* preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Http2Error(Exception):
    """The peer broke the protocol in a way that ends the connection.

    Attributes:
        code: the number of the error as RFC 9113 section 7 has it.
    """

    def __init__(self, int code, str message):
        super().__init__(message)
        self.code = code


class NotHttp2(Exception):
    """The connection does not begin as HTTP/2 with prior knowledge does; holds what came."""


cdef class Http2Framer(Http2Sender):
    """The frames of a connection, one after the other."""

    def __dealloc__(self):
        free(self.partial)

    cdef int split(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Take ``size`` bytes, up to a failure. Raises ``Http2Error``, ``NotHttp2``."""
        cdef Py_ssize_t used
        while size > 0 and not self.failed:
            if self.data_left or self.padding_left:
                used = self.take_payload(data, size)
            elif self.preface_seen < PREFACE_SIZE:
                used = self.take_preface(data, size)
            elif self.partial_size:
                used = self.fill_partial(data, size)
            else:
                used = self.take_bytes(data, size)
            data += used
            size -= used
        return 0

    cdef Py_ssize_t take_preface(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t part = min(size, PREFACE_SIZE - self.preface_seen)
        if memcmp(data, preface + self.preface_seen, part) != 0:
            raise NotHttp2(PREFACE[: self.preface_seen] + data[:size])
        self.preface_seen += part
        return part

    cdef Py_ssize_t take_bytes(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Take a frame that lies at ``data`` as a whole, or begin to keep it."""
        cdef Py_ssize_t length
        if size >= FRAME_HEAD:
            length = read_u24(data)
            if length > FRAME_SIZE:
                self.check_size(data[3], length)
            if data[3] == DATA:
                if size > FRAME_HEAD or length == 0 or not data[4] & PADDED:
                    return self.begin_payload(data)
            elif size >= FRAME_HEAD + length:
                self.frame_received(
                    data[3], data[4], read_u32(data + 5) & 0x7FFFFFFF, data + FRAME_HEAD, length
                )
                return FRAME_HEAD + length
            elif length > FRAME_SIZE and data[3] > CONTINUATION:
                # Nobody knows what it is: it is passed over rather than kept.
                self.frame_received(
                    data[3], data[4], read_u32(data + 5) & 0x7FFFFFFF, NULL, length
                )
                self.padding_left = length
                return FRAME_HEAD
        if self.partial == NULL:
            self.partial = <uint8_t*>malloc(FRAME_HEAD + self.most_block_bytes)
            if self.partial == NULL:
                raise MemoryError("no memory for a frame")
        if data != self.partial:
            memcpy(self.partial, data, size)
            self.partial_since_ns = self.now_ns
        self.partial_size = size
        return size

    cdef int check_size(self, int type, Py_ssize_t length) except -1:
        """Refuse a frame that is larger than its type may be."""
        cdef Py_ssize_t most = self.most_frame_bytes
        if type != DATA and type <= CONTINUATION:
            most = FRAME_SIZE
        if type == HEADERS or type == CONTINUATION:
            if self.most_block_bytes < length <= self.most_frame_bytes:
                raise Http2Error(
                    ENHANCE_YOUR_CALM, f"a header block of over {self.most_block_bytes} bytes"
                )
            most = self.most_block_bytes
        if length > most:
            raise Http2Error(
                FRAME_SIZE_ERROR, f"a frame of {length} bytes; the most of its type is {most}"
            )
        return 0

    cdef Py_ssize_t fill_partial(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Go on with a frame that began in an earlier piece."""
        cdef Py_ssize_t whole = FRAME_HEAD
        cdef Py_ssize_t part
        cdef Py_ssize_t kept = self.partial_size
        if kept >= FRAME_HEAD:
            whole += 1 if self.partial[3] == DATA else <Py_ssize_t>read_u24(self.partial)
        part = min(size, whole - kept)
        memcpy(self.partial + kept, data, part)
        self.partial_size += part
        if self.partial_size < whole:
            return part
        # Whole, or its length known only now: either way as if it had come in one piece.
        kept = self.partial_size
        self.partial_size = 0
        self.take_bytes(self.partial, kept)
        if self.partial_size == 0:
            free(self.partial)
            self.partial = NULL
        return part

    cdef int begin_payload(self, const uint8_t* frame) except -1:
        """Take the head of a DATA frame, its padding's length included; returns their size."""
        cdef Py_ssize_t size = read_u24(frame)
        cdef Py_ssize_t padding = 0
        cdef int head = FRAME_HEAD
        if size > FRAME_SIZE:
            self.large_frames = True
        if frame[4] & PADDED:
            if size == 0 or frame[FRAME_HEAD] >= size:
                raise Http2Error(PROTOCOL_ERROR, "a DATA frame with more padding than it is long")
            padding = frame[FRAME_HEAD]
            head += 1
        self.data_left = size - padding - (head - FRAME_HEAD)
        self.padding_left = padding
        self.data_begun(frame[4], read_u32(frame + 5) & 0x7FFFFFFF, size, padding)
        if self.data_left == 0 and padding == 0:
            self.data_ended()
        return head

    cdef Py_ssize_t take_payload(self, const uint8_t* data, Py_ssize_t size) except -1:
        """Hand on what there is of the DATA frame's payload; its padding is passed over."""
        cdef Py_ssize_t part
        if self.data_left:
            part = min(size, self.data_left)
            self.data_left -= part
            self.payload_received(data, part)
        else:
            part = min(size, self.padding_left)
            self.padding_left -= part
        if self.data_left == 0 and self.padding_left == 0:
            self.data_ended()
        return part

    cdef int frame_received(
        self, int type, int flags, uint32_t stream, const uint8_t* payload, Py_ssize_t size
    ) except -1:
        """A frame other than DATA has come; ``payload`` is gone after this.

        Of one whose type is not known only the head may have come; ``payload`` is ``NULL`` then.
        """
        return 0

    cdef int data_begun(
        self, int flags, uint32_t stream, Py_ssize_t size, Py_ssize_t padding
    ) except -1:
        """A DATA frame of ``size`` bytes begins; ``data_left`` of them are data."""
        return 0

    cdef int payload_received(self, const uint8_t* data, Py_ssize_t size) except -1:
        """A part of the DATA frame has come; it is gone after this."""
        return 0

    cdef int data_ended(self) except -1:
        """The DATA frame is complete."""
        return 0
