"""The commands that change the traffic of models: what they ask the server, and how they end."""

import asyncio
import io
import json
import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.control.journal import Event
from gateway.control.state_store import StateStore
from gateway.control.traffic import CanaryPlan, ShadowPlan
from gateway.errors import Conflict, ShuttingDown
from tests.commands.conftest import Command
from tests.front.fake_admin import ENTRIES, REPORT, STATUS, STREAM, VERDICT, FakeAdmin
from tests.front.running_admin import RunningAdmin

# What is changed


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        ("promote digits 2", "promote", ("2",)),
        ("rollback digits", "rollback", ()),
        ("follow-latest digits", "follow_latest", ()),
        ("canary digits 2", "start_canary", ({"version": "2"},)),
        ("canary digits --pause", "pause_canary", ()),
        ("canary digits --resume", "resume_canary", ()),
        ("canary digits --abort", "abort_canary", ()),
        ("shadow digits 3", "start_shadow", ({"version": "3"},)),
        ("shadow digits --stop", "stop_shadow", ()),
        ("label digits champion 2", "set_label", ("champion", "2")),
        ("label digits champion --remove", "remove_label", ("champion",)),
    ],
)
def test_a_change_is_asked_for_with_who_and_why(
    command: Command, admin: FakeAdmin, line: str, name: str, arguments: tuple[Any, ...]
) -> None:
    for reason in ("", "so & so?"):
        why = ("--reason", reason) if reason else ()
        assert command(*line.split(), "--by", "ada", *why).startswith("digits\n")
        assert admin.calls.pop() == (name, ("digits", *arguments), {"by": "ada", "reason": reason})
        assert command.json(*line.split(), *why) == STATUS


def test_who_asks_is_the_login_name(
    command: Command, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "zoë")
    command("rollback", "digits")
    assert admin.calls.pop()[2]["by"] == "zoë"


def test_where_nobody_is_logged_in_the_server_names_who_asks(
    command: Command, admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nobody)
    command("rollback", "digits")
    assert admin.calls.pop()[2]["by"] == "http:127.0.0.1"


def test_a_canary_with_all_of_its_options(command: Command, admin: FakeAdmin) -> None:
    command(
        *("canary", "digits", "2", "--steps", "10,50", "--hold", "20", "--min-requests", "7"),
        *("--sticky-header", "x-user", "--sticky-parameter", "user", "--no-auto-promote"),
        *("--alpha", "0.01", "--max-error-increase", "0", "--max-latency-ratio", "1.5"),
        *("--latency-quantile", "0.9", "--max-slow-increase", "0.1", "--max-output-shift", "1"),
    )
    plan = admin.calls.pop()[1][1]
    lasting = {"hold_s": 20.0, "min_requests": 7}
    assert plan == {
        "version": "2",
        "steps": [{"percent": 10.0, **lasting}, {"percent": 50.0, **lasting}],
        "sticky_header": "x-user",
        "sticky_parameter": "user",
        "auto_promote": False,
        "gates": {
            "alpha": 0.01,
            "max_error_increase": 0.0,
            "max_latency_ratio": 1.5,
            "latency_quantile": 0.9,
            "max_slow_increase": 0.1,
            "max_output_shift": 1.0,
        },
    }
    CanaryPlan.from_table(plan)


def test_the_default_steps_may_last_longer(command: Command, admin: FakeAdmin) -> None:
    command("canary", "digits", "2", "--hold", "7")
    plan = CanaryPlan.from_table(admin.calls.pop()[1][1])
    assert [(step.percent, step.hold_s) for step in plan.steps] == [(5, 7), (20, 7), (50, 7)]


def test_a_shadow_with_all_of_its_options(command: Command, admin: FakeAdmin) -> None:
    command(
        *("shadow", "digits", "3", "--of-model", "letters", "--percent", "25"),
        *("--relative-tolerance", "0.1", "--absolute-tolerance", "0.2", "--min-agreement", "0.9"),
        *("--max-flips", "0.05", "--keep-worst", "3"),
    )
    plan = admin.calls.pop()[1][1]
    assert ShadowPlan.from_table(plan) == ShadowPlan(
        version="3",
        model="letters",
        percent=25.0,
        relative_tolerance=0.1,
        absolute_tolerance=0.2,
        min_agreement=0.9,
        max_flips=0.05,
        keep_worst=3,
    )


DECLARED = {"models": {"digits": {"stable": "2"}}}


