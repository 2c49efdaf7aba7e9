from gateway._native.hpack import Encoder
from gateway._native.http2_stream import Http2Stream
from gateway._native.output import Output

class Http2Sender:
    out: Output
    encoder: Encoder
    streams: dict[int, Http2Stream]
    now_ns: int
    waiting_bytes: int
    write_paused: bool
    def resume_writing(self) -> None: ...
