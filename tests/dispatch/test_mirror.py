"""Copies for a shadow: each one is accounted for, and no primary answer is ever touched by them."""

import asyncio
import gc
from pathlib import Path

import grpc
import numpy as np
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from gateway._native.ticket import Group, live_tickets
from gateway.clock import monotonic_ns
from gateway.dispatch import dispatcher as dispatching
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.mirror import PRIMARY_BATCHES, SHADOW_BATCHES, Mirror
from gateway.dispatch.pace import Pace
from gateway.dispatch.route import RouteTable
from gateway.errors import DeadlineExceeded, GatewayError, ModelNotReady, QueueFull
from gateway.front.grpc_native import NativeFront
from gateway.front.grpc_options import GrpcOptions
from gateway.serving.lane import Lane
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.registry import ModelVersion
from gateway.serving.settings import ModelSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import FP32, INT64, InferInput, InferRequest, RequestedOutput
from tests.control.plane import until
from tests.serving.test_lane import MAX_ROWS, SESSION, SIGNATURE, TABLE

#: Of a lane that holds what it gets, until a batch is full or it is closed.
HOLDING = {"inline": False, "max_queue_delay_us": 10**9}
#: The shadow of another layout: it knows no batches.
UNBATCHED = Signature(
    tuple(
        TensorSpec(spec.name, spec.datatype, spec.shape, spec.symbols, None)
        for spec in SIGNATURE.inputs
    ),
    tuple(
        TensorSpec(spec.name, spec.datatype, spec.shape, spec.symbols, None)
        for spec in SIGNATURE.outputs
    ),
    0,
)


@pytest.fixture(autouse=True)
def _nothing_leaks():
    gc.collect()
    before = live_tickets()
    yield
    gc.collect()
    assert live_tickets() == before


class Stage:
    """Version 1 of ``lookup``, which answers, and version 2, which shadows it.

    Both look ids up in the same table, and fail for an id that is not in it.
    """

    def __init__(
        self,
        *,
        share=1.0,
        chance=lambda: 1 / 0,
        primary=None,
        shadow=None,
        layout=SIGNATURE,
        hold=1,
    ):
        loop = asyncio.get_running_loop()
        self.version = ModelVersion("lookup", "1")
        self.version.lane = Lane(
            loaded("1", SIGNATURE, primary or {"inline": True}), loop, inline_threshold_ns=0
        )
        self.version.move(State.LOADING)
        self.version.move(State.READY)
        self.primary = self.version.lane
        self.shadow = Lane(
            loaded("2", layout, shadow or {}), loop, inline_threshold_ns=0, background=True
        )
        self.pace = Pace(1)
        self.kept = []
        self.mirror = Mirror(
            self.shadow,
            share,
            self.pace,
            self.kept.append,
            primary=self.primary,
            hold=hold,
            chance=chance,
        )
        self.dispatcher = Dispatcher(RouteTable((), {}), max_inflight=1000)
        self.route()

    def route(self):
        """Publish a route table with the shadow in it, as the control plane does."""
        self.dispatcher.routes = RouteTable(
            [self.version], {"lookup": self.version}, mirrors={self.version: self.mirror}
        )

    def set_pace(self, share):
        self.pace.share = share
        self.mirror.update()

    def submit(self, first_id=1, rows=1, **more):
        return Call(self, first_id, rows, **more)

    async def settled(self):
        """Wait until both have answered all that they have."""
        await self.primary.drain()
        self.mirror.flush()
        await self.shadow.drain()
        self.assert_accounted()

    async def close(self):
        await self.primary.close()
        await self.shadow.close()
        self.assert_accounted()
        assert self.mirror.open == 0
        assert self.dispatcher.inflight == 0

    def assert_accounted(self):
        mirror = self.mirror
        skipped = sum(mirror.skipped.values())
        assert mirror.offered == mirror.sampled_out + skipped + mirror.sent
        assert mirror.sent == mirror.paired_count + mirror.cancelled_pairs + mirror.open
        assert mirror.paired_count == len(self.kept)
        assert mirror.open == len(mirror._open)


