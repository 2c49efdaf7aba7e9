"""The command ``alerts``: what it asks the server, and what people are shown."""

import pytest

from gateway.commands import show
from tests.commands.conftest import Command
from tests.front.fake_admin import ALERTS, FakeAdmin


def test_what_has_drifted_and_what_is_done_about_it() -> None:
    assert show.alerts([ALERTS]).splitlines() == [
        "digits",
        "  version 1 (serves): drifted, window 12",
        "    subject  price  drifted  psi 0.41 (limit 0.2)",
        "    rule     many   drifted  drifted_share 0.5 (limit 0.3) 1 of 2 drifted: price",
        "    1 ok",
        "  episode 7e0e2c8a of version 1 since 2025-10-09 08:53:20, known to ada",
        "    retrain  pending  2 attempts  status 503: busy",
        "  silenced until 2025-10-09 09:53:20 by ada migration",
    ]
    assert "subject  area   ok" in show.alerts([ALERTS], everything=True)


def test_a_window_that_is_better_than_its_alert_is_told_apart() -> None:
    (version,) = ALERTS["versions"]
    finding = {**version["alerts"][0]["finding"], "p_value": 0.3, "level": "ok"}
    alert = {**version["alerts"][0], "finding": finding}
    shown = show.alerts([{**ALERTS, "versions": [{**version, "alerts": [alert]}]}])
    assert "price  drifted  psi 0.41, p 0.3 (limit 0.2); in this window ok" in shown


def test_where_there_is_nothing_it_says_so() -> None:
    assert show.alerts([]) == "there are no models"
    nothing = {**ALERTS, "versions": [], "episode": None, "silence": None}
    assert show.alerts([nothing]) == "digits\n  no window has been judged yet"


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("digits --acknowledge", ("acknowledge", ("digits",))),
        ("digits --silence 60", ("silence", ("digits", 60.0))),
        ("digits --end-silence", ("end_silence", ("digits",))),
    ],
)
def test_a_change_is_asked_for_with_who_and_why(
    command: Command, admin: FakeAdmin, line: str, call: tuple[object, ...]
) -> None:
    assert command("alerts", *line.split(), "--by", "ada", "--reason", "why").startswith("digits\n")
    assert admin.calls.pop() == (*call, {"by": "ada", "reason": "why"})


def test_one_model_or_all_of_them(command: Command, admin: FakeAdmin) -> None:
    assert command.json("alerts", "digits") == ALERTS
    assert command.json("alerts") == [ALERTS]


def test_a_script_may_ask_whether_something_that_serves_has_drifted(
    command: Command, admin: FakeAdmin
) -> None:
    command("alerts", "--exit-code", code=1)
    admin.alerting = {**ALERTS, "serving": "2"}
    command("alerts", "--exit-code")


def test_a_change_needs_a_model(command: Command) -> None:
    command("alerts", "--acknowledge", code=2)
    assert "expected a MODEL" in command.stderr
    command("alerts", "digits", "--silence", "0", code=2)
