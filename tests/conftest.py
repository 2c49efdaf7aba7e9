"""What tests of several packages share.

A package that is tested over running gateways has a fixture ``gateways`` of its own, and with it
the fixtures below.
"""

import logging
from collections.abc import Iterator

import pytest

from tests.certificates import Certificates
from tests.fronts import WAYS, Front
from tests.server import GRPC_IMPLEMENTATIONS, GatewayProcess, Gateways


@pytest.fixture(autouse=True)
def _log_levels() -> Iterator[None]:
    """What a test's own server does to the process's log ends with the test."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def gateway(gateways: Gateways) -> GatewayProcess:
    """For what does not depend on the gRPC implementation."""
    return gateways[GRPC_IMPLEMENTATIONS[0]]


@pytest.fixture(params=GRPC_IMPLEMENTATIONS)
def grpc_gateway(request: pytest.FixtureRequest, gateways: Gateways) -> GatewayProcess:
    """A gateway of each gRPC implementation in turn."""
    return gateways[request.param]


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def front(request: pytest.FixtureRequest, gateways: Gateways) -> Iterator[Front]:
    """Every front in turn, the gRPC ones on each implementation."""
    adapter = request.param.connect(gateways)
    yield adapter
    adapter.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))
