"""What a server has said on one stream."""

from tests.http2 import calls
from tests.http2.calls import Fields
from tests.http2.frames import Code


class Answer:
    """One stream's answer as far as it has come; it keeps section 8.1's order of frames."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.blocks: list[Fields] = []
        self.data = b""
        self.data_frames: list[int] = []
        self.ended = False
        self.reset: int | None = None

    def add_block(self, fields: Fields, end: bool) -> None:
        assert self.reset is None, f"HEADERS after RST_STREAM on stream {self.stream}"
        assert not self.ended, f"HEADERS after END_STREAM on stream {self.stream}"
        assert not self.blocks or end, f"HEADERS in mid-answer on stream {self.stream}: {fields}"
        self.blocks.append(fields)
        self.ended = end

    def add_data(self, payload: bytes, end: bool) -> None:
        assert self.reset is None, f"DATA after RST_STREAM on stream {self.stream}"
        assert not self.ended, f"DATA after END_STREAM on stream {self.stream}"
        assert self.blocks, f"DATA before HEADERS on stream {self.stream}"
        self.data += payload
        self.data_frames.append(len(payload))
        self.ended = end

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    def field(self, name: str) -> str | None:
        """A field's value, in the header section or the trailers."""
        for block in self.blocks:
            for key, value in block:
                if key == name.encode():
                    return value.decode("latin-1")
        return None

    @property
    def http_status(self) -> int | None:
        status = self.field(":status")
        return None if status is None else int(status)

    @property
    def grpc_status(self) -> int | None:
        status = self.field("grpc-status")
        return None if status is None else int(status)

    @property
    def grpc_message(self) -> str:
        return calls.text_of((self.field("grpc-message") or "").encode())

    @property
    def messages(self) -> list[bytes]:
        return [message for _, message in calls.messages_in(self.data)]

    @property
    def succeeded(self) -> bool:
        return self.ended and self.grpc_status == calls.OK and self.http_status == 200

    def values(self) -> list[float]:
        """The numbers of a ModelInfer call that succeeded."""
        assert self.succeeded, self
        (message,) = self.messages
        return calls.values_of(message)

    def __repr__(self) -> str:
        reset = None if self.reset is None else Code(self.reset).name
        return (
            f"<stream {self.stream}: {self.blocks}, {len(self.data)} octets of data, "
            f"ended={self.ended}, reset={reset}>"
        )
