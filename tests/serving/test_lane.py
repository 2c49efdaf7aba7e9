"""A lane over a real session: every request gets its own rows, once, whatever its neighbours do."""

import asyncio
import gc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from gateway._native.ticket import live_tickets
from gateway.clock import ManualClock, monotonic_ns
from gateway.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidTensor,
    ModelNotReady,
    QueueFull,
)
from gateway.serving.lane import Lane
from gateway.serving.loaded import LoadedModel
from gateway.serving.onnx.providers import cuda_refusal
from gateway.serving.onnx.session import open_session
from gateway.serving.settings import ModelSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import BYTES, FP32, INT64, InferInput, InferRequest
from tests.serving.onnx_models import model

MAX_ROWS = 8
TABLE = np.arange(100, dtype=np.float32) * 10

#: ``state`` is batched on axis 1; an ``id`` outside the table fails the whole run.
LOOKUP = model(
    [
        helper.make_node("Gather", ["table", "id"], ["value"]),
        helper.make_node("Add", ["state", "one"], ["next"]),
    ],
    {"id": (TensorProto.INT64, ["N"]), "state": (TensorProto.FLOAT, [2, "N", 3])},
    {"value": (TensorProto.FLOAT, ["N"]), "next": (TensorProto.FLOAT, [2, "N", 3])},
    [("table", TABLE), ("one", np.float32([1]))],
)
SIGNATURE = Signature(
    (
        TensorSpec("id", INT64, (-1,), ("N",), 0),
        TensorSpec("state", FP32, (2, -1, 3), ("", "N", ""), 1),
    ),
    (
        TensorSpec("value", FP32, (-1,), ("N",), 0),
        TensorSpec("next", FP32, (2, -1, 3), ("", "N", ""), 1),
    ),
    MAX_ROWS,
)
SESSION = open_session(LOOKUP, ModelSettings(), size_bytes=len(LOOKUP))


@pytest.fixture(autouse=True)
def _nothing_leaks():
    gc.collect()
    before = live_tickets()
    yield
    gc.collect()
    assert live_tickets() == before


def lane(loop, clock=monotonic_ns, session=SESSION, signature=SIGNATURE, **changes):
    loaded = LoadedModel(
        "lookup", "1", Path("model.onnx"), ModelSettings(**changes), signature, (session,), {1: 1}
    )
    return Lane(loaded, loop, inline_threshold_ns=500_000, clock=clock)


class Caller:
    """One request and what came of it."""

    def __init__(self, first_id, rows, *, deadline_ns=0, now_ns=0, parameters=None):
        self.ids = (first_id + np.arange(rows)).astype(np.int64)
        self.state = np.random.default_rng(rows).random((2, rows, 3), np.float32)
        inputs = [
            InferInput("id", INT64, self.ids.shape, self.ids.tobytes()),
            InferInput("state", FP32, self.state.shape, memoryview(self.state.tobytes())),
        ]
        now_ns = now_ns or monotonic_ns()
        self.request = InferRequest(
            "lookup", "", "", inputs, None, parameters or {}, deadline_ns, now_ns
        )
        self.calls = []
        self.told = False

    def complete(self, arrays):
        self.calls.append([array.copy() for array in arrays])

    def fail(self, error):
        self.calls.append(error)

    def cancelled(self):
        self.told = True

    @property
    def answer(self):
        assert len(self.calls) == 1, "exactly one answer"
        return self.calls[0]

    def assert_right(self):
        value, following = self.answer
        assert (value == TABLE[self.ids]).all()
        assert (following == self.state + 1).all()


def in_both_modes(test):
    return pytest.mark.parametrize("inline", [True, False], ids=["on the loop", "threads"])(test)


def run(scenario):
    """Run a scenario with a loop of its own."""
    asyncio.run(scenario())


@in_both_modes
def test_requests_of_several_rows_are_answered_each_with_its_own(inline):
    async def scenario():
        served = lane(asyncio.get_running_loop(), inline=inline)
        callers = [Caller(n, rows) for n, rows in enumerate([1, 3, 2, 8, 0, 5])]
        for caller in callers:
            served.submit(caller.request, caller)
        await served.drain()
        for caller in callers:
            caller.assert_right()
        await served.close()

    run(scenario)


@in_both_modes
def test_a_request_that_fails_the_run_fails_alone(inline):
    async def scenario():
        served = lane(asyncio.get_running_loop(), inline=inline)
        good, bad, other = Caller(1, 2), Caller(1000, 1), Caller(5, 1)
        for caller in (good, bad, other):
            served.submit(caller.request, caller)
        await served.drain()
        good.assert_right()
        other.assert_right()
        assert isinstance(bad.answer, InferenceFailed | InvalidTensor)
        assert "1000" in str(bad.answer), "ONNX Runtime's own message is passed on"
        assert served.stats.requests_failed == 1
        assert served.stats.requests_ok == 2
        await served.close()

    run(scenario)


