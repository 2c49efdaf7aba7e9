"""The queue: bounded, fair between shapes, and the owner of what it accepted."""

import ctypes
import gc
import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway._native.arena import Arena, live_bytes
from gateway._native.queue import BatchQueue
from gateway._native.ticket import Group, Ticket, live_tickets
from tests.native import oracle


@pytest.fixture(autouse=True)
def _nothing_leaks():
    tickets, memory = live_tickets(), live_bytes()
    yield
    gc.collect()
    assert (live_tickets(), live_bytes()) == (tickets, memory)


def row(value, rows=1, width=4):
    return np.full((rows, width), value, np.float32)


GROUP_WIDTH = 4


def group(levels=1):
    return Group([(1, GROUP_WIDTH * 4, "batched")], levels)


def ticket(of, value=0, rows=1, **more):
    fill = value if isinstance(value, int) else 0
    return Ticket(of, rows, [row(fill, rows)], value, **more)


def gathered(arena, index, shape, dtype=np.float32):
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_char * nbytes).from_address(arena.ensure(index, 0))
    return np.frombuffer(memory, dtype).reshape(shape).copy()


def sinks(batch):
    return [taken.sink for taken in batch.tickets]


def test_waiting_requests_of_one_shape_leave_together_in_order():
    queue, arena, shape = BatchQueue(8, 100), Arena(1), group()
    for value in range(3):
        assert queue.put(ticket(shape, value, rows=value + 1), now_ns=value)
    batch = queue.poll(arena, 10)
    assert sinks(batch) == [0, 1, 2]
    assert batch.rows == 6
    assert gathered(arena, 0, (6, GROUP_WIDTH))[:, 0].tolist() == [0, 1, 1, 2, 2, 2]
    assert len(queue) == 0
    assert queue.poll(arena, 11) is None


def test_a_full_queue_refuses_and_the_refused_ticket_stays_the_callers():
    queue, shape = BatchQueue(8, 1), group()
    accepted, refused = ticket(shape), ticket(shape)
    assert queue.put(accepted, 0)
    assert not queue.put(refused, 0)
    assert queue.cancel(accepted)
    assert queue.put(refused, 1), "a cancelled ticket's place is free again"
    assert queue.close() == [refused]


def test_a_request_within_the_limit_is_never_split_and_small_ones_fill_the_gap():
    queue, arena, shape = BatchQueue(4, 100), Arena(1), group()
    for value, rows in enumerate([3, 3, 1]):
        queue.put(ticket(shape, value, rows), now_ns=value)
    assert sinks(queue.poll(arena, 9)) == [0, 2]
    assert sinks(queue.poll(arena, 9)) == [1]


def test_the_oldest_head_goes_first_so_no_shape_starves_another():
    queue, arena = BatchQueue(8, 100), Arena(1)
    crowd, rare = group(), group()
    queue.put(ticket(rare, "rare"), now_ns=1)
    for now in range(2, 20):
        queue.put(ticket(crowd, "crowd"), now_ns=now)
    assert sinks(queue.poll(arena, 30)) == ["rare"]


def test_urgent_levels_go_first():
    queue, arena, shape = BatchQueue(2, 100), Arena(1), group(levels=3)
    for value, level in enumerate([2, 1, 0, 0]):
        queue.put(ticket(shape, value, level=level), now_ns=value)
    assert sinks(queue.poll(arena, 9)) == [2, 3]
    assert sinks(queue.poll(arena, 9)) == [1, 0]


def test_an_expired_ticket_is_handed_back_not_run():
    queue, arena, shape = BatchQueue(8, 100), Arena(1), group()
    queue.put(ticket(shape, "late", deadline_ns=5), now_ns=1)
    queue.put(ticket(shape, "fine"), now_ns=2)
    batch = queue.poll(arena, 5)
    assert sinks(batch) == ["fine"]
    assert [late.sink for late in batch.expired] == ["late"]


