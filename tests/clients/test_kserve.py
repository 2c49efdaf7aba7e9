"""kserve's ``InferenceRESTClient`` (V2 and V1) and ``InferenceGRPCClient``."""

import subprocess
import sys
from pathlib import Path

from tests.server import GatewayProcess


def test_session(grpc_gateway: GatewayProcess) -> None:
    urls = (grpc_gateway.http_url, grpc_gateway.grpc_url)
    session = subprocess.run(
        [sys.executable, "-m", "tests.clients.kserve_session", *urls],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert session.returncode == 0, session.stdout
