from gateway._native.http2_sender import Http2Sender

PREFACE: bytes

class Http2Error(Exception):
    code: int
    def __init__(self, code: int, message: str) -> None: ...

class NotHttp2(Exception): ...

class Http2Framer(Http2Sender):
    failed: bool