def test_rows_on_another_axis_are_interleaved_as_the_tensor_wants_it():
    queue, arena = BatchQueue(8, 100), Arena(1)
    shape = Group([(2, 3 * 4, "batched")])  # [2, N, 3] float32
    parts = [np.random.default_rng(n).random((2, n, 3), np.float32) for n in (1, 2, 4)]
    for part in parts:
        queue.put(Ticket(shape, part.shape[1], [part], None), 0)
    batch = queue.poll(arena, 1)
    assert (gathered(arena, 0, (2, batch.rows, 3)) == np.concatenate(parts, axis=1)).all()


def test_a_shared_input_is_copied_once():
    queue, arena = BatchQueue(8, 100), Arena(2)
    shape = Group([(1, 4, "batched"), (1, 8, "shared")])
    rate = np.array(16000, np.int64)
    for value in range(3):
        queue.put(Ticket(shape, 1, [np.float32([value]), rate], None), 0)
    queue.poll(arena, 1)
    assert gathered(arena, 0, (3,)).tolist() == [0, 1, 2]
    assert gathered(arena, 1, (), np.int64) == 16000


def test_an_empty_request_has_a_place_too():
    queue, arena, shape = BatchQueue(8, 100), Arena(1), group()
    queue.put(ticket(shape, "empty", rows=0), 0)
    queue.put(ticket(shape, "full", rows=2), 0)
    batch = queue.poll(arena, 1)
    assert sinks(batch) == ["empty", "full"]
    assert batch.rows == 2


