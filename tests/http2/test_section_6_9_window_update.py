"""RFC 9113, sections 5.2 and 6.9: WINDOW_UPDATE and flow control, in both directions."""

import random

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import DEFAULT_WINDOW, MAX_WINDOW, Code, Setting, Type
from tests.http2.peer import Peer

BODY = prefixed(calls.request())


# ---- 6.9, the frame ----


@pytest.mark.parametrize("reserved", [0, 1 << 31])
def test_an_increment_of_zero_on_a_stream_is_its_error(peer, reserved):
    """6.9: an increment of 0 MUST be treated as a stream error of type PROTOCOL_ERROR."""
    stream = peer.start()
    peer.send(frames.window_update(stream, reserved))
    peer.expect_stream_error(stream, Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("reserved", [0, 1 << 31])
def test_an_increment_of_zero_on_the_connection_is_a_connection_error(peer, reserved):
    """6.9: on the connection it MUST be a connection error."""
    peer.send(frames.window_update(0, reserved))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


@pytest.mark.parametrize("length", [0, 3, 5, 8])
@pytest.mark.parametrize("where", ["connection", "stream"])
def test_window_update_has_4_octets(peer, length, where):
    """6.9: any other length is a connection error of type FRAME_SIZE_ERROR."""
    stream = peer.start() if where == "stream" else 0
    peer.send(frames.frame(Type.WINDOW_UPDATE, 0, stream, b"\1" * length))
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR)


# ---- 6.9.1, the window, as the client opens it ----


@pytest.mark.parametrize("parts", [[MAX_WINDOW], [MAX_WINDOW - DEFAULT_WINDOW, 1]])
def test_a_streams_window_over_its_bound_is_its_error(peer, parts):
    """6.9.1: beyond 2^31-1 on a stream: RST_STREAM of type FLOW_CONTROL_ERROR."""
    stream = peer.start()
    peer.send(*(frames.window_update(stream, part) for part in parts))
    peer.expect_stream_error(stream, Code.FLOW_CONTROL_ERROR)


@pytest.mark.parametrize("parts", [[MAX_WINDOW], [MAX_WINDOW - DEFAULT_WINDOW, 1]])
def test_the_connections_window_over_its_bound_is_a_connection_error(peer, parts):
    """6.9.1: beyond 2^31-1 on the connection: GOAWAY of type FLOW_CONTROL_ERROR."""
    peer.send(*(frames.window_update(0, part) for part in parts))
    peer.expect_connection_error(Code.FLOW_CONTROL_ERROR)


def test_windows_may_be_as_large_as_their_bound(peer):
    """6.9.1: 2^31-1 itself is legal."""
    peer.credit = False
    stream = peer.start()
    for where in (0, stream):
        peer.grant(where, MAX_WINDOW - DEFAULT_WINDOW)
    peer.send(frames.data(stream, BODY, end=True))
    assert peer.answer(stream).values() == calls.RIGHT


def narrow(server, window: int) -> Peer:
    peer = Peer(server.front.port, {Setting.INITIAL_WINDOW_SIZE: window})
    peer.credit = False
    return peer


def expect_octets(peer, stream, count):
    """``count`` octets of the answer, no more."""
    peer.until(lambda: len(peer.answers[stream].data) >= count, f"{count} octets")
    peer.barrier()
    assert len(peer.answers[stream].data) == count


def test_a_window_of_one_octet_lets_one_octet_through(server):
    """6.9.1: a sender MUST NOT send beyond the window; it does send what fits."""
    with narrow(server, 1) as peer:
        stream = peer.call()
        expect_octets(peer, stream, 1)
        for count in range(2, 20):
            peer.grant(stream, 1)
            expect_octets(peer, stream, count)
        peer.grant(stream, 10_000)
        assert peer.answer(stream).values() == calls.RIGHT


def test_a_window_of_nothing_lets_fields_through(server):
    """6.9: only DATA is subject to flow control: HEADERS come, and so does an error."""
    with narrow(server, 0) as peer:
        wrong = peer.call(prefixed(calls.request(model="nobody")))
        assert peer.answer(wrong).grpc_status == calls.NOT_FOUND
        stream = peer.call()
        peer.barrier()
        assert peer.answers[stream].data == b""
        peer.grant(stream, 10_000)
        assert peer.answer(stream).values() == calls.RIGHT


def test_a_stalled_stream_stalls_no_other(server):
    """5.2.2: the windows of streams are their own."""
    with narrow(server, 0) as peer:
        stalled = [peer.call() for _ in range(5)]
        running = peer.call()
        peer.grant(running, 10_000)
        assert peer.answer(running).values() == calls.RIGHT
        for stream in stalled:
            assert peer.answers[stream].data == b""
            peer.grant(stream, 10_000)
        for stream in stalled:
            assert peer.answer(stream).values() == calls.RIGHT