def loaded(number, signature, changes):
    return LoadedModel(
        "lookup", number, Path("model.onnx"), ModelSettings(**changes), signature, (SESSION,), {}
    )


class Call:
    """One request of a client, and what came of it."""

    def __init__(self, stage, first_id, rows, *, deadline_ns=0, buffer=bytes, outputs=None):
        self._stage = stage
        self.ids = (first_id + np.arange(rows)).astype(np.int64)
        self.state = np.random.default_rng(rows).random((2, rows, 3), np.float32)
        #: The ids' bytes, where the client may go on writing to them.
        self.buffer = buffer(self.ids.tobytes())
        given = self.buffer if buffer is bytes else memoryview(self.buffer)
        inputs = [
            InferInput("id", INT64, self.ids.shape, given),
            InferInput("state", FP32, self.state.shape, self.state.tobytes()),
        ]
        self.request = InferRequest(
            "lookup", "", "7", inputs, outputs, {}, deadline_ns, monotonic_ns()
        )
        self.answers = []
        #: Requests of which the shadow knew at the moment in which the client had its answer.
        self.shadow_knew = None
        self.pending = stage.dispatcher.submit(self.request, self.reply)

    def reply(self, answer):
        shadow = self._stage.shadow
        self.shadow_knew = shadow.pending + shadow.stats.requests_ok
        if not isinstance(answer, GatewayError):
            for output in answer.outputs:
                output.array = output.array.copy()
        self.answers.append(answer)

    @property
    def answer(self):
        assert len(self.answers) == 1, "exactly one answer"
        return self.answers[0]

    @property
    def known(self):
        """Whether all ids are in the table."""
        return not len(self.ids) or int(self.ids.max()) < len(TABLE)

    def assert_right(self):
        answer = self.answer
        assert (answer.version, answer.id) == ("1", "7")
        self.assert_outputs([output.array for output in answer.outputs])

    def assert_outputs(self, arrays):
        value, following = arrays
        np.testing.assert_array_equal(value, TABLE[self.ids])
        np.testing.assert_array_equal(following, self.state + 1)


def staged(**options):
    """Have an asynchronous test run with a ``Stage`` of its own."""

    def decorate(test):
        async def scenario():
            stage = Stage(**options)
            await test(stage)
            await stage.close()

        def run():
            uvloop.run(scenario())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


# -- pairs ------------------------------------------------------------------------------------


@staged()
async def test_both_answers_to_a_request_become_a_pair(stage):
    call = stage.submit(3, 2)
    assert stage.mirror.open == 1
    await stage.settled()
    call.assert_right()
    (pair,) = stage.kept
    call.assert_outputs(pair.primary.outputs)
    call.assert_outputs(pair.shadow.outputs)
    assert pair.primary.ns > 0
    assert pair.shadow.ns > 0
    np.testing.assert_array_equal(pair.inputs[0].array(), call.ids)


@staged()
async def test_what_is_kept_is_not_what_later_batches_overwrite(stage):
    calls = []
    for first in range(1, 40, 3):
        calls.append(stage.submit(first, 2))
        await stage.settled()
    for call, pair in zip(calls, stage.kept, strict=True):
        call.assert_outputs(pair.primary.outputs)
        call.assert_outputs(pair.shadow.outputs)


@staged()
async def test_all_outputs_are_compared_whatever_the_client_asked_for(stage):
    stage.submit(3, 2, outputs=[RequestedOutput("value")])
    await stage.settled()
    (pair,) = stage.kept
    assert len(pair.primary.outputs) == len(pair.shadow.outputs) == 2


