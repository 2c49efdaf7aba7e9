"""Gateways for the tests with other people's clients."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.repository import build_repository
from tests.server import GRPC_IMPLEMENTATIONS, Gateways


@pytest.fixture(scope="package")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    with Gateways(build_repository(tmp_path_factory.mktemp("models"))) as running:
        yield running


@dataclass(frozen=True)
class Endpoint:
    """Where a client of a protocol, ``http`` or ``grpc``, finds a gateway."""

    protocol: str
    url: str


@pytest.fixture(params=["http", *GRPC_IMPLEMENTATIONS])
def endpoint(request: pytest.FixtureRequest, gateways: Gateways) -> Endpoint:
    """HTTP's, and gRPC's on each implementation."""
    if request.param == "http":
        return Endpoint("http", gateways[GRPC_IMPLEMENTATIONS[0]].http_url)
    return Endpoint("grpc", gateways[request.param].grpc_url)
