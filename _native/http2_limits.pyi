class Http2Limits:
    max_concurrent_streams: int
    max_header_bytes: int
    max_frame_bytes: int
    stream_window: int
    connection_window: int
    max_waiting_bytes: int
    read_timeout_ns: int
    keepalive_time_ns: int
    keepalive_timeout_ns: int
    burst: int
    resets_per_s: int
    nuisances_per_s: int
    def __init__(
        self,
        *,
        max_concurrent_streams: int = ...,
        max_header_bytes: int = ...,
        max_frame_bytes: int = ...,
        stream_window: int = ...,
        connection_window: int = ...,
        max_waiting_bytes: int = ...,
        read_timeout_ns: int = ...,
        keepalive_time_ns: int = ...,
        keepalive_timeout_ns: int = ...,
        burst: int = ...,
        resets_per_s: int = ...,
        nuisances_per_s: int = ...,
    ) -> None: ...
