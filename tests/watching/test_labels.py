"""Truth that comes later, told to a running gateway: over HTTP, from files, over a restart."""

import io
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from gateway.monitor.labels import Outcome
from tests.repository import ModelDirectory, rows
from tests.server import GatewayProcess
from tests.watching.test_watching import infer, metrics, some


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    directory = ModelDirectory(path)
    directory.add("rows", rows, "[labels]\nwait_hours = 2\n")
    directory.add("plain", rows, "")
    return path


@pytest.fixture(scope="module")
def gateway(models: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(models) as running:
        yield running


def post(gateway: GatewayProcess, content: bytes, kind: str, model: str = "rows") -> Any:
    url = f"{gateway.admin_url}/admin/models/{model}/labels"
    return httpx.post(url, content=content, headers={"Content-Type": kind})


def some_of(table: dict[str, int]) -> dict[str, int]:
    """What is not 0; it adds up."""
    assert table["received"] == table["waiting"] + sum(table[str(o)] for o in Outcome)
    names = ("received", "waiting", *map(str, Outcome))
    return {name: table[name] for name in names if table[name]}


def report(gateway: GatewayProcess) -> dict[str, Any]:
    status, answer = gateway.administer("GET", "/admin/models/rows/labels")
    assert status == 200
    return answer


def command(gateway: GatewayProcess, *arguments: str, code: int = 0, **more: Any) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "labels", *arguments, "--url", gateway.admin_url],
        capture_output=True,
        timeout=60,
        **more,
    )
    assert ended.returncode == code, ended.stderr
    return (ended.stdout if code == 0 else ended.stderr).decode()


def test_one_label_and_a_batch_of_them(gateway: GatewayProcess) -> None:
    infer(gateway, "one", some(1))
    infer(gateway, "two", some(2, 2))
    single = {"id": "one", "value": 1, "time": "2025-01-31T12:00:00Z"}
    status, answer = gateway.administer("POST", "/admin/models/rows/labels", single)
    assert (status, some_of(answer)) == (200, {"received": 1, "joined": 1})
    batch = [{"id": "two", "row": row, "value": row} for row in range(2)]
    status, answer = gateway.administer("POST", "/admin/models/rows/labels", {"labels": batch})
    assert (status, some_of(answer)) == (200, {"received": 2, "joined": 2})
    found = report(gateway)
    assert found["settings"]["wait_hours"] == 2
    assert found["held"] >= 3


def test_the_metrics_tell_the_same_as_the_report(gateway: GatewayProcess) -> None:
    infer(gateway, "counted", some(1))
    given = [{"id": id, "value": 1} for id in ("counted", "counted", "never")]
    gateway.administer("POST", "/admin/models/rows/labels", {"labels": given})
    found = report(gateway)
    for outcome in Outcome:
        labels = {"model": "rows", "outcome": str(outcome)}
        assert metrics(gateway, "onnx_gateway_labels_total", **labels) == found[str(outcome)]
    assert metrics(gateway, "onnx_gateway_labels_received_total") == found["received"]
    assert metrics(gateway, "onnx_gateway_labels_waiting") == found["waiting"] > 0
    assert metrics(gateway, "onnx_gateway_labels_held_predictions") == found["held"]


def test_the_id_of_a_request_that_brought_none_is_in_the_stream(gateway: GatewayProcess) -> None:
    stream = f"{gateway.admin_url}/admin/models/rows/stream?limit=1"
    with httpx.stream("GET", stream, timeout=30) as events:
        lines = events.iter_lines()
        next(lines)
        infer(gateway, "", some(1))
        found = [json.loads(line[6:]) for line in lines if '"id"' in line]
    status, answer = gateway.administer(
        "POST", "/admin/models/rows/labels", {"id": found[0]["id"], "value": 1}
    )
    assert (status, some_of(answer)) == (200, {"received": 1, "joined": 1})


def test_what_cannot_be_taken_is_refused_in_words(gateway: GatewayProcess) -> None:
    for content, kind, model, status, words in (
        (b'{"id": "a", "value": 1}', "application/json", "plain", 409, "add a table [labels]"),
        (b'{"id": "a", "value": 1}', "application/json", "nothing", 404, "nothing"),
        (b'{"id": "a"}', "application/json", "rows", 400, "label 1: value is missing"),
        (b"id;value\n", "text/csv", "rows", 400, "expected the columns id and value"),
        (b"x", "text/plain", "rows", 415, "application/vnd.apache.parquet"),
    ):
        answer = post(gateway, content, kind, model)
        assert answer.status_code == status
        assert words in answer.json()["error"]


