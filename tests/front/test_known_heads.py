"""A head that was read before is recognised, and only that."""

from collections.abc import Iterator

import pytest

from gateway.front.known_heads import KnownHeads
from tests.front.running_front import RunningFront, infer

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
FIELDS = {b"host": b"x", b"content-length": b"4"}
TARGET = ("m", "")


def taught(head: bytes = HEAD, fields: dict[bytes, bytes] = FIELDS, count: int = 2) -> KnownHeads:
    heads = KnownHeads()
    heads.learn(head + b"body", TARGET, fields, count)
    return heads


def test_a_whole_request_with_a_known_head_is_found() -> None:
    found = taught().find(HEAD + b"more")
    assert found is not None
    head, body = found
    assert (head.target, head.fields, head.length, body) == (TARGET, FIELDS, 4, b"more")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD[:-4],
        HEAD + b"mor",
        HEAD + b"more and the next",
        HEAD.replace(b"Host: x", b"Host: y") + b"more",
        HEAD.replace(b"/m/", b"/n/") + b"more",
        b"\r\n" + HEAD + b"more",
    ],
    ids=["nothing", "no end", "short", "long", "other host", "other model", "blank line before"],
)
def test_anything_else_goes_to_the_parser(data: bytes) -> None:
    assert taught().find(data) is None


@pytest.mark.parametrize(
    ("head", "fields", "count"),
    [
        (HEAD.replace(b"Host: x\r\n", b"Host: x\n"), FIELDS, 2),
        (HEAD.replace(b"Host: x", b"Host: x\r\n folded"), FIELDS, 2),
        (b"\r\n" + HEAD, FIELDS, 2),
        (HEAD, {b"host": b"x"}, 2),
        (HEAD, FIELDS | {b"transfer-encoding": b"chunked"}, 2),
        (HEAD, FIELDS | {b"expect": b"100-continue"}, 2),
        (HEAD.replace(b"Host: x", b"Host: " + b"x" * 4000), FIELDS, 2),
        (HEAD.replace(b"Host: x\r\n", b"Host: x\r\nHost: x\r\n"), FIELDS, 2),
    ],
    ids=["bare LF", "folded", "blank line before", "no length", "chunked", "expect", "long",
         "repeated header"],
)  # fmt: skip
def test_a_head_whose_meaning_is_not_in_its_lines_is_not_kept(
    head: bytes, fields: dict[bytes, bytes], count: int
) -> None:
    assert taught(head, fields, count).find(head + b"more") is None


def test_the_heads_kept_are_bounded() -> None:
    heads = taught()
    for number in range(600):
        other = HEAD.replace(b"Host: x", b"Host: %d" % number)
        heads.learn(other, TARGET, FIELDS, 2)
    assert heads.find(HEAD + b"more") is None
    assert heads.find(other + b"more") is not None


@pytest.fixture
def front() -> Iterator[RunningFront]:
    with RunningFront() as running:
        yield running


def test_known_and_parsed_requests_mix_on_one_connection_in_any_cut(front: RunningFront) -> None:
    """The same requests, sent whole, in two pieces, and two at a time, answer the same."""
    with front.connect() as wire:
        expected = [wire.ask(infer(id=str(n))).json() for n in range(2)]
        for cut in range(1, 40, 7):
            for n in range(2):
                request = infer(id=str(n))
                assert wire.ask(request).json() == expected[n]
                wire.send(request[:cut])
                wire.send(request[cut:])
                assert wire.receive().json() == expected[n]
            wire.send(infer(id="0") + infer(id="1"))
            assert [wire.receive().json() for _ in range(2)] == expected


def test_a_known_head_does_not_hide_a_malformed_request_behind_it(front: RunningFront) -> None:
    with front.connect() as wire:
        good = infer(id="1")
        assert wire.ask(good).status == 200
        assert wire.ask(good).status == 200
        assert wire.ask(b"NONSENSE\r\n\r\n").status == 400
