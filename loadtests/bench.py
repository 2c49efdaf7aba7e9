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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime

from loadtests import models, payloads, points, targets
from loadtests.generators import (
    GeneratorError,
    Load,
    Observation,
    grpcio_client,
    h2load,
    missing_programs,
    wrk,
)
from loadtests.payloads import Payload
from loadtests.points import GRPC_NAMES, Point
from loadtests.process import Server, ServerError

REPOSITORY = Path(".demo/bench-models")
HTTP_LOADS = (Load(1), Load(16), Load(64))
ECHO_LOADS = (*HTTP_LOADS, Load(1, 64))
GRPC_LOADS = (*ECHO_LOADS, Load(1, 32, by_grpcio=True))
#: Of 602 KB each, few fill the connection.
IMAGE_LOADS = (
    Load(1), Load(8), Load(1, 8), Load(1, 1, by_grpcio=True), Load(1, 8, by_grpcio=True)
)  # fmt: skip
QUICK_HTTP_LOADS = (Load(1), Load(64))
QUICK_GRPC_LOADS = (Load(64), Load(1, 64), Load(1, 32, by_grpcio=True))
QUICK_IMAGE_LOADS = (Load(1, 8), Load(1, 8, by_grpcio=True))

#: Sends one load for some seconds.
Send = Callable[[int], Observation]


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
            for load in ECHO_LOADS if is_grpc else HTTP_LOADS:
                send = self._sender(port, payload, load, is_grpc)
                cpu_us, seen = self._cost_us(server, send)
                self._add(f"{kind} echo", protocol, load, cpu_us, seen, None)

    def measure_gateway(self, model: str, quick: bool, grpc_impl: str) -> None:
        """The gateway with one model, over every protocol; HTTP on the native front alone."""
        with targets.gateway(REPOSITORY, model, grpc_impl) as gateway:
            gateway.verify(REPOSITORY, model)
            if grpc_impl == "native":
                self.start_s[model] = gateway.start_s
                for protocol, payload, load in _http_loads(model, quick):
                    send = self._sender(gateway.http_port, payload, load, False)
                    self._measure(gateway, model, protocol, load, send)
            payload = payloads.grpc_raw(model)
            for load in _grpc_loads(model, quick):
                send = self._sender(gateway.grpc_port, payload, load, True)
                self._measure(gateway, model, GRPC_NAMES[grpc_impl], load, send)
            gateway.verify(REPOSITORY, model)
            if grpc_impl == "native":
                self.peak_bytes[model] = gateway.server.memory_bytes("VmHWM")

    def _sender(self, port: int, payload: Payload, load: Load, is_grpc: bool) -> Send:
        core, work = targets.LOAD_CORE, self._work
        if load.by_grpcio:
            return lambda seconds: grpcio_client(port, payload, load, seconds, core, work)
        if is_grpc:
            return lambda seconds: h2load(port, payload, load, f"-D{seconds}", core, work)
        return lambda seconds: wrk(port, payload, load, seconds, core, work)

    def _measure(
        self, gateway: targets.Gateway, model: str, protocol: str, load: Load, send: Send
    ) -> None:
        before = gateway.statistics(model)
        cpu_us, seen = self._cost_us(gateway.server, send)
        batch = _mean_batch(before, gateway.statistics(model))
        self._add(f"gateway, {model}", protocol, load, cpu_us, seen, batch)

    def _cost_us(self, server: Server, send: Send) -> tuple[float, Observation]:
        """Server CPU per request once warm, and what the client saw."""
        send(1)
        before = server.cpu_s()
        seen = send(self._seconds)
        return (server.cpu_s() - before) * 1e6 / seen.requests, seen

    def _add(
        self,
        server: str,
        protocol: str,
        load: Load,
        cpu_us: float,
        seen: Observation,
        batch: float | None,
    ) -> None:
        rate = seen.requests / seen.seconds
        point = Point(
            server, protocol, str(load), cpu_us, rate, seen.p50_ms, seen.p99_ms, batch
        )  # fmt: skip
        self.points.append(point)
        print(points.row(point), flush=True)


def _http_loads(model: str, quick: bool) -> Iterator[tuple[str, Payload, Load]]:
    """Of a model whose rows are small."""
    if model == models.IMAGE:
        return
    loads = QUICK_HTTP_LOADS if quick else HTTP_LOADS
    for load in loads:
        yield "HTTP binary", payloads.http_binary(model), load
    for load in loads:
        yield "HTTP JSON", payloads.http_json(model), load


def _grpc_loads(model: str, quick: bool) -> tuple[Load, ...]:
    if model == models.IMAGE:
        return QUICK_IMAGE_LOADS if quick else IMAGE_LOADS
    return QUICK_GRPC_LOADS if quick else GRPC_LOADS


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


def ratios(bench: Bench) -> list[str]:
    """What the points are beside the bounds, and beside each other."""
    item_us = bench.runtime.get("heavy", {}).get(32)
    bounds = points.over_bounds(bench.points, item_us)
    return [*bounds, *points.beside_grpcio(bench.points)]


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


def _grpc_impls(model: str, quick: bool) -> tuple[str, ...]:
    """All of them, but where it would only cost time: a heavy model hides the front."""
    return ("native",) if quick and model == "heavy" else tuple(GRPC_NAMES)


def run(bench: Bench, servers: list[str], quick: bool) -> None:
    """Measure ``servers`` one after the other, and print the summary."""
    models.build(REPOSITORY)
    chosen_models = [name for name in models.NAMES if name in servers]
    for model in chosen_models:
        bench.measure_runtime(model)
    print(f"\n{points.HEADER}", flush=True)
    if "echo" in servers:
        for kind in ("httptools", "starlette", "grpc.aio"):
            bench.measure_echo(kind)
    for model in chosen_models:
        for grpc_impl in _grpc_impls(model, quick):
            bench.measure_gateway(model, quick, grpc_impl)
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
        "--servers", nargs="+", choices=["echo", *models.NAMES], default=["echo", *models.NAMES],
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
