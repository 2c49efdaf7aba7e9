"""What people are shown: a block for each model, a line for each thing, aligned."""

import re
from typing import Any

import pytest

from gateway.commands import show
from tests.front.fake_admin import ENTRIES, REPORT, STATUS, STREAM, VERDICT, entry, share

LONG = "word " * 50


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_a_status_has_a_line_for_each_thing() -> None:
    assert lines(show.status(STATUS, VERDICT, REPORT)) == [
        "digits",
        "  serves    1",
        "  previous  0",
        "  labels    champion = 1",
        "  canary    2 running, step 2 of 3  [####----------------] 20%",
        "            errors             +0.10%  [-0.20%, +0.40%]   limit +1.00%   pass",
        "            outputs:label (7)  +2.00%  [-1.00%, +16.00%]  limit +10.00%  inconclusive",
        "  shadow    3, 25% of the traffic: 1,204 pairs, 99.67% [90.00%, 100.00%] agree  "
        "inconclusive",
        "  versions  1  READY   abababababab",
        "            2  READY   cdcdcdcdcdcd",
        "            3  READY   efefefefefef",
        "            4  FAILED                not an ONNX model",
    ]


def test_a_model_about_which_nothing_was_decided_is_shown_in_brief() -> None:
    traffic = {"stable": "latest", "previous": [], "labels": {}, "canary": None, "shadow": None}
    status = {**STATUS, "traffic": traffic, "serving": "3", "versions": STATUS["versions"][2:3]}
    assert lines(show.status(status)) == [
        "digits",
        "  serves    3 (the latest)",
        "  versions  3  READY  efefefefefef",
    ]
    nothing = {**status, "serving": None, "versions": []}
    assert lines(show.status(nothing)) == [
        "digits",
        "  serves    nothing (the latest)",
        "  versions  none",
    ]


def canary(**fields: Any) -> dict[str, Any]:
    traffic = {**STATUS["traffic"], "canary": {**STATUS["traffic"]["canary"], **fields}}
    return {**STATUS, "traffic": traffic}


def test_a_canary_that_is_over_has_no_share() -> None:
    shown = show.status(canary(phase="rolled_back", reason="errors: too many"))
    assert "  canary    2 rolled back: errors: too many" in lines(shown)
    verdict = {**VERDICT, "phase": "promoted", "stable": "2", "gates": [], "reason": "a; b"}
    assert lines(show.canary(verdict)) == [
        "canary of digits: version 2",
        "  phase     promoted, step 2 of 3",
        "  verdict   running",
        "  reason    a",
        "            b",
    ]


def test_a_long_reason_is_cut_where_it_is_one_of_many() -> None:
    for shown in (
        show.status(canary(reason=LONG)),
        show.status(canary(phase="aborted", reason=LONG)),
        show.status({**STATUS, "versions": [{**STATUS["versions"][3], "reason": LONG}]}),
        show.history([entry(1, reason=LONG)]),
    ):
        assert max(map(len, lines(shown))) < 200
        assert re.search(r"wo?r?d?\.\.\.", shown)
    assert LONG.strip() in show.canary({**VERDICT, "reason": LONG})


def test_a_shadow_that_does_not_work_yet_is_said_to() -> None:
    assert "  shadow    3, 25% of the traffic: not at work yet" in lines(show.status(STATUS))


def test_several_models_are_apart() -> None:
    whole = {**STATUS, "canary": VERDICT, "shadow": REPORT}
    block = show.status(STATUS, VERDICT, REPORT)
    assert show.standing([whole, whole]) == f"{block}\n\n{block}"
    assert show.standing([]) == "there are no models"


def test_a_verdict_is_a_table_of_gates() -> None:
    assert lines(show.canary(VERDICT)) == [
        "canary of digits: version 2 against 1",
        "  phase     running, step 2 of 3  [####----------------] 20%",
        "  verdict   running",
        "  requests  2,000 to version 2 (4 failed), 8,000 to version 1 (8 failed)",
        "",
        "  gate               stable  candidate  difference  surely between      limit    verdict",
        "  errors             0.10%   0.20%      +0.10%      -0.20% and +0.40%   +1.00%   pass",
        "  outputs:label (7)  10.00%  12.00%     +2.00%      "
        "-1.00% and +16.00%  +10.00%  inconclusive",
    ]