def test_a_failed_batchs_tickets_can_be_run_alone():
    queue, arena, shape = BatchQueue(8, 100), Arena(1), group()
    for value in range(3):
        queue.put(ticket(shape, value), 0)
    batch = queue.poll(arena, 1)
    alone = batch.alone(batch.tickets[1], arena)
    assert sinks(alone) == [1]
    assert gathered(arena, 0, (1, GROUP_WIDTH))[0, 0] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ticket(group(), rows=9), "9 rows do not fit a batch of 8"),
        (lambda: Ticket(group(), 2, [row(0)], None), "16 bytes, 32 were expected"),
        (lambda: Ticket(group(), 1, [], None), "1 inputs, 0 were given"),
        (lambda: Ticket(group(), -1, [row(0)], None), "must not be negative"),
        (lambda: ticket(group(), level=1), "level must be in"),
        (lambda: BatchQueue(0, 1), "max_rows must be at least 1"),
        (lambda: BatchQueue(1, 0), "max_count must be at least 1"),
        (lambda: Group([(1, 1, "gathered")]), "kind must be one of"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    queue = BatchQueue(8, 100)
    with pytest.raises(ValueError, match=message):
        queue.put(make(), 0)


def test_a_ticket_is_put_once():
    queue, one = BatchQueue(8, 100), ticket(group())
    queue.put(one, 0)
    with pytest.raises(ValueError, match="put once"):
        queue.put(one, 0)
    queue.close()


def test_closing_sends_waiting_runners_home():
    queue, results = BatchQueue(8, 100), []
    runners = [
        threading.Thread(target=lambda: results.append(queue.take(Arena(1)))) for _ in range(3)
    ]
    for runner in runners:
        runner.start()
    assert queue.close() == []
    for runner in runners:
        runner.join(10)
    assert results == [None, None, None]
    assert not queue.put(ticket(group()), 0), "a closed queue takes nothing"


def test_concurrent_runners_take_every_ticket_exactly_once():
    queue, shape, taken, lock = BatchQueue(7, 100_000), group(), [], threading.Lock()

    def run():
        arena = Arena(1)
        while (batch := queue.take(arena)) is not None:
            rows = gathered(arena, 0, (batch.rows, GROUP_WIDTH))
            wanted = np.repeat(sinks(batch), [t.rows for t in batch.tickets])
            with lock:
                taken.extend(zip(sinks(batch), rows[:, 0] == wanted, strict=True))

    runners = [threading.Thread(target=run) for _ in range(3)]
    for runner in runners:
        runner.start()
    for value in range(3000):
        queue.put(ticket(shape, value), value)
    while len(queue):
        pass
    queue.close()
    for runner in runners:
        runner.join(10)
    assert sorted(value for value, _ in taken) == list(range(3000))
    assert all(right for _, right in taken)


class QueueAgainstOracle(RuleBasedStateMachine):
    """Random arrivals, cancellations, expiries and runs, with a clock moved by hand."""

    @initialize(
        max_rows=st.integers(1, 12),
        max_count=st.integers(1, 20),
        delay=st.sampled_from([0, 0, 50]),
        objective=st.sampled_from([0, 0, 200]),
        preferred=st.sets(st.integers(1, 12), max_size=3),
    )
    def start(self, max_rows, max_count, delay, objective, preferred):
        preferred = tuple(size for size in preferred if size <= max_rows)
        self.core = BatchQueue(max_rows, max_count, delay, objective, preferred)
        self.model = oracle.Queue(oracle.Policy(max_rows, delay, objective, preferred), max_count)
        self.max_rows = max_rows
        self.groups = [group(levels=2) for _ in range(3)]
        self.arena = Arena(1)
        self.now = 1
        self.count = 0
        self.pairs = {}
        self.finished = set()

    @rule(
        of=st.integers(0, 2),
        rows=st.integers(0, 12),
        level=st.integers(0, 1),
        patience=st.sampled_from([0, 0, 30, 100]),
    )
    def put(self, of, rows, level, patience):
        rows = min(rows, self.max_rows)
        deadline = self.now + patience if patience else 0
        self.count += 1
        core = ticket(self.groups[of], self.count, rows, deadline_ns=deadline, level=level)
        model = oracle.Ticket(of, rows, deadline, level, name=self.count)
        accepted = self.core.put(core, self.now)
        assert accepted == self.model.put(model, self.now)
        if accepted:
            self.pairs[self.count] = (core, model)

    @rule(ns=st.integers(1, 60))
    def advance(self, ns):
        self.now += ns

    @rule(rows=st.integers(1, 12), ns=st.integers(1, 300))
    def observe(self, rows, ns):
        self.core.observe(rows, ns)
        self.model.curve.observe(rows, ns)

    @precondition(lambda self: self.pairs)
    @rule(data=st.data())
    def cancel(self, data):
        name = data.draw(st.sampled_from(sorted(self.pairs)))
        core, model = self.pairs.pop(name)
        assert self.core.cancel(core)
        assert self.model.cancel(model)
        self.finish([name])

    @rule()
    def expire(self):
        core = sorted(t.sink for t in self.core.expire(self.now))
        assert core == sorted(t.name for t in self.model.expire(self.now))
        self.finish(core)

    @rule()
    def poll(self):
        batch = self.core.poll(self.arena, self.now)
        taken = self.model.poll(self.now)
        assert (batch is None) == (taken is None)
        assert self.core.wait_until_ns == self.model.wait_until
        if batch is None:
            return
        assert sorted(t.sink for t in batch.expired) == sorted(t.name for t in taken.expired)
        self.finish([t.sink for t in batch.expired])
        if not batch.tickets:
            return
        of = self.pairs[batch.tickets[0].sink][1].group
        assert of in self.model.candidates
        assert sinks(batch) == [t.name for t in self.model.fill(of)]
        rows = gathered(self.arena, 0, (batch.rows, GROUP_WIDTH))
        owners = np.repeat(sinks(batch), [t.rows for t in batch.tickets])
        assert (rows == owners[:, None]).all(), "every row is its own request's"
        self.finish(sinks(batch))

    def finish(self, names):
        for name in names:
            assert name not in self.finished, "a request leaves the queue once"
            self.finished.add(name)
            self.pairs.pop(name, None)

    @invariant()
    def nothing_is_lost(self):
        if hasattr(self, "core"):
            assert len(self.core) == len(self.model.waiting) == len(self.pairs)
            assert self.core.waiting_rows == sum(t.rows for t in self.model.waiting)

    def teardown(self):
        if hasattr(self, "core"):
            left = {t.sink for t in self.core.close()}
            assert left == set(self.pairs)
            del self.core, self.pairs, self.arena, self.groups


TestQueueAgainstOracle = QueueAgainstOracle.TestCase
TestQueueAgainstOracle.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
