"""What the prediction stream and the per-feature monitors cost: on beside off, in one run.

``python -m loadtests.stream_cost`` serves the tiny model, which has 30 features, and switches its
monitor on and off between rounds, by its file. Each round sends the same load, 64 requests at once
over HTTP and over gRPC. Server CPU per request, throughput and p99 are medians of the rounds; the
first round of each is not counted. Memory is what the process has more after all rounds with the
monitor on. At the end the account of the stream must add up: served is delivered and dropped.
"""

import argparse
import json
import re
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from gateway.monitor.profile import ProfileSource
from gateway.monitor.profile_builder import ProfileBuilder
from gateway.monitor.profile_file import write_profile
from gateway.stream.block import Block
from gateway.stream.columns import Column, Columns
from gateway.types import DATATYPES
from loadtests import models, payloads, targets
from loadtests.generators import Load, Observation, h2load, missing_programs, wrk

MODEL = "tiny"
REFERENCE_ROWS = 20_000
MONITOR = """
reference = { profile = "reference.json" }
window = { rows = 50000 }
"""
ALL_TESTS = """
tests = ["jensen_shannon", "psi", "kolmogorov_smirnov", "wasserstein_over_deviation",
         "missing_rate", "out_of_range_rate"]
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One load of one state: server CPU per request, and what the client saw."""

    cpu_us: float
    rate: float
    p99_ms: float


def write_reference(path: Path) -> None:
    """A profile of random rows, as the model's inputs and outputs are named."""
    given, made = models.LAYERS[MODEL][0], models.LAYERS[MODEL][-1]
    rng = np.random.default_rng(1)
    numbers = DATATYPES["FP32"]
    block = Block(
        MODEL,
        "1",
        Columns((Column(models.INPUT, numbers, 0, 0),), (Column(models.OUTPUT, numbers, 0, 0),)),
        number=0,
        at=0.0,
        request_rows=np.array([REFERENCE_ROWS]),
        latency_ns=np.ones(1, np.int64),
        ids=None,
        event_ids=None,
        inputs={models.INPUT: rng.normal(0, 1, (REFERENCE_ROWS, given)).astype(np.float32)},
        outputs={models.OUTPUT: rng.normal(0, 1, (REFERENCE_ROWS, made)).astype(np.float32)},
    )
    builder = ProfileBuilder()
    builder.add(block)
    source = ProfileSource(name="random", rows=REFERENCE_ROWS)
    # A file that monitor.toml names is read for whatever model.
    write_profile(path, builder.profile(f"sha256:{0:064}", source))


class StreamCost:
    """A run over one gateway."""

    def __init__(
        self, gateway: targets.Gateway, folder: Path, seconds: int, work: Path, text: str
    ) -> None:
        self._text = text
        self._gateway = gateway
        self._file = folder / "monitor.toml"
        self._seconds = seconds
        self._work = work

    def switch(self, on: bool) -> None:
        """Have the model monitored, or not."""
        if on:
            self._file.write_text(self._text)
        else:
            self._file.unlink(missing_ok=True)
        deadline = time.monotonic() + 30
        while (found := self._state())["state"] != ("watching" if on else ""):
            if time.monotonic() > deadline:
                raise SystemExit(f"the monitor is not {'on' if on else 'off'}: {found}")
            time.sleep(0.1)

    def round(self, protocol: str) -> Round:
        """One load."""
        before = self._gateway.server.cpu_s()
        seen = self._send(protocol)
        spent = self._gateway.server.cpu_s() - before
        return Round(spent * 1e6 / seen.requests, seen.requests / seen.seconds, seen.p99_ms)

    def _send(self, protocol: str) -> Observation:
        core, work, seconds = targets.LOAD_CORE, self._work, self._seconds
        if protocol == "gRPC":
            payload = payloads.grpc_raw(MODEL)
            port = self._gateway.grpc_port
            return h2load(port, payload, Load(64), f"-D{seconds}", core, work)
        port, payload = self._gateway.http_port, payloads.http_binary(MODEL)
        return wrk(port, payload, Load(64), seconds, core, work)

    def account(self) -> dict[str, float]:
        """What became of the predictions on their way to the monitors."""
        port = self._gateway.http_port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found = re.findall(
            r'onnx_gateway_stream_(offered|buffered|predictions)(?:_total)?\{model="tiny"'
            r'(?:,outcome="(\w+)")?,subscriber="monitors"\} (\S+)',
            text,
        )
        return {outcome or name: float(figure) for name, outcome, figure in found}

    def _state(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._gateway.admin_port}/admin/models/{MODEL}/drift"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                version = json.loads(answer.read())["versions"][0]
                return {key: str(version[key]) for key in ("state", "reason")}
        except urllib.error.HTTPError:
            return {"state": ""}


def told(protocol: str, off: list[Round], on: list[Round]) -> str:
    """One line: medians of both states, and what is between them."""
    cells = []
    for name, unit in (("cpu_us", "us"), ("rate", "/s"), ("p99_ms", "ms")):
        pair = [statistics.median(getattr(r, name) for r in rounds) for rounds in (off, on)]
        ratios = [getattr(b, name) / getattr(a, name) for a, b in zip(off, on, strict=True)]
        change = statistics.median(ratios) - 1
        cells.append(f"{pair[0]:9.1f} {pair[1]:9.1f} {unit:<3} {change:+7.1%}")
    return f"{protocol:<6}" + "   ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the stream and monitors cost.")
    parser.add_argument("--rounds", type=int, default=8, help="of each state (default: 8)")
    parser.add_argument("--seconds", type=int, default=3, help="seconds a round (default: 3)")
    parser.add_argument(
        "--all-tests", action="store_true", help="those of samples too, not the default ones alone"
    )
    arguments = parser.parse_args()
    text = MONITOR + (ALL_TESTS if arguments.all_tests else "")
    if missing := missing_programs():
        raise SystemExit("\n".join(missing))
    with tempfile.TemporaryDirectory() as directory:
        repository, work = Path(directory) / "models", Path(directory) / "work"
        work.mkdir()
        folder = repository / MODEL
        (folder / "1").mkdir(parents=True)
        onnx.save(models.mlp(MODEL, models.LAYERS[MODEL]), folder / "1" / "model.onnx")
        write_reference(folder / "reference.json")
        with targets.gateway(repository, MODEL, "native") as gateway:
            cost = StreamCost(gateway, folder, arguments.seconds, work, text)
            rounds: dict[tuple[str, bool], list[Round]] = {}
            least = 0
            for number in range(arguments.rounds + 1):
                # Whichever comes second finds a warmer machine, so they take turns.
                for on in (False, True) if number % 2 else (True, False):
                    if not number and on:
                        continue
                    cost.switch(on)
                    for protocol in ("HTTP", "gRPC"):
                        made = cost.round(protocol)
                        if number:
                            rounds.setdefault((protocol, on), []).append(made)
                if not number:
                    least = gateway.server.memory_bytes()
            print(f"{'':6}{'off':>9} {'on':>9} CPU a request{'':9}{'off':>9} {'on':>9} throughput")
            for protocol in ("HTTP", "gRPC"):
                print(told(protocol, rounds[protocol, False], rounds[protocol, True]))
            more = gateway.server.memory_bytes() - least
            print(f"memory: {more / 2**20:+.1f} MiB after all rounds")
            time.sleep(1)
            account = cost.account()
            print("account:", ", ".join(f"{k} {v:,.0f}" for k, v in sorted(account.items())))
            if account.get("offered") != sum(v for k, v in account.items() if k != "offered"):
                raise SystemExit("the account does not add up")


if __name__ == "__main__":
    main()