@staged(shadow=HOLDING)
async def test_the_client_has_its_answer_before_the_shadow_has_its_own(stage):
    call = stage.submit()
    await stage.primary.drain()
    call.assert_right()
    assert stage.mirror.open == 1


@pytest.mark.parametrize("rows", [1, MAX_ROWS * 2 + 1], ids=["whole", "in slices"])
def test_the_client_has_its_answer_before_the_shadow_knows_of_the_request(rows):
    @staged()
    async def scenario(stage):
        call = stage.submit(1, rows)
        assert stage.shadow.pending == 0
        assert stage.mirror.open == 1, "it is accounted for from its acceptance on"
        await stage.settled()
        call.assert_right()
        assert call.shadow_knew == 0
        assert len(stage.kept) == 1

    scenario()


@staged(primary=HOLDING)
async def test_the_shadow_waits_however_long_the_primary_takes(stage):
    call = stage.submit()
    await asyncio.sleep(0)
    assert (stage.shadow.pending, stage.mirror.open) == (0, 1)
    stage.submit(1, MAX_ROWS - 1)
    await stage.settled()
    call.assert_right()
    assert len(stage.kept) == 2


@staged()
async def test_a_request_in_slices_is_a_pair_as_a_whole(stage):
    call = stage.submit(0, 3 * MAX_ROWS + 5)
    await stage.settled()
    call.assert_right()
    (pair,) = stage.kept
    call.assert_outputs(pair.shadow.outputs)


@pytest.mark.parametrize("first_id", [99, 1000])
def test_what_both_fail_is_a_pair_without_outputs(first_id):
    @staged()
    async def scenario(stage):
        call = stage.submit(first_id, 2)
        await stage.settled()
        assert isinstance(call.answer, GatewayError)
        (pair,) = stage.kept
        assert pair.primary.outputs is None
        assert pair.shadow.outputs is None

    scenario()


@staged()
async def test_a_primary_that_expires_is_a_failure_of_its_side_alone(stage):
    call = stage.submit(deadline_ns=monotonic_ns())
    await stage.settled()
    assert isinstance(call.answer, DeadlineExceeded)
    (pair,) = stage.kept
    assert pair.primary.outputs is None
    call.assert_outputs(pair.shadow.outputs)


def test_an_answer_that_could_not_be_delivered_is_accounted_too(caplog):
    @staged()
    async def scenario(stage):
        stage.submit().pending._reply = lambda answer: 1 / 0
        await stage.settled()
        assert len(stage.kept) == 1

    scenario()
    assert "could not be delivered" in caplog.text
    # The traceback holds on to the request.
    caplog.clear()


@staged()
async def test_a_primary_that_is_unloaded_has_failed(stage):
    call = stage.submit()
    await stage.primary.close()
    assert isinstance(call.answer, ModelNotReady)
    await stage.settled()
    assert stage.kept[0].primary.outputs is None


# -- the shadow's troubles are its own --------------------------------------------------------


@staged(shadow={"max_queue_size": 1, **HOLDING})
async def test_a_shadow_with_a_full_queue_refuses_and_nobody_notices(stage):
    calls = [stage.submit(n) for n in range(3)]
    await stage.primary.drain()
    for call in calls:
        call.assert_right()
    assert stage.mirror.skipped == {"refused": 2}
    assert (stage.mirror.offered, stage.mirror.sent) == (3, 1)


@staged(layout=UNBATCHED)
async def test_a_shadow_of_other_shapes_gets_what_fits_it(stage):
    """It is run a request at a time, as it wants to be; the primary goes on in batches."""
    calls = [stage.submit(1, rows) for rows in (1, 2, 3)]
    await stage.settled()
    for call, pair in zip(calls, stage.kept, strict=True):
        call.assert_right()
        call.assert_outputs(pair.shadow.outputs)


NARROW = Signature(
    (
        TensorSpec("id", INT64, (-1,), ("N",), 0),
        TensorSpec("state", FP32, (2, -1, 4), ("", "N", ""), 1),
    ),
    SIGNATURE.outputs,
    MAX_ROWS,
)


