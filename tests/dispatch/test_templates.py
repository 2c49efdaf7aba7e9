"""What the dispatcher keeps of a request for those with the same head, and for how long."""

import asyncio

import numpy as np
import pytest

from gateway._native.ticket import Ticket
from gateway.clock import monotonic_ns
from gateway.dispatch import dispatcher as dispatching
from gateway.dispatch.route import RouteTable
from gateway.errors import ModelNotReady, QueueFull, ShuttingDown
from gateway.serving.lifecycle import State
from gateway.types import FP32, InferInput, InferRequest, RequestedOutput
from tests.dispatch.test_dispatcher import request, serving


class Sink:
    """Who waits for a request with a known head: takes it off the count when its answer comes."""

    def __init__(self, dispatcher):
        self._dispatcher = dispatcher
        self.answer = asyncio.get_running_loop().create_future()

    def complete(self, arrays):
        self._dispatcher.inflight -= 1
        self.answer.set_result([array.copy() for array in arrays])

    def fail(self, error):
        self._dispatcher.inflight -= 1
        self.answer.set_exception(error)


def submit(dispatcher, template, value):
    """Submit rows of ``value`` by ``template``; the future of the answer."""
    sink = Sink(dispatcher)
    data = np.full((template.rows, 2), value, np.float32).tobytes()
    ticket = Ticket(template.group, template.rows, [data], sink)
    dispatcher.submit_known(template, ticket, monotonic_ns())
    return sink.answer


async def learned(dispatcher, of=None):
    """The template of a request that was answered, ``None`` where there is none."""
    of = of or request()
    await dispatcher.infer(of)
    dispatcher.learn(b"head", of)
    return dispatcher.templates.get(b"head")


@serving
async def test_a_known_request_is_answered_like_an_unknown_one(dispatcher):
    template = await learned(dispatcher)
    minus, twice = await submit(dispatcher, template, 4.0)
    assert minus.tolist() == [[-4.0, -4.0]]
    assert twice.tolist() == [[8.0, 8.0]]


@serving
async def test_known_and_unknown_requests_share_batches(dispatcher):
    template = await learned(dispatcher)
    known = submit(dispatcher, template, 4.0)
    answers = []
    dispatcher.submit(request(5.0), answers.append)
    await known
    assert len(answers) == 1
    assert template.lane.stats.batch_sizes.keys() == {1, 2}


@serving
async def test_new_routes_forget_all_templates(dispatcher):
    """They hold on to lanes, which may be gone."""
    templates = dispatcher.templates
    await learned(dispatcher)
    dispatcher.routes = RouteTable((), {})
    assert templates == {}
    assert dispatcher.templates is templates


@serving
async def test_the_oldest_template_leaves_when_there_are_too_many(dispatcher):
    of = request()
    for number in range(dispatching.MAX_TEMPLATES + 5):
        dispatcher.learn(b"%d" % number, of)
    assert len(dispatcher.templates) == dispatching.MAX_TEMPLATES
    assert b"4" not in dispatcher.templates
    assert b"5" in dispatcher.templates


def rows(count):
    data = np.ones((count, 2), np.float32).tobytes()
    return InferRequest(
        "both", "", "", [InferInput("x", FP32, (count, 2), data)], None, {}, 0, monotonic_ns()
    )


def with_parameters(**parameters):
    of = request()
    of.parameters = parameters
    return of


@pytest.mark.parametrize(
    "make",
    [
        lambda: rows(5),
        lambda: with_parameters(sequence_id=3),
        lambda: request(outputs=[RequestedOutput("minus", class_count=1)]),
    ],
    ids=["more rows than a batch has", "a parameter for others", "classes"],
)
def test_what_a_template_cannot_say_has_none(make):
    @serving
    async def scenario(dispatcher):
        assert await learned(dispatcher, make()) is None

    scenario()


@serving
async def test_a_timeout_beyond_all_bounds_is_as_good_as_none(dispatcher):
    template = await learned(dispatcher, with_parameters(timeout=2**62))
    assert 2**61 < template.timeout_ns < 2**63


@serving
async def test_known_requests_are_refused_like_unknown_ones(dispatcher):
    template = await learned(dispatcher)
    waiting = [submit(dispatcher, template, 1.0) for _ in range(3)]
    with pytest.raises(QueueFull, match="--max-inflight-requests"):
        submit(dispatcher, template, 1.0)
    await asyncio.gather(*waiting)
    template.target.move(State.DRAINING)
    with pytest.raises(ModelNotReady, match="DRAINING"):
        submit(dispatcher, template, 1.0)
    dispatcher.draining = True
    with pytest.raises(ShuttingDown):
        submit(dispatcher, template, 1.0)
    assert dispatcher.refused == {"QueueFull": 1, "ModelNotReady": 1, "ShuttingDown": 1}
