"""kserve's ``InferenceRESTClient`` (V2 and V1) and ``InferenceGRPCClient``."""

import subprocess
import sys
from pathlib import Path

from tests.server import GatewayProcess


def test_session(gateway: GatewayProcess) -> None:
    session = subprocess.run(
        [sys.executable, "-m", "tests.clients.kserve_session", gateway.http_url, gateway.grpc_url],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert session.returncode == 0, session.stdout
