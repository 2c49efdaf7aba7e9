"""The loop, once around, in a running gateway: drift, alert, webhook, retraining, golden requests,
shadow, promotion, recovery; and a journal that tells it all and verifies."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.retraining import retrain
from examples.retraining.clinic import Clinic
from examples.retraining.scans import draw
from examples.retraining.versions import MODEL, build_first
from tests.monitor.receiver import Receiver
from tests.server import GatewayProcess

SECRET = "the secret of the pipeline's hook"
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_loop(tmp_path: Path) -> None:
    rows, labels = draw(2000, seed=0)
    build_first(tmp_path / "models", tmp_path / "staging", rows, labels)
    file = tmp_path / "monitoring.toml"
    with Receiver(503) as pipeline:
        file.write_text(
            f'[actions.retrain]\ntype = "webhook"\nurl = "{pipeline.url}"\n'
            f'secret = "{SECRET}"\nbackoff_s = 0.1\n'
        )
        options = ("--monitoring", str(file), "--state-dir", str(tmp_path / "state"))
        with GatewayProcess(tmp_path / "models", *options) as gateway:
            clinic = Clinic(gateway.http_port, tmp_path / "confirmed.csv")
            around(gateway, clinic, pipeline, tmp_path)


def around(gateway: GatewayProcess, clinic: Clinic, pipeline: Receiver, place: Path) -> None:
    def alerts():
        return gateway.administer("GET", f"/admin/models/{MODEL}/alerts")[1]

    # All is well: windows are judged, and nothing is found in them.
    right, _ = clinic.see(1500, new_microscope=False)
    assert right > 0.93
    gateway.wait_until(lambda: [v["window"] for v in alerts()["versions"]] == [2])
    assert alerts()["versions"][0]["state"] == "ok"
    assert alerts()["episode"] is None

    # The world moves, the answers get worse, and the gateway finds out by the inputs alone.
    wrong, _ = clinic.see(1000, new_microscope=True)
    assert wrong < 0.8
    gateway.wait_until(lambda: alerts()["episode"] is not None)
    episode = alerts()["episode"]
    assert (episode["version"], "rule:measurements" in episode["alerts"]) == ("1", True)

    # The pipeline is told, twice because it was busy, and knows who tells it.
    first, hook = pipeline.next(), pipeline.next()
    assert first.headers["idempotency-key"] == hook.headers["idempotency-key"] == episode["id"]
    signed = f"{episode['id']}.{hook.headers['webhook-timestamp']}.".encode() + hook.body
    expected = base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256)).decode()
    assert hook.headers["webhook-signature"] == f"v1,{expected}"

    # It retrains, for real, on what was confirmed since, and puts version 2 into the repository.
    done = run_pipeline(gateway, hook.document["episode"], place)
    assert done.returncode == os.EX_TEMPFAIL, "too few were confirmed until now\n" + done.stdout
    clinic.see(retrain.FEWEST, new_microscope=True)
    done = run_pipeline(gateway, hook.document["episode"], place)
    assert done.returncode == 0, done.stdout + done.stderr
    made = place / "models" / MODEL / "2"
    assert (made / "profile.json").is_file()
    assert len(list((made / "golden").iterdir())) == 8

    # It has passed its golden requests and shadows version 1, which still answers.
    _, answered = clinic.see(500, new_microscope=True)
    assert answered == {"1"}
    path = f"/admin/models/{MODEL}"
    gateway.wait_until(lambda: pairs(gateway, clinic) >= 20, 60)
    status, standing = gateway.administer(
        "POST", f"{path}/promote", {"version": "2", "reason": "right on the held-out patients"}
    )
    assert (status, standing["serving"]) == (200, "2")

    # The answers are right again, the episode is over, and the new version's windows are well.
    recovered, answered = clinic.see(1500, new_microscope=True)
    assert (recovered > 0.93, answered) == (True, {"2"})
    gateway.wait_until(lambda: [v["window"] for v in of_version(alerts(), "2")] == [2])
    after = alerts()
    assert after["episode"] is None
    assert of_version(after, "2")[0]["state"] == "ok"
    assert after["recent"][0]["ended_by"] == "2"

    tell_the_story(gateway, episode["id"])


def of_version(alerts, version: str):
    return [each for each in alerts["versions"] if each["version"] == version]


def run_pipeline(gateway: GatewayProcess, episode: object, place: Path):
    variables = {
        "MODELS": place / "models",
        "STAGING": place / "staging",
        "CONFIRMED": place / "confirmed.csv",
        "ADMIN": gateway.admin_url,
    }
    return subprocess.run(
        [sys.executable, "-m", "examples.retraining.retrain"],
        input=json.dumps(episode),
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def pairs(gateway: GatewayProcess, clinic: Clinic) -> int:
    """Pairs that were compared, after some more patients: a busy process leaves copies out."""
    clinic.see(50, new_microscope=True)
    status, report = gateway.administer("GET", f"/admin/models/{MODEL}/shadow")
    return report["pairs"] if status == 200 else 0


def tell_the_story(gateway: GatewayProcess, episode: str) -> None:
    _, entries = gateway.administer("GET", f"/admin/history?model={MODEL}&limit=1000")
    story = {}
    for entry in entries:  # the newest first: what stays is the first of its kind
        story[entry["verb"], entry["version"], entry["outcome"]] = entry
    told = [
        ("load_version", "1", "ok"),
        ("alert", "1", "ok"),
        ("episode_begin", "1", "ok"),
        ("action", "1", "failed"),
        ("action", "1", "ok"),
        ("load_version", "2", "ok"),
        ("start_shadow", "2", "ok"),
        ("promote", "2", "ok"),
        ("episode_end", "1", "ok"),
    ]
    assert [story[key]["seq"] for key in told] == sorted(story[key]["seq"] for key in told)
    # Every chapter names the one before it.
    assert story["episode_begin", "1", "ok"]["evidence"]["episode"] == episode
    assert story["episode_begin", "1", "ok"]["evidence"]["findings"][0]["level"] == "drifted"
    assert story["action", "1", "ok"]["evidence"]["episode"] == episode
    assert story["load_version", "2", "ok"]["lineage"]["episode"] == episode
    assert story["load_version", "2", "ok"]["evidence"]["golden_requests"] == 8
    assert episode in story["start_shadow", "2", "ok"]["reason"]
    assert story["episode_end", "1", "ok"]["evidence"]["ended_by"] == "2"
    _, verified = gateway.administer("GET", "/admin/history/verify")
    assert verified["intact"]
