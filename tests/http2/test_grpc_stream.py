"""gRPC over HTTP/2 on ModelStreamInfer: many messages on one stream, in both directions."""

import pytest

from tests.http2 import calls, frames
from tests.http2.calls import prefixed

FIELDS = calls.fields(calls.STREAM)


def numbered(numbers) -> list[bytes]:
    """A request for each number, named for it."""
    return [prefixed(calls.request([float(i)], id=str(i))) for i in numbers]


def answers_in(answer) -> dict[str, list[float]]:
    """What came for each id."""
    found = {}
    for message in answer.messages:
        error, inner = calls.streamed(message)
        assert not error
        found[calls.id_of(inner)] = calls.values_of(inner)
    return found


def right(numbers) -> dict[str, list[float]]:
    return {str(i): [-float(i)] for i in numbers}


def test_several_messages_come_in_one_frame(peer):
    stream = peer.start(FIELDS)
    peer.send(frames.data(stream, b"".join(numbered(range(20))), end=True))
    answer = peer.answer(stream)
    assert answer.succeeded
    assert answers_in(answer) == right(range(20))


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_messages_are_cut_anywhere(peer, size):
    stream, body = peer.start(FIELDS), b"".join(numbered(range(10)))
    for start in range(0, len(body), size):
        peer.send(frames.data(stream, body[start : start + size], end=start + size >= len(body)))
    answer = peer.answer(stream)
    assert answer.succeeded
    assert answers_in(answer) == right(range(10))


def test_answers_come_while_requests_go_on(peer):
    """Neither side waits for the other's end."""
    stream = peer.start(FIELDS)
    answer = peer.answers[stream]
    for i, body in enumerate(numbered(range(5))):
        peer.send(frames.data(stream, body))
        peer.until(lambda i=i: len(answer.messages) == i + 1, "the answer to each in turn")
    assert not answer.ended
    peer.send(frames.data(stream, end=True))
    assert peer.answer(stream).succeeded


def test_answers_come_in_the_order_of_the_models(held, peer):
    stream = peer.start(FIELDS)
    peer.send(frames.data(stream, b"".join(numbered(range(3))), end=True))
    held.wait_until(lambda: len(held.dispatcher.waiting) == 3)
    held.on_loop(lambda: held.dispatcher.answer("2", "0", "1"))
    answer = peer.answer(stream)
    assert answer.succeeded
    assert list(answers_in(answer)) == ["2", "0", "1"]


def test_a_stream_of_nothing_succeeds(peer):
    """Request: any number of messages, none as well."""
    answer = peer.answer(peer.start(FIELDS, end=True))
    assert answer.succeeded
    assert answer.messages == []


@pytest.mark.parametrize("cut", [1, 4, 5, 9])
def test_a_stream_that_ends_in_a_message_is_an_error(peer, cut):
    """What was whole may be answered or not; the status says that something is missing."""
    whole, half = numbered(range(2))
    answer = peer.answer(peer.call(whole + half[:cut], FIELDS))
    assert answer.ended
    assert answer.grpc_status not in (None, calls.OK)
    peer.expect_alive()


def test_an_error_of_one_request_leaves_the_others(peer):
    wrong = prefixed(calls.request(model="nobody", id="wrong"))
    first, last = numbered(range(2))
    answer = peer.answer(peer.call(first + wrong + last, FIELDS))
    assert answer.succeeded
    said = {}
    for message in answer.messages:
        error, inner = calls.streamed(message)
        said[calls.id_of(inner)] = error
    assert said == {"0": "", "wrong": 'unknown model "nobody"', "1": ""}


def test_an_error_ends_the_stream_where_its_client_asks_for_that(peer):
    fields = calls.fields(calls.STREAM, ("triton_grpc_error", "true"))
    stream = peer.start(fields)
    peer.send(frames.data(stream, prefixed(calls.request(model="nobody"))))
    answer = peer.answer(stream)
    assert answer.grpc_status == calls.NOT_FOUND
    assert answer.grpc_message == 'unknown model "nobody"'
    peer.expect_alive()


def test_a_message_over_the_limit_ends_the_stream(peer):
    stream = peer.start(FIELDS)
    peer.send(frames.data(stream, numbered([1])[0] + b"\0\x7f\xff\xff\xff" + bytes(100)))
    answer = peer.answer(stream)
    assert answer.grpc_status == calls.RESOURCE_EXHAUSTED
    assert "--max-request-bytes" in answer.grpc_message
    peer.expect_alive()


def test_many_streams_share_a_connection(peer):
    streams = [peer.start(FIELDS) for _ in range(10)]
    for i in range(20):
        for stream in streams:
            body = prefixed(calls.request([float(stream * i)], id=str(i)))
            peer.send(frames.data(stream, body, end=i == 19))
    for stream in streams:
        answer = peer.answer(stream)
        assert answer.succeeded
        assert answers_in(answer) == {str(i): [-float(stream * i)] for i in range(20)}


def test_a_stream_carries_more_than_any_window(peer):
    """Windows are given back in both directions for as long as a stream lasts."""
    stream = peer.start(FIELDS)
    for i in range(40):
        body = prefixed(calls.request([float(i)] * 20_000, id=str(i)))
        peer.upload(stream, body, end=i == 39)
    answer = peer.answer(stream)
    assert answer.succeeded
    assert answers_in(answer) == {str(i): [-float(i)] * 20_000 for i in range(40)}
