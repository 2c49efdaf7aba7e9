"""Messages of many frames: taken in pieces, and nothing else of their connection waits for them."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Setting

VALUES = [float(i % 1000) for i in range(200_000)]
BODY = prefixed(calls.request(VALUES))


def upload_some(peer, octets: int) -> int:
    """Send the beginning of a call as fast as it goes; returns its stream."""
    stream = peer.start()
    peer.upload(stream, BODY[:octets], end=False)
    return stream


@pytest.mark.parametrize("sent", [70_000, 150_000, 400_000, 790_000, len(BODY) - 1])
def test_a_client_that_pauses_within_a_message_is_heard(peer, sent):
    """Its PING, and another call, are answered though the rest of the message does not come."""
    stream = upload_some(peer, sent)
    peer.barrier()
    assert peer.answer(peer.call()).values() == calls.RIGHT
    peer.upload(stream, BODY[sent:])
    assert peer.answer(stream).values() == [-value for value in VALUES]


def test_a_large_message_that_is_given_up_holds_up_nothing(peer):
    stream = upload_some(peer, 500_000)
    peer.send(frames.rst_stream(stream))
    peer.expect_alive()
    again = upload_some(peer, len(BODY))
    peer.send(frames.data(again, end=True))
    assert peer.answer(again).values() == [-value for value in VALUES]


def test_large_frames_are_welcome(peer):
    """A message in few of them is received where it stays."""
    assert peer.settings[Setting.MAX_FRAME_SIZE] > frames.DEFAULT_FRAME_SIZE


@pytest.mark.parametrize("size", [16_385, 50_000, 100_000, 262_144])
def test_a_message_of_large_frames(peer, size):
    """Sent twice: the second time with a head that the server knows."""
    for _ in range(2):
        stream = peer.start()
        peer.upload(stream, BODY, size=size)
        assert peer.answer(stream).values() == [-value for value in VALUES]


def test_a_client_that_pauses_within_a_large_frame_loses_only_time(peer):
    first, second = peer.start(), peer.start()
    frame = frames.data(first, BODY[:200_000])
    peer.spend(first, 200_000)
    peer.send(frame[:100_000])
    peer.send(frame[100_000:])
    peer.barrier()
    peer.upload(second, BODY)
    peer.upload(first, BODY[200_000:])
    for stream in (first, second):
        assert peer.answer(stream).values() == [-value for value in VALUES]


@pytest.mark.parametrize("size", [16_384, 100_000])
def test_large_messages_side_by_side(peer, size):
    streams = [peer.start() for _ in range(3)]
    for begin in range(0, len(BODY), size):
        for stream in streams:
            part = BODY[begin : begin + size]
            peer.upload(stream, part, end=begin + size >= len(BODY), size=size)
    for stream in streams:
        assert peer.answer(stream).values() == [-value for value in VALUES]
