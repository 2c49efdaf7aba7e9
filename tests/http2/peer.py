"""A client that makes calls, right and wrong ones, and says what is expected of the server."""

import struct

from tests.http2 import calls, frames
from tests.http2.answer import Answer
from tests.http2.calls import Fields
from tests.http2.connection import Connection
from tests.http2.frames import Code


class Peer(Connection):
    """One connection, and calls on it."""

    # ---- calls ----

    def start(self, fields: Fields | None = None, *, end: bool = False) -> int:
        """Send a request's HEADERS; returns the stream."""
        stream = self.stream()
        block = self.block(calls.fields() if fields is None else fields)
        self.send(frames.headers(stream, block, end=end))
        return stream

    def call(self, body: bytes | None = None, fields: Fields | None = None) -> int:
        """Send a whole request, by default for ModelInfer of ``negate``; returns the stream.

        ``body`` fits one frame.
        """
        stream = self.start(fields)
        body = calls.prefixed(calls.request()) if body is None else body
        self.send(frames.data(stream, body, end=True))
        return stream

    def upload(self, stream: int, body: bytes, *, end: bool = True, size: int = 16_384) -> None:
        """Send ``body`` in frames of ``size`` octets as the server's windows allow."""
        sent = 0
        while sent < len(body):
            self.until(
                lambda: self.answers[stream].over or min(self.given, self.given_to[stream]) > 0,
                f"WINDOW_UPDATE after {sent} of {len(body)} octets",
            )
            if self.answers[stream].over:
                return
            room = min(size, self.given, self.given_to[stream])
            part = body[sent : sent + room]
            sent += len(part)
            self.spend(stream, len(part))
            self.send(frames.data(stream, part, end=end and sent == len(body)))

    # ---- what comes of them ----

    def barrier(self) -> None:
        """Until everything that was sent so far has been read by the server."""
        self._barriers += 1
        opaque = b"wall" + struct.pack(">I", self._barriers)
        self.send(frames.ping(opaque))
        self.until(lambda: opaque in self.pongs, "the answer to PING")

    def answer(self, stream: int) -> Answer:
        """What came on ``stream``, once it has been ended or reset."""
        answer = self.answers[stream]
        self.until(lambda: answer.over, f"the end of stream {stream}")
        return answer

    # ---- the rules ----

    def expect_alive(self) -> None:
        """The connection goes on working: a call is answered. No model takes part in it."""
        assert not self.goaways, f"GOAWAY {self.goaways}"
        stream = self.call(calls.prefixed(b""), calls.fields(calls.LIVE))
        answer = self.answer(stream)
        assert answer.succeeded, answer
        assert calls.is_live(answer.messages[0])
        assert not self.goaways, f"GOAWAY {self.goaways}"

    def expect_stream_error(self, stream: int, *codes: Code) -> None:
        """RST_STREAM with one of ``codes``, and a connection that goes on (section 5.4.2)."""
        answer = self.answers[stream]
        self.until(
            lambda: answer.reset is not None or self.goaways, f"RST_STREAM on stream {stream}"
        )
        assert not self.goaways, f"GOAWAY {self.goaways} where a stream error was due"
        assert answer.reset in codes, answer
        self.expect_alive()

    def expect_connection_error(self, *codes: Code) -> None:
        """GOAWAY with one of ``codes``, then the end of the connection (section 5.4.1)."""
        self.until_closed()
        assert self.goaways, f"closed without GOAWAY; {self._heard()}"
        last, code = self.goaways[-1]
        assert code in codes, f"GOAWAY says {Code(code).name}"
        assert last in {0, frames.MAX_WINDOW} | self.answers.keys(), f"GOAWAY of stream {last}"

    def expect_ignored(self, stream: int | None = None) -> None:
        """No reaction, on ``stream`` neither, and a connection that goes on."""
        before = len(self.answers[stream].blocks) if stream is not None else 0
        self.barrier()
        if stream is not None:
            answer = self.answers[stream]
            assert answer.reset is None, answer
            assert len(answer.blocks) == before, answer
        self.expect_alive()

    def expect_refused_message(self, stream: int, *also: Code) -> None:
        """A malformed request (section 8.1.1): PROTOCOL_ERROR, or an answer that says no.

        ``also`` are codes that the stream may be reset with besides.
        """
        answer = self.answers[stream]
        self.until(lambda: answer.over or self.goaways, f"the refusal of stream {stream}")
        assert not self.goaways, f"GOAWAY {self.goaways} where a stream error was due"
        if answer.ended:
            assert not answer.succeeded, answer
            said_no = (answer.http_status or 0) >= 400 or (answer.grpc_status or 0) > 0
            assert said_no, answer
        else:
            assert answer.reset in (Code.PROTOCOL_ERROR, *also), answer
        self.expect_alive()