@pytest.fixture(params=["toml", "json", "stdin"])
def declaration(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    toml = '[models.digits]\nstable = "2"\n'
    if request.param == "stdin":
        with io.TextIOWrapper(io.BytesIO(toml.encode())) as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            yield "-"
        return
    file = tmp_path / f"traffic.{request.param}"
    file.write_text(toml if request.param == "toml" else json.dumps(DECLARED))
    yield str(file)


def test_a_declaration_is_applied(command: Command, admin: FakeAdmin, declaration: str) -> None:
    admin.changes = [{"model": "digits", "field": "stable", "from": "1", "to": "2"}]
    shown = command("apply", "-f", declaration, "--by", "ada", "--reason", "why")
    assert shown == 'digits  stable  "1" -> "2"\n'
    assert admin.calls == [("apply", (DECLARED,), {"by": "ada", "reason": "why"})]


def test_what_a_declaration_would_change(
    command: Command, admin: FakeAdmin, declaration: str
) -> None:
    assert command("diff", "-f", declaration) == "nothing to change\n"
    assert admin.calls == [("diff", (DECLARED,), {})]


def test_the_difference_has_a_line_for_each_change(
    command: Command, admin: FakeAdmin, tmp_path: Path
) -> None:
    file = tmp_path / "traffic.json"
    file.write_text("{}")
    admin.changes = [
        {"model": "a", "field": "labels.champion", "from": None, "to": "2"},
        {"model": "digits", "field": "shadow", "from": {"version": "3"}, "to": None},
    ]
    assert command("diff", "-f", str(file)).splitlines() == [
        'a       labels.champion  nothing -> "2"',
        'digits  shadow           {"version": "3"} -> nothing',
    ]
    assert command.json("diff", "-f", str(file)) == admin.changes
    assert command.json("apply", "-f", str(file)) == {"changes": admin.changes}


# Golden requests


def test_golden_requests_are_files_named_by_what_is_in_them(
    command: Command, admin: FakeAdmin, tmp_path: Path
) -> None:
    documents = [{"inputs": [1]}, {"inputs": [math.inf]}, {"inputs": [1]}]
    admin.golden = documents
    output = tmp_path / "new" / "golden"
    line = ("golden", "record", "digits", "-n", "3", "-o", str(output))
    shown = command(*line, "--version", "2", "--wait", "5")
    assert shown == f"recorded 3 of 3 requests in 2 files (1 were alike) in {output}\n"
    expected = ("record_golden", ("digits", 3), {"version": "2", "timeout_s": 5.0})
    assert admin.calls == [expected]
    files = sorted(output.iterdir())
    assert all(file.match("golden-*.json") for file in files)
    written = [json.loads(file.read_text()) for file in files]
    assert sorted(written, key=str) == sorted(documents[:2], key=str)
    assert command.json(*line) == {
        "asked": 3,
        "recorded": 3,
        "directory": str(output),
        "files": [str(file) for file in files],
    }
    assert admin.calls.pop()[2] == {"version": "", "timeout_s": 60.0}
    assert sorted(output.iterdir()) == files


def test_a_recording_without_requests_fails(command: Command, tmp_path: Path) -> None:
    shown = command("golden", "record", "digits", "-o", str(tmp_path / "golden"), code=1)
    assert shown == "no request came in time\n"
    assert not (tmp_path / "golden").exists()


def test_a_directory_that_cannot_be_written_is_named(
    command: Command, admin: FakeAdmin, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    admin.golden = [{}]
    command("golden", "record", "digits", "-o", str(tmp_path / "file"), code=2)
    assert f"cannot write {tmp_path / 'file'}" in command.stderr


# What stands


def test_status_comes_with_the_verdict_and_the_report(command: Command) -> None:
    whole = {**STATUS, "canary": VERDICT, "shadow": REPORT}
    assert command.json("status") == [whole]
    assert command.json("status", "digits") == whole


def test_status_does_without_what_is_not_at_work(command: Command, admin: FakeAdmin) -> None:
    admin.verdict = admin.report = None
    found = command.json("status", "digits")
    assert (found["canary"], found["shadow"]) == (None, None)
    admin.standing = {**STATUS, "traffic": {**STATUS["traffic"], "canary": None, "shadow": None}}
    found = command.json("status", "digits")
    assert (found["canary"], found["shadow"]) == (None, None)


def test_watching_goes_on_until_something_ends_it(command: Command, admin: FakeAdmin) -> None:
    looks = 0
    statuses = admin.statuses

    def until_the_third() -> list[dict[str, Any]]:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise ShuttingDown("the server is stopping")
        return statuses()

    admin.statuses = until_the_third  # type: ignore[method-assign]
    assert command("status", "--watch", "0.001", code=1).count("digits\n") == 2
    assert "the server is stopping" in command.stderr


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive", "running"])
def test_a_script_may_ask_whether_a_canary_has_failed(
    command: Command, admin: FakeAdmin, verdict: str
) -> None:
    admin.verdict = {**VERDICT, "verdict": verdict}
    code = 1 if verdict == "fail" else 0
    assert command.json("canary", "digits", "--status", "--exit-code", code=code) == admin.verdict
    assert command.json("canary", "digits", "--exit-code", code=code) == admin.verdict
    assert command.json("canary", "digits", "--status") == admin.verdict
    assert command.json("canary", "digits") == admin.verdict


def test_the_shadows_report_and_its_worst_pairs(command: Command, admin: FakeAdmin) -> None:
    assert command.json("shadow", "digits", "--report") == REPORT
    assert command.json("shadow", "digits") == REPORT
    admin.worst = [{"inputs": [], "primary": [], "shadow": [], "distance": 0.5}]
    assert command.json("shadow", "digits", "--worst") == admin.worst


def test_sinks_are_shown_and_one_that_is_down_may_be_an_exit_code(command: Command) -> None:
    assert command.json("sinks") == STREAM
    assert command("sinks").startswith("logger (cloud_events)\n")
    assert command("sinks", "--exit-code", code=1).startswith("logger (cloud_events)\n")


def test_history_may_be_narrowed(command: Command, admin: FakeAdmin) -> None:
    assert command.json("history") == ENTRIES
    assert admin.calls.pop() == ("history", ("",), {"limit": 20, "before": 0})
    command("history", "digits", "--limit", "5", "--before", "3")
    assert admin.calls.pop() == ("history", ("digits",), {"limit": 5, "before": 3})


def test_a_broken_journal_is_told_and_fails(command: Command, admin: FakeAdmin) -> None:
    assert command("journal", "verify") == "the journal is intact: 3 entries\n"
    admin.verification = {
        "entries": 1,
        "intact": False,
        "first_broken": 2,
        "reason": "another hash",
    }
    assert command("journal", "verify", code=1) == (
        "the journal is BROKEN at entry 2: another hash\n"
    )
    assert command.json("journal", "verify", code=1) == admin.verification


async def _write_journal(directory: Path) -> None:
    store = StateStore(directory)
    await store.open()
    await store.commit({}, Event(by="ada", verb="load", model="digits"))
    await store.close()


def test_a_journal_is_verified_without_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(_write_journal(tmp_path / "state"))
    line = ["journal", "verify", "--state-dir", str(tmp_path / "state")]
    assert main(line) == 0
    assert "the journal is intact: 1 entries; the last hash is " in capsys.readouterr().out
    assert main([*line[:-1], str(tmp_path)]) == 2
    assert "there is no journal in" in capsys.readouterr().err


# How it ends


def test_a_refusal_has_the_servers_words_and_code_1(command: Command, admin: FakeAdmin) -> None:
    admin.refusal = Conflict("version 2 is stable already")
    assert command("promote", "digits", "2", code=1) == ""
    assert command.stderr == "onnx-gateway: version 2 is stable already\n"
    command("status", "nobody", code=1)
    admin.refusal = None
    command("status", "nobody", code=1)
    assert command.stderr == "onnx-gateway: there is no model 'nobody'\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("promote digits", "the following arguments are required: VERSION"),
        ("canary digits 2 --pause", "canary: expected a VERSION or --pause, not both"),
        ("canary digits --pause --abort", "not allowed with argument"),
        ("canary digits --steps 5", "canary: --steps needs a VERSION to begin with"),
        ("canary digits --max-error-increase 0", "--max-error-increase needs a VERSION"),
        ("canary digits 2 --steps five", "expected percentages such as 5,20,50; got 'five'"),
        ("canary digits --abort --exit-code", "--exit-code goes with --status alone"),
        ("shadow digits --of-model x", "shadow: --of-model needs a VERSION to begin with"),
        ("shadow digits 3 --worst", "shadow: expected a VERSION or --worst, not both"),
        ("label digits champion", "label: expected either a VERSION or --remove"),
        ("label digits champion 2 --remove", "label: expected either a VERSION or --remove"),
        ("status --watch 0", "expected seconds above 0; got '0'"),
        ("apply", "the following arguments are required: -f/--file"),
        ("apply -f /nowhere.toml", "cannot read /nowhere.toml: No such file"),
        ("journal", "the following arguments are required: ACTION"),
    ],
)
def test_wrong_arguments_end_with_code_2_before_the_server_is_asked(
    command: Command, admin: FakeAdmin, line: str, message: str
) -> None:
    if line == "journal":
        with pytest.raises(SystemExit, match="2"):
            main(["journal"])
        return
    command(*line.split(), code=2)
    assert message in command.stderr
    assert admin.calls == []


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_declaration_in_json_must_be_an_object(
    command: Command, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "traffic.json"
    file.write_text(content)
    command("apply", "-f", str(file), code=2)
    assert str(file) in command.stderr


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8003", "ftp://127.0.0.1", "http://", "http://[::1", "http://a:b", "http://a?b"],
)
def test_a_url_that_is_none_is_a_wrong_argument(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--admin", url]) == 2
    assert "--admin" in capsys.readouterr().err


def test_the_environment_may_name_the_server(
    running: RunningAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONNX_GATEWAY_ADMIN", f"{running.url}/")
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["model"] == "digits"


def test_a_server_that_is_not_there_has_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert main(["status", "--admin", url]) == 3
    error = capsys.readouterr().err
    assert url in error
    assert "is the server running" in error


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[",
    ],
)
def test_what_is_no_admin_port_has_code_3(
    answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert main(["rollback", "digits", "--admin", url]) == 3
        thread.join()
    assert url in capsys.readouterr().err
