"""Feeds of live predictions: what is wanted of them, what is lost, and how they end."""

import asyncio

import numpy as np
import pytest

from gateway.errors import ConfigError, QueueFull, ShuttingDown
from gateway.stream import live as live_module
from gateway.stream.live import LiveStream
from gateway.stream.stream import PredictionStream
from tests.control.plane import on_plane
from tests.repository import ModelDirectory, rows, rows_of
from tests.stream.test_tap import adds_up, request, some_rows

FEATURES = '[inputs.x]\nfeatures = ["age", "height", "weight", "income"]\n'


@pytest.fixture
def watched(tmp_path):
    """Serves ``fraud`` and ``spam`` and runs ``scenario(plane, live, stream)``."""

    def run(scenario, settings=FEATURES):
        directory = ModelDirectory(tmp_path)
        directory.add("fraud", rows, settings)
        directory.add("spam", rows, settings)
        stream = PredictionStream()
        live = LiveStream(stream, 2)

        async def start(plane):
            assert await plane.manager.start() == []
            await scenario(plane, live, stream)

        on_plane(start, tmp_path, taps=stream)

    return run


async def infer(plane, model, array, id=""):
    await plane.dispatcher.infer(request(model, array, id))


def test_a_feed_gets_what_is_answered_from_its_opening_on(watched):
    async def scenario(plane, live, stream):
        await infer(plane, "fraud", some_rows(1, 9), "before")
        feed = live.open("test", ["fr*"])
        await infer(plane, "spam", some_rows(1), "other")
        await infer(plane, "fraud", some_rows(2, 50), "mine")
        batch = await feed.next(5)
        assert (batch.model, batch.version) == ("fraud", "1")
        assert [(r.id, r.row, r.first, r.rows) for r in batch.requests] == [("mine", 0, 0, 2)]
        (x,), (y,) = batch.inputs, batch.outputs
        assert (x.array == some_rows(2, 50)).all()
        assert (y.array == rows_of(some_rows(2, 50))).all()
        assert x.features == ("age", "height", "weight", "income")
        assert await feed.next(0.01) is None
        assert not feed.ended
        feed.close()

    watched(scenario)


def test_a_waiting_subscriber_is_woken(watched):
    async def scenario(plane, live, stream):
        feed = live.open("test", ["*"])
        waiting = asyncio.create_task(feed.next(30))
        await infer(plane, "fraud", some_rows(1), "now")
        assert (await waiting).requests[0].id == "now"
        feed.close()

    watched(scenario)


def test_tensors_and_features_may_be_chosen(watched):
    async def scenario(plane, live, stream):
        feed = live.open("test", ["fraud"], fields=["income", "age"])
        await infer(plane, "fraud", some_rows(2))
        batch = await feed.next(5)
        (x,) = batch.inputs
        assert x.features == ("age", "income")
        assert x.array.tolist() == some_rows(2)[:, [0, 3]].tolist()
        assert batch.outputs == []
        feed.close()
        with pytest.raises(ConfigError, match="'agee' is neither a tensor nor a feature"):
            live.open("test", ["fraud"], fields=["agee"])
        assert len(live) == 0

    watched(scenario)


def test_a_sample_of_the_requests_is_whole_requests_and_the_rest_is_accounted_for(watched):
    async def scenario(plane, live, stream):
        feed = live.open("test", ["fraud"], sample=0.25)
        await asyncio.gather(
            *(infer(plane, "fraud", some_rows(1 + n % 3, n), f"{n}") for n in range(600))
        )
        seen = {}
        while (batch := await feed.next(0.05)) is not None:
            for each in batch.requests:
                seen[each.id] = batch.inputs[0].array[each.first : each.first + each.rows]
        assert 100 < len(seen) < 200, "a quarter of 600, within 5 standard deviations"
        for id, array in seen.items():
            assert array.tolist() == some_rows(1 + int(id) % 3, int(id)).tolist()
        ((_, _, account),) = stream.accounts()
        assert adds_up(account)
        assert account.served == 1200
        assert account.delivered == sum(map(len, seen.values()))
        feed.close()

    watched(scenario)


def test_what_a_slow_subscriber_misses_is_told_once(watched, monkeypatch):
    monkeypatch.setattr(live_module, "MAX_BYTES", 1)

    async def scenario(plane, live, stream):
        feed = live.open("test", ["*"])
        for n in range(4):
            await infer(plane, "fraud", some_rows(2, n))
            stream.flush()
        assert (await feed.next(5)).inputs[0].array[0, 0] == 0
        assert feed.dropped() == {"fraud": {"buffer_full": 6}}
        assert feed.dropped() == {}
        feed.delivered()
        await infer(plane, "fraud", some_rows(1))
        assert await feed.next(5) is not None
        assert feed.dropped() == {}
        feed.close()

    watched(scenario)


def test_of_subscribers_there_is_a_limit_and_a_closed_one_makes_room(watched):
    async def scenario(plane, live, stream):
        first, second = live.open("test", ["*"]), live.open("test", ["*"])
        with pytest.raises(QueueFull, match="--max-stream-subscribers"):
            live.open("test", ["*"])
        first.close()
        live.open("test", ["*"]).close()
        second.close()
        assert (len(live), stream.subscriptions) == (0, [])

    watched(scenario)


def test_a_closed_feed_frees_what_it_had_and_its_account_stays(watched):
    async def scenario(plane, live, stream):
        for _ in range(2):
            feed = live.open("test", ["*"])
            await infer(plane, "fraud", some_rows(2))
            assert await feed.next(5) is not None
            await infer(plane, "fraud", some_rows(3))
            stream.flush()
            feed.close()
            feed.close()
        ((name, model, account),) = stream.accounts()
        assert (name, model) == ("test", "fraud")
        assert (account.served, account.lost, account.buffered) == (10, {"closed": 10}, 0)
        assert stream.buffered_bytes() == {}
        await infer(plane, "fraud", some_rows(1))
        assert next(iter(stream.accounts()))[2].served == 10

    watched(scenario)


def test_a_feed_that_drains_gives_what_it_has_and_ends(watched):
    async def scenario(plane, live, stream):
        feed, idle = live.open("test", ["fraud"]), live.open("test", ["spam"])
        waiting = asyncio.create_task(idle.next(30))
        await infer(plane, "fraud", np.ones((1, 4), np.float32), "last")
        live.drain()
        assert (await feed.next(30)).requests[0].id == "last"
        assert not feed.ended
        assert await feed.next(30) is None
        assert feed.ended
        assert await waiting is None
        assert idle.ended
        with pytest.raises(ShuttingDown):
            live.open("test", ["*"])
        feed.close()
        idle.close()

    watched(scenario)
