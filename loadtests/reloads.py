"""Does a load that is undone leave anything behind? ``python -m loadtests.reloads``.

A model of 25 MB is loaded, asked a few times over each protocol, and unloaded, over and over. The
exit code is 1 when resident memory has grown by more than ``ALLOWED_GROWTH`` after the warm-up.
"""

import argparse
import http.client
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from loadtests import models, payloads, targets
from loadtests.process import ServerError

ALLOWED_GROWTH = 0.05
WARM_UP_CYCLES = 20
REQUESTS_A_CYCLE = 3


def cycle(port: int, model: str, ask: Callable[[], None], cycles: int) -> None:
    """Load ``model``, ask, and unload it, ``cycles`` times."""
    for _ in range(cycles):
        repository_call(port, f"models/{model}/load")
        ask()
        repository_call(port, f"models/{model}/unload")


def repository_call(port: int, path: str) -> bytes:
    """POST to the repository API. Raises ``WrongAnswer`` where it refuses."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", f"/v2/repository/{path}", b"{}")
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise targets.WrongAnswer(f"{path} answered {response.status}: {body!r}")
    return body


def measure(gateway: targets.Gateway, model: str, cycles: int) -> float:
    """Growth of resident memory over ``cycles`` after the warm-up, as a fraction."""
    asked = [payloads.http_binary(model), payloads.http_json(model), payloads.grpc_raw(model)]

    def ask() -> None:
        for payload in asked * REQUESTS_A_CYCLE:
            gateway.ask(payload)

    port, server = gateway.http_port, gateway.server
    cycle(port, model, ask, WARM_UP_CYCLES)
    before, files = server.memory_bytes(), server.open_files()
    print(
        f"after {WARM_UP_CYCLES} cycles: {before / 2**20:.1f} MiB, {files} open files", flush=True
    )
    began_s, done = time.monotonic(), 0
    while done < cycles:
        more = min(100, cycles - done)
        cycle(port, model, ask, more)
        done += more
        print(
            f"after {done:,} more: {server.memory_bytes() / 2**20:.1f} MiB,"
            f" {server.open_files()} open files, {time.monotonic() - began_s:.0f} s",
            flush=True,
        )
    states = {entry["state"] for entry in json.loads(repository_call(port, "index"))}
    if states != {"UNAVAILABLE"}:
        raise targets.WrongAnswer(f"the model is {states} after its last unload")
    growth = server.memory_bytes() / before - 1
    print(f"{growth:+.2%} of memory over {cycles:,} loads and unloads")
    return growth


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what loads and unloads leave behind.")
    parser.add_argument("--cycles", type=int, default=1000)
    arguments = parser.parse_args()
    model = models.MEDIUM
    os.sched_setaffinity(0, {targets.LOAD_CORE})
    with tempfile.TemporaryDirectory() as work:
        models.build_versions(Path(work), model, ["1"], "")
        try:
            with targets.gateway(Path(work), model) as gateway:
                growth = measure(gateway, model, arguments.cycles)
        except (ServerError, targets.WrongAnswer) as error:
            raise SystemExit(f"the measurement stopped: {error}") from None
    return 0 if growth <= ALLOWED_GROWTH else 1


if __name__ == "__main__":
    raise SystemExit(main())