@in_both_modes
def test_more_rows_than_a_batch_are_run_in_slices_and_answered_whole(inline):
    async def scenario():
        served = lane(asyncio.get_running_loop(), inline=inline)
        caller = Caller(0, 3 * MAX_ROWS + 5)
        served.submit(caller.request, caller)
        await served.drain()
        caller.assert_right()
        assert max(served.stats.batch_sizes) <= MAX_ROWS
        await served.close()

    run(scenario)


@in_both_modes
def test_one_bad_slice_is_one_error(inline):
    async def scenario():
        served = lane(asyncio.get_running_loop(), inline=inline)
        caller = Caller(90, 20)
        served.submit(caller.request, caller)
        await served.drain()
        assert isinstance(caller.answer, InferenceFailed | InvalidTensor)
        await served.close()

    run(scenario)


def test_slicing_can_be_forbidden():
    async def scenario():
        served = lane(asyncio.get_running_loop(), allow_slicing=False)
        with pytest.raises(InvalidTensor, match=r"9 rows.*at most 8 \(max_batch_size\)"):
            served.submit(Caller(0, MAX_ROWS + 1).request, Caller(0, 1))
        await served.close()

    run(scenario)


def test_a_full_queue_refuses_at_once_and_counts_it():
    async def scenario():
        served = lane(asyncio.get_running_loop(), inline=True, max_queue_size=2)
        callers = [Caller(n, 1) for n in range(3)]
        for caller in callers[:2]:
            served.submit(caller.request, caller)
        with pytest.raises(QueueFull, match="exceeds maximum queue size"):
            served.submit(callers[2].request, callers[2])
        with pytest.raises(QueueFull):
            served.submit(Caller(0, MAX_ROWS * 3).request, callers[2])
        await served.drain()
        assert served.stats.rejected == {"queue_full": 2}
        assert callers[2].calls == []
        await served.close()

    run(scenario)


def test_a_deadline_that_passes_in_the_queue_is_told():
    async def scenario():
        clock = ManualClock(now_ns=10**9)
        served = lane(asyncio.get_running_loop(), clock=clock, inline=True)
        late = Caller(1, 1, now_ns=clock(), deadline_ns=clock() + 2_000_000)
        fine = Caller(2, 1, now_ns=clock())
        for caller in (late, fine):
            served.submit(caller.request, caller)
        clock.advance(2_000_000)
        await served.drain()
        fine.assert_right()
        assert isinstance(late.answer, DeadlineExceeded)
        assert "waited 2.0 ms" in str(late.answer)
        assert served.stats.rejected == {"deadline": 1}
        await served.close()

    run(scenario)


def test_a_model_may_set_the_deadline_of_requests_that_bring_none():
    async def scenario():
        clock = ManualClock(now_ns=10**9)
        served = lane(asyncio.get_running_loop(), clock=clock, inline=True, default_timeout_us=1000)
        caller = Caller(1, 1, now_ns=clock())
        served.submit(caller.request, caller)
        clock.advance(1_000_000)
        await served.drain()
        assert isinstance(caller.answer, DeadlineExceeded)
        await served.close()

    run(scenario)


def test_urgent_requests_overtake_and_a_wrong_priority_is_refused():
    async def scenario():
        served = lane(
            asyncio.get_running_loop(), inline=True, priority_levels=2, default_priority_level=2
        )
        order = []

        class Ordered(Caller):
            def complete(self, arrays):
                order.append(int(self.ids[0]))

        plain = [Ordered(n, MAX_ROWS) for n in (1, 2)]
        urgent = Ordered(3, MAX_ROWS, parameters={"priority": 1})
        for caller in (*plain, urgent):
            served.submit(caller.request, caller)
        with pytest.raises(InvalidTensor, match="priority must be an integer from 1"):
            served.submit(Caller(1, 1, parameters={"priority": 3}).request, urgent)
        await served.drain()
        assert order == [3, 1, 2]
        await served.close()

    run(scenario)


@in_both_modes
def test_closing_tells_those_who_still_wait(inline):
    async def scenario():
        served = lane(
            asyncio.get_running_loop(), inline=inline, max_queue_delay_us=0 if inline else 10**9
        )
        caller = Caller(1, 1)
        served.submit(caller.request, caller)
        await served.close()
        assert isinstance(caller.answer, ModelNotReady)
        assert served.pending == 0

    run(scenario)


def test_a_callers_own_exception_harms_nobody_else(caplog):
    async def scenario():
        served = lane(asyncio.get_running_loop(), inline=True)

        class Broken(Caller):
            def complete(self, arrays):
                raise RuntimeError("the front fell over")

        first, broken, last = Caller(1, 1), Broken(2, 1), Caller(3, 1)
        for caller in (first, broken, last):
            served.submit(caller.request, caller)
        await served.drain()
        first.assert_right()
        last.assert_right()
        await served.close()

    run(scenario)
    assert "could not be delivered" in caplog.text
    caplog.clear()  # the log record holds the traceback, and that the tickets


