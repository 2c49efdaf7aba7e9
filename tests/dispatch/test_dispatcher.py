"""Admission, and the promise of one reply for each accepted request."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from gateway.clock import monotonic_ns
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.route import RouteTable
from gateway.errors import InvalidTensor, ModelNotFound, QueueFull, ShuttingDown
from gateway.serving.lane import Lane
from gateway.serving.lifecycle import State
from gateway.serving.loaded import LoadedModel
from gateway.serving.onnx.session import open_session
from gateway.serving.registry import ModelVersion
from gateway.serving.settings import ModelSettings
from gateway.serving.signature import Signature, TensorSpec
from gateway.types import FP32, InferInput, InferRequest, RequestedOutput
from tests.serving.onnx_models import model

BOTH = model(
    [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Add", ["x", "x"], ["twice"])],
    {"x": (TensorProto.FLOAT, ["N", 2])},
    {"minus": (TensorProto.FLOAT, ["N", 2]), "twice": (TensorProto.FLOAT, ["N", 2])},
)
SPECS = {name: TensorSpec(name, FP32, (-1, 2), ("N", ""), 0) for name in ("x", "minus", "twice")}


def serving(test):
    """Run a test with a dispatcher over one loaded model."""

    async def scenario():
        loaded = LoadedModel(
            "both",
            "1",
            Path("model.onnx"),
            ModelSettings(inline=True),
            Signature((SPECS["x"],), (SPECS["minus"], SPECS["twice"]), 4),
            (open_session(BOTH, ModelSettings(), size_bytes=len(BOTH)),),
            {1: 1},
        )
        version = ModelVersion("both", "1")
        version.lane = Lane(loaded, asyncio.get_running_loop(), inline_threshold_ns=1)
        version.move(State.LOADING)
        version.move(State.READY)
        dispatcher = Dispatcher(RouteTable([version], {"both": version}), max_inflight=3)
        await test(dispatcher)
        await version.lane.drain()
        assert dispatcher.inflight == 0
        await version.lane.close()

    return lambda: asyncio.run(scenario())


def request(value=1.0, *, model="both", outputs=None, id="7"):
    data = np.full((1, 2), value, np.float32).tobytes()
    tensors = [InferInput("x", FP32, (1, 2), data)]
    return InferRequest(model, "", id, tensors, outputs, {}, 0, monotonic_ns())


@serving
async def test_an_answer_names_its_version_and_its_request(dispatcher):
    answer = await dispatcher.infer(request(3.0))
    assert (answer.model, answer.version, answer.id) == ("both", "1", "7")
    assert {o.name: o.array.tolist() for o in answer.outputs} == {
        "minus": [[-3.0, -3.0]],
        "twice": [[6.0, 6.0]],
    }


@serving
async def test_an_answer_that_is_awaited_may_be_kept(dispatcher):
    kept = await dispatcher.infer(request(1.0))
    await dispatcher.infer(request(2.0))
    assert kept.outputs[0].array.tolist() == [[-1.0, -1.0]]


@serving
async def test_the_outputs_asked_for_come_in_the_order_asked(dispatcher):
    wanted = [RequestedOutput("twice"), RequestedOutput("minus", class_count=1)]
    answer = await dispatcher.infer(request(2.0, outputs=wanted))
    assert [o.name for o in answer.outputs] == ["twice", "minus"]
    assert answer.outputs[1].array.tolist() == [[b"-2.000000:0"]]


@serving
async def test_an_unknown_output_is_refused_with_the_names_there_are(dispatcher):
    with pytest.raises(InvalidTensor, match=r"no output 'thrice'.*\['minus', 'twice'\]"):
        await dispatcher.infer(request(outputs=[RequestedOutput("thrice")]))


@serving
async def test_the_reply_never_comes_before_submit_returns(dispatcher):
    replies = []
    dispatcher.submit(request(), replies.append)
    assert replies == []
    while not replies:
        await asyncio.sleep(0)


@serving
async def test_over_the_limit_of_requests_in_flight_all_are_refused(dispatcher):
    replies = []
    for _ in range(3):
        dispatcher.submit(request(), replies.append)
    with pytest.raises(QueueFull, match="--max-inflight-requests"):
        dispatcher.submit(request(), replies.append)
    while dispatcher.inflight:
        await asyncio.sleep(0)
    assert len(replies) == 3
    assert dispatcher.refused == {"QueueFull": 1}


@serving
async def test_a_cancelled_request_is_never_answered_and_frees_its_place(dispatcher):
    replies = []
    pending = [dispatcher.submit(request(), replies.append) for _ in range(3)]
    pending[1].cancel()
    pending[1].cancel()
    assert dispatcher.inflight == 2
    while dispatcher.inflight:
        await asyncio.sleep(0)
    pending[0].cancel()
    assert (len(replies), dispatcher.inflight) == (2, 0)


@serving
async def test_a_server_that_drains_finishes_what_it_has_and_takes_nothing(dispatcher):
    replies = []
    dispatcher.submit(request(), replies.append)
    dispatcher.draining = True
    with pytest.raises(ShuttingDown, match="is shutting down"):
        dispatcher.submit(request(), replies.append)
    while dispatcher.inflight:
        await asyncio.sleep(0)
    assert len(replies) == 1


@serving
async def test_a_refusal_is_counted_by_its_reason(dispatcher):
    with pytest.raises(ModelNotFound):
        dispatcher.submit(request(model="nobody"), lambda answer: None)
    assert dispatcher.refused == {"ModelNotFound": 1}