@staged(layout=NARROW)
async def test_a_shadow_that_cannot_take_the_shapes_refuses_and_nobody_notices(stage):
    calls = [stage.submit(n) for n in range(3)]
    await stage.primary.drain()
    for call in calls:
        call.assert_right()
    assert stage.mirror.skipped == {"refused": 3}


@staged(shadow={"allow_slicing": False})
async def test_a_shadow_that_does_not_slice_refuses_and_nobody_notices(stage):
    call = stage.submit(0, MAX_ROWS + 1)
    await stage.settled()
    call.assert_right()
    assert stage.mirror.skipped == {"refused": 1}


@staged(shadow=HOLDING)
async def test_a_shadow_that_is_closed_fails_what_it_had_and_refuses_the_rest(stage):
    before = stage.submit(1)
    await stage.primary.drain()
    await stage.shadow.close()
    after = stage.submit(2)
    await stage.primary.drain()
    for call in (before, after):
        call.assert_right()
    (pair,) = stage.kept
    assert pair.shadow.outputs is None
    assert stage.mirror.skipped == {"refused": 1}


@staged(shadow=HOLDING)
async def test_a_shadow_that_does_not_keep_up_gets_no_more_than_it_can_hold(stage):
    most = SHADOW_BATCHES * MAX_ROWS
    for n in range(most + 20):
        # No rows: such a request has its place in a batch of its own shape and fills none.
        call = stage.submit(n % 100, 0 if n % MAX_ROWS else 1)
        await stage.primary.drain()
        call.assert_right()
    assert stage.mirror.open <= most
    assert stage.mirror.sent + stage.mirror.skipped.get("backlog", 0) == most + 20


@staged()
async def test_while_those_who_get_the_pairs_are_behind_nothing_is_copied(stage):
    stage.mirror.paused = True
    stage.submit()
    stage.mirror.paused = False
    stage.submit()
    await stage.settled()
    assert stage.mirror.skipped == {"backlog": 1}
    assert stage.mirror.paired_count == 1


# -- what is shed -----------------------------------------------------------------------------


def test_the_share_is_drawn_for_each_request():
    draws = iter([0.24, 0.25, 0.1, 0.9])

    @staged(share=0.25, chance=lambda: next(draws))
    async def scenario(stage):
        for n in range(4):
            stage.submit(n)
        await stage.settled()
        assert (stage.mirror.sampled_out, stage.mirror.sent) == (2, 2)
        assert stage.mirror.skipped == {}

    scenario()


def test_a_busy_process_copies_only_what_it_can_afford():
    draws = iter([0.4, 0.5, 0.6])

    @staged(chance=lambda: next(draws))
    async def scenario(stage):
        stage.pace.share = 0.5
        for n in range(3):
            stage.submit(n)
        await stage.settled()
        assert stage.mirror.skipped == {"busy": 2}

    scenario()


@staged()
async def test_a_process_with_no_time_to_spare_copies_nothing(stage):
    stage.pace.share = 0.0
    calls = [stage.submit(n) for n in range(5)]
    await stage.settled()
    for call in calls:
        call.assert_right()
    assert stage.mirror.skipped == {"busy": 5}
    assert stage.shadow.stats.requests_ok == 0


@staged()
async def test_a_primary_with_a_queue_has_enough_to_do(stage):
    few = PRIMARY_BATCHES * MAX_ROWS
    for n in range(few + 3):
        stage.submit(n % 100)
    assert stage.mirror.skipped == {"primary_queue": 3}
    await stage.settled()
    assert stage.mirror.paired_count == few


@staged(primary={"inline": True, "max_queue_size": 2})
async def test_what_the_primary_refuses_is_not_copied(stage):
    calls = [stage.submit(n) for n in range(2)]
    with pytest.raises(QueueFull):
        stage.submit(3)
    await stage.settled()
    for call in calls:
        call.assert_right()
    assert stage.mirror.skipped == {"primary_refused": 1}
    assert stage.mirror.paired_count == 2


