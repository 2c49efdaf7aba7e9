"""The thread of a sink: what it does when delivery fails, and that every row is accounted for."""

import queue
import threading
from random import Random

import pytest

from gateway.retry import Retry
from gateway.stream.sinks.sink import Batch, Parcel, SinkSettings, Undelivered
from gateway.stream.sinks.worker import SinkWorker
from tests.stream.sinks.blocks import block

DEADLINE_S = 20.0


class ScriptedSink:
    """Takes parcels of a block each; what becomes of a delivery, the test says."""

    wants_event_ids = False

    def __init__(self):
        self.calls = queue.Queue()
        self.answers = queue.Queue()
        self.got = []
        self.closed = threading.Event()

    def encode(self, blocks):
        if any(b.number == 666 for b in blocks):
            raise ValueError("no such thing")
        return [Parcel([(b, b.rows)], b.number) for b in blocks]

    def deliver(self, parcels, timeout_s):
        self.calls.put(([p.content for p in parcels], timeout_s))
        answer = self.answers.get(timeout=DEADLINE_S)
        answer(parcels)
        self.got += [p.content for p in parcels if p.arrived]

    def idle(self):
        pass

    def close(self):
        self.closed.set()


def arrive(parcels):
    for parcel in parcels:
        parcel.arrived = True


def arrive_only(*numbers, error=None):
    def answer(parcels):
        for parcel in parcels:
            parcel.arrived = parcel.content in numbers
        if error is not None:
            raise error

    return answer


def fail(error):
    def answer(parcels):
        raise error

    return answer


def refuse(*numbers, reason="status 400"):
    def answer(parcels):
        for parcel in parcels:
            if parcel.content in numbers:
                parcel.refusal = reason
            else:
                parcel.arrived = True

    return answer


class Bench:
    """A worker over a scripted sink; ``put`` and ``answer`` stand for the stream and the place."""

    def __init__(self, **options):
        self.sink = ScriptedSink()
        self.delays = queue.Queue()
        settings = SinkSettings(
            "test",
            "scripted",
            ("*",),
            options.get("buffer_bytes", 1 << 20),
            options.get("batch", Batch(1000, 1 << 20, 0.0)),
            options.get("retry", Retry(1.0, 8.0)),
            10.0,
        )
        self.worker = SinkWorker(
            settings,
            self.sink,
            lambda message: message.replace("hunter2", "***"),
            later=lambda _, call: call(),
            sleep=self.delays.put,
            chance=Random(1),
        )
        self.worker.start()

    def put(self, *blocks):
        subscription = self.worker.subscription
        for each in blocks:
            account = subscription.account(each.model)
            account.served += each.rows
            if subscription.has_room():
                subscription.put(each, account)
            else:
                account.drop("buffer_full", each.rows)

    def call(self):
        return self.sink.calls.get(timeout=DEADLINE_S)[0]

    def answer(self, answer):
        """Wait for a delivery and let it end as ``answer`` says; what it was to deliver."""
        parcels = self.call()
        self.sink.answers.put(answer)
        return parcels

    def delay(self):
        return self.delays.get(timeout=DEADLINE_S)

    def end(self, flush_s=0.0):
        self.worker.stop(flush_s)
        assert self.worker.join(DEADLINE_S)
        assert self.sink.closed.is_set()

    def account(self, model="rows"):
        account = self.worker.subscription.accounts[model]
        assert account.served == (
            account.sampled_out
            + sum(account.dropped.values())
            + account.delivered
            + sum(account.lost.values())
            + account.buffered
        )
        return account


@pytest.fixture
def bench(request):
    made = Bench(**getattr(request, "param", {}))
    yield made
    for _ in range(100):
        made.sink.answers.put(arrive)
    made.end(flush_s=DEADLINE_S)
    assert made.worker.subscription.buffered_bytes == 0
    assert made.worker.subscription.buffered_rows == 0


def test_what_is_put_is_delivered_and_counted(bench) -> None:
    bench.put(block(2, 1))
    assert bench.answer(arrive) == [0]
    bench.end(DEADLINE_S)
    assert bench.account().delivered == 3
    assert (bench.worker.health.up, bench.worker.health.retries) == (True, 0)


def test_what_fails_is_tried_again_after_waits_that_double(bench, caplog) -> None:
    bench.put(block(1))
    bounds = [1, 2, 4, 8, 8]
    for bound in bounds:
        assert bench.answer(fail(Undelivered("hunter2 does not answer"))) == [0]
        assert bound / 2 <= bench.delay() <= bound
    assert bench.worker.health.up is False
    assert bench.worker.health.last_error == "*** does not answer"
    assert bench.answer(arrive) == [0]
    bench.end(DEADLINE_S)
    assert bench.account().delivered == 1
    assert bench.worker.health.retries == len(bounds)
    down = [r for r in caplog.records if "does not deliver" in r.message]
    assert len(down) == 1, "an episode is told once"
    assert "hunter2" not in caplog.text


def test_a_receiver_that_names_a_time_is_left_alone_so_long(bench) -> None:
    bench.put(block(1))
    bench.answer(fail(Undelivered("busy", retry_after_s=5)))
    assert bench.delay() == 5
    bench.answer(fail(Undelivered("busy", retry_after_s=3600)))
    assert bench.delay() == 8, "no longer than most_s"
    bench.answer(arrive)


