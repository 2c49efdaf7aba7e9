"""Random valid sequences of frames, by an independent client: every call gets its own answer."""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http2 import calls, frames
from tests.http2.calls import prefixed
from tests.http2.h2_client import H2Client

MAX_PAD = 255


@dataclass
class Call:
    """A call as it is to be made, and how far it has come.

    Attributes:
        values: what each of its messages asks for.
        cancel_at: after how many of its octets it is cancelled; ``None`` for never.
        frame: how many octets go into one frame.
    """

    streaming: bool
    model: str
    values: list[list[float]]
    cancel_at: int | None
    frame: int
    padded: bool
    stream: int = 0
    sent: int = 0
    ended: bool = False
    body: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.body = b"".join(
            prefixed(calls.request(values, model=self.model, id=str(i)))
            for i, values in enumerate(self.values)
        )


numbers = st.builds(
    lambda count, start: [float(start + i) for i in range(count)],
    st.one_of(st.integers(0, 8), st.sampled_from([1000, 5000, 20_000])),
    st.integers(0, 1000),
)
made_calls = st.builds(
    lambda streaming, values, **rest: Call(
        streaming, values=values[: None if streaming else 1], **rest
    ),
    streaming=st.booleans(),
    values=st.lists(numbers, min_size=1, max_size=4),
    model=st.sampled_from(["negate", "negate", "negate", "nobody", "fail"]),
    cancel_at=st.one_of(st.none(), st.none(), st.integers(0, 30_000)),
    frame=st.sampled_from([1, 7, 100, 5000, 16_384]),
    padded=st.booleans(),
)
client_settings = st.fixed_dictionaries(
    {
        SettingCodes.INITIAL_WINDOW_SIZE: st.sampled_from([1000, 16_384, 65_535, 1 << 20]),
        SettingCodes.MAX_FRAME_SIZE: st.sampled_from([16_384, 16_385, 100_000]),
        SettingCodes.HEADER_TABLE_SIZE: st.sampled_from([0, 100, 4096, 65_536]),
    }
)


@pytest.fixture(autouse=True)
def nobody_is_held(server):
    assert not server.dispatcher.held


@settings(max_examples=100, deadline=None)
@given(
    wanted=client_settings,
    plan=st.lists(made_calls, min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_every_call_gets_its_own_answer(
    server: Any, wanted: dict[SettingCodes, int], plan: list[Call], seed: int
) -> None:
    """``seed`` is that of the order of steps, which depends on what the server says when, too."""
    chance = random.Random(seed)
    client = H2Client(server.front.port, wanted)
    try:
        unfinished = list(plan)
        while unfinished:
            call = chance.choice(unfinished)
            go_on(client, call, chance)
            if call.ended or call.stream in client.cancelled or client.answers[call.stream].over:
                unfinished.remove(call)
            if chance.random() < 0.1:
                something_else(client, call, chance)
            client.flush()
            client.listen(0)
        client.finish({call.stream for call in plan} - client.cancelled)
    finally:
        client.close()
    for call in plan:
        if call.stream not in client.cancelled:
            check(call, client)


def go_on(client: H2Client, call: Call, chance: random.Random) -> None:
    """Take the call's next step: its fields, a frame of its messages, its end, or its reset."""
    if not call.stream:
        call.stream = client.start(calls.fields(calls.STREAM if call.streaming else calls.UNARY))
        return
    if client.answers[call.stream].over:
        return
    if call.cancel_at is not None and call.sent >= min(call.cancel_at, len(call.body)):
        client.cancel(call.stream)
        return
    # More than fifty small frames of a call would say no more.
    frame = call.frame if call.sent < 50 * call.frame else frames.DEFAULT_FRAME_SIZE
    size = min(frame, len(call.body) - call.sent)
    pad = chance.randrange(MAX_PAD + 1) if call.padded else None
    size = min(size, client.room(call.stream) - (0 if pad is None else 1 + pad))
    if size < 0 or (size == 0 and call.sent < len(call.body)):
        client.acknowledge(call.stream)
        client.flush()
        client.listen(0.05)  # until the server opens its windows
        return
    part = call.body[call.sent : call.sent + size]
    call.sent += size
    # The end comes with the last octet, or alone.
    call.ended = call.sent == len(call.body) and (size == 0 or chance.random() < 0.5)
    client.connection.send_data(call.stream, part, end_stream=call.ended, pad_length=pad)


def something_else(client: H2Client, call: Call, chance: random.Random) -> None:
    """Something that a client may do at any time, and that changes no answer."""
    choice = chance.randrange(5)
    if choice == 0:
        client.connection.ping(chance.randbytes(8))
    elif choice == 1 and call.stream not in client.cancelled:
        client.connection.prioritize(call.stream, weight=chance.randint(1, 256), exclusive=True)
    elif choice == 2:
        client.connection.increment_flow_control_window(chance.choice([1, 1000, 100_000]))
    elif choice == 3:
        window = chance.choice([0, 1, 20_000, 65_535])
        client.change_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
    else:
        for stream in list(client.unacknowledged):
            client.acknowledge(stream)


def check(call: Call, client: H2Client) -> None:
    """The answer is the one that ``call`` asked for."""
    answer = client.answers[call.stream]
    assert answer.ended, answer
    expected = [[-value for value in values] for values in call.values]
    if call.streaming:
        assert answer.grpc_status == calls.OK, answer
        answers = [calls.streamed(message) for message in answer.messages]
        if call.model == "negate":
            found = {calls.id_of(inner): calls.values_of(inner) for _, inner in answers}
            assert found == {str(i): values for i, values in enumerate(expected)}
        else:
            assert len(answers) == len(expected)
            assert all(error for error, _ in answers)
    elif call.model == "negate":
        assert answer.values() == expected[0]
    else:
        assert answer.grpc_status == {"nobody": calls.NOT_FOUND, "fail": calls.INTERNAL}[call.model]