def test_a_report_has_the_shares_and_what_was_left_out() -> None:
    shown = lines(show.shadow(REPORT))
    assert shown[0] == "shadow of digits: version 3 beside 1"
    assert "  requests   6,000, 1,210 copied; left out: 4,000 not sampled, 790 busy" in shown
    assert "  agreement  99.67% [90.00%, 100.00%]" in shown
    assert "  flips      0.17% [90.00%, 100.00%]" in shown
    assert "  errors     0 of the primary, 1 of the shadow, 0 of both" in shown
    assert shown[-4].endswith("difference +1.25 ms [+1.00, +1.50]")
    assert shown[-2].endswith("differs by 0.001 in the mean, 0.25 at most")
    assert shown[-1].endswith("1 of unlike shapes")


def test_a_report_without_pairs() -> None:
    none = share(0, 1) | {"of": 0}
    latency = {**REPORT["latency"], "difference_ms": {"mean": 0.0, "low": None, "high": None}}
    report = {
        **REPORT,
        "shadow": {"model": "letters", "version": "1"},
        "argmax_flips": none,
        "latency": latency,
        "outputs": [],
    }
    shown = lines(show.shadow(report))
    assert shown[0] == "shadow of digits: version 1 of letters beside 1"
    assert shown[-1].endswith("difference +0.00 ms")
    assert not [line for line in shown if "flips" in line]


def tensor(data: Any, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape, "data": data}


def test_the_worst_pairs_show_the_first_elements() -> None:
    pair = {
        "inputs": [tensor([[1.0, 2.5], [3, 4]], [2, 2]), tensor(["a\n"], [1], "BYTES")],
        "primary": [tensor([float(n) for n in range(20)], [20])],
        "shadow": [tensor([float("nan")], [1])],
        "distance": 0.123456,
    }
    assert lines(show.worst([pair])) == [
        "1. distance 0.1235",
        "   input    x  FP32   2x2  1, 2.5, 3, 4",
        "   input    x  BYTES  1    a\\n",
        "   primary  x  FP32   20   0, 1, 2, 3, 4, 5, 6, 7, ...",
        "   shadow   x  FP32   1    nan",
    ]
    assert show.worst([]) == "no pair disagrees"


def test_a_sink_is_shown_with_its_account_of_each_model() -> None:
    assert lines(show.sinks(STREAM)) == [
        "logger (cloud_events)",
        "  state   down, 7 retries",
        "  models  digits, fr*",
        "  buffer  4,096 of 16,384 bytes (25%)",
        "  error   2026-01-31 12:00:00  http://logger: Connection refused",
        "  model   served  delivered  buffered  sampled out  dropped                  lost",
        "  digits  1,200   900        48        200          50 buffer_full, 2 rerun  0",
    ]
    assert show.sinks({"sinks": []}).startswith("there are no sinks")


def test_history_has_a_line_for_each_entry() -> None:
    assert lines(show.history(ENTRIES)) == [
        "3  2025-01-01 10:00:03  gateway  canary_rollback  digits 2  ok      errors: 5% of 200",
        "2  2025-01-01 10:00:02  ada      promote          digits 4  failed  not an ONNX model",
        "1  2025-01-01 10:00:01  ada      promote          digits 2  ok      "
        "better on the new data",
    ]
    assert show.history([]) == "there are no entries"


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\u202eb"])
def test_text_of_others_cannot_move_the_cursor(text: str) -> None:
    shown = show.history([entry(1, reason=text, by=text)])
    assert shown.isprintable()
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("percent", [0, 0.1, 5, 50, 99.9, 100])
def test_a_bar_is_as_long_as_any_other(percent: float) -> None:
    drawn, _, number = show.bar(percent).rpartition(" ")
    assert len(drawn) == 22
    assert number == f"{percent:g}%"


def test_a_verification_names_the_last_hash_to_be_noted() -> None:
    found = {"entries": 1200, "intact": True, "first_broken": None, "reason": "", "head": "ab"}
    assert show.verification(found) == "the journal is intact: 1,200 entries; the last hash is ab"
    lost = {**found, "intact": False, "reason": "the last hash is missing"}
    assert show.verification(lost) == "the journal is BROKEN: the last hash is missing"