@staged()
async def test_what_never_reaches_the_primary_is_not_offered(stage):
    stage.dispatcher.draining = True
    with pytest.raises(GatewayError):
        stage.submit()
    stage.dispatcher.draining = False
    assert stage.mirror.offered == 0


# -- rest -------------------------------------------------------------------------------------


@staged()
async def test_a_mirror_with_nothing_to_do_is_not_asked_and_counts_exactly(stage):
    stage.submit(1)
    stage.set_pace(0.0)
    assert stage.mirror.rests
    stage.mirror.watch = None
    calls = [stage.submit(2), stage.submit(3, 3 * MAX_ROWS + 1), stage.submit(1000)]
    calls[0].pending.cancel()
    assert (stage.mirror.offered, stage.mirror.skipped) == (4, {"busy": 3})
    stage.assert_accounted()
    await stage.settled()
    calls[1].assert_right()
    assert (stage.mirror.offered, stage.mirror.skipped) == (4, {"busy": 3})
    del stage.mirror.watch
    stage.set_pace(1.0)
    assert not stage.mirror.rests
    assert (stage.mirror.offered, stage.mirror.skipped) == (4, {"busy": 3})
    stage.submit(4)
    await stage.settled()
    assert stage.mirror.offered == 5
    assert stage.mirror.paired_count == 2


@staged()
async def test_a_rest_outlasts_new_routes(stage):
    stage.set_pace(0.0)
    stage.submit(1)
    stage.route()
    stage.mirror.watch = None
    stage.submit(2)
    stage.set_pace(0.0)
    assert stage.mirror.skipped == {"busy": 2}
    del stage.mirror.watch
    stage.set_pace(0.5)
    assert stage.mirror.skipped == {"busy": 2}


@staged()
async def test_pairs_that_are_open_when_a_rest_begins_are_completed(stage):
    call = stage.submit(1)
    stage.set_pace(0.0)
    await stage.settled()
    call.assert_right()
    assert stage.mirror.paired_count == 1


# -- copies that are held ---------------------------------------------------------------------


@staged(hold=4)
async def test_copies_are_held_until_there_are_enough_for_one_batch(stage):
    for first in range(3):
        stage.submit(first)
    await stage.primary.drain()
    assert (stage.mirror.open, stage.shadow.pending) == (3, 0)
    stage.submit(4)
    await stage.primary.drain()
    assert stage.mirror.open == stage.shadow.pending + len(stage.kept) == 4
    await stage.settled()
    assert len(stage.kept) == 4


@staged(hold=4)
async def test_copies_that_are_held_go_when_told_to(stage):
    calls = [stage.submit(first, rows) for first, rows in ((1, 1), (2, MAX_ROWS + 3))]
    await stage.primary.drain()
    assert stage.kept == []
    stage.mirror.flush()
    await stage.shadow.drain()
    for call, pair in zip(
        calls, sorted(stage.kept, key=lambda p: len(p.inputs[0].data)), strict=True
    ):
        call.assert_outputs(pair.shadow.outputs)


@staged(hold=4)
async def test_the_time_that_a_copy_is_held_is_not_the_shadows(stage):
    now_ns = 10**9
    stage.mirror.clock = lambda: now_ns
    stage.submit()
    await stage.primary.drain()
    now_ns += 10**9
    await stage.settled()
    assert stage.kept[0].shadow.ns == 0


@staged(hold=4)
async def test_what_the_shadow_refuses_in_the_end_is_taken_back(stage):
    for first in range(3):
        stage.submit(first)
    await stage.primary.drain()
    await stage.shadow.close()
    assert stage.mirror.sent == 3
    stage.mirror.flush()
    stage.assert_accounted()
    assert (stage.mirror.sent, stage.mirror.skipped) == (0, {"refused": 3})