def parquet_of(ids: list[str], values: list[float]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({"id": ids, "value": values}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_a_file_of_labels_from_the_command_line(
    gateway: GatewayProcess, tmp_path: Path, form: str
) -> None:
    ids = [f"{form}-{n}" for n in range(5)]
    for n, id in enumerate(ids):
        infer(gateway, id, some(n))
    labels = [{"id": id, "value": n} for n, id in enumerate(ids)]
    contents = {
        "csv": "id,value\n" + "".join(f"{each['id']},{each['value']}\n" for each in labels),
        "jsonl": "".join(f"{json.dumps(each)}\n" for each in labels),
        "json": json.dumps(labels),
    }
    file = tmp_path / f"labels.{form}"
    if form == "parquet":
        file.write_bytes(parquet_of(ids, [float(n) for n in range(5)]))
    else:
        file.write_text(contents[form])
    assert command(gateway, "rows", str(file)) == "5 labels: 5 joined\n"
    assert command(gateway, "rows", str(file)) == "5 labels: 5 duplicate\n"
    again = json.loads(
        command(gateway, "rows", "-", "--format", form, "--json", input=file.read_bytes())
    )
    assert some_of(again) == {"received": 5, "duplicate": 5}


def test_the_command_tells_of_all_labels_and_of_files_that_it_does_not_know(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    infer(gateway, "told", some(1))
    gateway.administer("POST", "/admin/models/rows/labels", {"id": "told", "value": 1})
    text = command(gateway, "rows")
    assert "joined" in text
    assert "predictions are kept for labels" in text
    assert "or say which it is with --format" in command(gateway, "rows", "x.txt", code=2)
    assert "cannot read" in command(gateway, "rows", str(tmp_path / "no.csv"), code=2)


def test_a_long_file_is_sent_in_parts(gateway: GatewayProcess, tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    padding = "x" * 900
    with file.open("w") as made:
        made.write("id,value\n")
        made.writelines(f'"{padding}\n{n}",{n}\n' for n in range(20_000))
    assert file.stat().st_size > 16 << 20, "more than one request may have"
    assert command(gateway, "rows", str(file)).startswith("20,000 labels: 20,000 waiting")


def test_labels_and_predictions_outlive_the_process(models: Path, tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    with GatewayProcess(models, *state) as gateway:
        for n in range(3):
            infer(gateway, f"r{n}", some(n))
        given = [{"id": "r0", "value": 1}, {"id": "later", "value": 7}]
        gateway.administer("POST", "/admin/models/rows/labels", {"labels": given})
    with GatewayProcess(models, *state) as gateway:
        found = report(gateway)
        assert (some_of(found), found["held"]) == (
            {"received": 2, "joined": 1, "waiting": 1},
            3,
        )
        infer(gateway, "later", some(9))
        given = [{"id": id, "value": 1} for id in ("r0", "r1", "later")]
        _, answer = gateway.administer("POST", "/admin/models/rows/labels", {"labels": given})
        assert some_of(answer) == {"received": 3, "joined": 1, "duplicate": 1, "corrected": 1}
        assert some_of(report(gateway)) == {
            "received": 5,
            "joined": 3,
            "duplicate": 1,
            "corrected": 1,
        }


def test_a_process_that_is_killed_loses_at_most_the_last_second(
    models: Path, tmp_path: Path
) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    gateway = GatewayProcess(models, *state)
    with gateway:
        infer(gateway, "kept", some(1))
        held = "SELECT count(*) FROM chunk"
        gateway.wait_until(lambda: count(tmp_path / "state" / "labels.sqlite", held) == 1)
        gateway.administer("POST", "/admin/models/rows/labels", {"id": "waits", "value": 1})
        gateway.kill()
        gateway._process = None
    with GatewayProcess(models, *state) as gateway:
        assert some_of(report(gateway)) == {"received": 1, "waiting": 1}
        _, answer = gateway.administer(
            "POST", "/admin/models/rows/labels", {"id": "kept", "value": 1}
        )
        assert some_of(answer) == {"received": 1, "joined": 1}


def count(file: Path, query: str) -> int:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
        return int(database.execute(query).fetchone()[0])


def test_a_caller_waits_for_nothing_of_this(gateway: GatewayProcess) -> None:
    """A large file is read while requests are answered."""
    lines = b"id,value\n" + b"".join(b"never-%d,1\n" % n for n in range(100_000))
    url = f"{gateway.admin_url}/admin/models/rows/labels"
    headers = {"Content-Type": "text/csv"}
    taken: list[httpx.Response] = []
    sender = threading.Thread(
        target=lambda: taken.append(httpx.post(url, content=lines, headers=headers, timeout=60))
    )
    sender.start()
    answered = 0
    while sender.is_alive():
        infer(gateway, f"meanwhile-{answered}", np.ones((1, 4), np.float32))
        answered += 1
    sender.join()
    assert some_of(taken[0].json())["received"] == 100_000
    assert answered > 10
