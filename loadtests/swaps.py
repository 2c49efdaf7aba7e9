"""Latency with swaps of versions and without: ``python -m loadtests.swaps``.

One model after the other is asked at a constant rate, over HTTP and gRPC at once, a third of what
the server's core can do. Phases in which one promotion follows another, each of a version that has
to be loaded for it, alternate with phases in which nothing changes. The exit code is 1 when an
answer was wrong, or of a version that did not serve any more, or the p99 with swaps is more than
``ALLOWED_RATIO`` times the p99 without: the median over the pairs of phases, so that what else the
machine does in one of them does not decide. Between two swaps there is a pause, as there is where
somebody looks at what he has promoted; with ``--pause 0`` a model of a few kilobytes is loaded
forty times a second, and one request in a hundred meets the interpreter taken.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import uvloop

from loadtests import generators, models, payloads, targets
from loadtests.generators import GeneratorError, Load
from loadtests.open_loop import OpenLoop, Samples
from loadtests.process import ServerError
from loadtests.raw_http2 import WrongFrame
from loadtests.swap_log import SwapLog

MODELS = ["tiny", models.MEDIUM]
ALLOWED_RATIO = 1.5
#: The first is what the policy loads, so it stays. The others come round, four of them: with one
#: previous version kept, each has been unloaded when it is promoted again.
VERSIONS = ("1", "2", "3", "4", "5")
SETTINGS = 'version_policy = { specific = ["1"] }\n'
#: Requests a second over each protocol, above which the client's own core would be what is seen.
MOST_BY_CLIENT = 1500.0
CONNECTIONS = 4
#: Seconds at the beginning that are not counted.
SETTLING_S = 1.0


@dataclass(slots=True)
class Phases:
    """When there were swaps and when there were none, as ``(from, to)``."""

    swapping: list[tuple[float, float]] = field(default_factory=list)
    quiet: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of the requests that were sent in some phases, in milliseconds."""

    requests: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, samples: Samples, phases: Iterable[tuple[float, float]]) -> "Latencies":
        sent, took = np.array(samples.sent_s), np.array(samples.latency_s) * 1e3
        chosen = np.zeros(len(sent), bool)
        for begin, end in phases:
            chosen |= (sent >= begin) & (sent < end)
        took = took[chosen]
        p50, p99 = np.percentile(took, [50, 99])
        return cls(len(took), float(p50), float(p99), float(took.max()))

    def __str__(self) -> str:
        return (
            f"p50 {self.p50_ms:7.2f}  p99 {self.p99_ms:7.2f}  max {self.max_ms:7.2f} ms"
            f"  ({self.requests:,} requests)"
        )


