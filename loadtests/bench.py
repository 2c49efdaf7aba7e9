"""Server CPU per request, beside the bare ceilings measured in the same run.

``python -m loadtests.bench [--quick]`` pins the server to one core and the load generator to
another, and divides the user and system time of the server's process tree by the completed
requests: on a shared machine that is what can be compared, where rates and latencies cannot. Every
answer must be 200, one answer of each protocol is compared with ONNX Runtime, and the server's own
statistics must count no failure.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from loadtests import models, payloads, targets
from loadtests.generators import GeneratorError, Load, Observation, h2load, missing_programs, wrk
from loadtests.payloads import Payload
from loadtests.process import Server, ServerError

REPOSITORY = Path(".demo/bench-models")
HTTP_LOADS = (Load(1), Load(16), Load(64))
GRPC_LOADS = (*HTTP_LOADS, Load(1, 64))

#: Sends one load for some seconds.
Send = Callable[[int], Observation]


@dataclass(frozen=True, slots=True)
class Point:
    """One measured load of one server.

    ``cpu_us`` is server CPU microseconds per request, ``batch`` the mean rows of a run (``None``
    for a server without batches); latencies are what the client saw.
    """

    server: str
    protocol: str
    load: str
    cpu_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    batch: float | None


class Bench:
    """The points of one run; ``seconds`` is how long each load is measured."""

    def __init__(self, seconds: int, work: Path) -> None:
        self._seconds = seconds
        self._work = work
        self.points: list[Point] = []
        self.runtime: dict[str, dict[int, float]] = {}
        self.start_s: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}

    def measure_runtime(self, model: str) -> None:
        """ONNX Runtime in process, on the server's core."""
        path = REPOSITORY / model / "1" / "model.onnx"
        seconds = 0.15 * self._seconds
        output = subprocess.run(
            [sys.executable, "-m", "loadtests.runtime", str(path), "--seconds", str(seconds)],
            check=True,
            capture_output=True,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {targets.SERVER_CORE}),
        ).stdout
        costs = {int(size): cost for size, cost in json.loads(output).items()}
        self.runtime[model] = costs
        line = "  ".join(f"{size}: {cost:.2f}" for size, cost in costs.items())
        print(f"ONNX Runtime, {model}, CPU us per item by batch size:  {line}", flush=True)

    def measure_echo(self, kind: str) -> None:
        """A bare server, sent the tiny model's request."""
        is_grpc = kind == "grpc.aio"
        payload = payloads.grpc_raw("tiny") if is_grpc else payloads.http_binary("tiny")
        protocol = "gRPC" if is_grpc else "HTTP"
        with targets.echo(kind) as (server, port):
            for load in GRPC_LOADS if is_grpc else HTTP_LOADS:
                send = self._sender(port, payload, load, is_grpc)
                self._measure(f"{kind} echo", protocol, load, server, send, None)

    def measure_gateway(self, model: str, quick: bool) -> None:
        """The gateway with one model, over every protocol."""
        with targets.gateway(REPOSITORY, model) as gateway:
            gateway.verify(REPOSITORY, model)
            self.start_s[model] = gateway.start_s
            for protocol, payload, load in _gateway_loads(model, quick):
                is_grpc = protocol == "gRPC"
                port = gateway.grpc_port if is_grpc else gateway.http_port
                send = self._sender(port, payload, load, is_grpc)
                self._measure(f"gateway, {model}", protocol, load, gateway.server, send, gateway)
            gateway.verify(REPOSITORY, model)
            self.peak_bytes[model] = gateway.server.memory_bytes("VmHWM")

    def point(self, server: str, protocol: str, load: str) -> Point | None:
        """The point that was measured so, if it was."""
        for point in self.points:
            if (point.server, point.protocol, point.load) == (server, protocol, load):
                return point
        return None

    def _sender(self, port: int, payload: Payload, load: Load, is_grpc: bool) -> Send:
        if is_grpc:
            return lambda seconds: h2load(
                port, payload, load, f"-D{seconds}", targets.LOAD_CORE, self._work
            )
        return lambda seconds: wrk(port, payload, load, seconds, targets.LOAD_CORE, self._work)

    def _measure(
        self,
        name: str,
        protocol: str,
        load: Load,
        server: Server,
        send: Send,
        gateway: targets.Gateway | None,
    ) -> None:
        send(1)
        model = name.rpartition(" ")[2]
        before = gateway.statistics(model) if gateway else {}
        cpu_before = server.cpu_s()
        seen = send(self._seconds)
        cpu = server.cpu_s() - cpu_before
        batch = _mean_batch(before, gateway.statistics(model)) if gateway else None
        point = Point(
            name, protocol, str(load), cpu * 1e6 / seen.requests, seen.requests / seen.seconds,
            seen.p50_ms, seen.p99_ms, batch,
        )  # fmt: skip
        self.points.append(point)
        print(_row(point), flush=True)


