"""A server that goes: GOAWAY (RFC 9113, 6.8), what is in flight is answered, then the close."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.frames import Code
from tests.http2.peer import Peer

BODY = prefixed(calls.request())


@pytest.fixture
def leaving(serve):
    """A server of the test's own, which holds its requests."""
    server = serve()
    server.on_loop(lambda: setattr(server.dispatcher, "held", True))
    return server


@pytest.fixture
def background():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def in_flight(server, peer, count: int = 1) -> list[int]:
    streams = [peer.call() for _ in range(count)]
    server.wait_until(lambda: len(server.dispatcher.waiting) == count)
    return streams


def test_an_idle_connection_is_told_and_closed(leaving, background):
    """6.8: NO_ERROR, for a connection that is shut down gracefully."""
    with Peer(leaving.front.port) as peer:
        peer.barrier()
        closing = background.submit(leaving.close, 20)
        peer.until_closed()
        assert {code for _, code in peer.goaways} == {Code.NO_ERROR}
        closing.result(5)


@pytest.mark.parametrize("count", [1, 5])
def test_calls_in_flight_are_answered_before_the_close(leaving, background, count):
    """6.8: GOAWAY says no more streams than those; they go on to their end."""
    with Peer(leaving.front.port) as peer:
        streams = in_flight(leaving, peer, count)
        closing = background.submit(leaving.close, 20)
        peer.until(lambda: peer.goaways, "GOAWAY")
        peer.barrier()
        assert not any(peer.answers[stream].over for stream in streams)
        leaving.on_loop(leaving.dispatcher.answer)
        for stream in streams:
            assert peer.answer(stream).values() == calls.RIGHT
        peer.until_closed()
        last, code = peer.goaways[-1]
        assert code == Code.NO_ERROR
        assert last >= streams[-1]
        closing.result(5)


def test_a_request_that_is_half_sent_may_be_finished(leaving, background):
    """6.8: streams up to the last one that GOAWAY names are still served."""
    with Peer(leaving.front.port) as peer:
        stream = peer.start()
        peer.send(frames.data(stream, BODY[:9]))
        peer.barrier()
        closing = background.submit(leaving.close, 20)
        peer.until(lambda: peer.goaways, "GOAWAY")
        leaving.on_loop(lambda: setattr(leaving.dispatcher, "held", False))
        peer.send(frames.data(stream, BODY[9:], end=True))
        answer = peer.answer(stream)
        # No model had it yet: the server may say that it takes no more.
        assert answer.grpc_status == calls.UNAVAILABLE or answer.values() == calls.RIGHT
        peer.until_closed()
        closing.result(5)


def test_a_stream_that_comes_too_late_is_not_answered(leaving, background):
    """6.8: streams above the last one named are not processed: clients may send them elsewhere."""
    with Peer(leaving.front.port) as peer:
        (stream,) = in_flight(leaving, peer)
        closing = background.submit(leaving.close, 20)
        peer.until(lambda: peer.goaways, "GOAWAY")
        late = peer.call()
        peer.barrier()
        leaving.on_loop(leaving.dispatcher.answer)
        assert peer.answer(stream).values() == calls.RIGHT
        peer.until_closed()
        answer, last = peer.answers[late], peer.goaways[-1][0]
        if late <= last:
            assert answer.reset == Code.REFUSED_STREAM or answer.grpc_status == calls.UNAVAILABLE
        else:
            assert not answer.blocks
        closing.result(5)


def test_no_new_connection_is_taken(leaving, background):
    """The port is closed first: whoever connects by then is not served."""
    with Peer(leaving.front.port) as peer:
        in_flight(leaving, peer)
        closing = background.submit(leaving.close, 20)
        peer.until(lambda: peer.goaways, "GOAWAY")
        with suppress(ConnectionError), Peer(leaving.front.port, preface=False) as late:
            late.send(frames.PREFACE, frames.settings())
            late.until_closed()
        leaving.on_loop(leaving.dispatcher.answer)
        peer.until_closed()
        closing.result(5)


def test_what_outlasts_the_grace_is_cut_off(leaving, background):
    """A call that no model answers holds the close up no longer than its grace."""
    with Peer(leaving.front.port) as peer:
        (stream,) = in_flight(leaving, peer)
        closing = background.submit(leaving.close, 0.1)
        peer.until_closed()
        closing.result(5)
        answer = peer.answers[stream]
        assert not answer.succeeded
        leaving.wait_until(lambda: not leaving.dispatcher.waiting)


def test_new_inference_is_refused_from_the_announcement_on(leaving):
    """``stop_accepting`` comes first: what is in flight goes on, what is new is UNAVAILABLE."""
    with Peer(leaving.front.port) as peer:
        (stream,) = in_flight(leaving, peer)
        leaving.on_loop(leaving.front.stop_accepting)
        late = peer.call()
        peer.until(
            lambda: peer.answers[late].over or (peer.goaways and peer.goaways[-1][0] < late),
            "a refusal",
        )
        if peer.answers[late].ended:
            assert peer.answers[late].grpc_status == calls.UNAVAILABLE
        elif peer.answers[late].reset is not None:
            assert peer.answers[late].reset == Code.REFUSED_STREAM
        leaving.on_loop(leaving.dispatcher.answer)
        assert peer.answer(stream).values() == calls.RIGHT


def test_an_open_stream_ends_once_what_it_has_asked_is_answered(leaving):
    """ModelStreamInfer would go on for ever: UNAVAILABLE tells its client to go elsewhere."""
    with Peer(leaving.front.port) as peer:
        stream = peer.start(calls.fields(calls.STREAM))
        peer.send(frames.data(stream, BODY))
        leaving.wait_until(lambda: leaving.dispatcher.waiting)
        leaving.on_loop(leaving.front.stop_accepting)
        peer.barrier()
        assert not peer.answers[stream].over
        leaving.on_loop(leaving.dispatcher.answer)
        answer = peer.answer(stream)
        assert len(answer.messages) == 1
        assert answer.grpc_status == calls.UNAVAILABLE


def test_a_server_without_connections_closes_at_once(leaving):
    """Its grace is for calls, and there are none; the port is free then."""
    leaving.close(20)
    with pytest.raises(ConnectionError):
        Peer(leaving.front.port)
