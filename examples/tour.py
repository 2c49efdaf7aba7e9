"""A tour of changing a model under traffic: shadow, canary, promote, rollback, history.

``python -m examples.tour`` trains four versions of a classifier of handwritten digits, serves the
first, and keeps sending it scans while the commands below change what answers. Everything that it
runs is the command ``onnx-gateway`` as you would type it; what it prints is that command's own
output. The exit code is 1 if a request failed or a change did not end as it should.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from examples.gateway import Gateway, GatewayError, running
from examples.models import digit_versions
from examples.models.digits import draw
from examples.telling import say, title
from examples.traffic import Caller, callers

MODEL = digit_versions.NAME
IN_FLIGHT = 16
PATIENCE_S = 90.0


class TourError(Exception):
    """Something did not go as the tour says."""


class Traffic:
    """Scans that are sent without a pause, and who answered them."""

    def __init__(self, clients: tuple[Caller, Caller]) -> None:
        self.answered: Counter[str] = Counter()
        self.failed = 0
        self._clients = clients
        self._pixels, self._labels = digit_versions.scans(20_000)
        self._next = 0

    async def send_on(self) -> None:
        """Send until cancelled, half of the requests over HTTP, half over gRPC."""
        await asyncio.gather(*(self._send(self._clients[n % 2]) for n in range(IN_FLIGHT)))

    async def _send(self, client: Caller) -> None:
        while True:
            index = self._next % len(self._pixels)
            self._next += 1
            try:
                version = await client.version_of(MODEL, pixels=self._pixels[index : index + 1])
            except Exception as error:
                self.failed += 1
                say(f"a request failed: {error}")
            else:
                self.answered[version] += 1

    def told(self) -> str:
        """Who has answered since the last time, in words."""
        counts, self.answered = self.answered, Counter()
        who = ", ".join(f"version {v} {n:,}" for v, n in sorted(counts.items()))
        return f"(meanwhile {counts.total():,} scans were answered: {who})"


class Commands:
    """Runs ``onnx-gateway``, and shows the command and what it printed."""

    def __init__(self, gateway: Gateway) -> None:
        self._admin = f"http://127.0.0.1:{gateway.admin_port}"

    async def run(self, *arguments: str, lines: int = 30, expected: int = 0) -> str:
        """Run one command; its output. Raises ``TourError`` if the exit code is another one."""
        say("", f"$ onnx-gateway {' '.join(arguments)}")
        code, output = await self._run(*arguments)
        shown = output.rstrip().splitlines()
        say(*(f"  {line}" for line in shown[:lines]))
        if len(shown) > lines:
            say(f"  ... {len(shown) - lines} more lines")
        if code != expected:
            raise TourError(f"exit code {code}, expected {expected}")
        return output

    async def read(self, *arguments: str) -> Any:
        """The JSON that a command gives, unshown."""
        code, output = await self._run(*arguments, "--json")
        if code:
            raise TourError(output)
        return json.loads(output)

    async def wait_for(self, what: str, done: Callable[[Any], bool], *arguments: str) -> Any:
        """Ask by a command until ``done``. Raises ``TourError`` after ``PATIENCE_S`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while not done(found := await self.read(*arguments)):
                    await asyncio.sleep(0.5)
                return found
        raise TourError(f"{what} not within {PATIENCE_S:.0f} s")

    async def _run(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *arguments, "--admin", self._admin),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()


async def show_shadow(commands: Commands, traffic: Traffic) -> None:
    title("1. Version 2 shadows: it gets copies of the traffic, and answers nobody")
    await commands.run("shadow", MODEL, "2", "--reason", "trained on twice the scans")
    await commands.wait_for(
        "2,000 pairs", lambda report: report["pairs"] >= 2000, "shadow", MODEL, "--report"
    )
    await commands.run("shadow", MODEL, "--report")
    say("", traffic.told())
    worst = (await commands.read("shadow", MODEL, "--worst"))[0]
    said = [worst[side][0]["data"][0] for side in ("primary", "shadow")]
    say("", f"The scan on which they differ most: version 1 says {said[0]}, version 2 {said[1]}")
    say(*(f"  |{line}|" for line in draw(np.array(worst["inputs"][0]["data"], np.float32))))
    await commands.run("shadow", MODEL, "--stop")


async def show_bad_canary(commands: Commands, traffic: Traffic) -> None:
    title("2. Version 3 is tried as a canary, and rolled back by itself")
    say("Nobody knows yet that the job which collected its scans had lost the digits 5 to 9.")
    # How fast a demonstration on a busy machine is says little about a version.
    await commands.run(
        *("canary", MODEL, "3", "--steps", "10,50", "--hold", "20", "--max-slow-increase", "0.5")
    )
    await commands.wait_for(
        "the rollback", lambda v: v["phase"] == "rolled_back", "canary", MODEL, "--status"
    )
    await commands.run("canary", MODEL, "--status")
    say("", traffic.told())


async def show_good_canary(commands: Commands, traffic: Traffic) -> None:
    title("3. Version 2 is tried in its turn, and promoted when its gates hold to the end")
    await commands.run(
        *("canary", MODEL, "2", "--steps", "20,50", "--hold", "3", "--min-requests", "1500"),
        *("--max-slow-increase", "0.5", "--max-error-increase", "0.02"),
    )
    await commands.wait_for(
        "the promotion", lambda v: v["phase"] == "promoted", "canary", MODEL, "--status"
    )
    await commands.run("canary", MODEL, "--status")
    say("", traffic.told())


async def show_golden(commands: Commands, models: Path) -> None:
    title("4. Golden requests keep out what is not what it says it is")
    say("Version 4 is said to be version 2, exported anew. Version 2's answers are its test:")
    golden = models / MODEL / "4" / "golden"
    await commands.run("golden", "record", MODEL, "-n", "20", "-o", str(golden), lines=3)
    await commands.run("promote", MODEL, "4", expected=1)


async def show_rollback(commands: Commands, traffic: Traffic) -> None:
    title("5. Rollback is one call: version 1 is still warm")
    traffic.told()
    await commands.run("rollback", MODEL, "--reason", "for the tour's sake")
    await asyncio.sleep(1)
    say("", traffic.told())
    await commands.run("promote", MODEL, "2")
    await commands.run("status", MODEL)


async def show_history(commands: Commands) -> None:
    title("6. All of it is in the journal, chained so that an edit shows")
    await commands.run("history", MODEL)
    await commands.run("journal", "verify")


async def tour(gateway: Gateway, models: Path) -> bool:
    commands = Commands(gateway)
    async with callers(gateway.http_port, gateway.grpc_port) as clients:
        traffic = Traffic(clients)
        sending = asyncio.create_task(traffic.send_on())
        try:
            await show_shadow(commands, traffic)
            await show_bad_canary(commands, traffic)
            await show_good_canary(commands, traffic)
            await show_golden(commands, models)
            await show_rollback(commands, traffic)
            await show_history(commands)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    say("", f"Requests that failed during the tour: {traffic.failed}")
    return traffic.failed == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="A tour of changing a model under traffic.")
    parser.add_argument("directory", nargs="?", type=Path, default=Path(".demo/tour"))
    directory = parser.parse_args().directory
    shutil.rmtree(directory, ignore_errors=True)
    models = directory / "models"
    say("training four versions of a classifier of handwritten digits ...")
    digit_versions.build(models / MODEL)
    options = ("--state-dir", str(directory / "state"))
    try:
        with running(models, directory / "gateway.log", *options) as gateway:
            gateway.wait_until_ready()
            fine = asyncio.run(tour(gateway, models))
            code, _ = gateway.stop()
    except (GatewayError, TourError) as error:
        print(f"the tour ended early: {error}", file=sys.stderr)
        return 1
    return 0 if fine and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
