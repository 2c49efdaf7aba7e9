"""Gateways for the error tests, over models some of which are broken on purpose."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository import add_broken_versions, build_repository
from tests.server import Gateways


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_broken_versions(build_repository(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="package")
def gateways(models: Path) -> Iterator[Gateways]:
    lenient = {"ONNX_GATEWAY_STRICT_READINESS": "false"}
    with Gateways(models, environment=lenient) as running:
        yield running
