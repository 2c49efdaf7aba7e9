"""What the monitors have found, as people are shown it."""

import copy
from typing import Any

from gateway.commands import drift
from tests.commands.conftest import Command
from tests.front.fake_admin import DRIFT, FakeAdmin


def with_version(**changes: Any) -> dict[str, Any]:
    answer = copy.deepcopy(DRIFT)
    answer["versions"][0].update(changes)
    return answer


def test_the_last_window_is_a_table_with_the_worst_first() -> None:
    answer = copy.deepcopy(DRIFT)
    findings = answer["versions"][0]["reports"][0]["findings"]
    fine = {"subject": "size", "value": 0.01, "level": "ok", "detail": "p\x1b[2J"}
    findings.insert(0, {**findings[0], **fine})
    assert drift.drift(answer).splitlines() == [
        "digits version 1: drifted",
        "  reference  9 rows of train.csv",
        "  window 0: 500 rows, 1970-01-01 00:00:01 to 1970-01-01 00:00:02 UTC, drifted",
        "    feature  test  value  p  threshold  level",
        "    age      psi   0.5       0.2        drifted",
        "    size     psi   0.01      0.2        ok       p\\x1b[2J",
    ]


def test_of_many_figures_the_worst_are_shown_unless_all_are_asked_for() -> None:
    answer = copy.deepcopy(DRIFT)
    report = answer["versions"][0]["reports"][0]
    report["findings"] *= 30
    assert drift.drift(answer).splitlines()[-1] == "    and 10 more; --all shows them"
    assert len(drift.drift(answer, everything=True).splitlines()) == 34


def test_what_is_still_collected_and_what_is_wrong_is_said() -> None:
    collecting = {"state": "collecting", "rows_to_collect": 1200, "reference": None, "reports": []}
    assert "1,200 more predictions are wanted" in drift.drift(with_version(**collecting))
    failed = drift.drift(with_version(state="failed", reason="no profile", reports=[]))
    assert "failed: no profile" in failed


def test_the_exit_code_is_of_the_versions_that_are_loaded(
    command: Command, admin: FakeAdmin
) -> None:
    command("drift", "digits", "--windows", "7")
    assert admin.asked_windows == 7
    command("drift", "digits", "--exit-code", code=1)
    assert drift.exit_code(with_version(state="unloaded")) == 0
    assert drift.exit_code(with_version(level="warning")) == 0
