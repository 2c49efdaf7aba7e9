"""Latency while a sink's receiver fails: ``python -m loadtests.stream_faults``.

A gateway is asked at a constant rate over gRPC while its predictions go to a receiver in a process
of its own, over HTTP or to NATS JetStream. Phases in which that receiver is stalled, dead, or
restarted over and over alternate with phases in which it is well; between them what has waited is
delivered, which is told by itself. In the end every prediction must be accounted for, and the
receiver must have what counts as delivered. The exit code is 1 where something does not add up, or
the p99 in a fault is more than ``ALLOWED_RATIO`` times the p99 without: the median over the pairs
of phases.
"""

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from gateway.stream.sinks.events import RESPONSE
from loadtests import models, payloads, targets
from loadtests.open_loop import OpenLoop
from loadtests.process import ServerError
from loadtests.swaps import Latencies
from tests.stream.sinks.receivers import HttpReceiver, NatsReceiver

MODEL = "tiny"
ALLOWED_RATIO = 1.5
FAULTS = ("stalled", "dead", "restarted")
CONNECTIONS = 4
SETTLING_S = 2.0
#: Seconds that what waits may take to be delivered in the end.
DRAIN_S = 120.0
#: While requests go on something always waits: what comes in some tenths of a second.
ALMOST_EMPTY_BYTES = 192 << 10

_COMMON = """
timeout_s = 1.0
retry = { first_s = 0.1, most_s = 1.0 }
"""


def sink_of(kind: str, receiver: Any, buffer: str) -> str:
    """The operator's file for a sink that delivers to ``receiver``."""
    own = {
        "cloud_events": lambda: f'url = "{receiver.url}"',
        "nats": lambda: f'servers = ["{receiver.url}"]\nsubject = "predictions.{{model}}"',
    }[kind]()
    return f'[sinks.test]\ntype = "{kind}"\nbuffer_bytes = "{buffer}"\n{own}\n{_COMMON}'


@dataclass(frozen=True, slots=True)
class Phase:
    """When a fault began and ended, when all that had waited was delivered, and the phase's end."""

    began_s: float
    failed_s: float
    caught_up_s: float
    ended_s: float

    @property
    def faulty(self) -> tuple[float, float]:
        return self.began_s, self.failed_s

    @property
    def catching_up(self) -> tuple[float, float]:
        # At least so long that there are requests in it.
        return self.failed_s, max(self.caught_up_s, self.failed_s + 0.5)

    @property
    def well(self) -> tuple[float, float]:
        return self.caught_up_s, self.ended_s


class Faults:
    """One sink of a running gateway under load; see ``run``."""

    def __init__(self, gateway: targets.Gateway, receiver: Any, loop: OpenLoop) -> None:
        self.phases: dict[str, list[Phase]] = {}
        self._gateway = gateway
        self._receiver = receiver
        self._loop = loop

    async def run(self, rounds: int, phase_s: float) -> None:
        """Each fault ``rounds`` times for ``phase_s`` seconds, and as long without any."""
        await self._loop.start(CONNECTIONS)
        await asyncio.sleep(SETTLING_S)
        for _ in range(rounds):
            for fault in FAULTS:
                began_s = time.monotonic()
                await asyncio.to_thread(self._fail, fault, began_s + phase_s)
                failed_s = time.monotonic()
                await asyncio.to_thread(self._mend, fault)
                await asyncio.to_thread(self._until_buffered, ALMOST_EMPTY_BYTES)
                caught_up_s = time.monotonic()
                await asyncio.sleep(phase_s)
                phase = Phase(began_s, failed_s, caught_up_s, time.monotonic())
                self.phases.setdefault(fault, []).append(phase)
        await self._loop.stop()
        await asyncio.to_thread(self._until_buffered, 0)

    def sink(self) -> dict[str, Any]:
        """What the gateway says of the sink."""
        found: dict[str, Any] = self._gateway.admin("GET", "stream")["sinks"][0]
        return found

    def report(self) -> bool:
        """Print what was seen; whether it is as it should be."""
        is_good = not self._loop.samples.errors
        for fault, phases in self.phases.items():
            ratios = [self._p99_ms([p.faulty]) / self._p99_ms([p.well]) for p in phases]
            median = float(np.median(ratios))
            for name, spans in (
                (fault, [p.faulty for p in phases]),
                ("catching up", [p.catching_up for p in phases]),
                ("well", [p.well for p in phases]),
            ):
                print(f"  {name:11}  {Latencies.of(self._loop.samples, spans)}")
            print(f"  p99 {fault} / well: {median:.2f}")
            is_good &= median <= ALLOWED_RATIO
        return self._add_up() and is_good

    def _p99_ms(self, spans: list[tuple[float, float]]) -> float:
        return Latencies.of(self._loop.samples, spans).p99_ms

    def _add_up(self) -> bool:
        (account,) = self.sink()["accounts"]
        answered = len(self._loop.samples.latency_s)
        got = [id for type, id in self._receiver.ids() if type == RESPONSE]
        dropped, lost = sum(account["dropped"].values()), sum(account["lost"].values())
        print(
            f"  answered {answered:,}, served {account['served']:,} ="
            f" delivered {account['delivered']:,} + dropped {dropped:,} + lost {lost:,}"
            f" + buffered {account['buffered']:,}; the receiver has {len(set(got)):,}"
            f" ({len(got) - len(set(got)):,} twice)"
        )
        whole = account["delivered"] + dropped + lost + account["buffered"]
        return account["served"] == whole and account["delivered"] == len(set(got))

    def _fail(self, fault: str, until_s: float) -> None:
        if fault == "stalled":
            self._receiver.stall()
        elif fault == "dead":
            self._receiver.kill()
        else:
            while time.monotonic() < until_s:
                self._receiver.restart()
                _sleep_until(min(time.monotonic() + 0.3, until_s))
        _sleep_until(until_s)

    def _mend(self, fault: str) -> None:
        if fault == "stalled":
            self._receiver.go_on()
        elif fault == "dead":
            self._receiver.start()

    def _until_buffered(self, most_bytes: int) -> None:
        deadline = time.monotonic() + DRAIN_S
        while self.sink()["buffered_bytes"] > most_bytes:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sink was not empty within {DRAIN_S:g} s: {self.sink()}")
            time.sleep(0.1)