@pytest.mark.gpu
@in_both_modes
def test_on_cuda_every_request_gets_its_own_rows_too(inline):
    """Inputs are bound anew for each batch there: binding one copies it to the device."""
    if (refusal := cuda_refusal()) is not None:
        pytest.skip(f"no CUDA: {refusal}")

    async def scenario():
        session = open_session(
            LOOKUP, ModelSettings(providers=("CUDAExecutionProvider",)), size_bytes=len(LOOKUP)
        )
        served = lane(asyncio.get_running_loop(), session=session, inline=inline)
        for first in range(0, 60, 6):
            callers = [Caller(first + rows, rows) for rows in range(1, 6)]
            for caller in callers:
                served.submit(caller.request, caller)
            await served.drain()
            for caller in callers:
                caller.assert_right()
        await served.close()

    run(scenario)


STRINGS = model(
    [helper.make_node("Identity", ["text"], ["same"])],
    {"text": (TensorProto.STRING, ["N", 2])},
    {"same": (TensorProto.STRING, ["N", 2])},
)


@in_both_modes
def test_strings_are_batched_too(inline):
    async def scenario():
        signature = Signature(
            (TensorSpec("text", BYTES, (-1, 2), ("N", ""), 0),),
            (TensorSpec("same", BYTES, (-1, 2), ("N", ""), 0),),
            MAX_ROWS,
        )
        session = open_session(STRINGS, ModelSettings(), size_bytes=len(STRINGS))
        served = lane(
            asyncio.get_running_loop(), session=session, signature=signature, inline=inline
        )
        answers = {}

        class Text:
            def __init__(self, rows):
                self.sent = np.array([[f"{rows}-{n}", "ä"] for n in range(rows)], object)
                self.request = InferRequest(
                    "lookup",
                    "",
                    "",
                    [InferInput("text", BYTES, self.sent.shape, self.sent)],
                    None,
                    {},
                    0,
                    monotonic_ns(),
                )

            def complete(self, arrays):
                answers[len(self.sent)] = (arrays[0] == self.sent).all()

            def fail(self, error):
                raise error

            def cancelled(self):
                raise AssertionError("nobody cancels")

        for rows in (1, 2, 3, 11):
            caller = Text(rows)
            served.submit(caller.request, caller)
        await served.drain()
        assert answers == {1: True, 2: True, 3: True, 11: True}
        await served.close()

    run(scenario)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 120), st.integers(0, 20), st.integers(0, 3)),
        st.tuples(st.just("cancel"), st.integers(0, 40)),
        st.tuples(st.just("advance"), st.integers(1, 3)),
        st.tuples(st.just("yield")),
    ),
    max_size=40,
)


def assert_all_accounted_for(stats, callers, cancelled):
    """Every request is counted once: answered, failed, expired or cancelled.

    The statistics count tickets; a request in slices has several, so only whole ones are compared.
    """
    if any(len(caller.ids) > MAX_ROWS for caller in callers):
        return
    outcomes = [caller.answer for n, caller in enumerate(callers) if n not in cancelled]
    late = sum(isinstance(outcome, DeadlineExceeded) for outcome in outcomes)
    wrong = sum(isinstance(outcome, InferenceFailed | InvalidTensor) for outcome in outcomes)
    assert stats.requests_cancelled == len(cancelled)
    assert stats.rejected.get("deadline", 0) == late
    assert stats.requests_failed == wrong
    assert stats.requests_ok == len(outcomes) - late - wrong


@in_both_modes
@given(steps=steps)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_every_request_gets_its_own_answer_once(inline, steps):
    """Arrivals, bad ones among them, cancellations, deadlines and runs in any order."""

    async def scenario():
        clock = ManualClock(now_ns=10**9)
        served = lane(asyncio.get_running_loop(), clock=clock, inline=inline)
        callers, places, cancelled = [], [], set()
        for step in steps:
            match step:
                case ("submit", first, rows, patience):
                    deadline = clock() + patience if patience else 0
                    caller = Caller(first, rows, now_ns=clock(), deadline_ns=deadline)
                    places.append(served.submit(caller.request, caller))
                    callers.append(caller)
                case ("cancel", index) if index < len(callers):
                    if not callers[index].calls and index not in cancelled:
                        served.cancel(places[index])
                        cancelled.add(index)
                case ("advance", ns):
                    clock.advance(ns)
                case ("yield",):
                    await asyncio.sleep(0)
        await served.drain()
        for index, caller in enumerate(callers):
            assert caller.told is (index in cancelled)
            if index in cancelled:
                assert caller.calls == [], "nobody is called after a cancellation"
            elif isinstance(caller.answer, DeadlineExceeded):
                assert caller.request.deadline_ns
            elif len(caller.ids) and caller.ids.max() >= len(TABLE):
                assert isinstance(caller.answer, InferenceFailed | InvalidTensor)
            else:
                caller.assert_right()
        assert served.pending == served.waiting == 0
        assert_all_accounted_for(served.stats, callers, cancelled)
        await served.close()

    run(scenario)
