"""A gateway to maltreat."""

import time
from collections.abc import Iterator

import pytest

from tests.hostile.victim import Victim
from tests.repository import build_repository
from tests.server import GatewayProcess

#: What a module's worth of maltreatment may add to the resident memory.
GROWTH_AT_MOST = 48 << 20


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """With one gRPC implementation alone: what is proved here is ours, not that of libraries."""
    models = build_repository(tmp_path_factory.mktemp("models"))
    with GatewayProcess(models, "--max-request-bytes", str(4 << 20)) as process:
        yield process


@pytest.fixture(scope="module")
def victim(gateway: GatewayProcess) -> Iterator[Victim]:
    """After each module it holds no more connections than before and little more memory."""
    victim = Victim(gateway)
    for _ in range(200):
        victim.assert_well()
    memory, descriptors = gateway.rss_bytes(), victim.descriptors()
    started = time.monotonic()
    yield victim
    victim.assert_well()
    victim.wait_for_descriptors(descriptors + 4)
    growth = gateway.rss_bytes() - memory
    took = time.monotonic() - started
    assert growth < GROWTH_AT_MOST, f"{growth >> 20} MiB more after {took:.0f} s of maltreatment"
    victim.close()
