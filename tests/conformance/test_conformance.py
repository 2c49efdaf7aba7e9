"""The ``onnx`` package's backend tests give over the wire what ONNX Runtime gives in process.

The run is a process of its own: the client's protobuf symbols may not share one with the
gateway's, and the larger networks take gigabytes.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import GRPC_IMPLEMENTATIONS

ROOT = Path(__file__).parents[2]


def run_conformance(*options: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.conformance", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout


def test_cases_that_show_every_type_rank_and_size() -> None:
    run_conformance("--fast")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("implementation", GRPC_IMPLEMENTATIONS)
def test_every_case(implementation: str) -> None:
    run_conformance("--grpc-impl", implementation)
