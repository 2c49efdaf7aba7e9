class Http2Stream:
    id: int
    remote_closed: bool
    local_closed: bool
    gone: bool
    waiting_bytes: int