def test_the_connections_window_stalls_all_streams(server):
    """6.9.1: both windows bound what is sent; the connection's is changed by no setting."""
    with narrow(server, MAX_WINDOW) as peer:
        streams = [peer.start() for _ in range(3)]
        for stream in streams:
            peer.upload(stream, prefixed(calls.request([1.0] * 10_000)))
        peer.until(
            lambda: sum(len(peer.answers[s].data) for s in streams) == DEFAULT_WINDOW,
            f"{DEFAULT_WINDOW} octets",
        )
        peer.barrier()
        assert sum(len(peer.answers[s].data) for s in streams) == DEFAULT_WINDOW
        peer.grant(0, 1 << 20)
        for stream in streams:
            assert peer.answer(stream).values() == [-1.0] * 10_000


# ---- 6.9.2, changes of the initial window size ----


def test_a_window_may_become_negative_and_rise_again(server):
    """6.9.2: a change adjusts the windows of all streams; a negative one waits to be positive."""
    with narrow(server, 30) as peer:
        stream = peer.call()
        expect_octets(peer, stream, 30)
        peer.change_settings({Setting.INITIAL_WINDOW_SIZE: 10})  # now it is -20
        peer.grant(stream, 20)
        expect_octets(peer, stream, 30)
        peer.grant(stream, 1)
        expect_octets(peer, stream, 31)
        peer.change_settings({Setting.INITIAL_WINDOW_SIZE: 0})  # -10
        peer.change_settings({Setting.INITIAL_WINDOW_SIZE: 12})  # 2
        expect_octets(peer, stream, 33)
        peer.change_settings({Setting.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW})
        assert peer.answer(stream).values() == calls.RIGHT


def test_a_change_moves_all_streams_and_those_to_come(server):
    """6.9.2: the windows of all streams that it is responsible for."""
    with narrow(server, 0) as peer:
        before = [peer.call() for _ in range(3)]
        peer.barrier()
        peer.change_settings({Setting.INITIAL_WINDOW_SIZE: 7})
        after = peer.call()
        for stream in (*before, after):
            expect_octets(peer, stream, 7)
        peer.change_settings({Setting.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW})
        for stream in (*before, after):
            assert peer.answer(stream).values() == calls.RIGHT


def test_a_change_that_takes_a_window_over_its_bound_is_a_connection_error(peer):
    """6.9.2: a connection error of type FLOW_CONTROL_ERROR."""
    stream = peer.start()
    peer.send(frames.window_update(stream, MAX_WINDOW - DEFAULT_WINDOW))
    peer.send_settings({Setting.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW + 1})
    peer.expect_connection_error(Code.FLOW_CONTROL_ERROR)


def test_a_change_leaves_the_connections_window(peer):
    """6.9.2: only WINDOW_UPDATE changes the connection's window."""
    peer.send(frames.window_update(0, MAX_WINDOW - DEFAULT_WINDOW))
    peer.change_settings({Setting.INITIAL_WINDOW_SIZE: MAX_WINDOW})
    peer.expect_alive()


# ---- large answers ----

ROWS = [float(i) for i in range(1000)]


@pytest.mark.parametrize("seed", range(3))
def test_a_large_answer_keeps_to_both_windows_however_they_open(server, seed):
    """The peer keeps the books; the answer has 4 MB, four thousand numbers to the frame."""
    chance = random.Random(seed)
    size = 1 << 20

    def large(arrays):
        return [("y", "FP32", arrays[0].repeat(size // len(ROWS) + 1))]

    server.on_loop(lambda: server.dispatcher.models.update(large=large))
    with narrow(server, chance.choice([0, 1, 1000, 100_000])) as peer:
        stream = peer.call(prefixed(calls.request(ROWS, model="large")))
        answer = peer.answers[stream]
        while not answer.over:
            for where in chance.sample([0, stream], 2):
                peer.grant(where, chance.choice([1, 100, 16_384, 100_000, 1_000_000]))
            peer.barrier()
        values = answer.values()
        assert values[:: size // len(ROWS) + 1] == ROWS
        assert len(values) == len(ROWS) * (size // len(ROWS) + 1)


# ---- the client's own sending ----


def test_a_large_request_is_given_windows_as_it_comes(peer):
    """6.9.1: the receiver opens the windows again as it consumes what came."""
    values = [float(i) for i in range(200_000)]
    stream = peer.start()
    peer.upload(stream, prefixed(calls.request(values)))
    assert peer.answer(stream).values() == [-value for value in values]


def test_a_client_that_sends_beyond_the_windows_is_stopped(held, peer):
    """6.9.1: DATA over a window is a FLOW_CONTROL_ERROR, of the stream or of the connection.

    Requests of a stream wait for their answers, so that the server has no reason to open its
    windows for ever.
    """
    stream = peer.start(calls.fields(calls.STREAM))
    answer, body = peer.answers[stream], prefixed(calls.request([1.0] * 4000))
    assert len(body) <= frames.DEFAULT_FRAME_SIZE
    for _ in range(2000):  # 32 MB
        peer.send(frames.data(stream, body))
        peer.listen()
        if answer.over or peer.closed:
            break
    peer.until(lambda: answer.over or peer.goaways, "an error")
    if peer.goaways:
        peer.expect_connection_error(Code.FLOW_CONTROL_ERROR)
    else:
        assert answer.reset == Code.FLOW_CONTROL_ERROR
