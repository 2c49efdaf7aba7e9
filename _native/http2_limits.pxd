"""What one peer may cost; see ``http2_limits.pyx``."""

from libc.stdint cimport int64_t


cdef class Http2Limits:
    cdef readonly int64_t max_concurrent_streams
    cdef readonly int64_t max_header_bytes
    cdef readonly int64_t max_frame_bytes
    cdef readonly int64_t stream_window
    cdef readonly int64_t connection_window
    cdef readonly int64_t max_waiting_bytes
    cdef readonly int64_t read_timeout_ns
    cdef readonly int64_t keepalive_time_ns
    cdef readonly int64_t keepalive_timeout_ns
    cdef readonly int64_t burst
    cdef readonly int64_t resets_per_s
    cdef readonly int64_t nuisances_per_s


cdef inline bint afford(
    int64_t* paid_until_ns, int64_t now_ns, int64_t per_s, int64_t burst
) noexcept:
    """Take one from a bucket that holds ``burst`` and is filled at ``per_s``; False if it is empty.

    The bucket is one number, the time at which it will be full again (the generic cell rate
    algorithm of ATM).
    """
    cdef int64_t interval_ns = 1000000000 // per_s
    if paid_until_ns[0] < now_ns:
        paid_until_ns[0] = now_ns
    if paid_until_ns[0] - now_ns > (burst - 1) * interval_ns:
        return False
    paid_until_ns[0] += interval_ns
    return True


cdef inline void give_back(int64_t* paid_until_ns, int64_t per_s) noexcept:
    """Put one back into the bucket."""
    paid_until_ns[0] -= 1000000000 // per_s
