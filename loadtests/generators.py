"""The load generators, pinned to a core: wrk for HTTP/1.1, h2load and grpcio's client for gRPC."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests.payloads import Payload

#: The Debian package of each program.
PROGRAMS = {"wrk": "wrk", "h2load": "nghttp2-client"}


class GeneratorError(Exception):
    """A load generator failed, or saw answers that were not 200."""


@dataclass(frozen=True, slots=True)
class Load:
    """How requests are sent: over so many connections, so many streams at once on each.

    With ``by_grpcio`` they come from grpcio's client, which has one connection.
    """

    connections: int
    streams: int = 1
    by_grpcio: bool = False

    def __str__(self) -> str:
        if self.by_grpcio:
            return f"{self.streams} by grpcio"
        return f"{self.connections}" if self.streams == 1 else f"{self.connections}x{self.streams}"


@dataclass(frozen=True, slots=True)
class Observation:
    """What the client's side saw: completed requests, seconds, and latencies in milliseconds."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def missing_programs() -> list[str]:
    """A sentence for each load generator that is not installed."""
    return [
        f"{program} is not installed (Debian: apt install {package})"
        for program, package in PROGRAMS.items()
        if shutil.which(program) is None
    ]


_WRK_SCRIPT = """\
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{headers}
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("OBSERVED %d %d %d %d %d\\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


def wrk(
    port: int, payload: Payload, load: Load, seconds: int, core: int, work: Path
) -> Observation:
    """Send ``payload`` over HTTP/1.1 for ``seconds``, with ``work`` for the generated files.

    Raises:
        GeneratorError: an answer was not 200, or a connection broke.
    """
    body, script = work / "body", work / "load.lua"
    body.write_bytes(payload.body)
    headers = "\n".join(f'wrk.headers["{k}"] = "{v}"' for k, v in payload.headers.items())
    script.write_text(_WRK_SCRIPT.format(body=body, headers=headers))
    output = _run(
        ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "10s",
         "-s", str(script), f"http://127.0.0.1:{port}{payload.path}"],
        core,
    )  # fmt: skip
    found = re.search(r"OBSERVED (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    if found is None:
        raise GeneratorError(f"wrk printed no summary:\n{output}")
    requests, microseconds, errors, p50, p99 = map(int, found.groups())
    if errors or not requests:
        raise GeneratorError(f"{errors} of {requests} requests failed:\n{output}")
    return Observation(requests, microseconds / 1e6, p50 / 1e3, p99 / 1e3)


def h2load(
    port: int, payload: Payload, load: Load, amount: str, core: int, work: Path, http1: bool = False
) -> Observation:
    """Send ``payload`` over HTTP/2; ``amount`` is ``"-D<seconds>"`` or ``"-n<requests>"``.

    gRPC's own status is in the trailers, which h2load does not look at: the caller compares the
    server's statistics.

    Raises:
        GeneratorError: an answer was not 200, or a connection broke.
    """
    body, log = work / "body", work / "h2load.log"
    body.write_bytes(payload.body)
    log.unlink(missing_ok=True)
    headers = [part for k, v in payload.headers.items() for part in ("-H", f"{k.lower()}: {v}")]
    output = _run(
        ["h2load", "-t1", f"-c{load.connections}", f"-m{load.streams}", amount, *headers,
         *(["--h1"] if http1 else []), "--log-file", str(log), "-d", str(body),
         f"http://127.0.0.1:{port}{payload.path}"],
        core,
    )  # fmt: skip
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    spent = re.search(r"finished in ([\d.]+)(us|ms|s)", output)
    if counts is None or spent is None:
        raise GeneratorError(f"h2load printed no summary:\n{output}")
    succeeded, failed = int(counts[1]), int(counts[2])
    # Requests that are cut off by the end of the time count as neither.
    if failed or not succeeded:
        raise GeneratorError(f"{failed} requests failed, {succeeded} succeeded:\n{output}")
    rows = np.loadtxt(log, dtype=np.int64, ndmin=2)
    if (rows[:, 1] != 200).any():
        raise GeneratorError(f"answers were not 200: {sorted(set(rows[:, 1].tolist()))}")
    p50, p99 = np.percentile(rows[:, 2], [50, 99]) / 1e3
    seconds = float(spent[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[spent[2]]
    return Observation(succeeded, seconds, float(p50), float(p99))


def grpcio_client(
    port: int, payload: Payload, load: Load, seconds: int, core: int, work: Path
) -> Observation:
    """Send ``payload`` with grpcio's asyncio client for ``seconds``.

    Raises:
        GeneratorError: a call failed.
    """
    message = work / "message"
    message.write_bytes(payload.body[5:])
    output = _run(
        [sys.executable, "-m", "loadtests.grpcio_client", str(port), str(message),
         "--in-flight", str(load.streams), "--seconds", str(seconds)],
        core,
    )  # fmt: skip
    return Observation(**json.loads(output))


def _run(command: list[str], core: int) -> str:
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if result.returncode != 0:
        raise GeneratorError(f"{' '.join(command)}:\n{result.stdout}{result.stderr}")
    return result.stdout
