from gateway._native.hpack import Field

class RequestHead:
    method: bytes
    path: bytes
    content_type: bytes | None
    timeout: bytes | None
    encoding: bytes | None
    accept_encoding: bytes | None
    content_length: int
    fields: list[Field]
    def metadata(self) -> list[tuple[bytes, bytes]]: ...
    def get(self, name: bytes, /) -> bytes | None: ...
