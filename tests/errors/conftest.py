"""One gateway for the error tests, and every front connected to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fronts import FRONTS, Front
from tests.repository import add_broken_versions, build_repository
from tests.server import GatewayProcess


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_broken_versions(build_repository(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="package")
def gateway(models: Path) -> Iterator[GatewayProcess]:
    # Some of its models are broken on purpose.
    lenient = {"ONNX_GATEWAY_STRICT_READINESS": "false"}
    with GatewayProcess(models, environment=lenient) as process:
        yield process


@pytest.fixture(params=FRONTS, ids=lambda front: front.name)
def front(request: pytest.FixtureRequest, gateway: GatewayProcess) -> Iterator[Front]:
    adapter = request.param(gateway)
    yield adapter
    adapter.close()