class Swaps:
    """One model of a running gateway under load; see ``run``."""

    def __init__(self, gateway: targets.Gateway, model: str) -> None:
        self.phases = Phases()
        self.loops: dict[str, OpenLoop] = {}
        self.log = SwapLog([VERSIONS[0]])
        self._gateway = gateway
        self._model = model
        self._swaps = 0
        self._payloads = {
            "HTTP": (gateway.http_port, payloads.http_binary(model)),
            "gRPC": (gateway.grpc_port, payloads.grpc_raw(model)),
        }

    def prepare(self, share: float, work: Path) -> None:
        """Learn what each version answers, and how much of it may be asked for."""
        answers: dict[str, dict[bytes, str]] = {name: {} for name in self._payloads}
        for _ in VERSIONS[1:]:
            version = self.swap()
            for name, (_, payload) in self._payloads.items():
                answers[name][self._gateway.ask(payload)] = version
        for name, (port, payload) in self._payloads.items():
            seen = generators.h2load(
                port, payload, Load(CONNECTIONS, 1 if name == "HTTP" else 4), "-D2",
                targets.LOAD_CORE, work, http1=name == "HTTP",
            )  # fmt: skip
            capacity = seen.requests / seen.seconds
            rate = min(capacity * share / len(self._payloads), MOST_BY_CLIENT)
            self.loops[name] = OpenLoop(port, payload, rate, answers[name])
            print(f"{self._model} over {name}: {rate:,.0f} requests/s of {capacity:,.0f}")

    async def run(self, swaps: int, rounds: int, pause_s: float) -> None:
        """``swaps`` in ``rounds`` phases, each followed by one as long without any."""
        for loop in self.loops.values():
            await loop.start(CONNECTIONS)
        await asyncio.sleep(SETTLING_S)
        for number in range(rounds):
            began_s = time.monotonic()
            for _ in range(swaps * number // rounds, swaps * (number + 1) // rounds):
                await asyncio.to_thread(self.swap)
                await asyncio.sleep(pause_s)
            ended_s = time.monotonic()
            await asyncio.sleep(ended_s - began_s)
            self.phases.swapping.append((began_s, ended_s))
            self.phases.quiet.append((ended_s, time.monotonic()))
        for loop in self.loops.values():
            await loop.stop()

    def swap(self) -> str:
        """Promote the next version; which one that is."""
        version = VERSIONS[1 + self._swaps % (len(VERSIONS) - 1)]
        self._swaps += 1
        with self.log.swap(version):
            self._gateway.change(f"/admin/models/{self._model}/promote", {"version": version})
        return version

    def report(self) -> bool:
        """Print what was seen; whether it is as it should be."""
        is_good = True
        for name, loop in self.loops.items():
            seen = loop.samples
            stale = sum(
                not self.log.allows(version, sent_s, sent_s + latency_s)
                for version, sent_s, latency_s in zip(
                    seen.versions, seen.sent_s, seen.latency_s, strict=True
                )
            )
            swapping = Latencies.of(seen, self.phases.swapping)
            quiet = Latencies.of(seen, self.phases.quiet)
            ratio = swapping.p99_ms / quiet.p99_ms
            by_round = [
                Latencies.of(seen, [during]).p99_ms / Latencies.of(seen, [without]).p99_ms
                for during, without in zip(self.phases.swapping, self.phases.quiet, strict=True)
            ]
            print(f"{self._model} over {name}")
            print(f"  without swaps  {quiet}")
            print(f"  during swaps   {swapping}")
            print(
                f"  p99 during / without: {np.median(by_round):.2f}, the median of"
                f" {', '.join(f'{r:.2f}' for r in sorted(by_round))}; {ratio:.2f} of all together;"
                f" wrong answers: {len(seen.errors)}, stale ones: {stale}"
            )
            for error in seen.errors[:3]:
                print(f"  wrong: {error!r}")
            is_good &= float(np.median(by_round)) <= ALLOWED_RATIO and not seen.errors and not stale
        return is_good


def measure(model: str, swaps: int, rounds: int, pause_s: float, share: float, work: Path) -> bool:
    """Whether swaps of ``model`` go unnoticed."""
    repository = work / "models"
    models.build_versions(repository, model, VERSIONS, SETTINGS)
    with targets.gateway(repository, model) as gateway:
        run = Swaps(gateway, model)
        run.prepare(share, work)
        uvloop.run(run.run(swaps, rounds, pause_s))
        took_s = sum(end - begin for begin, end in run.phases.swapping) - swaps * pause_s
        print(f"{model}: {swaps} swaps of {took_s / swaps * 1e3:.0f} ms, {pause_s:g} s apart")
        return run.report()


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure latency during swaps.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10, help="phases with swaps (default: 10)")
    parser.add_argument(
        "--pause", type=float, default=0.5, help="seconds between two swaps (default: 0.5)"
    )
    parser.add_argument("--share", type=float, default=1 / 3, help="of the capacity (default: 1/3)")
    arguments = parser.parse_args()
    if missing := generators.missing_programs():
        raise SystemExit("\n".join(missing))
    os.sched_setaffinity(0, {targets.LOAD_CORE})
    is_good = True
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as work:
            try:
                is_good &= measure(
                    model, arguments.swaps, arguments.rounds, arguments.share, Path(work)
                )
            except (GeneratorError, ServerError, WrongFrame, targets.WrongAnswer) as error:
                raise SystemExit(f"the measurement stopped: {error}") from None
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
