"""Requests leave nothing behind: the server's memory stays where it was after warm-up."""

from collections.abc import Iterator

import pytest

from tests.fronts import FRONTS, Front, RefusedError, Request, Tensor, sample
from tests.repository import build_repository
from tests.server import GatewayProcess

X = Request("rows", (Tensor.of("x", sample("FP32", (4, 4))),))
STRINGS = Request("strings", (Tensor.of("x", sample("BYTES", (2, 2))),))
WRONG = Request("rows", (Tensor.of("x", sample("FP32", (4, 5))),))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(build_repository(tmp_path_factory.mktemp("models"))) as process:
        yield process


def send(front: Front, count: int) -> None:
    """Mostly right requests, some of strings, some that are refused."""
    for i in range(count):
        if i % 20 == 10:
            front.infer(STRINGS)
        elif i % 20 == 19:
            with pytest.raises(RefusedError):
                front.infer(WRONG)
        else:
            front.infer(X)


def growth(gateway: GatewayProcess, front: Front, warm_up: int, count: int) -> float:
    """By which part of itself the resident memory grows over ``count`` requests."""
    send(front, warm_up)
    before = gateway.rss_bytes()
    send(front, count)
    return gateway.rss_bytes() / before - 1


@pytest.mark.parametrize("kind", FRONTS, ids=lambda front: front.name)
def test_a_thousand_requests(gateway: GatewayProcess, kind: type[Front]) -> None:
    front = kind(gateway)
    assert growth(gateway, front, 1_000, 1_000) < 0.02
    front.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", FRONTS, ids=lambda front: front.name)
def test_a_hundred_thousand_requests(gateway: GatewayProcess, kind: type[Front]) -> None:
    front = kind(gateway)
    assert growth(gateway, front, 5_000, 100_000) < 0.02
    front.close()