def _gateway_loads(model: str, quick: bool) -> Iterator[tuple[str, Payload, Load]]:
    if quick:
        http_loads: tuple[Load, ...] = (Load(1), Load(64))
        grpc_loads: tuple[Load, ...] = (Load(64), Load(1, 64))
    else:
        http_loads, grpc_loads = HTTP_LOADS, GRPC_LOADS
    for load in http_loads:
        yield "HTTP binary", payloads.http_binary(model), load
    for load in http_loads:
        yield "HTTP JSON", payloads.http_json(model), load
    for load in grpc_loads:
        yield "gRPC", payloads.grpc_raw(model), load


def _mean_batch(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Rows per run between two statistics; a failed request ends the benchmark."""
    failures = _count(after, "fail") - _count(before, "fail")
    if failures:
        raise targets.WrongAnswer(f"{failures} requests failed by the server's own statistics")
    rows = int(after["inference_count"]) - int(before["inference_count"])
    runs = int(after["execution_count"]) - int(before["execution_count"])
    return rows / max(runs, 1)


def _count(statistics: dict[str, Any], outcome: str) -> int:
    return int(statistics["inference_stats"][outcome].get("count", 0))


_HEADER = (
    f"{'server':<20}{'protocol':<13}{'in flight':>9}{'CPU us':>9}{'req/s':>9}"
    f"{'p50 ms':>9}{'p99 ms':>9}{'batch':>8}"
)


def _row(point: Point) -> str:
    batch = "" if point.batch is None else f"{point.batch:.1f}"
    return (
        f"{point.server:<20}{point.protocol:<13}{point.load:>9}{point.cpu_us:>9.1f}"
        f"{point.rate:>9.0f}{point.p50_ms:>9.2f}{point.p99_ms:>9.2f}{batch:>8}"
    )


def ratios(bench: Bench) -> list[str]:
    """How far the gateway is from what bounds it, at 64 in flight."""
    lines = []
    for protocol, bare in (("HTTP binary", "httptools echo"), ("gRPC", "grpc.aio echo")):
        for load in ("64", "1x64"):
            tiny = bench.point("gateway, tiny", protocol, load)
            floor = bench.point(bare, protocol.split()[0], load)
            if tiny and floor:
                lines.append(
                    f"tiny over {protocol}, {load} in flight: {tiny.cpu_us:.1f} us, "
                    f"{tiny.cpu_us / floor.cpu_us:.2f} x the {bare}"
                )
    for protocol in ("HTTP binary", "HTTP JSON", "gRPC"):
        heavy = bench.point("gateway, heavy", protocol, "64")
        if heavy and "heavy" in bench.runtime:
            floor_us = bench.runtime["heavy"][32]
            lines.append(
                f"heavy over {protocol}, 64 in flight: {heavy.cpu_us:.0f} us, "
                f"{heavy.cpu_us / floor_us:.2f} x ONNX Runtime's own at batch 32"
            )
    return lines


def report(bench: Bench) -> dict[str, Any]:
    """Everything measured, for a file."""
    return {
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "platform": platform.platform(),
        "points": [asdict(point) for point in bench.points],
        "onnxruntime_cpu_us_per_item": bench.runtime,
        "start_s": bench.start_s,
        "peak_bytes": bench.peak_bytes,
        "ratios": ratios(bench),
    }


def run(bench: Bench, servers: list[str], quick: bool) -> None:
    """Measure ``servers`` one after the other, and print the summary."""
    models.build(REPOSITORY)
    chosen_models = [name for name in models.LAYERS if name in servers]
    for model in chosen_models:
        bench.measure_runtime(model)
    print(f"\n{_HEADER}", flush=True)
    if "echo" in servers:
        for kind in ("httptools", "starlette", "grpc.aio"):
            bench.measure_echo(kind)
    for model in chosen_models:
        bench.measure_gateway(model, quick)
    print()
    for model in chosen_models:
        print(
            f"gateway, {model}: ready after {bench.start_s[model]:.1f} s, "
            f"peak memory {bench.peak_bytes[model] / 2**20:.0f} MiB"
        )
    print(*ratios(bench), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure server CPU per request.")
    parser.add_argument("--quick", action="store_true", help="one second a point, fewer points")
    parser.add_argument("--seconds", type=int, default=3, help="seconds a point (default: 3)")
    parser.add_argument(
        "--servers", nargs="+", choices=["echo", *models.LAYERS], default=["echo", *models.LAYERS],
        help="what to measure (default: everything)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), metavar="FILE")
    arguments = parser.parse_args()
    if missing := missing_programs():
        raise SystemExit("\n".join(missing))
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two cores are needed: one for the server, one for the load generator")
    seconds = 1 if arguments.quick else arguments.seconds
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(seconds, Path(work))
        try:
            run(bench, arguments.servers, arguments.quick)
        except (GeneratorError, ServerError, targets.WrongAnswer) as error:
            raise SystemExit(f"\nthe benchmark stopped: {error}") from None
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report(bench), indent=2) + "\n")
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()
