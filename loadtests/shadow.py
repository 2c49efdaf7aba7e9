"""What a shadow costs the primary: ``python -m loadtests.shadow [--seconds N] [--rounds N]``.

Each model is served in two versions, the second of which shadows the first on all of its traffic,
on and off in turn, so that what else happens on the machine happens to both:

- at a moderate load, open loop over gRPC, every answer compared: the ratio of the p99 latencies;
- under overload, closed loop over gRPC: the ratio of the goodputs.

What became of every request must add up, or the exit code is 1; it is, too, when a ratio is missed.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import onnx
import tritonclient.grpc.service_pb2 as pb
from onnx import numpy_helper

from loadtests import models, payloads, targets
from loadtests.generators import GeneratorError, Load, h2load, missing_programs
from loadtests.paced import Plan, Seen
from loadtests.process import ServerError

REPOSITORY: Final = Path(".demo/shadow-models")
NAMES: Final = tuple(models.LAYERS)

#: Of the capacity, and of what the generator can send in any case, requests a second.
MODERATE: Final = 0.3
MOST_RATE: Final = 1000.0
DISTINCT: Final = 256
OVERLOAD: Final = Load(64, 4)
WARM_UP_S: Final = 0.5

MOST_P99_RATIO: Final = 1.10
LEAST_GOODPUT_RATIO: Final = 0.98


class WrongAccount(Exception):
    """What became of the requests does not add up."""


def build(repository: Path) -> None:
    """Two versions of each model, of one thread; the second one's weights are a little off."""
    plain = repository.parent / "bench-models"
    models.build(plain)
    for name in NAMES:
        made = onnx.load(plain / name / "1" / "model.onnx")
        folder = repository / name
        for version in ("1", "2"):
            (folder / version).mkdir(parents=True, exist_ok=True)
            onnx.save(made, folder / version / "model.onnx")
            for weights in made.graph.initializer:
                array = numpy_helper.to_array(weights) * np.float32(1.0001)
                weights.CopyFrom(numpy_helper.from_array(array, weights.name))
        (folder / "model.toml").write_text(
            'version_policy = { specific = ["1"] }\nintra_op_threads = 1\n'
        )


def requests(name: str) -> list[bytes]:
    """``DISTINCT`` calls of ModelInfer with a row of their own each."""
    rows = np.random.default_rng(2).normal(0, 1, (DISTINCT, 1, models.LAYERS[name][0]))
    made = []
    for row in rows.astype(np.float32):
        message = pb.ModelInferRequest(model_name=name, raw_input_contents=[row.tobytes()])
        message.inputs.add(name=models.INPUT, datatype="FP32", shape=row.shape)
        made.append(payloads.grpc_call(message).body)
    return made


@dataclass
class Comparison:
    """One figure without and with the shadow, pair by pair, and the requests' accounts."""

    model: str
    what: str
    without: list[float] = field(default_factory=list)
    with_it: list[float] = field(default_factory=list)
    accounts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """With to without; the median of the pairs."""
        return median(b / a for a, b in zip(self.without, self.with_it, strict=True))

    def __str__(self) -> str:
        pairs = zip(self.without, self.with_it, strict=True)
        told = " ".join(f"{b / a:.3f}" for a, b in pairs)
        return (
            f"{self.model:<8}{self.what:<20}{median(self.without):>11.3f}"
            f"{median(self.with_it):>11.3f}{self.ratio:>8.3f}   {told}"
        )


HEADER: Final = f"{'model':<8}{'median of':<20}{'without':>11}{'with':>11}{'ratio':>8}   pairs"


class ShadowTest:
    """The comparisons of one run: ``rounds`` pairs of ``seconds`` each."""

    def __init__(self, seconds: int, rounds: int, work: Path) -> None:
        self._seconds = seconds
        self._rounds = rounds
        self._work = work

    def moderate(self, gateway: targets.Gateway, model: str) -> tuple[Comparison, Comparison]:
        """The p50 and p99 latencies, in milliseconds, of requests that come evenly."""
        probe = self._flood(gateway, model, Load(16, 4), 2)
        rate = min(MODERATE * probe, MOST_RATE)
        plan = Plan(gateway.grpc_port, requests(model), rate, self._seconds, WARM_UP_S)
        p50, p99 = Comparison(model, "p50 ms"), Comparison(model, "p99 ms")
        print(f"{model}: {rate:.0f} requests a second, of {probe:.0f}", flush=True)

        def without() -> None:
            seen = _drive(plan)
            p50.without.append(seen.p50_ms)
            p99.without.append(seen.p99_ms)

        def with_it() -> int:
            seen = _drive(plan)
            p50.with_it.append(seen.p50_ms)
            p99.with_it.append(seen.p99_ms)
            return seen.calls

        for _ in range(self._rounds):
            without()
            with _shadowed(gateway, model, p99.accounts):
                sent = with_it()
            if p99.accounts[-1]["offered"] != sent:
                raise WrongAccount(f"{sent} requests were sent, but {p99.accounts[-1]}")
        return p50, p99

    def overload(
        self, gateway: targets.Gateway, model: str, where: str
    ) -> tuple[Comparison, Comparison]:
        """The answers a second when there are more requests than can be answered.

        Beside them the server's CPU microseconds an answer, which a noisy machine changes less.
        """
        goodput = Comparison(model, f"goodput, {where}")
        cpu = Comparison(model, f"CPU us, {where}")

        def measure() -> tuple[float, float]:
            self._flood(gateway, model, OVERLOAD, 1)
            before_s = gateway.server.cpu_s()
            rate = self._flood(gateway, model, OVERLOAD, self._seconds)
            return rate, (gateway.server.cpu_s() - before_s) * 1e6 / (rate * self._seconds)

        for _ in range(self._rounds):
            for side, figure in zip((goodput, cpu), measure(), strict=True):
                side.without.append(figure)
            with _shadowed(gateway, model, goodput.accounts):
                figures = measure()
            for side, figure in zip((goodput, cpu), figures, strict=True):
                side.with_it.append(figure)
        return goodput, cpu

    def _flood(self, gateway: targets.Gateway, model: str, load: Load, seconds: int) -> float:
        payload = payloads.grpc_raw(model)
        failed = gateway.failures(model)
        seen = h2load(
            gateway.grpc_port, payload, load, f"-D{seconds}", targets.LOAD_CORE, self._work
        )
        if gateway.failures(model) != failed:
            raise GeneratorError(f"requests of {model} failed, by the server's own statistics")
        return seen.requests / seen.seconds


