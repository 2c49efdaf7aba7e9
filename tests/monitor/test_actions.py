"""What an action does in the world: a signed POST, a program; and what its table may hold."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import stat
import sys
import time
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.monitor.actions import read_action
from gateway.monitor.alerts import AlertKey, AlertKind
from gateway.monitor.episode import Episode
from gateway.monitor.signing import parse_secret, signature_headers
from gateway.monitoring_file import Part
from tests.monitor.receiver import Receiver

SECRET = "a secret of more than 24 bytes"
EPISODE = Episode(
    id="6f1c",
    model='qu"ote',
    version="1",
    began=1_760_000_000.25,
    alerts=(AlertKey(AlertKind.RULE, "many"), AlertKey(AlertKind.SUBJECT, "x:y")),
    evidence={"window": 3, "findings": [{"subject": "x", "value": 0.5}]},
)


def part(values, base):
    return Part("retrain", "file: actions.retrain.", values, Path(base))


def attempt(values, base=".", number=1):
    """One attempt of the action of that table, on a loop of its own."""

    async def run():
        action = read_action(part(values, base))
        try:
            return await action.run.attempt(EPISODE, number)
        finally:
            await action.run.close()

    return asyncio.run(run())


def test_an_episode_is_stored_and_read_as_it_was():
    assert Episode.from_table(json.loads(json.dumps(EPISODE.as_table()))) == EPISODE
    with pytest.raises(ValueError, match="no episode"):
        Episode.from_table({"id": "x"})


# Webhooks


def test_a_body_is_signed_so_that_its_receiver_can_check_it():
    with Receiver() as receiver:
        outcome = attempt({"type": "webhook", "url": receiver.url, "secret": SECRET}, number=2)
        got = receiver.next()
    assert outcome.ok
    assert got.path == "/hook?x=1"
    assert got.headers["idempotency-key"] == got.headers["webhook-id"] == "6f1c"
    assert got.headers["content-type"] == "application/json"
    # As docs/alerts.md tells a receiver to do it.
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    assert got.headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert got.document["type"] == "drift"
    assert got.document["attempt"] == 2
    assert Episode.from_table(got.document["episode"]) == EPISODE


def test_the_signature_is_that_of_standard_webhooks():
    """The example of its specification."""
    secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "")
    headers = signature_headers(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_check_in_the_docs_tells_the_real_from_the_forged():
    docs = (Path(__file__).parents[2] / "docs/alerts.md").read_text()
    (snippet,) = re.findall(r"```python\n(import base64.*?)```", docs, re.DOTALL)
    names = {}
    exec(snippet, names)
    secret, now = SECRET.encode(), int(time.time())
    headers = signature_headers(secret, "e", now, b"{}")
    assert names["verify"](secret, headers, b"{}")
    assert not names["verify"](secret, headers, b"{ }")
    assert not names["verify"](secret + b"x", headers, b"{}")
    assert not names["verify"](secret, {**headers, "webhook-id": "f"}, b"{}")
    assert not names["verify"](secret, signature_headers(secret, "e", now - 600, b"{}"), b"{}")


def test_a_template_says_it_in_the_receivers_words():
    body = '{"ref": "main", "inputs": {"m": "${model} $$", "why": ${alerts}, "all": ${evidence}}}'
    with Receiver() as receiver:
        assert attempt({"type": "webhook", "url": receiver.url, "body": body}).ok
        got = receiver.next()
    assert got.document == {
        "ref": "main",
        "inputs": {"m": 'qu"ote $', "why": ["rule:many", "subject:x:y"], "all": EPISODE.evidence},
    }
    assert "webhook-signature" not in got.headers


def test_a_template_may_lie_in_a_file_and_headers_may_be_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("CI_TOKEN", "abc")
    (tmp_path / "body.json").write_text('["${episode}", "${began}"]')
    with Receiver() as receiver:
        table = {
            "type": "webhook",
            "url": receiver.url,
            "body_file": "body.json",
            "headers": {"Authorization": {"env": "CI_TOKEN"}},
        }
        assert attempt(table, tmp_path).ok
        got = receiver.next()
    assert got.document == ["6f1c", "2025-10-09T08:53:20.250+00:00"]
    assert got.headers["authorization"] == "abc"


@pytest.mark.parametrize(
    ("status", "again"), [(400, False), (404, False), (301, False), (429, True), (503, True)]
)
def test_what_is_refused_is_tried_again_where_that_may_help(status, again):
    with Receiver(status, headers={"Retry-After": "7", "Location": "/x"}) as receiver:
        outcome = attempt({"type": "webhook", "url": receiver.url})
    assert (outcome.ok, outcome.again, outcome.wait_s) == (False, again, 7.0)
    assert f"status {status}" in outcome.text
    assert outcome.details == {"status": status, "answer": "not now"}


def test_who_does_not_answer_is_not_waited_for():
    with Receiver() as receiver:
        receiver.held.clear()
        outcome = attempt({"type": "webhook", "url": receiver.url, "timeout_s": 0.2})
    assert (outcome.ok, outcome.again) == (False, True)
    assert "within 0.2 s" in outcome.text
    gone = attempt({"type": "webhook", "url": receiver.url})
    assert (gone.ok, gone.again) == (False, True)
    assert "Connection refused" in gone.text
    assert "hook" not in gone.text  # an address may be a secret


# Commands

SCRIPT = """
import json, os, sys
episode = json.load(sys.stdin)
print(episode["id"] == os.environ["EPISODE_ID"], os.environ["EPISODE_MODEL"],
      os.environ["EPISODE_VERSION"], os.environ["EPISODE_BEGAN"], os.environ["EPISODE_ATTEMPT"],
      os.environ["EPISODE_ACTION"], os.environ["EPISODE_ALERTS"].split(), os.environ["MORE"])
