"""RFC 9113, section 6.5: SETTINGS. Those that concern flow control are section 6.9's too."""

import itertools
import struct

import pytest

from tests.http2 import calls, frames
from tests.http2.frames import Code, Setting, Type
from tests.http2.peer import Peer


def test_settings_belong_to_the_connection(peer):
    """6.5: on any other stream than 0x00 a connection error of type PROTOCOL_ERROR."""
    stream = peer.start()
    peer.send(frames.frame(Type.SETTINGS, 0, stream))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("length", [1, 5, 7])
def test_settings_have_6_octets_each(peer, length):
    """6.5: a length that is no multiple of 6 is a connection error of type FRAME_SIZE_ERROR."""
    peer.send(frames.frame(Type.SETTINGS, 0, 0, bytes(length)))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize("length", [1, 6])
def test_an_acknowledgement_is_empty(peer, length):
    """6.5: ACK with any payload is a connection error of type FRAME_SIZE_ERROR."""
    peer.send(frames.frame(Type.SETTINGS, frames.ACK, 0, bytes(length)))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


@pytest.mark.parametrize("values", [{}, {Setting.ENABLE_PUSH: 0}, dict.fromkeys(Setting, 1 << 20)])
def test_settings_are_acknowledged(peer, values):
    """6.5.3: as soon as all values have been processed, ACK MUST be sent."""
    values = {key: 0 if key == Setting.ENABLE_PUSH else value for key, value in values.items()}
    peer.change_settings(values)
    peer.expect_alive()


def test_each_settings_frame_is_acknowledged_for_itself(peer):
    """6.5.3: a sender counts acknowledgements; so do we: an unasked one fails the peer."""
    for size in range(5):
        peer.send_settings({Setting.HEADER_TABLE_SIZE: size})
    peer.until(lambda: not peer.unacked, "five acknowledgements")
    peer.expect_alive()


@pytest.mark.parametrize(
    ("identifier", "value"),
    # 8 and 9 are RFC 8441's and RFC 9218's, and have rules there.
    [(0x8, 0), (0x9, 1), *itertools.product([0x0, 0x7, 0xFAFA, 0xFFFF], [0, 1, 2**32 - 1])],
)
def test_unknown_settings_are_ignored(peer, identifier, value):
    """6.5.2: an unsupported identifier MUST be ignored."""
    peer.change_settings({identifier: value})
    peer.expect_alive()


@pytest.mark.parametrize(
    ("identifier", "value"),
    [
        (Setting.HEADER_TABLE_SIZE, 0),
        (Setting.HEADER_TABLE_SIZE, 2**32 - 1),
        (Setting.ENABLE_PUSH, 0),
        (Setting.ENABLE_PUSH, 1),
        (Setting.MAX_CONCURRENT_STREAMS, 0),
        (Setting.MAX_CONCURRENT_STREAMS, 2**32 - 1),
        (Setting.INITIAL_WINDOW_SIZE, 2**31 - 1),
        (Setting.MAX_FRAME_SIZE, 2**14),
        (Setting.MAX_FRAME_SIZE, 2**24 - 1),
        (Setting.MAX_HEADER_LIST_SIZE, 2**32 - 1),
    ],
)
def test_the_outermost_values_are_legal(peer, identifier, value):
    """6.5.2. A client that lets itself be pushed to is not pushed to: the peer sees to it."""
    peer.change_settings({identifier: value})
    assert peer.answer(peer.call()).values() == calls.RIGHT