def _drive(plan: Plan) -> Seen:
    result = subprocess.run(
        [sys.executable, "-m", "loadtests.paced"],
        input=pickle.dumps(plan),
        capture_output=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {targets.LOAD_CORE}),
    )
    if result.returncode:
        raise GeneratorError(result.stderr.decode())
    return Seen(**json.loads(result.stdout))


@contextmanager
def _shadowed(
    gateway: targets.Gateway, model: str, accounts: list[dict[str, Any]]
) -> Iterator[None]:
    """Shadow ``model`` meanwhile, and prove that all of its requests are accounted for."""
    path = f"models/{model}/shadow"
    gateway.admin("PUT", path, version="2")
    yield
    account = _settled(lambda: gateway.admin("GET", path)["requests"])
    gateway.admin("DELETE", path)
    accounts.append(account)
    skipped = sum(account["skipped"].values())
    ended = account["paired"] + account["cancelled"] + account["open"]
    if account["offered"] != account["sampled_out"] + skipped + account["sent"]:
        raise WrongAccount(f"offered = sampled_out + skipped + sent does not hold: {account}")
    if account["sent"] != ended or account["open"]:
        raise WrongAccount(f"sent = paired + cancelled does not hold: {account}")


def _settled(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The account once nothing of it is open any more, or after ten seconds."""
    end_s = time.monotonic() + 10
    while (account := read())["open"] and time.monotonic() < end_s:
        time.sleep(0.05)
    return account


def run(test: ShadowTest, names: list[str]) -> list[Comparison]:
    """Everything, printed as it comes."""
    build(REPOSITORY)
    made: list[Comparison] = []
    for model in names:
        # At a moderate load the shadow may have a core that is idle otherwise: the models run on
        # one thread each.
        with targets.gateway(REPOSITORY, model, core=None) as gateway:
            made += test.moderate(gateway, model)
        for core, where in ((targets.SERVER_CORE, "one core"), (None, "all cores")):
            with targets.gateway(REPOSITORY, model, core=core) as gateway:
                made += test.overload(gateway, model, where)
    print(f"\n{HEADER}")
    for comparison in made:
        print(comparison)
    print()
    for comparison in made:
        for account in comparison.accounts:
            print(f"{comparison.model}, {comparison.what}: {json.dumps(account)}")
    return made


def missed(made: list[Comparison]) -> list[str]:
    """The ratios that are not what they should be."""
    lines = []
    for comparison in made:
        if comparison.what == "p99 ms" and comparison.ratio > MOST_P99_RATIO:
            lines.append(f"{comparison.model}: p99 {comparison.ratio:.3f} > {MOST_P99_RATIO}")
        if comparison.what.startswith("goodput") and comparison.ratio < LEAST_GOODPUT_RATIO:
            lines.append(
                f"{comparison.model}: {comparison.what} {comparison.ratio:.3f} "
                f"< {LEAST_GOODPUT_RATIO}"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a shadow costs the primary.")
    parser.add_argument("--seconds", type=int, default=4, help="seconds a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of measurements")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    arguments = parser.parse_args()
    if missing := missing_programs():
        raise SystemExit("\n".join(missing))
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two cores are needed: one for the primary, one for its shadow")
    with tempfile.TemporaryDirectory() as work:
        test = ShadowTest(arguments.seconds, arguments.rounds, Path(work))
        try:
            made = run(test, arguments.models)
        except (GeneratorError, ServerError, WrongAccount, targets.WrongAnswer) as error:
            raise SystemExit(f"the measurement stopped: {error}") from None
    print(*missed(made), sep="\n")
    return 1 if missed(made) else 0


if __name__ == "__main__":
    raise SystemExit(main())