def test_only_what_has_not_arrived_is_sent_again_and_progress_begins_the_waits_anew(bench) -> None:
    # The first is alone in its batch; the others are put while it is on its way.
    bench.put(block(1, number=9))
    bench.call()
    bench.put(*(block(1, number=n) for n in range(3)))
    bench.sink.answers.put(arrive)
    assert bench.answer(fail(Undelivered("down"))) == [0, 1, 2]
    assert bench.delay() <= 1
    assert bench.answer(fail(Undelivered("down"))) == [0, 1, 2]
    assert bench.delay() > 1 / 2
    assert bench.answer(arrive_only(1, error=Undelivered("down"))) == [0, 1, 2]
    assert bench.delay() <= 1
    assert bench.answer(arrive_only(0)) == [0, 2], "progress without an error: no wait"
    assert bench.answer(arrive) == [2]
    assert bench.delays.empty()


@pytest.mark.parametrize("bench", [{"retry": Retry(1.0, 8.0, attempts=3)}], indirect=True)
def test_after_its_attempts_a_batch_is_lost_and_the_next_one_has_its_own(bench) -> None:
    bench.put(block(2))
    for _ in range(3):
        bench.answer(fail(Undelivered("down")))
    bench.put(block(1, number=5))
    assert bench.answer(arrive) == [5]
    bench.end(DEADLINE_S)
    account = bench.account()
    assert (account.lost, account.delivered) == ({"gave_up": 2}, 1)


def test_what_is_refused_is_lost_at_once_and_told_once_an_episode(bench, caplog) -> None:
    for number in range(3):
        bench.put(block(1, number=number))
        assert bench.answer(refuse(number)) == [number]
    bench.put(block(1, number=3))
    bench.answer(arrive)
    bench.put(block(1, number=4))
    bench.answer(refuse(4))
    bench.end(DEADLINE_S)
    account = bench.account()
    assert (account.lost, account.delivered) == ({"refused": 4}, 1)
    assert bench.delays.empty()
    assert sum("refused: status 400" in r.message for r in caplog.records) == 2


@pytest.mark.parametrize("bench", [{"buffer_bytes": 4000}], indirect=True)
def test_a_sink_that_is_stuck_costs_its_buffer_and_no_more(bench) -> None:
    bench.put(block(1, number=0))
    bench.call()
    bench.put(*(block(1, number=n) for n in range(1, 50)))
    account = bench.account()
    held = account.buffered
    assert 1 < held < 10
    assert account.dropped == {"buffer_full": 50 - held}
    bench.sink.answers.put(arrive)
    bench.answer(arrive)
    bench.end(DEADLINE_S)
    assert bench.account().delivered == held


def test_what_cannot_be_encoded_is_lost_and_its_neighbours_are_delivered(bench) -> None:
    bench.put(block(1, number=0))
    bench.call()
    bench.put(block(1, number=1), block(4, number=666), block(1, number=2))
    bench.sink.answers.put(arrive)
    bench.answer(arrive)
    bench.end(DEADLINE_S)
    account = bench.account()
    assert (account.lost, account.delivered) == ({"fault": 4}, 3)
    assert sorted(bench.sink.got) == [0, 1, 2]


def test_an_error_that_the_sink_does_not_know_is_tried_again_too(bench) -> None:
    bench.put(block(1))
    bench.answer(fail(OSError(28, "No space left on device")))
    bench.delay()
    assert "No space left on device" in bench.worker.health.last_error
    bench.answer(arrive)


def test_a_sink_that_does_nothing_without_a_word_is_not_asked_without_end(bench) -> None:
    bench.put(block(1))
    bench.answer(arrive_only())
    assert bench.delay() > 0
    bench.answer(arrive)


def test_at_the_end_what_waits_is_flushed(bench) -> None:
    bench.put(block(1))
    bench.call()
    bench.put(block(3, number=1))
    bench.worker.stop(DEADLINE_S)
    bench.sink.answers.put(arrive)
    bench.answer(arrive)
    bench.end(DEADLINE_S)
    assert bench.account().delivered == 4


def test_at_the_end_what_cannot_be_flushed_in_time_is_lost_and_counted(bench) -> None:
    bench.put(block(1))
    bench.call()
    bench.put(block(3, number=1))
    bench.worker.stop(0)
    bench.sink.answers.put(fail(Undelivered("down")))
    bench.end(0)
    account = bench.account()
    assert (account.lost, account.delivered, account.buffered) == ({"shutdown": 4}, 0, 0)


@pytest.mark.parametrize("bench", [{"batch": Batch(3, 1 << 20, 3600.0)}], indirect=True)
def test_a_batch_waits_for_its_rows(bench) -> None:
    bench.put(block(1, number=0), block(1, number=1))
    assert bench.sink.calls.empty()
    bench.put(block(1, number=2))
    assert bench.answer(arrive) == [0, 1, 2]


@pytest.mark.parametrize("bench", [{"batch": Batch(1000, 3000, 3600.0)}], indirect=True)
def test_a_batch_has_about_as_many_bytes_as_it_may(bench) -> None:
    bench.put(*(block(1, number=n) for n in range(6)))
    sizes = [len(bench.answer(arrive)) for _ in range(2)]
    assert sizes == [3, 3]
