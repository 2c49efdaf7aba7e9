"""Fifty swaps under load, bad versions among them: a client sees no more of it than the version."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import GatewayProcess
from tests.swaps.clients import KINDS, Clients, Exchange
from tests.swaps.operator import Operator, index_of
from tests.swaps.versions import BAD, Versions, answer_of

#: One model that runs on the event loop, and one with runners of its own.
MODELS = {"short": "", "threaded": "inline = false\n"}
SWAPS = 50
OPEN_LOOP_PER_S = 40.0


class Swapped:
    """What is left of the fifty swaps: the gateway, still up, and all that was seen."""

    def __init__(self, models: Path) -> None:
        self.versions = {name: Versions(models, name, text) for name, text in MODELS.items()}
        self.operators: dict[str, Operator] = {}
        self.exchanges: list[Exchange] = []
        self.gateway = GatewayProcess(
            models, "--model-control-mode", "poll", "--repository-poll-s", "0.2"
        )

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with Clients(self.gateway, list(MODELS)) as clients:
            self.exchanges = clients.exchanges

            def until_answered_by(model: str, version: str) -> None:
                waiting = clients.until_answered_by(model, version)
                asyncio.run_coroutine_threadsafe(waiting, loop).result()

            self.operators = {
                name: Operator(self.gateway, versions, until_answered_by)
                for name, versions in self.versions.items()
            }
            for kind in KINDS:
                clients.closed_loop(kind)
                clients.closed_loop(kind)
                clients.open_loop(kind, OPEN_LOOP_PER_S)
            await asyncio.to_thread(self._swap_all)

    def _swap_all(self) -> None:
        """Both models in turn, one change of each."""
        for changes in zip(*map(half_of_all, self.operators.values()), strict=True):
            for change in changes:
                change()


def half_of_all(operator: Operator) -> Iterator[Callable[[], None]]:
    """The changes of one model, in their order."""
    o = operator
    # The latest version serves, whoever brings it.
    yield from (o.load, o.load, lambda: o.load_bad("damaged"), o.load, o.load)
    yield from (o.poll, lambda: o.poll_bad("no external data"), o.poll, o.poll)
    yield from (lambda: o.load_bad("wrong golden"), o.load)
    # The one that is promoted serves. Version 1 has been unloaded meanwhile.
    yield o.roll_back
    last, recent = operator.log.versions[-2:]
    yield from (lambda: o.promote("1"), lambda: o.promote(last), lambda: o.promote("1"))
    yield from (lambda: o.promote_bad("too large"), lambda: o.promote("2"), lambda: o.promote("3"))
    yield from (o.roll_back, o.roll_back, lambda: o.promote_bad("another signature"))
    yield from (lambda: o.promote("5"), lambda: o.promote(recent), lambda: o.promote("2"))
    yield from (lambda: o.promote("1"), lambda: o.promote(recent))
    # And the latest one again.
    yield from (o.follow_latest, o.load, o.load, o.poll)


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swapped]:
    swapped = Swapped(tmp_path_factory.mktemp("models"))
    with swapped.gateway:
        asyncio.run(swapped.run())
        yield swapped


def test_fifty_swaps_lose_no_request(swapped: Swapped) -> None:
    swaps = sum(len(operator.log.versions) - 1 for operator in swapped.operators.values())
    assert swaps == SWAPS
    assert [exchange for exchange in swapped.exchanges if exchange.error] == []
    by = {(exchange.by, exchange.model) for exchange in swapped.exchanges}
    assert by == {(kind.name, model) for kind in KINDS for model in MODELS}
    assert failures(swapped.gateway) == 0


def test_each_answer_is_that_of_the_version_which_it_names(swapped: Swapped) -> None:
    wrong = [
        (e.by, e.version, e.x, e.y)
        for e in swapped.exchanges
        if e.y is None or e.y.tobytes() != answer_of(e.version, e.x).tobytes()
    ]
    assert wrong == []


def test_no_request_meets_a_version_that_was_replaced_before_it_was_sent(swapped: Swapped) -> None:
    stale = [
        (e.by, e.model, e.version, e.sent_s, e.answered_s)
        for e in swapped.exchanges
        if not swapped.operators[e.model].log.allows(e.version, e.sent_s, e.answered_s)
    ]
    assert stale == []


@pytest.mark.parametrize("model", MODELS)
def test_a_bad_version_never_answers_and_leaves_its_reason(swapped: Swapped, model: str) -> None:
    bad = swapped.versions[model].bad
    assert sorted(bad.values()) == sorted(BAD.values())
    answered = {e.version for e in swapped.exchanges if e.model == model}
    assert answered.isdisjoint(bad)
    index = index_of(swapped.gateway, model)
    for version, why in bad.items():
        state, reason = index[version]
        assert state == "UNAVAILABLE"
        assert why in reason
    failed = failed_loads(swapped.gateway, model)
    for version, why in bad.items():
        assert any(why in entry["reason"] for entry in failed if entry["version"] == version)
    assert metric(
        swapped.gateway, "onnx_gateway_model_loads_total", model=model, outcome="failed"
    ) == len(failed)


def test_the_journal_of_all_that_is_intact(swapped: Swapped) -> None:
    status, verification = swapped.gateway.administer("GET", "/admin/history/verify")
    assert status == 200
    assert verification["intact"]
    assert verification["entries"] > SWAPS


def failed_loads(gateway: GatewayProcess, model: str) -> list[dict[str, Any]]:
    """The journal's entries of loads of the model's versions that failed."""
    status, entries = gateway.administer("GET", f"/admin/history?model={model}&limit=1000")
    assert status == 200, entries
    return [e for e in entries if (e["verb"], e["outcome"]) == ("load_version", "failed")]


def failures(gateway: GatewayProcess) -> float:
    """Requests that the gateway refused or failed, of the versions that are there still."""
    return (
        metric(gateway, "onnx_gateway_server_rejected_requests_total")
        + metric(gateway, "onnx_gateway_rejected_requests_total")
        + metric(gateway, "onnx_gateway_requests_total", result="failed")
    )


def metric(gateway: GatewayProcess, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    text = gateway.request("GET", "/metrics")[2].decode()
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
    wanted = {f'{key}="{value}"' for key, value in labels.items()}
    return sum(float(value) for given, value in found if wanted <= set(given.split(",")))