# -- callers who leave ------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, MAX_ROWS * 2 + 1], ids=["whole", "in slices"])
def test_a_caller_who_leaves_takes_the_pair_along(rows):
    @staged()
    async def scenario(stage):
        call = stage.submit(1, rows)
        call.pending.cancel()
        stage.assert_accounted()
        assert (stage.mirror.cancelled_pairs, stage.mirror.open) == (1, 0)
        await stage.settled()
        assert call.answers == []
        assert stage.kept == []
        assert stage.shadow.stats.requests_ok == 0, "nobody would look at the answer to its copy"

    scenario()


# -- memory that the client may write to ------------------------------------------------------


@staged(primary=HOLDING)
async def test_inputs_that_the_client_may_change_are_copied_at_once(stage):
    """That they stay until the primary has answered is all that is promised."""
    call = stage.submit(5, buffer=bytearray)
    # Nothing has run before this; the primary gets what it is owed, whatever that is.
    call.buffer[:] = np.array([77], np.int64).tobytes()
    fill = stage.submit(1, MAX_ROWS - 1)
    await stage.settled()
    fill.assert_right()
    pair = next(pair for pair in stage.kept if len(pair.primary.outputs[0]) == 1)
    assert pair.shadow.outputs[0].tolist() == [TABLE[5]]
    assert pair.inputs[0].array().tolist() == [5]


@staged()
async def test_inputs_that_cannot_change_are_not_copied(stage):
    call = stage.submit()
    await stage.settled()
    assert stage.kept[0].inputs[0].data is call.buffer


# -- everything at once -----------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 110), st.integers(0, 20), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(0, 40)),
        st.tuples(st.just("pace"), st.sampled_from([0.0, 0.5, 1.0])),
        st.tuples(st.just("yield")),
        st.tuples(st.just("update")),
        st.tuples(st.just("flush")),
        st.tuples(st.just("settle")),
        st.tuples(st.just("close the shadow")),
    ),
    max_size=40,
)


