"""Twins: a second ticket over the same message, for another queue."""

import gc

import numpy as np
import pytest

from gateway._native.arena import Arena
from gateway._native.oip_head import split
from gateway._native.queue import BatchQueue
from gateway._native.ticket import Group, Ticket, live_tickets
from tests.fuzz.fuzz_grpc_infer import MESSAGES, OUTPUTS, REQUESTS, Connection
from tests.fuzz.grpc_session import GrpcSession
from tests.fuzz.http2_peer import END_STREAM, MESSAGE, REQUEST
from tests.fuzz.script import Script
from tests.native.test_queue import gathered

ROW = (1, 8, "batched")
SHARED = (1, 8, "shared")
ABSENT = (0, 0, "opaque")


@pytest.fixture(autouse=True)
def _nothing_leaks():
    gc.collect()
    before = live_tickets()
    yield
    gc.collect()
    assert live_tickets() == before


@pytest.mark.parametrize("layout", [[], [ROW], [ROW, SHARED, ABSENT], [(2, 8, "batched")]])
def test_groups_of_one_layout_are_alike_whatever_queue_they_are_for(layout):
    assert Group(layout, 1, "a").like(Group(layout, 3, "b"))


@pytest.mark.parametrize(
    "other",
    [
        [],
        [ROW],
        [ROW, SHARED, SHARED],
        [SHARED, ROW],
        [ROW, (2, 4, "shared")],
        [ROW, (1, 4, "shared")],
        [ROW, ROW],
        [ROW, ABSENT],
    ],
    ids=str,
)
def test_groups_that_differ_in_any_input_are_not_alike(other):
    ours = Group([ROW, SHARED])
    assert not ours.like(Group(other))
    assert not Group(other).like(ours)


#: A message with three inputs of one row, which the template takes in reverse order.
MESSAGE_OF_THREE = 1
THREE = [ROW] * 3


class Received:
    """A ticket that the core has made of a gRPC message; it waits in the queue of its lane."""

    def __init__(self):
        self._session = GrpcSession(Script(bytes([1, 1])), Connection, REQUESTS, MESSAGES)
        first_stream = 1
        for step, script in (
            (REQUEST, [0, 0]),
            (MESSAGE, [first_stream, END_STREAM, 0, MESSAGE_OF_THREE]),
        ):
            self._session.step(step, Script(bytes(script)))
        self._dispatcher = self._session.connection.behind
        self._dispatcher.take(self._session.now_ns)
        (batch,) = self._dispatcher.taken
        (self.ticket,) = batch.tickets

    def answer(self):
        """Answer it, and lose the connection: nothing is left of it but its twins."""
        self._dispatcher.give(OUTPUTS)
        self._session.lose()
        self._dispatcher.templates.clear()
        self._session = self._dispatcher = self.ticket = None


@pytest.fixture
def received():
    made = Received()
    yield made
    made.answer()


def rows():
    """The inputs in the group's order, as the message has them."""
    return [bytes(raw) for raw in reversed(split(MESSAGES[MESSAGE_OF_THREE])[2])]


def test_a_ticket_shows_its_inputs_as_parts_of_its_message(received):
    views = received.ticket.buffers()
    assert [bytes(view) for view in views] == rows()
    assert {id(view.obj) for view in views} == {id(received.ticket.inputs)}, "nothing is copied"
    assert all(view.readonly for view in views)


def test_a_twin_has_the_same_inputs_and_a_queue_and_a_sink_of_its_own(received):
    queue, arena = BatchQueue(8, 1), Arena(3)
    group = Group(THREE)
    twin = received.ticket.twin(group, "somebody")
    assert (twin.rows, twin.group, twin.sink, twin.deadline_ns) == (1, group, "somebody", 0)
    assert [bytes(view) for view in twin.buffers()] == rows()
    assert queue.put(twin, 1)
    batch = queue.poll(arena, 2)
    assert batch.tickets == [twin]
    for index, row in enumerate(rows()):
        assert gathered(arena, index, (1, 8), np.uint8).tobytes() == row
    twin.release()


def test_a_twin_outlives_the_ticket_the_call_and_the_connection():
    received = Received()
    twin = received.ticket.twin(Group(THREE), None)
    received.answer()
    del received
    gc.collect()
    queue, arena = BatchQueue(8, 1), Arena(3)
    queue.put(twin, 1)
    queue.poll(arena, 2)
    for index, row in enumerate(rows()):
        assert gathered(arena, index, (1, 8), np.uint8).tobytes() == row


def test_twins_share_a_batch_with_each_other(received):
    queue, arena, group = BatchQueue(8, 8), Arena(3), Group(THREE)
    for _ in range(3):
        queue.put(received.ticket.twin(group, None), 1)
    batch = queue.poll(arena, 2)
    assert batch.rows == 3
    assert gathered(arena, 0, (3, 8), np.uint8).tobytes() == rows()[0] * 3


@pytest.mark.parametrize("layout", [[ROW], [ROW, ROW, SHARED], [ROW, ROW, (1, 4, "batched")]])
def test_a_twin_for_a_queue_that_wants_other_inputs_is_refused(received, layout):
    with pytest.raises(ValueError, match="a twin's group has the same inputs"):
        received.ticket.twin(Group(layout), None)


def test_a_ticket_that_was_not_made_of_a_message_has_no_twin():
    group = Group([ROW])
    made = Ticket(group, 1, [bytes(8)], None)
    with pytest.raises(ValueError, match="only a ticket made of a message has a twin"):
        made.twin(group, None)
    with pytest.raises(ValueError, match="only a ticket made of a message"):
        made.buffers()


def test_a_ticket_that_was_released_has_no_inputs_any_more(received):
    twin = received.ticket.twin(Group(THREE), None)
    twin.release()
    with pytest.raises(ValueError, match="only a ticket made of a message"):
        twin.buffers()
    with pytest.raises(ValueError, match="only a ticket made of a message"):
        twin.twin(Group(THREE), None)
    assert [bytes(view) for view in received.ticket.buffers()] == rows(), "its twin's are its own"