def _sleep_until(when_s: float) -> None:
    time.sleep(max(when_s - time.monotonic(), 0.0))


async def _quiet(loop: OpenLoop, seconds: float) -> Latencies:
    """Latency of a gateway whose predictions go nowhere."""
    await loop.start(CONNECTIONS)
    await asyncio.sleep(SETTLING_S)
    began_s = time.monotonic()
    await asyncio.sleep(seconds)
    span = began_s, time.monotonic()
    await loop.stop()
    return Latencies.of(loop.samples, [span])


def measure(kind: str, rate: float, rounds: int, phase_s: float, buffer: str, work: Path) -> bool:
    """Whether faults of a receiver of that kind go unnoticed by callers, and are accounted for."""
    repository = work / "models"
    models.build(repository)
    payload = payloads.grpc_raw(MODEL)
    print(f"{kind}, {rate:,.0f} requests/s over gRPC, a buffer of {buffer}", flush=True)
    with targets.gateway(repository, MODEL) as gateway:
        loop = OpenLoop(gateway.grpc_port, payload, rate, {gateway.ask(payload): "1"})
        print(f"  no sink      {uvloop.run(_quiet(loop, rounds * phase_s))}", flush=True)
    make = HttpReceiver if kind == "cloud_events" else NatsReceiver
    with make(work) as receiver:
        if kind == "nats":
            receiver.add_stream()
        file = work / "monitoring.toml"
        file.write_text(sink_of(kind, receiver, buffer))
        with targets.gateway(repository, MODEL, options=["--monitoring", str(file)]) as gateway:
            answers = {gateway.ask(payload): "1"}
            loop = OpenLoop(gateway.grpc_port, payload, rate, answers)
            faults = Faults(gateway, receiver, loop)
            uvloop.run(faults.run(rounds, phase_s))
            return faults.report()


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure latency while a sink fails.")
    parser.add_argument("--kinds", nargs="+", default=["cloud_events", "nats"])
    parser.add_argument("--rate", type=float, default=300.0, help="requests/s (default: 300)")
    parser.add_argument("--rounds", type=int, default=3, help="of each fault (default: 3)")
    parser.add_argument("--phase", type=float, default=4.0, help="seconds of each (default: 4)")
    parser.add_argument("--buffer", default="1MiB", help="of the sink (default: 1MiB)")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {targets.LOAD_CORE})
    is_good = True
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as work:
            try:
                is_good &= measure(
                    kind, arguments.rate, arguments.rounds, arguments.phase, arguments.buffer,
                    Path(work),
                )  # fmt: skip
            except (ServerError, TimeoutError, targets.WrongAnswer) as error:
                raise SystemExit(f"the measurement stopped: {error}") from None
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