@pytest.mark.parametrize("inline", [True, False], ids=["on the loop", "threads"])
@given(steps=steps, seed=st.integers(0, 2**32), hold=st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_all_is_accounted_for_and_every_primary_answer_is_right(
    inline, steps, seed, hold
):
    """Arrivals in any number of rows, bad and late ones, callers who leave, overload, an end."""
    chance = np.random.default_rng(seed).random
    few = {"max_queue_size": 6}

    @staged(share=0.9, chance=chance, primary={"inline": inline, **few}, shadow=few, hold=hold)
    async def scenario(stage):
        calls, left, refused = [], [], 0
        for step in steps:
            match step:
                case ("submit", first, rows, late):
                    try:
                        calls.append(stage.submit(first, rows, deadline_ns=int(late)))
                    except QueueFull:
                        refused += not stage.mirror.rests
                case ("cancel", number) if number < len(calls):
                    if not calls[number].answers:
                        calls[number].pending.cancel()
                        left.append(calls[number])
                case ("pace", share):
                    stage.pace.share = share
                case ("update",):
                    stage.mirror.update()
                case ("yield",):
                    await asyncio.sleep(0)
                case ("flush",):
                    stage.mirror.flush()
                case ("settle",):
                    await stage.settled()
                case ("close the shadow",):
                    await stage.shadow.close()
            stage.assert_accounted()
        await stage.settled()
        assert stage.mirror.open == 0
        assert stage.mirror.offered == len(calls) + refused
        for call in calls:
            if call in left:
                assert call.answers == []
            elif call.request.deadline_ns:
                assert isinstance(call.answer, DeadlineExceeded)
            elif call.known:
                call.assert_right()
            else:
                assert isinstance(call.answer, GatewayError)
        for pair in stage.kept:
            if pair.primary.outputs is not None and pair.shadow.outputs is not None:
                for mine, other in zip(pair.primary.outputs, pair.shadow.outputs, strict=True):
                    np.testing.assert_array_equal(mine, other)

    scenario()


# -- requests with a known head ---------------------------------------------------------------


class Wire:
    """A gRPC front over the stage's dispatcher: the second request of a kind has a known head."""

    def __init__(self, stage):
        self.stage = stage
        self._front = NativeFront(
            stage.dispatcher, None, None, GrpcOptions(host="127.0.0.1", port=0)
        )

    async def __aenter__(self):
        await self._front.start()
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._front.port}")
        self._infer = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        return self

    async def __aexit__(self, *error):
        await self._channel.close()
        await self._front.close(0)

    @property
    def known_heads(self):
        return len(self.stage.dispatcher.templates)

    def call(self, first_id, rows=1, tag=""):
        """A call of ModelInfer; requests of one ``tag`` and number of rows share a head."""
        ids = (first_id + np.arange(rows)).astype(np.int64)
        state = np.full((2, rows, 3), first_id, np.float32)
        request = pb.ModelInferRequest(model_name="lookup", model_version=tag, id=str(first_id))
        # In another order than the signature's: the copy has to follow the same map.
        request.inputs.add(name="state", datatype="FP32", shape=state.shape)
        request.inputs.add(name="id", datatype="INT64", shape=ids.shape)
        request.raw_input_contents.extend([state.tobytes(), ids.tobytes()])
        return self._infer(request, timeout=30)

    async def ask(self, first_id, rows=1, tag=""):
        """The values of an answer, which is proven to be that request's."""
        answer = await self.call(first_id, rows, tag)
        assert (answer.id, answer.model_version) == (str(first_id), "1")
        value = np.frombuffer(answer.raw_output_contents[0], np.float32)
        np.testing.assert_array_equal(value, TABLE[first_id + np.arange(rows)])
        following = np.frombuffer(answer.raw_output_contents[1], np.float32)
        assert (following == first_id + 1).all()
        return value.tolist()


def wired(**options):
    """As ``staged``, with a ``Wire``."""

    def decorate(test):
        @staged(**options)
        async def run(stage):
            async with Wire(stage) as wire:
                await test(wire, stage)
            await stage.settled()

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


@wired()
async def test_a_request_with_a_known_head_makes_the_same_pair(wire, stage):
    for first in (3, 3):
        await wire.ask(first, 2)
        await stage.settled()
    assert wire.known_heads == 1
    slow, fast = stage.kept
    for side in ("primary", "shadow"):
        outputs = zip(getattr(slow, side).outputs, getattr(fast, side).outputs, strict=True)
        for one, other in outputs:
            np.testing.assert_array_equal(one, other)
    layout, rows, (ids, state) = fast.inputs
    assert rows == 2
    assert layout is stage.shadow.binder.plan(slow.inputs).group.shapes
    by_name = {tensor.name: tensor for tensor in slow.inputs}
    assert bytes(ids) == by_name["id"].data
    assert bytes(state) == by_name["state"].data
    assert ids.obj is state.obj, "both are parts of the message, which is not copied"


@wired()
async def test_requests_with_known_heads_are_skipped_and_counted_as_others(wire, stage):
    await wire.ask(1)
    await stage.settled()
    stage.pace.share = 0.0
    await wire.ask(2)
    stage.set_pace(0.0)
    await wire.ask(2)
    stage.set_pace(1.0)
    await stage.shadow.close()
    await wire.ask(3)
    assert (stage.mirror.offered, stage.mirror.paired_count) == (4, 1)
    assert stage.mirror.skipped == {"busy": 2, "refused": 1}


@wired()
async def test_a_known_request_that_fails_is_told_and_accounted(wire, stage):
    await wire.ask(1)
    with pytest.raises(grpc.aio.AioRpcError, match="1000"):
        await wire.call(1000)
    await stage.settled()
    assert stage.kept[-1].primary.outputs is None
    assert stage.kept[-1].shadow.outputs is None


