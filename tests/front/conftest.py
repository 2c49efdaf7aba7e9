"""What the tests of the fronts share."""

import pytest

from tests.front.grpc_server import IMPLEMENTATIONS, Front


@pytest.fixture(scope="module", params=IMPLEMENTATIONS, ids=lambda front: front.__name__)
def implementation(request: pytest.FixtureRequest) -> Front:
    """Each gRPC front in turn."""
    return request.param