print("to stderr", file=sys.stderr)
"""


def command(*argv, **table):
    return {"type": "command", "argv": list(argv), **table}


def python(text, **table):
    return command(sys.executable, "-c", text, **table)


def test_a_program_is_told_the_episode_and_its_output_is_kept(tmp_path):
    outcome = attempt(python(SCRIPT, environment={"MORE": "more"}), tmp_path, 3)
    assert (outcome.ok, outcome.text, outcome.details["exit_status"]) == (True, "exit status 0", 0)
    assert sorted(outcome.details["output"].splitlines()) == [
        "True qu\"ote 1 1760000000.250 3 retrain ['rule:many', 'subject:x:y'] more",
        "to stderr",
    ]


def test_no_shell_reads_the_arguments(tmp_path):
    outcome = attempt(command("echo", "$HOME; `id`", "*"), tmp_path)
    assert outcome.details["output"] == "$HOME; `id` *\n"


def test_a_program_is_found_from_the_directory_that_it_runs_in(tmp_path):
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "here"
    script.write_text("#!/bin/sh\npwd\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    outcome = attempt(command("./here", directory="scripts"), tmp_path)
    assert outcome.details["output"].strip() == str((tmp_path / "scripts").resolve())


def test_of_much_output_the_beginning_and_the_end_are_kept(tmp_path):
    outcome = attempt(python("print('a' * 100_000, end='end')"), tmp_path)
    output = outcome.details["output"]
    assert output.startswith("aaa")
    assert output.endswith("aend")
    assert "bytes left out" in output
    assert len(output) < 9000


@pytest.mark.parametrize(("status", "again"), [(1, True), (os.EX_CONFIG, False)])
def test_an_exit_status_says_whether_to_try_again(tmp_path, status, again):
    outcome = attempt(python(f"raise SystemExit({status})"), tmp_path)
    assert (outcome.ok, outcome.again, outcome.text) == (False, again, f"exit status {status}")


def test_a_program_that_reads_nothing_and_one_that_kills_itself(tmp_path):
    assert attempt(command("true"), tmp_path).ok
    outcome = attempt(python("import os; os.kill(os.getpid(), 9)"), tmp_path)
    assert outcome.text == "ended by signal 9"


def test_a_program_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    text = "import subprocess; subprocess.run(['sh', '-c', 'echo $$ $PPID; exec sleep 600'])"
    outcome = attempt(python(text, timeout_s=1.0), tmp_path)
    assert (outcome.ok, outcome.again) == (False, True)
    assert outcome.text == "it was ended after 1 s, its timeout_s"
    pids = outcome.details["output"].split()
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(map(lives, pids)):
        assert time.monotonic() < deadline


def lives(pid):
    """Whether the process runs; one that nobody has asked about since its end does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_a_program_leaves_running_is_not_waited_for(tmp_path):
    outcome = attempt(command("sh", "-c", "sleep 30 & echo done"), tmp_path)
    assert (outcome.ok, outcome.details["output"]) == (True, "done\n")