@pytest.mark.parametrize(
    ("identifier", "value", "code"),
    [
        (Setting.ENABLE_PUSH, 2, Code.PROTOCOL_ERROR),
        (Setting.ENABLE_PUSH, 2**32 - 1, Code.PROTOCOL_ERROR),
        (Setting.INITIAL_WINDOW_SIZE, 2**31, Code.FLOW_CONTROL_ERROR),
        (Setting.INITIAL_WINDOW_SIZE, 2**32 - 1, Code.FLOW_CONTROL_ERROR),
        (Setting.MAX_FRAME_SIZE, 0, Code.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 2**14 - 1, Code.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 2**24, Code.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 2**32 - 1, Code.PROTOCOL_ERROR),
    ],
)
@pytest.mark.parametrize("place", ["first", "in the middle"])
def test_values_out_of_bounds_are_connection_errors(server, identifier, value, code, place):
    """6.5.2, in the preface's SETTINGS and in later ones."""
    with Peer(server.front.port, preface=place != "first") as peer:
        if place == "first":
            peer.send(frames.PREFACE)
        between = struct.pack(">HIHI", Setting.HEADER_TABLE_SIZE, 100, identifier, value)
        peer.send(frames.frame(Type.SETTINGS, 0, 0, between + between[:6]))
        peer.expect_connection_error(code)


def test_the_last_of_repeated_values_holds(peer):
    """6.5.3: values are processed in the order in which they appear."""
    peer.unacked.append({Setting.INITIAL_WINDOW_SIZE: 3})
    values = [(Setting.INITIAL_WINDOW_SIZE, size) for size in (100, 0, 3)]
    payload = b"".join(struct.pack(">HI", *value) for value in values)
    peer.send(frames.frame(Type.SETTINGS, 0, 0, payload))
    peer.until(lambda: not peer.unacked, "the acknowledgement")
    peer.credit = False
    stream = peer.call()
    peer.until(lambda: len(peer.answers[stream].data) == 3, "3 octets")
    peer.barrier()
    assert len(peer.answers[stream].data) == 3


def test_an_acknowledgement_of_nothing_is_ignored_or_an_error(peer):
    """6.5 has no rule for it; 5.4.1 lets an endpoint end a connection at any time."""
    peer.send(frames.settings(ack=True), frames.ping(b"followed"))
    peer.until(lambda: b"followed" in peer.pongs or peer.goaways, "an error or none")
    if peer.goaways:
        peer.expect_connection_error(Code.PROTOCOL_ERROR)
    else:
        peer.expect_alive()


def test_the_servers_own_settings_are_legal(peer):
    """6.5.2, of the server: no push, and values within their bounds."""
    assert peer.settings.get(Setting.ENABLE_PUSH, 0) == 0
    assert 2**14 <= peer.settings.get(Setting.MAX_FRAME_SIZE, 2**14) < 2**24
    assert peer.settings.get(Setting.INITIAL_WINDOW_SIZE, 0) < 2**31
    assert peer.settings.get(Setting.MAX_CONCURRENT_STREAMS, 100) > 0


# ---- 6.5.2, SETTINGS_MAX_FRAME_SIZE and SETTINGS_HEADER_TABLE_SIZE at work ----


@pytest.mark.parametrize("size", [2**14, 2**14 + 1, 40_000, 2**24 - 1])
def test_answers_keep_to_the_clients_frame_size(peer, size):
    """6.5.2: the peer holds the server to it."""
    peer.change_settings({Setting.MAX_FRAME_SIZE: size, Setting.INITIAL_WINDOW_SIZE: 2**31 - 1})
    peer.grant(0, 2**30)
    stream = peer.start()
    peer.upload(stream, calls.prefixed(calls.request([1.0] * 50_000)))
    assert peer.answer(stream).values() == [-1.0] * 50_000
    assert max(peer.answers[stream].data_frames) <= size


@pytest.mark.parametrize("sizes", [[0], [100], [0, 4096], [64, 0, 200], [65_536]])
def test_answers_keep_to_the_clients_table_size(peer, sizes):
    """RFC 7541, 4.2 and 6.3: the encoder says at the next block's start that it follows suit.

    The peer's decoder raises an error where it does not, or refers to what was evicted.
    """
    for _ in range(3):
        assert peer.answer(peer.call()).values() == calls.RIGHT
    for size in sizes:
        peer.send_settings({Setting.HEADER_TABLE_SIZE: size})
    peer.until(lambda: not peer.unacked, "the acknowledgements")
    for _ in range(3):
        assert peer.answer(peer.call()).values() == calls.RIGHT
        wrong = peer.answer(peer.call(calls.prefixed(calls.request(model="nobody"))))
        assert wrong.grpc_status == calls.NOT_FOUND
