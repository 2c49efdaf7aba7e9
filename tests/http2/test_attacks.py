"""Floods and bombs: what one connection sends, others are served, and a limit bites.

An attack is bounded by ``FRAMES``. Before that the server has had enough: it says
ENHANCE_YOUR_CALM, or just closes.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.http2 import blocks, calls, frames
from tests.http2.blocks import INDEXING
from tests.http2.calls import prefixed
from tests.http2.frames import Code, Setting, Type
from tests.http2.neighbour import Memory, Neighbour
from tests.http2.peer import Peer

FRAMES = 20_000
BATCH = 100

BODY = prefixed(calls.request())

#: A call's fields in octets that can be sent on any number of streams.
BLOCK = blocks.plain(calls.fields())
STREAM_BLOCK = blocks.plain(calls.fields(calls.STREAM))


@pytest.fixture(autouse=True)
def neighbour(server) -> Iterator[Neighbour]:
    """Whatever happens, somebody else gets right answers, during and after it."""
    with Neighbour(server.front.port) as neighbour:
        yield neighbour


def expect_enough(peer: Peer, flood: Iterator[bytes], *codes: Code) -> None:
    """Send ``flood`` until the server closes the connection, which it has to before the end."""
    while part := b"".join(itertools.islice(flood, BATCH)):
        peer.send(part)
        peer.listen()
        if peer.closed or peer.goaways:
            break
    peer.until_closed()
    assert {code for _, code in peer.goaways} <= {Code.ENHANCE_YOUR_CALM, *codes}


# ---- streams that are made and reset ----


def streams(peer: Peer, make: Callable[[int], bytes]) -> Iterator[bytes]:
    for _ in range(FRAMES):
        yield make(peer.stream())


RESET_BY_THE_CLIENT: dict[str, Callable[[int], bytes]] = {
    "before its body": lambda s: frames.headers(s, BLOCK) + frames.rst_stream(s),
    "in its body": lambda s: (
        frames.headers(s, BLOCK) + frames.data(s, BODY[:9]) + frames.rst_stream(s)
    ),
    "after its end": lambda s: (
        frames.headers(s, BLOCK) + frames.data(s, BODY, end=True) + frames.rst_stream(s)
    ),
}


@pytest.mark.parametrize("when", RESET_BY_THE_CLIENT)
def test_rapid_reset(peer, when):
    """CVE-2023-44487: streams that are opened and reset cost the server work, the client none."""
    expect_enough(peer, streams(peer, RESET_BY_THE_CLIENT[when]))


def in_flight(stream: int) -> bytes:
    return frames.headers(stream, BLOCK) + frames.data(stream, BODY, end=True)


RESET_BY_THE_SERVER: dict[str, Callable[[int], bytes]] = {
    "WINDOW_UPDATE of zero": lambda s: in_flight(s) + frames.window_update(s, 0),
    "WINDOW_UPDATE beyond its bound": lambda s: (
        in_flight(s) + frames.window_update(s, frames.MAX_WINDOW)
    ),
    "DATA after END_STREAM": lambda s: in_flight(s) + frames.data(s, b"more"),
    "HEADERS after END_STREAM": lambda s: in_flight(s) + frames.headers(s, BLOCK, end=True),
    "PRIORITY of a wrong length": lambda s: (
        frames.headers(s, BLOCK) + frames.frame(Type.PRIORITY, 0, s, bytes(4))
    ),
    "WINDOW_UPDATE of zero in a body": lambda s: (
        frames.headers(s, BLOCK) + frames.data(s, BODY[:9]) + frames.window_update(s, 0)
    ),
    "a field in upper case": lambda s: frames.headers(s, BLOCK + blocks.literal(b"X", b"")),
    "a content-length that is not true": lambda s: (
        frames.headers(s, BLOCK + blocks.literal(28, b"1")) + frames.data(s, BODY, end=True)
    ),
}


@pytest.mark.parametrize("how", RESET_BY_THE_SERVER)
def test_resets_that_the_server_is_made_to_send(peer, how):
    """CVE-2025-8671: the same, by errors that a server answers with RST_STREAM itself."""
    expect_enough(
        peer,
        streams(peer, RESET_BY_THE_SERVER[how]),
        # A server may treat stream errors as connection errors.
        *(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED, Code.FLOW_CONTROL_ERROR, Code.FRAME_SIZE_ERROR),
    )


def test_streams_over_the_maximum(serve):
    """They are refused, all of them, for as long as the server has patience with it."""
    server = serve(max_concurrent_streams=8)
    with Neighbour(server.front.port), Peer(server.front.port) as peer:
        taken = [peer.start() for _ in range(8)]
        flood = streams(peer, lambda s: frames.headers(s, BLOCK))
        while part := b"".join(itertools.islice(flood, BATCH)):
            peer.send(part)
            peer.listen()
        over = [stream for stream in peer.answers if stream not in taken]
        if not peer.closed and not peer.goaways:
            for stream in over:
                assert peer.answer(stream).reset == Code.REFUSED_STREAM
            for stream in taken:
                peer.send(frames.data(stream, BODY, end=True))
                assert peer.answer(stream).values() == calls.RIGHT
        else:
            peer.until_closed()
            assert {code for _, code in peer.goaways} <= {Code.ENHANCE_YOUR_CALM}
            assert {peer.answers[stream].reset for stream in over} <= {None, Code.REFUSED_STREAM}


# ---- frames that have to be answered, or just read ----


def repeated(frame: bytes) -> Iterator[bytes]:
    return itertools.repeat(frame, FRAMES)


FLOODS = {
    "PING": frames.ping(),
    "PING and its acknowledgement": frames.ping() + frames.ping(ack=True),
    "SETTINGS": frames.settings(),
    "SETTINGS with values": frames.settings({Setting.INITIAL_WINDOW_SIZE: 1000}),
    "SETTINGS of the table": (
        frames.settings({Setting.HEADER_TABLE_SIZE: 0}) + frames.settings({1: 4096})
    ),
    "PRIORITY": frames.priority(1),
    "PRIORITY of idle streams": frames.priority(2**31 - 1, on=2**31 - 3),
    "unknown": frames.frame(0xFA, 0, 0, b""),
    "unknown with a payload": frames.frame(0xFA, 0xFF, 1, b"a payload of some octets"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood(peer, name):
    """Frames of any kind without end, and never a request."""
    if name.startswith("SETTINGS"):
        peer.unacked.extend([{}] * (2 * FRAMES))
    expect_enough(peer, repeated(FLOODS[name]))


@pytest.mark.parametrize("name", ["PING", "SETTINGS"])
def test_flood_of_a_client_that_does_not_listen(peer, name):
    """Its answers pile up with nobody to take them: the server keeps a bounded number."""
    memory = Memory()
    peer.socket.settimeout(2)
    peer.unacked.extend([{}] * FRAMES)
    with suppress(TimeoutError):  # where it does not listen either
        for _ in range(FRAMES // BATCH):
            peer.send(FLOODS[name] * BATCH)
    assert memory.grown < 16 << 20
    peer.until_closed()
    assert {code for _, code in peer.goaways} <= {Code.ENHANCE_YOUR_CALM}


EMPTY = {
    "DATA": lambda s: frames.data(s),
    "DATA of padding": lambda s: frames.data(s, b"", pad=0),
    "PRIORITY": lambda s: frames.priority(s),
}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("block", [BLOCK, STREAM_BLOCK], ids=["unary", "stream"])
def test_flood_of_frames_that_say_nothing(peer, name, block):
    """CVE-2019-9518: on a stream that is open and stays so."""
    stream = peer.stream()
    peer.send(frames.headers(stream, block))
    expect_enough(peer, repeated(EMPTY[name](stream)))


@pytest.mark.parametrize(
    "fragment",
    [b"", b"\x00\x01x\x01y", blocks.literal(b"x", b"v" * 1024)[:64]],
    ids=["empty", "a field each", "a part of a field each"],
)
def test_flood_of_continuations(peer, fragment):
    """CVE-2024-27316: a block that never ends, whose fields are kept or decoded."""
    memory = Memory()
    stream = peer.stream()
    peer.send(frames.headers(stream, BLOCK, end_headers=False))
    part = frames.continuation(stream, fragment, end_headers=False)
    # A server that decodes as it reads may find that the last fragment is none.
    expect_enough(peer, repeated(part), Code.PROTOCOL_ERROR, Code.COMPRESSION_ERROR)
    assert memory.grown < 16 << 20


def test_flood_of_large_continuations(peer):
    """The same with as much as fits each: 320 MB, were they all taken."""
    memory = Memory()
    stream = peer.stream()
    peer.send(frames.headers(stream, BLOCK, end_headers=False))
    fields = blocks.plain([(b"x-name", b"v" * 1000)] * 16)
    part = frames.continuation(stream, fields, end_headers=False)
    expect_enough(peer, repeated(part), Code.PROTOCOL_ERROR)
    assert memory.grown < 16 << 20


def test_flood_of_empty_headers(peer):
    """Requests of nothing, each malformed."""
    expect_enough(
        peer, streams(peer, lambda s: frames.headers(s, b"", end=True)), Code.PROTOCOL_ERROR
    )


# ---- bombs ----


@pytest.mark.parametrize("count", [1, 50])
def test_hpack_bomb(peer, count):
    """One large field in the table, and blocks that refer to it 16,000 times: 64 MB each."""
    memory = Memory()
    value = b"v" * 4000
    peer.send(*first_of_bomb(peer, value))
    for _ in range(count):
        stream = peer.stream()
        peer.send(
            frames.headers(stream, BLOCK + blocks.indexed(62) * 16_000),
            frames.data(stream, BODY, end=True),
        )
        peer.listen()
    expect_refused(peer)
    assert memory.grown < 32 << 20


def first_of_bomb(peer, value: bytes) -> list[bytes]:
    stream = peer.stream()
    block = BLOCK + blocks.literal(b"x-bomb", value, INDEXING)
    return [frames.headers(stream, block), frames.data(stream, BODY, end=True)]


@pytest.mark.parametrize(
    "fields",
    [
        [(b"x-large", b"v" * 200_000)],
        [(b"x-name", b"v" * 100)] * 2000,
        [(b"x", b"")] * 20_000,
        [(b"n" * 100_000, b"")],
    ],
    ids=["a large value", "2,000 fields", "20,000 empty fields", "a large name"],
)
def test_oversized_header_list(peer, fields):
    """RFC 9113, 10.5.1: a list over SETTINGS_MAX_HEADER_LIST_SIZE is refused, in whatever way."""
    memory = Memory()
    assert peer.settings[Setting.MAX_HEADER_LIST_SIZE] < 200_000
    stream = peer.stream()
    block = BLOCK + blocks.plain(fields)
    size = frames.DEFAULT_FRAME_SIZE
    parts = [block[start : start + size] for start in range(0, len(block), size)]
    peer.send(frames.headers(stream, parts[0], end_headers=False))
    peer.send(*(frames.continuation(stream, part, end_headers=False) for part in parts[1:]))
    peer.send(frames.continuation(stream), frames.data(stream, BODY, end=True))
    expect_refused(peer)
    assert memory.grown < 16 << 20


def expect_refused(peer: Peer) -> None:
    """The last call is refused: by its own error, or by the end of the connection."""
    answer = peer.answers[max(peer.answers)]
    for _ in range(50):
        if answer.over or peer.closed or peer.goaways:
            break
        peer.listen(0.1)
    if peer.closed or peer.goaways:
        peer.until_closed()
    else:
        assert answer.reset is not None or answer.http_status != 200 or answer.grpc_status != 0
        peer.expect_alive()


def test_messages_that_are_declared_and_not_sent(serve):
    """A prefix says 256 MB: nothing is set aside for it before it comes."""
    server = serve(max_message_bytes=256 << 20)
    with Neighbour(server.front.port), Peer(server.front.port) as peer:
        memory = Memory()
        for _ in range(16):
            stream = peer.start()
            peer.send(frames.data(stream, b"\0" + (256 << 20).to_bytes(4, "big") + bytes(100)))
        peer.barrier()
        assert memory.grown < 16 << 20


def test_messages_that_are_half_sent(serve):
    """8 of 16 MB on each of 64 streams: what is kept of such messages has a budget."""
    server = serve(max_message_bytes=16 << 20)
    with Neighbour(server.front.port), ExitStack() as stack:
        memory = Memory()
        peers = [stack.enter_context(Peer(server.front.port)) for _ in range(4)]
        streams = [(peer, half_send(peer, 16 << 20)) for peer in peers for _ in range(16)]
        part, left = bytes(16_384), dict.fromkeys(streams, (8 << 20) // 16_384)
        moving, most = True, 0
        while moving:
            moving = False
            for peer, stream in streams:
                if left[peer, stream] and takes_a_frame(peer, stream):
                    peer.spend(stream, len(part))
                    peer.send(frames.data(stream, part))
                    left[peer, stream] -= 1
                    moving = True
            for peer in peers:
                peer.listen(0 if moving else 0.1)
            moving = moving or any(left[s] and takes_a_frame(*s) for s in streams)
            most = max(most, memory.grown)
        assert most < 128 << 20
        for peer, stream in streams:
            if not peer.closed:
                assert peer.answers[stream].grpc_status in (None, calls.RESOURCE_EXHAUSTED)
        assert any(left.values()), "the server has taken half a gigabyte"


def half_send(peer: Peer, octets: int) -> int:
    """Begin a call whose message has ``octets``; returns the stream."""
    stream = peer.start()
    peer.spend(stream, 5)
    peer.send(frames.data(stream, b"\0" + octets.to_bytes(4, "big")))
    return stream


def takes_a_frame(peer: Peer, stream: int) -> bool:
    """Whether the server has opened its windows for a whole frame on ``stream``."""
    if peer.closed or peer.answers[stream].over:
        return False
    return min(peer.given, peer.given_to[stream]) >= frames.DEFAULT_FRAME_SIZE


# ---- what is no attack ----


def test_an_honest_client_is_not_taken_for_an_attacker(peer):
    """It pings, changes its mind, cancels, errs now and then, and keeps on working."""
    for i in range(300):
        stream = peer.call()
        assert peer.answer(stream).values() == calls.RIGHT
        if i % 2 == 0:
            peer.barrier()
        if i % 3 == 0:
            peer.send(frames.priority(stream), frames.frame(0xFA, 0, 0, b"grease"))
        if i % 4 == 0:
            cancelled = peer.start()
            peer.send(frames.rst_stream(cancelled))
        if i % 20 == 0:
            peer.change_settings({Setting.INITIAL_WINDOW_SIZE: 60_000 + i})
        if i % 50 == 0:
            wrong = peer.start(calls.fields(calls.UNARY, ("Upper", "1")), end=True)
            peer.answer(wrong)
    assert not peer.goaways
