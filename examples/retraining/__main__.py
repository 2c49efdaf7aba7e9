"""The loop, once around: drift, alert, retraining, shadow, promotion, and the record of it.

``python -m examples.retraining`` serves a model to a clinic, replaces the clinic's microscope, and
lets the gateway find out. What it prints is the output of the command ``onnx-gateway``. The exit
code is 1 where something did not go as told.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from examples.gateway import Gateway, GatewayError, running
from examples.retraining.clinic import Clinic
from examples.retraining.scans import draw
from examples.retraining.versions import MODEL, build_first
from examples.telling import say, title

PATIENCE_S: Final = 120.0


class LoopError(Exception):
    """Something did not go as the example says."""


class Commands:
    """Runs ``onnx-gateway``, and shows the command and what it printed."""

    def __init__(self, gateway: Gateway) -> None:
        self.admin = f"http://127.0.0.1:{gateway.admin_port}"

    def run(self, *arguments: str) -> None:
        say("", f"$ onnx-gateway {' '.join(arguments)}")
        code, output = self._run(*arguments)
        say(*(f"  {line}" for line in output.rstrip().splitlines()))
        if code:
            raise LoopError(f"exit code {code}")

    def read(self, *arguments: str) -> Any:
        """The JSON that a command gives, unshown."""
        code, output = self._run(*arguments, "--json")
        if code:
            raise LoopError(output)
        return json.loads(output)

    def _run(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--admin", self.admin],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def until(what: str, clinic: Clinic, done: Callable[[], bool]) -> None:
    """See patients, of the new microscope, until ``done``."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            raise LoopError(f"{what} not within {PATIENCE_S:.0f} s")
        clinic.see(100, new_microscope=True)


def attempts(commands: Commands, outcome: str = "") -> list[Any]:
    """The journal's entries of the action, the oldest first; those of ``outcome`` where given."""
    entries = commands.read("history", MODEL, "--limit", "1000")
    return [
        entry
        for entry in reversed(entries)
        if entry["verb"] == "action" and outcome in ("", entry["outcome"])
    ]


def walk(gateway: Gateway, clinic: Clinic) -> None:
    commands = Commands(gateway)

    def tell(patients: int, new_microscope: bool) -> float:
        share, versions = clinic.see(patients, new_microscope=new_microscope)
        say(f"{patients:,} patients: {share:.1%} right, by version {', '.join(sorted(versions))}")
        return share

    def alerts() -> Any:
        return commands.read("alerts", MODEL)

    title("1. All is well")
    tell(1500, False)
    until_judged = time.monotonic() + PATIENCE_S
    while not alerts()["versions"] and time.monotonic() < until_judged:
        time.sleep(0.2)
    commands.run("alerts", MODEL)

    title("2. The clinic has a new microscope, and nobody has told the model")
    before = tell(1000, True)
    until("the alert", clinic, lambda: alerts()["episode"] is not None)
    commands.run("alerts", MODEL)

    title("3. The action retrains on what the laboratory has confirmed since")
    until("the retraining", clinic, lambda: bool(attempts(commands, "ok")))
    for number, entry in enumerate(attempts(commands), 1):
        say("", f"attempt {number}: {entry['outcome']}; its output, from the journal:")
        say(*(f"  {line}" for line in entry["evidence"]["output"].splitlines()))

    title("4. Version 2 has passed its golden requests, and shadows version 1")
    until(
        "300 pairs",
        clinic,
        lambda: commands.read("shadow", MODEL, "--report")["pairs"] >= 300,
    )
    commands.run("shadow", MODEL, "--report")
    say(
        "They disagree on nearly every request of 25 patients, as they should: version 1 is wrong",
        "about a third of them. What counts here are errors and latency.",
    )
    commands.run("shadow", MODEL, "--stop")

    title("5. You promote it, and the episode is over")
    commands.run("promote", MODEL, "2", "--reason", "right again on the held-out patients")
    after = tell(1500, True)
    until("the end", clinic, lambda: alerts()["episode"] is None and bool(alerts()["versions"]))
    commands.run("alerts", MODEL)

    title("6. The whole story")
    commands.run("history", MODEL)
    commands.run("journal", "verify")
    if not before + 0.2 < after:
        raise LoopError(f"{before:.1%} were right before and {after:.1%} after")


def lay_out(directory: Path) -> Path:
    """The repository with version 1; its path."""
    rows, labels = draw(2000, seed=0)
    build_first(directory / "models", directory / "staging", rows, labels)
    return directory / "models"


def monitoring_file(directory: Path, admin: str) -> Path:
    """The operator's file: what is done about a drift."""
    place = directory.resolve()
    file = place / "monitoring.toml"
    file.write_text(
        f"""\
[channels.log]
type = "log"

[actions.retrain]
type = "command"
argv = ["{sys.executable}", "-m", "examples.retraining.retrain"]
directory = "{Path.cwd()}"
backoff_s = 2
attempts = 20
max_backoff_s = 10
[actions.retrain.environment]
MODELS = "{place / "models"}"
STAGING = "{place / "staging"}"
CONFIRMED = "{place / "confirmed.csv"}"
ADMIN = "{admin}"
"""
    )
    return file


def main() -> int:
    parser = argparse.ArgumentParser(description="Drift, an alert, retraining, and back.")
    parser.add_argument("directory", nargs="?", type=Path, default=Path(".demo/retraining"))
    directory = parser.parse_args().directory
    shutil.rmtree(directory, ignore_errors=True)
    say("training version 1 ...")
    models = lay_out(directory)
    file = directory / "monitoring.toml"
    options = ("--state-dir", str(directory / "state"), "--monitoring", str(file.resolve()))
    try:
        with running(
            models,
            directory / "gateway.log",
            *options,
            prepare=lambda made: monitoring_file(directory, f"http://127.0.0.1:{made.admin_port}"),
        ) as gateway:
            gateway.wait_until_ready()
            walk(gateway, Clinic(gateway.http_port, directory / "confirmed.csv"))
            code, _ = gateway.stop()
    except (GatewayError, LoopError) as error:
        print(f"the loop broke: {error}", file=sys.stderr)
        return 1
    return 0 if code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
