"""What a client that is silent, slow or many may hold of the admin port."""

from collections.abc import Iterator

import pytest

from gateway.front import http_bounded
from gateway.front.http_context import HttpLimits
from tests.front.running_admin import RunningAdmin
from tests.front.running_front import Wire

#: A time that passes while a test waits for what it bounds, and one that no test sees the end of.
SOON_S, NEVER_S = 0.05, 1000.0
ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = (
    b"POST /admin/models/digits/rollback HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
)


@pytest.fixture
def impatient() -> Iterator[RunningAdmin]:
    """Where the rest of a request has to come soon."""
    limits = HttpLimits(read_timeout_s=SOON_S, keep_alive_timeout_s=NEVER_S)
    with RunningAdmin(limits=limits) as running:
        yield running


@pytest.mark.parametrize("sent", [ASK[:10], ASK + ASK[:30]], ids=["the first", "a later one"])
def test_a_head_that_does_not_end_is_given_up(impatient: RunningAdmin, sent: bytes) -> None:
    with Wire(impatient.port) as wire:
        wire.send(sent)
        if sent.startswith(ASK):
            assert wire.receive().status == 200
        assert wire.is_closed()


def test_a_head_in_drips_has_no_more_time_than_one_that_pauses() -> None:
    limits = HttpLimits(read_timeout_s=0.3, keep_alive_timeout_s=NEVER_S)
    with RunningAdmin(limits=limits) as running, Wire(running.port) as wire:
        wire.socket.settimeout(0.05)
        wire.send(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(100):
            try:
                wire.send(b"X: y\r\n")
                assert wire.socket.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            return
        pytest.fail("it went on for ever")


def test_a_body_that_pauses_is_given_up_and_changes_nothing(impatient: RunningAdmin) -> None:
    with Wire(impatient.port) as wire:
        assert wire.send(POST + b"{").is_closed()
    assert impatient.admin.calls == []
    with Wire(impatient.port) as wire:
        assert wire.ask(POST + b"{}").status == 200


@pytest.mark.parametrize("first", [b"", ASK], ids=["never asked", "answered"])
def test_an_idle_connection_is_closed(first: bytes) -> None:
    limits = HttpLimits(read_timeout_s=NEVER_S, keep_alive_timeout_s=SOON_S)
    with RunningAdmin(limits=limits) as running, Wire(running.port) as wire:
        if first:
            assert wire.ask(first).status == 200
        assert wire.is_closed()


def test_a_connection_that_asks_now_and_then_stays(impatient: RunningAdmin) -> None:
    with Wire(impatient.port) as wire, Wire(impatient.port) as silent:
        silent.send(ASK[:5])
        assert wire.ask(ASK).status == 200
        assert silent.is_closed(), "meanwhile the time that a head may take has passed"
        assert wire.ask(ASK).status == 200


def test_a_head_that_is_too_large_is_refused() -> None:
    limits = HttpLimits(max_header_bytes=2000)
    with RunningAdmin(limits=limits) as running, Wire(running.port) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 1000)
        assert wire.receive().status == 400
        assert wire.is_closed()


def test_a_connection_too_many_is_closed_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_bounded, "MAX_CONNECTIONS", 2)
    with RunningAdmin() as running:
        first, second = Wire(running.port), Wire(running.port)
        assert first.ask(ASK).status == second.ask(ASK).status == 200
        with Wire(running.port) as third:
            assert third.is_closed()
        first.close()
        assert second.ask(ASK).status == 200
        assert second.ask(ASK).status == 200, "that the first one has left is known by now"
        with Wire(running.port) as fourth:
            assert fourth.ask(ASK).status == 200
        second.close()
