from gateway._native.http2_framer import Http2Framer
from gateway._native.http2_limits import Http2Limits

class Http2Streams(Http2Framer):
    limits: Http2Limits
    last_stream: int
    def __init__(self, limits: Http2Limits) -> None: ...
    def lose(self) -> None: ...
