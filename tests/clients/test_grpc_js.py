"""Node's gRPC client, ``@grpc/grpc-js``, as JavaScript's users call it.

``grpc_js/client.js`` has the calls and what is to come of them; npm brings what it needs.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.clients.relay import Relay
from tests.repository import build_repository
from tests.server import GRPC_IMPLEMENTATIONS, GatewayProcess

HERE = Path(__file__).parent / "grpc_js"

SCENARIOS = (
    "unary",
    "typed_contents",
    "many_in_flight",
    "control",
    "stream",
    "error_in_a_stream",
    "metadata_asks_for_statuses_in_a_stream",
    "metadata_of_every_kind_is_taken",
    "errors",
    "a_full_queue_tells_when_to_come_back",
    "deadline",
    "cancellation",
    "cancelled_stream",
    "large_tensors",
    "gzip",
    "deflate_in_a_stream",
    "health",
)

#: How npm's codes begin when it cannot reach its registry.
UNREACHABLE = ("ENOTFOUND", "EAI_", "ECONN", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH")

Session = Callable[..., str]


@pytest.fixture(scope="module")
def session() -> Session:
    """Runs ``client.js`` with some arguments; gives what it printed."""
    node, npm = (shutil.which(program) for program in ("node", "npm"))
    if node is None or npm is None:
        pytest.skip("node and npm are not installed (Debian: apt install nodejs npm)")
    install(npm)

    def run(*arguments: str) -> str:
        result = run_program([node, "client.js", *arguments], 60)
        assert result.returncode == 0, result.stdout
        return result.stdout

    return run


def install(npm: str) -> None:
    """Bring ``node_modules`` to what ``package-lock.json`` says, unless it is there."""
    lock, installed = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    result = run_program([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], 240)
    if result.returncode and any(f"code {code}" in result.stdout for code in UNREACHABLE):
        pytest.skip(f"npm cannot reach its registry:\n{result.stdout}")
    assert result.returncode == 0, result.stdout


def run_program(command: list[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(session: Session, grpc_gateway: GatewayProcess, scenario: str) -> None:
    session(scenario, grpc_gateway.grpc_url)


def test_every_scenario_is_tested(session: Session) -> None:
    assert tuple(session("--list").split()) == SCENARIOS


def test_gzip_is_on_the_wire_both_ways(session: Session, gateway: GatewayProcess) -> None:
    """4 MiB of numbers that repeat, in and out."""
    with Relay(gateway.grpc_port) as relay:
        session("gzip", relay.url)
    assert 1_000 < relay.sent < 200_000
    assert 1_000 < relay.received < 200_000


def test_what_is_not_to_be_compressed_is_not(session: Session, gateway: GatewayProcess) -> None:
    with Relay(gateway.grpc_port) as relay:
        session("large_tensors", relay.url)
    assert relay.sent > 40 << 20
    assert relay.received > 40 << 20


@pytest.mark.parametrize("implementation", GRPC_IMPLEMENTATIONS)
def test_tls(
    session: Session, tmp_path: Path, certificates: Certificates, implementation: str
) -> None:
    pair = certificates.server
    files = (
        *("--grpc-tls-certificate", str(pair.certificate)),
        *("--grpc-tls-key", str(pair.key)),
    )
    with GatewayProcess(build_repository(tmp_path), *files, grpc_impl=implementation) as gateway:
        for scenario in ("unary", "many_in_flight", "stream", "errors", "large_tensors", "gzip"):
            session(scenario, gateway.grpc_url, str(certificates.authority))
