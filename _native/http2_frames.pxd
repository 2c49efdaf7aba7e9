"""HTTP/2's frames, RFC 9113 sections 4 to 7: their numbers, and their nine bytes of head."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    FRAME_HEAD = 9
    # What every peer takes.
    FRAME_SIZE = 16384
    LARGEST_FRAME_SIZE = 16777215
    FIRST_WINDOW = 65535

cdef enum FrameType:
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9

cdef enum Flag:
    ACK = 0x1
    END_STREAM = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    HAS_PRIORITY = 0x20

cdef enum Setting:
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6

cdef enum ErrorCode:
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


cdef inline uint32_t read_u32(const uint8_t* at) noexcept nogil:
    return (
        <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | <uint32_t>at[3]
    )


cdef inline uint32_t read_u24(const uint8_t* at) noexcept nogil:
    return <uint32_t>at[0] << 16 | <uint32_t>at[1] << 8 | <uint32_t>at[2]


cdef inline char* put_u32(char* out, uint32_t value) noexcept nogil:
    out[0] = <char>(value >> 24)
    out[1] = <char>(value >> 16)
    out[2] = <char>(value >> 8)
    out[3] = <char>value
    return out + 4


cdef inline char* put_frame_head(
    char* out, Py_ssize_t length, int type, int flags, uint32_t stream
) noexcept nogil:
    out[0] = <char>(length >> 16)
    out[1] = <char>(length >> 8)
    out[2] = <char>length
    out[3] = <char>type
    out[4] = <char>flags
    return put_u32(out + 5, stream)
