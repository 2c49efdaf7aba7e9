"""RFC 9113, section 6.3: PRIORITY, which is deprecated and still has to be well-formed."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code, Type


def test_priority_belongs_to_a_stream(peer):
    """6.3: on stream 0x00 a connection error of type PROTOCOL_ERROR."""
    peer.send(frames.priority(0))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("length", [0, 4, 6])
def test_priority_has_5_octets(peer, length):
    """6.3: any other length is a stream error of type FRAME_SIZE_ERROR."""
    stream = peer.start()
    peer.send(frames.frame(Type.PRIORITY, 0, stream, bytes(length)))
    peer.expect_stream_error(stream, Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize("length", [0, 4, 6])
def test_priority_of_a_wrong_length_on_an_idle_stream(peer, length):
    """6.3, where no stream is there to be reset: RST_STREAM MUST NOT be sent for one (6.4)."""
    peer.send(frames.frame(Type.PRIORITY, 0, 9, bytes(length)), frames.ping(b"followed"))
    peer.until(lambda: b"followed" in peer.pongs or peer.goaways, "an error or none")
    if peer.goaways:
        peer.expect_connection_error(Code.FRAME_SIZE_ERROR)
    else:
        peer.expect_alive()


@pytest.mark.parametrize(
    ("stream", "on"), [(1, 1), (1, 0), (3, 3), (3, 1001), (2**31 - 1, 0), (2, 4)]
)
def test_priorities_change_nothing(peer, stream, on):
    """5.3.2: priorities may be ignored, on any stream and of whatever sense."""
    call = peer.start()
    peer.send(frames.priority(stream, on), frames.priority(stream, on))
    peer.send(frames.data(call, prefixed(calls.request()), end=True))
    answer = peer.answer(call)
    if answer.reset is not None:
        # RFC 7540, 5.3.1: a stream cannot depend on itself.
        assert stream == on == call
        peer.expect_stream_error(call, Code.PROTOCOL_ERROR)
    else:
        assert answer.values() == calls.RIGHT
        peer.expect_alive()