def test_a_program_that_cannot_be_started_may_be_there_later(tmp_path):
    script = tmp_path / "x"
    script.write_text("#!/nowhere\n")
    script.chmod(0o755)
    outcome = attempt(command("./x"), tmp_path)
    assert (outcome.ok, outcome.again) == (False, True)
    assert outcome.text.startswith("it could not be started: ")


def test_a_secret_that_a_program_prints_is_blanked(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "hush")
    table = python("import os; print(os.environ['T'])", environment={"T": {"env": "TOKEN"}})
    assert attempt(table, tmp_path).details["output"] == "***\n"


# Tables


def test_what_all_actions_have(tmp_path):
    table = command("true", models=["a*"], attempts=2, backoff_s=1, max_backoff_s=5)
    action = read_action(part(table, tmp_path))
    assert (action.name, action.attempts, action.backoff_s, action.max_backoff_s) == (
        "retrain",
        2,
        1.0,
        5.0,
    )
    assert action.watches("abc")
    assert not action.watches("b")


WEBHOOK = {"type": "webhook", "url": "http://localhost/"}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({}, "file: actions.retrain.type is missing: expected one of command, webhook"),
        ({"type": "shell"}, 'file: actions.retrain.type must be "webhook" or "command"'),
        ({"type": "webhook"}, "file: actions.retrain.url is missing"),
        ({**WEBHOOK, "url": "ftp://x"}, "retrain.url must be an http or https URL"),
        ({**WEBHOOK, "url": "http://a:b@c/"}, "has a name or password in it: use headers"),
        ({**WEBHOOK, "url": "http://x:99999/"}, "retrain.url is no URL"),
        ({**WEBHOOK, "secret": "short"}, "retrain.secret has 5 bytes, 24 are the fewest"),
        ({**WEBHOOK, "secret": "whsec_?"}, "retrain.secret is no secret"),
        ({**WEBHOOK, "body": "{${model}}"}, "retrain.body makes no JSON"),
        ({**WEBHOOK, "body": '"${models}"'}, "there is no field 'models'; there are episode, "),
        ({**WEBHOOK, "body": '"$"'}, "retrain.body makes no JSON"),
        ({**WEBHOOK, "body": "1", "body_file": "x"}, "body and body_file are both set"),
        ({**WEBHOOK, "body_file": "nowhere"}, "body_file: cannot read"),
        ({**WEBHOOK, "headers": {"a b": "c"}}, "'a b' is no name of a header"),
        ({**WEBHOOK, "headers": {"a": "b\r\nc"}}, "must be printable ASCII text"),
        ({**WEBHOOK, "timeout_s": 0}, "timeout_s must be seconds above 0"),
        ({**WEBHOOK, "attempts": 0}, "attempts must be an integer of at least 1"),
        ({"type": "command"}, "argv is missing"),
        (command(), "argv is empty"),
        (command("no-such-program"), "there is no program 'no-such-program' that could be run"),
        (command("./nothing"), "there is no program './nothing'"),
        (command("true", directory="nowhere"), "there is no directory"),
        (command("true", timeout_s=-1), "timeout_s must be a finite number"),
    ],
)
def test_a_wrong_table_is_told(tmp_path, table, told):
    with pytest.raises(ConfigError) as error:
        read_action(part(table, tmp_path))
    assert told in str(error.value)
