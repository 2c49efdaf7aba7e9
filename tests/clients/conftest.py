"""One gateway for the tests with other people's clients."""

from collections.abc import Iterator

import pytest

from tests.repository import build_repository
from tests.server import GatewayProcess


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(build_repository(tmp_path_factory.mktemp("models"))) as process:
        yield process
