"""Predictions as server-sent events: their form, their pieces, and how they end."""

import asyncio
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from gateway.front import event_stream
from gateway.front.event_stream import EventStream
from gateway.front.live_feed import Pace
from gateway.stream.live import LiveBatch, LiveRequest, LiveTensor
from gateway.types import BF16, BOOL, BYTES, DATATYPES, FP32, Array, DataType


@dataclass
class GivenFeed:
    """Gives what a test has prepared, and then ends."""

    batches: list[LiveBatch]
    losses: dict[str, dict[str, int]] = field(default_factory=dict)
    ended: bool = False
    closed: bool = False
    silent: int = 0

    async def next(self, timeout_s: float) -> LiveBatch | None:
        if self.silent:
            self.silent -= 1
            return None
        if self.batches:
            return self.batches.pop(0)
        self.ended = True
        return None

    def delivered(self) -> None:
        pass

    def dropped(self) -> dict[str, dict[str, int]]:
        losses, self.losses = self.losses, {}
        return losses

    def close(self) -> None:
        self.closed = True


def batch(*arrays: Array, datatype: DataType = FP32, features: tuple[str, ...] = ()) -> LiveBatch:
    """A batch of a request for each of ``arrays``, which come out as they go in."""
    first, requests = 0, []
    for number, array in enumerate(arrays):
        requests.append(LiveRequest(f"r{number}", 0, first, len(array), 1_500_000))
        first += len(array)
    whole = np.concatenate(arrays)
    x, y = (LiveTensor(name, datatype, features, whole) for name in "xy")
    return LiveBatch("m", "1", 12.5, requests, [x], [y])


async def receive_nothing() -> Any:
    await asyncio.Event().wait()


