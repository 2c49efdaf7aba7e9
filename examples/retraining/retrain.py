"""Retrains the model on what was confirmed since it drifted: the program that the action starts.

The episode comes on standard input, as JSON. From the environment:

``MODELS``: the gateway's repository. ``CONFIRMED``: the file of confirmed diagnoses. ``STAGING``: a
directory on the repository's file system. ``ADMIN``: the gateway's admin API.

Exit status 0 once the new version shadows the old one; 75 (``EX_TEMPFAIL``) while there are too few
confirmed diagnoses, so that the gateway tries again later; anything else is a failure.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from examples.retraining.scans import FEATURES, Labels, Rows
from examples.retraining.versions import MODEL, add_version, train

#: Fewest confirmed diagnoses to learn from, and the share of them that both versions are tried on.
FEWEST: Final = 800
HELD_OUT: Final = 0.25


def main() -> int:
    episode = json.load(sys.stdin)
    models, staging = Path(os.environ["MODELS"]), Path(os.environ["STAGING"])
    rows, labels = confirmed(Path(os.environ["CONFIRMED"]), since=episode["evidence"]["began"])
    if len(rows) < FEWEST:
        print(f"{len(rows)} diagnoses were confirmed since the drift, {FEWEST} are needed")
        return os.EX_TEMPFAIL
    made = version_of(models, episode["id"])
    if made is None:
        made = retrain(models, staging, episode, rows, labels)
    print(
        f"asking for version {made} as a shadow: the gateway loads it if its golden requests hold"
    )
    command = ("shadow", MODEL, made, "--by", "retrain.py")
    why = ("--reason", f"retrained for episode {episode['id']}", "--admin", os.environ["ADMIN"])
    return subprocess.run([sys.executable, "-m", "gateway", *command, *why]).returncode


def confirmed(path: Path, since: float) -> tuple[Rows, Labels]:
    """The measurements and diagnoses of the file ``path`` from the time ``since`` on."""
    with path.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if float(line["at"]) >= since]
    rows = np.array([[float(line[name]) for name in FEATURES] for line in lines], np.float32)
    return rows, np.array([int(line["diagnosis"]) for line in lines], np.int64)


def version_of(models: Path, episode: str) -> str | None:
    """The version that was made for ``episode`` already: its id is the idempotency key."""
    for lineage in (models / MODEL).glob("*/lineage.toml"):
        if f'episode = "{episode}"' in lineage.read_text():
            return lineage.parent.name
    return None


def retrain(
    models: Path, staging: Path, episode: dict[str, Any], rows: Rows, labels: Labels
) -> str:
    """Train on the first of the rows, and put a new version into the repository; its name."""
    split = int(len(rows) * (1 - HELD_OUT))
    classifier = train(rows[:split], labels[:split])
    before = accuracy_of(models / MODEL / episode["version"], rows[split:], labels[split:])
    after = float((classifier.predict(rows[split:]) == labels[split:]).mean())
    print(f"on {len(rows) - split} held-out patients: {before:.1%} right before, {after:.1%} now")
    if after <= before:
        print("the new model is no better: it is not put into the repository")
        raise SystemExit(os.EX_CONFIG)
    version = str(max(int(p.name) for p in (models / MODEL).iterdir() if p.name.isdigit()) + 1)
    add_version(
        models,
        staging,
        version,
        classifier,
        rows[:split],
        note=f"retrained on {split} patients since the drift",
        episode=episode["id"],
        replaces=episode["version"],
        accuracy=f"{after:.4f}",
        accuracy_of_replaced=f"{before:.4f}",
    )
    print(f"version {version}: model, golden requests, lineage and profile are in the repository")
    return version


def accuracy_of(directory: Path, rows: Rows, labels: Labels) -> float:
    """The share of ``rows`` that the version in ``directory`` is right about."""
    session = onnxruntime.InferenceSession(
        directory / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (answers,) = session.run(["label"], {"measurements": rows})
    return float((answers == labels).mean())


if __name__ == "__main__":
    sys.exit(main())
