"""Resident memory of the gateway before and after 100,000 requests: ``python -m loadtests.memory``.

The exit code is 1 when it grew by more than 2%.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from loadtests import models, payloads, targets
from loadtests.bench import REPOSITORY
from loadtests.generators import PROGRAMS, GeneratorError, Load, h2load
from loadtests.process import ServerError

MODEL = "tiny"
ALLOWED_GROWTH = 0.02


def send(gateway: targets.Gateway, requests: int, work: Path) -> None:
    """A third of the requests each over HTTP binary, HTTP JSON and gRPC, 16 in flight."""
    share = f"-n{requests // 3}"
    load, core = Load(16), targets.LOAD_CORE
    for payload in (payloads.http_binary(MODEL), payloads.http_json(MODEL)):
        h2load(gateway.http_port, payload, load, share, core, work, http1=True)
    h2load(gateway.grpc_port, payloads.grpc_raw(MODEL), load, share, core, work)


def measure(requests: int, warm_up: int, work: Path) -> float:
    """Growth of resident memory over ``requests``, as a fraction."""
    models.build(REPOSITORY)
    with targets.gateway(REPOSITORY, MODEL) as gateway:
        gateway.verify(REPOSITORY, MODEL)
        send(gateway, warm_up, work)
        before = gateway.server.memory_bytes()
        print(f"after {warm_up:,} requests of warm-up: {before / 2**20:.1f} MiB", flush=True)
        send(gateway, requests, work)
        after = gateway.server.memory_bytes()
    growth = after / before - 1
    print(f"after {requests:,} more: {after / 2**20:.1f} MiB ({growth:+.2%})", flush=True)
    return growth


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure memory over many requests.")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--warm-up", type=int, default=20_000)
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        raise SystemExit(f"h2load is not installed (Debian: apt install {PROGRAMS['h2load']})")
    with tempfile.TemporaryDirectory() as work:
        try:
            growth = measure(arguments.requests, arguments.warm_up, Path(work))
        except (GeneratorError, ServerError, targets.WrongAnswer) as error:
            raise SystemExit(f"the measurement stopped: {error}") from None
    return 0 if growth <= ALLOWED_GROWTH else 1


if __name__ == "__main__":
    raise SystemExit(main())