@wired(primary={"inline": True, "max_queue_size": 1})
async def test_known_requests_that_the_primary_refuses_are_not_copied(wire, stage):
    await wire.ask(1)
    answers = await asyncio.gather(*(wire.call(n) for n in range(20)), return_exceptions=True)
    refused = sum(isinstance(answer, grpc.aio.AioRpcError) for answer in answers)
    await stage.settled()
    assert stage.mirror.skipped.get("primary_refused", 0) == refused
    assert stage.mirror.paired_count == 21 - refused - stage.mirror.skipped.get("refused", 0)


@wired(primary=HOLDING)
async def test_a_known_request_whose_caller_leaves_takes_the_pair_along(wire, stage):
    filling = [asyncio.ensure_future(wire.ask(n)) for n in range(MAX_ROWS)]
    await asyncio.gather(*filling)
    assert wire.known_heads == 1
    await stage.settled()
    call = wire.call(5)
    call.done()
    await until(lambda: stage.mirror.open == 1)
    call.cancel()
    await until(lambda: stage.mirror.cancelled_pairs == 1)
    assert stage.mirror.open == 0


@wired(layout=UNBATCHED)
async def test_a_head_that_cannot_be_copied_from_its_tickets_is_not_known(wire, stage):
    """The shadow has no batches, so its requests are other ones; they are copied the long way."""
    for _ in range(3):
        await wire.ask(3, 2)
    await stage.settled()
    assert wire.known_heads == 0
    assert stage.mirror.paired_count == 3


@wired(primary={"inline": True})
async def test_known_and_unknown_requests_at_once(wire, stage):
    calls = [wire.ask(n % 90, 1 + n % 3) for n in range(60)]
    await asyncio.gather(*calls)
    await stage.settled()
    assert stage.mirror.offered == 60
    for pair in stage.kept:
        for mine, other in zip(pair.primary.outputs, pair.shadow.outputs, strict=True):
            np.testing.assert_array_equal(mine, other)


# -- memory -----------------------------------------------------------------------------------


def test_nothing_grows_with_the_requests_and_heads_that_were_seen(monkeypatch):
    """Of the tickets themselves see ``_nothing_leaks``."""
    monkeypatch.setattr(dispatching, "MAX_TEMPLATES", 4)

    def sizes(mirror):
        containers = (dict, set, list)
        return {n: len(v) for n, v in vars(mirror).items() if isinstance(v, containers)}

    @wired()
    async def scenario(wire, stage):
        before = sizes(stage.mirror)
        for rows in range(1, MAX_ROWS + 1):
            for first in (1, 2):
                await wire.ask(first, rows)
            assert wire.known_heads <= 4
        for rows in range(1, MAX_ROWS + 1):
            stage.route()
            await wire.ask(1, rows)
        await stage.settled()
        assert stage.mirror.paired_count == 3 * MAX_ROWS
        assert sizes(stage.mirror) == before == {"_skipped": 0, "_held": 0, "_open": 0}

    scenario()


@staged()
async def test_a_template_that_leaves_takes_its_group_along(stage):
    call = stage.submit()
    await stage.settled()
    stage.dispatcher.learn(b"head", call.request)
    template = stage.dispatcher.templates[b"head"]
    assert isinstance(template.copies, Group)
    assert template.copies is not template.group
    assert template.group.like(template.copies)
    stage.route()
    assert stage.dispatcher.templates == {}


@staged()
async def test_without_a_shadow_a_template_knows_of_no_copies(stage):
    call = stage.submit()
    await stage.settled()
    stage.dispatcher.routes = RouteTable([stage.version], {"lookup": stage.version})
    stage.dispatcher.learn(b"head", call.request)
    assert stage.dispatcher.templates[b"head"].copies is None
