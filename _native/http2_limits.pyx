"""What one peer may cost: sizes, numbers, rates and times that a connection holds it to."""

from gateway._native.http2_frames cimport FRAME_SIZE, LARGEST_FRAME_SIZE


cdef class Http2Limits:
    """The limits of each connection of a server; immutable, shared by its connections.

    Args:
        max_concurrent_streams: streams that a peer may have open; more are refused.
        max_header_bytes: largest list of header fields, as SETTINGS_MAX_HEADER_LIST_SIZE counts
            it; the block that it is decoded from may not be larger either.
        max_frame_bytes: largest frame that a peer may send, 16,384 to 16,777,215. A large message
            in few of them is received where it stays; other streams wait for the end of each.
        stream_window: bytes that a peer may send on a stream before they are taken.
        connection_window: the same for all its streams together.
        max_waiting_bytes: DATA that may wait for the peer's windows; while more does, new streams
            are refused.
        read_timeout_ns: how long a preface, a frame, a header block may take, and how long a
            request or the taking of a response may pause.
        keepalive_time_ns, keepalive_timeout_ns: after how long a silence the peer is sent a PING,
            and how long after that the connection is closed.
        burst: resets, and nuisances, that come with no delay between them.
        resets_per_s: streams that are begun in vain, in the long run, beyond as many as are
            answered: those that the peer resets at once, and those that its errors have us reset.
        nuisances_per_s: frames that cost work and move nothing (SETTINGS, PRIORITY, unknown ones,
            empty DATA, a PING when nothing was sent since the last, and the like) in the long run.

    Raises:
        ValueError: a rate is not positive, a frame's size not one of HTTP/2.
    """

    def __init__(
        self,
        *,
        max_concurrent_streams=1024,
        max_header_bytes=65536,
        max_frame_bytes=1 << 18,
        stream_window=1 << 20,
        connection_window=1 << 24,
        max_waiting_bytes=1 << 28,
        read_timeout_ns=60_000_000_000,
        keepalive_time_ns=7_200_000_000_000,
        keepalive_timeout_ns=20_000_000_000,
        burst=1000,
        resets_per_s=100,
        nuisances_per_s=100,
    ):
        if min(resets_per_s, nuisances_per_s, burst) < 1:
            raise ValueError("rates and bursts are at least 1")
        if not FRAME_SIZE <= max_frame_bytes <= LARGEST_FRAME_SIZE:
            raise ValueError(
                f"max_frame_bytes is {FRAME_SIZE} to {LARGEST_FRAME_SIZE}, not {max_frame_bytes}"
            )
        self.max_concurrent_streams = max_concurrent_streams
        self.max_header_bytes = max_header_bytes
        self.max_frame_bytes = max_frame_bytes
        self.stream_window = stream_window
        self.connection_window = connection_window
        self.max_waiting_bytes = max_waiting_bytes
        self.read_timeout_ns = read_timeout_ns
        self.keepalive_time_ns = keepalive_time_ns
        self.keepalive_timeout_ns = keepalive_timeout_ns
        self.burst = burst
        self.resets_per_s = resets_per_s
        self.nuisances_per_s = nuisances_per_s
