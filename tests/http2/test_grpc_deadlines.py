"""gRPC over HTTP/2: the Timeout of a call, and its cancellation."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code

BODY = prefixed(calls.request())

CENTURY_S = 100 * 365 * 86_400


def timed(timeout: str, path: str = calls.UNARY) -> calls.Fields:
    return calls.fields(path, ("grpc-timeout", timeout))


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        ("1H", 3600),
        ("99999999H", CENTURY_S),
        ("2M", 120),
        ("00000030S", 30),
        ("30000m", 30),
        ("30000000u", 30),
        ("99999999n", 0.1),
    ],
)
def test_each_unit_of_a_timeout_is_understood(server, peer, timeout, seconds):
    """Timeout: at most 8 digits and a unit, which reach the dispatcher as a deadline.

    The longest is 11,000 years, which in nanoseconds is more than 64 bits hold.
    """
    server.on_loop(server.dispatcher.requests.clear)
    answer = peer.answer(peer.call(BODY, timed(timeout)))
    assert answer.grpc_status in (calls.OK, calls.DEADLINE_EXCEEDED)
    if seconds >= 30:
        assert answer.values() == calls.RIGHT
    for request in server.on_loop(lambda: list(server.dispatcher.requests)):
        told_s = (request.deadline_ns - request.received_ns) / 1e9
        assert seconds - 25 < told_s
        assert told_s < seconds + 1 or seconds == CENTURY_S


@pytest.mark.parametrize(
    "timeout",
    ["", "5", "S", "123456789S", "-1S", "+1S", "1.5S", "5s", "5 S", "S5", "0x1S", "1SS", "1h", "é"],
)
def test_a_timeout_that_is_none_is_an_error(peer, timeout):
    """TimeoutValue: 1 to 8 digits; TimeoutUnit: H, M, S, m, u or n."""
    answer = peer.answer(peer.call(BODY, timed(timeout)))
    assert not answer.succeeded, answer
    peer.expect_alive()


@pytest.mark.parametrize("path", [calls.UNARY, calls.STREAM])
def test_a_deadline_that_passes_ends_the_call_and_leaves_its_place(held, peer, path):
    """DEADLINE_EXCEEDED comes from the server too, and nothing is run for it any more."""
    stream = peer.call(prefixed(calls.request(id="late")), timed("50m", path))
    answer = peer.answer(stream)
    assert answer.ended
    assert answer.grpc_status == calls.DEADLINE_EXCEEDED
    held.wait_until(lambda: "late" in held.dispatcher.cancelled)
    held.on_loop(held.dispatcher.cancelled.clear)
    peer.expect_alive()


@pytest.mark.parametrize("sent", [0, 1, 20])
def test_a_deadline_that_passes_before_the_request_is_whole_ends_the_call(peer, sent):
    stream = peer.start(timed("50m"))
    peer.send(frames.data(stream, BODY[:sent]))
    answer = peer.answer(stream)
    assert answer.grpc_status == calls.DEADLINE_EXCEEDED
    peer.expect_alive()


@pytest.mark.parametrize("timeout", ["0S", "0n", "00000000H"])
def test_a_deadline_that_has_passed_already_ends_the_call(peer, timeout):
    """A timeout of 0 is well-formed."""
    answer = peer.answer(peer.call(BODY, timed(timeout)))
    assert answer.grpc_status == calls.DEADLINE_EXCEEDED
    peer.expect_alive()


def test_a_call_that_its_client_resets_leaves_its_place(held, peer):
    """RST_STREAM is how a call is cancelled."""
    stream = peer.call(prefixed(calls.request(id="left")))
    held.wait_until(lambda: held.dispatcher.waiting)
    peer.send(frames.rst_stream(stream, Code.CANCEL))
    held.wait_until(lambda: "left" in held.dispatcher.cancelled)
    held.on_loop(held.dispatcher.cancelled.clear)
    peer.expect_ignored(stream)


def test_a_stream_that_its_client_resets_leaves_all_its_places(held, peer):
    stream = peer.start(calls.fields(calls.STREAM))
    ids = [f"left {i}" for i in range(5)]
    peer.send(frames.data(stream, b"".join(prefixed(calls.request(id=id)) for id in ids)))
    held.wait_until(lambda: len(held.dispatcher.waiting) == 5)
    peer.send(frames.rst_stream(stream, Code.CANCEL))
    held.wait_until(lambda: sorted(held.dispatcher.cancelled) == ids)
    held.on_loop(held.dispatcher.cancelled.clear)
    peer.expect_ignored(stream)


def test_a_call_that_is_reset_leaves_the_others(held, peer):
    ids = [f"call {i}" for i in range(6)]
    streams = [peer.call(prefixed(calls.request([float(i)], id=ids[i]))) for i in range(6)]
    held.wait_until(lambda: len(held.dispatcher.waiting) == 6)
    for stream in streams[::2]:
        peer.send(frames.rst_stream(stream))
    held.wait_until(lambda: len(held.dispatcher.waiting) == 3)
    held.on_loop(lambda: held.dispatcher.answer(*reversed(ids[1::2])))
    for i in (1, 3, 5):
        assert peer.answer(streams[i]).values() == [-float(i)]
    held.on_loop(held.dispatcher.cancelled.clear)


def test_a_reset_that_crosses_the_answer_is_no_error(peer):
    """The answer has been sent, or is half sent: the reset comes when all is over."""
    for _ in range(50):
        stream = peer.call()
        peer.send(frames.rst_stream(stream))
    peer.expect_alive()