def pieces(feed: GivenFeed, **options: Any) -> list[bytes]:
    """The bodies that are sent of a feed, from its beginning to its end."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        stream = EventStream(feed, Pace(), **options)  # type: ignore[arg-type]
        await stream({"type": "http", "state": {}}, receive_nothing, send)

    asyncio.run(run())
    assert feed.closed
    assert sent[0]["status"] == 200
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
    assert (sent[-1]["body"], sent[-1]["more_body"]) == (b"", False)
    return [message["body"] for message in sent[1:-1]]


def events(feed: GivenFeed, **options: Any) -> list[tuple[str, Any]]:
    """Name and data of each event, ``("", comment)`` for a comment."""
    found: list[tuple[str, Any]] = []
    for block in b"".join(pieces(feed, **options)).decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            found.append(("", block))
        else:
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_each_request_is_an_event_with_its_own_rows() -> None:
    given = np.arange(6, dtype=np.float32).reshape(3, 2)
    made = events(GivenFeed([batch(given[:1], given[1:], features=("a", "b"))]))
    described = {"datatype": "FP32", "features": ["a", "b"]}
    head = {"model": "m", "version": "1"}
    common = {**head, "time": 12.5, "latency_ms": 1.5, "first_row": 0}
    assert made == [
        ("", ": predictions from now on"),
        (
            "columns",
            {
                **head,
                "inputs": [{"name": "x", **described}],
                "outputs": [{"name": "y", **described}],
            },
        ),
        *(
            (
                "prediction",
                {
                    **common,
                    "id": id,
                    "rows": len(values),
                    "inputs": {"x": values},
                    "outputs": {"y": values},
                },
            )
            for id, values in (("r0", [[0, 1]]), ("r1", [[2, 3], [4, 5]]))
        ),
        ("end", {"reason": "shutdown"}),
    ]


@pytest.mark.parametrize(
    ("datatype", "array", "expected"),
    [
        (FP32, np.array([[1.5, math.nan, math.inf]], np.float32), [[1.5, None, None]]),
        (BF16, np.array([[0x3FC0]], np.uint16), [[1.5]]),
        (BOOL, np.array([[True], [False]]), [[True], [False]]),
        (BYTES, np.array([["é".encode(), b"\xff"]], object), [["é", "\ufffd"]]),
        (DATATYPES["INT64"], np.array([2**62]), [2**62]),
        (DATATYPES["FP16"], np.array([[0.5]], np.float16), [[0.5]]),
        (FP32, np.zeros((2, 0), np.float32), [[], []]),
        (FP32, np.arange(8, dtype=np.float32).reshape(2, 4)[:, ::2], [[0, 2], [4, 6]]),
    ],
)
def test_values_are_nested_lists(datatype: DataType, array: Array, expected: Any) -> None:
    made = events(GivenFeed([batch(array, datatype=datatype)]))
    assert dict(made)["prediction"]["outputs"]["y"] == expected


@pytest.mark.parametrize("shape", [(1, 100_000), (3, 50, 200), (20_000,), (5000, 3)])
def test_a_large_tensor_is_sent_in_pieces_of_bounded_size(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).random(shape, np.float32)
    bodies = pieces(GivenFeed([batch(array)]))
    assert len(bodies) > 5
    # A step writes at most so many numbers, of at most 20 characters each.
    assert max(map(len, bodies)) < event_stream._PIECE_BYTES + event_stream._ELEMENTS * 20
    (line,) = (each for each in b"".join(bodies).split(b"\n") if b'"id"' in each)
    found = np.array(json.loads(line.removeprefix(b"data: "))["inputs"]["x"], np.float32)
    assert (found == array).all()


def test_after_its_limit_a_stream_ends() -> None:
    rows = [np.zeros((1, 2), np.float32)] * 3
    made = events(GivenFeed([batch(*rows), batch(*rows)]), limit=4)
    assert [name for name, _ in made].count("prediction") == 4
    assert made[-1] == ("end", {"reason": "limit"})


def test_losses_are_told_between_predictions() -> None:
    one = np.zeros((1, 2), np.float32)
    feed = GivenFeed([batch(one), batch(one)], {"m": {"buffer_full": 5, "rerun": 1}})
    made = events(feed)
    assert [name for name, _ in made if name] == [
        "columns",
        "prediction",
        "dropped",
        "prediction",
        "end",
    ]
    told = {"model": "m", "dropped": 6, "reasons": {"buffer_full": 5, "rerun": 1}}
    assert dict(made)["dropped"] == told


def test_silence_is_filled_with_comments() -> None:
    made = events(GivenFeed([], silent=2))
    assert [data for name, data in made if not name] == [
        ": predictions from now on",
        ": still here",
        ": still here",
    ]


def test_a_client_that_leaves_ends_it() -> None:
    async def run() -> GivenFeed:
        feed = GivenFeed([])
        feed.silent = 1 << 60
        left = asyncio.Event()

        async def send(message: Any) -> None:
            left.set()
            await asyncio.sleep(0)

        async def receive() -> Any:
            await left.wait()
            return {"type": "http.disconnect"}

        stream = EventStream(feed, Pace())
        await stream({"type": "http", "state": {}}, receive, send)
        return feed

    assert asyncio.run(run()).closed


def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "STALL_S", 0.01)

    async def run() -> tuple[GivenFeed, bool]:
        feed = GivenFeed([])
        aborted = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        async def receive() -> Any:
            await aborted.wait()
            return {"type": "http.disconnect"}

        stream = EventStream(feed, Pace())
        await stream({"type": "http", "state": {"abort": aborted.set}}, receive, send)
        return feed, aborted.is_set()

    feed, aborted = asyncio.run(run())
    assert (feed.closed, aborted) == (True, True)


def test_work_is_followed_by_nine_times_as_much_rest() -> None:
    class Loop:
        now_ns = 0

    slept: list[float] = []

    async def run() -> None:
        pace = Pace(lambda: Loop.now_ns)
        sleep = asyncio.sleep

        async def noted(seconds: float) -> None:
            slept.append(seconds)
            await sleep(0)

        asyncio.sleep = noted  # type: ignore[assignment]
        try:
            for took_ns in (2_000_000, 600_000, 600_000, 100_000):
                async with pace:
                    Loop.now_ns += took_ns
        finally:
            asyncio.sleep = sleep  # type: ignore[assignment]

    asyncio.run(run())
    assert slept == [0.018, 0, pytest.approx(0.0108), 0]
