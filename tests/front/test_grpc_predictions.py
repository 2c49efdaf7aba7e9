"""The RPC by which monitors attach: its messages, their size, and clients that take nothing."""

import asyncio
from typing import Any

import numpy as np
import pytest

from gateway.errors import InvalidRequest, MalformedRequest, RequestCancelled
from gateway.front import grpc_predictions
from gateway.front.grpc_predictions import PredictionCalls
from gateway.protos import stream_message
from tests.front.test_event_stream import GivenFeed, batch


class GivenStream:
    """Opens the feed that a test has prepared, and keeps how it was asked for."""

    def __init__(self, feed: GivenFeed) -> None:
        self.feed = feed
        self.asked: tuple[Any, ...] = ()

    def open(self, *asked: Any) -> GivenFeed:
        self.asked = asked
        return self.feed


class Client:
    """A call that asks once and keeps what it is sent; ``deaf`` takes nothing."""

    def __init__(self, data: bytes | None, deaf: bool = False) -> None:
        self._data = data
        self._deaf = deaf
        self.sent: list[bytes] = []

    async def read(self) -> bytes | None:
        return self._data

    async def write(self, message: bytes) -> None:
        if self._deaf:
            await asyncio.Event().wait()
        self.sent.append(message)


def subscribe(feed: GivenFeed, **request: Any) -> tuple[list[Any], GivenStream]:
    """The messages of a call, and what was opened for it."""
    client = Client(stream_message("SubscribeRequest")(**request).SerializeToString())
    stream = GivenStream(feed)
    asyncio.run(PredictionCalls(stream).subscribe(client))  # type: ignore[arg-type]
    assert feed.closed
    return [stream_message("SubscribeResponse").FromString(each) for each in client.sent], stream


ONE = np.zeros((1, 2), np.float32)


def test_what_is_asked_for_is_passed_on() -> None:
    _, stream = subscribe(GivenFeed([]))
    assert stream.asked == ("grpc", ["*"], 1.0, [])
    _, stream = subscribe(GivenFeed([]), models=["a*"], sample=0.5, fields=["age"])
    assert stream.asked == ("grpc", ["a*"], 0.5, ["age"])


def test_a_batch_is_a_message() -> None:
    (message,), _ = subscribe(GivenFeed([batch(ONE, ONE + 1)]))
    predictions = message.predictions
    assert predictions.time_unix_ns == 12_500_000_000
    assert [(r.id, r.rows, r.latency_ns) for r in predictions.requests] == [
        ("r0", 1, 1_500_000),
        ("r1", 1, 1_500_000),
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in predictions.inputs] == [
        ("x", "FP32", [2, 2])
    ]
    expected = np.array([[0, 0], [1, 1]], np.float32).tobytes()
    assert list(predictions.raw_contents) == [expected, expected]


def test_a_large_batch_is_several_messages_and_a_request_is_whole() -> None:
    arrays = [np.full((n % 3 + 1, 10_000), n, np.float32) for n in range(60)]
    messages, _ = subscribe(GivenFeed([batch(*arrays)]))
    assert len(messages) > 5
    rows = 0
    for message in messages:
        raw = message.predictions.raw_contents
        largest = 2 * max(array.nbytes for array in arrays)
        assert sum(map(len, raw)) <= grpc_predictions._MESSAGE_BYTES + largest
        array = np.frombuffer(raw[0], np.float32).reshape(message.predictions.inputs[0].shape)
        assert len(array) == sum(request.rows for request in message.predictions.requests)
        expected = np.concatenate(arrays)[rows : rows + len(array)]
        assert (array == expected).all()
        rows += len(array)
    assert rows == sum(map(len, arrays))


def test_after_its_limit_a_call_ends() -> None:
    messages, _ = subscribe(GivenFeed([batch(ONE, ONE), batch(ONE, ONE), batch(ONE)]), limit=3)
    assert [len(each.predictions.requests) for each in messages] == [2, 1]


def test_losses_are_told_with_predictions_and_without() -> None:
    losses = {"m": {"buffer_full": 5}}
    for feed in (GivenFeed([batch(ONE)], losses), GivenFeed([], losses, silent=1)):
        (message,), _ = subscribe(feed)
        (dropped,) = message.dropped
        assert (dropped.model, dropped.reason, dropped.rows) == ("m", "buffer_full", 5)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (None, InvalidRequest),
        (b"\xff", MalformedRequest),
        (stream_message("SubscribeRequest")(sample=-1).SerializeToString(), InvalidRequest),
        (stream_message("SubscribeRequest")(sample=2).SerializeToString(), InvalidRequest),
        (
            stream_message("SubscribeRequest")(models=["a"] * 1001).SerializeToString(),
            InvalidRequest,
        ),
    ],
)
def test_a_wrong_request_opens_nothing(data: bytes | None, error: type[Exception]) -> None:
    stream = GivenStream(GivenFeed([]))
    with pytest.raises(error):
        asyncio.run(PredictionCalls(stream).subscribe(Client(data)))  # type: ignore[arg-type]
    assert stream.asked == ()


def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_predictions, "STALL_S", 0.01)
    feed = GivenFeed([batch(ONE)])
    calls = PredictionCalls(GivenStream(feed))  # type: ignore[arg-type]
    with pytest.raises(RequestCancelled, match="has taken nothing"):
        asyncio.run(calls.subscribe(Client(b"", deaf=True)))  # type: ignore[arg-type]
    assert feed.closed
