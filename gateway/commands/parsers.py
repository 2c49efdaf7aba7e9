"""The arguments of the commands that change the traffic of models.

Only what ``--help`` needs is imported here; ``verbs.py``, which does the work, is imported by the
command that was given.
"""

import argparse
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from importlib import import_module
from typing import Any, Final

from gateway.control.traffic import DEFAULT_STEPS, CanaryGates, CanaryStep, ShadowPlan

#: ``add_parser`` of the command's subparsers.
Add = Callable[..., argparse.ArgumentParser]

_GATE_HELP: Final = {
    "alpha": "chance that a candidate within all limits is rolled back",
    "max_error_increase": "limit for the share of failed requests, candidate minus stable",
    "max_latency_ratio": "a request is slow beyond this many times the stable version's quantile",
    "latency_quantile": "the quantile of the stable version's latency",
    "max_slow_increase": "limit for the share of slow requests, candidate minus stable",
    "max_output_shift": "limit for a shift of the answers; 1 compares none",
}
_SHADOW_HELP: Final = {
    "percent": "of the traffic that is copied",
    "relative_tolerance": "values agree within this times the primary's",
    "absolute_tolerance": "and this",
    "min_agreement": "least share of pairs that agree in every value",
    "max_flips": "largest share of pairs whose highest score is at another index",
    "keep_worst": "pairs that disagree most, which are kept",
}
#: The names of the options above, for whoever reads them.
GATE_OPTIONS: Final = tuple(_GATE_HELP)
SHADOW_OPTIONS: Final = tuple(_SHADOW_HELP)

_STEPS_SHOWN: Final = ",".join(f"{step.percent:g}" for step in DEFAULT_STEPS)
_STEP: Final = CanaryStep(percent=100)


def add_traffic_commands(add: Add) -> None:
    """Add all of them."""
    _add_promotion(add)
    _add_canary(add)
    _add_shadow(add)
    _add_label(add)
    _add_record(add)
    _add_declared(add)
    _add_golden(add)
    _add_watching(add)
    _add_alerts(add)
    _add_drift(add)


def _add_promotion(add: Add) -> None:
    promote = _change(add, "promote", "make a version the stable one")
    promote.add_argument("model", metavar="MODEL")
    promote.add_argument("version", metavar="VERSION", help="a version, or a label of one")
    rollback = _change(
        add, "rollback", "end the canary; without one, go back to the previous version"
    )
    rollback.add_argument("model", metavar="MODEL")
    follow = _change(add, "follow-latest", "serve the highest version, whichever that is")
    follow.add_argument("model", metavar="MODEL")


def _add_canary(add: Add) -> None:
    canary = _change(
        add,
        "canary",
        "try a version on a growing part of the traffic",
        "With VERSION, begin a canary; without, tell how the canary stands, or move it. Exit code "
        "1 with --exit-code where the verdict is fail.",
    )
    canary.add_argument("model", metavar="MODEL")
    canary.add_argument("version", metavar="VERSION", nargs="?", help="the candidate")
    action = canary.add_mutually_exclusive_group()
    for name, text in (
        ("status", "tell how it stands, as without any option"),
        ("pause", "hold it at its step"),
        ("resume", "let its steps go on"),
        ("abort", "end it: the stable version has all traffic again"),
    ):
        action.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=text)
    canary.add_argument(
        "--exit-code", action="store_true", help="with --status: exit code 1 if the verdict is fail"
    )
    plan = canary.add_argument_group("with VERSION")
    plan.add_argument(
        "--steps",
        type=_percentages,
        metavar="P,P,...",
        help=f"percent of the traffic, step by step (default: {_STEPS_SHOWN})",
    )
    plan.add_argument(
        "--hold",
        type=float,
        metavar="SECONDS",
        help=f"that a step lasts at least (default: {_STEP.hold_s:g})",
    )
    plan.add_argument(
        "--min-requests",
        type=int,
        metavar="N",
        help=f"answers of the candidate that a step lasts at least (default: {_STEP.min_requests})",
    )
    plan.add_argument(
        "--sticky-header",
        metavar="NAME",
        help="HTTP header or gRPC metadata key whose value decides who answers",
    )
    plan.add_argument(
        "--sticky-parameter", metavar="NAME", help="a request parameter that does the same"
    )
    plan.add_argument(
        "--no-auto-promote",
        dest="auto_promote",
        action="store_const",
        const=False,
        help="wait for 'promote' when all gates hold at the end",
    )
    _add_numbers(canary.add_argument_group("gates, with VERSION"), CanaryGates, _GATE_HELP)


def _add_shadow(add: Add) -> None:
    shadow = _change(
        add,
        "shadow",
        "copy traffic to a version and compare the answers",
        "With VERSION, begin to copy; without, tell how alike the answers are.",
    )
    shadow.add_argument("model", metavar="MODEL")
    shadow.add_argument("version", metavar="VERSION", nargs="?", help="the shadow")
    action = shadow.add_mutually_exclusive_group()
    for name, text in (
        ("report", "tell how alike the answers are, as without any option"),
        ("worst", "show the pairs that disagree most"),
        ("stop", "copy no more"),
    ):
        action.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=text)
    plan = shadow.add_argument_group("with VERSION")
    plan.add_argument(
        "--of-model", metavar="MODEL", help="the model that VERSION is of, where it is another"
    )
    _add_numbers(plan, ShadowPlan, _SHADOW_HELP)


def _add_label(add: Add) -> None:
    label = _change(add, "label", "give a version a name that clients may ask for, or take it away")
    label.add_argument("model", metavar="MODEL")
    label.add_argument("label", metavar="LABEL")
    label.add_argument("version", metavar="VERSION", nargs="?")
    label.add_argument("--remove", action="store_true", help="instead of VERSION")


def _add_record(add: Add) -> None:
    status = _read(add, "status", "what serves, what is tried, which versions there are")
    status.add_argument("model", metavar="MODEL", nargs="?")
    status.add_argument(
        "--watch",
        type=_seconds,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="tell again every so often, every 2 seconds unless told otherwise",
    )
    sinks = _read(
        add,
        "sinks",
        "where predictions are sent, and what became of them",
        "Exit code 1 with --exit-code where a sink is down.",
    )
    sinks.add_argument("--exit-code", action="store_true", help="exit code 1 if a sink is down")
    history = _read(add, "history", "what was changed, by whom and why; the newest first")
    history.add_argument("model", metavar="MODEL", nargs="?")
    history.add_argument(
        "--limit", type=int, default=20, metavar="N", help="entries at most (default: 20)"
    )
    history.add_argument("--before", type=int, metavar="N", help="only entries with a lower number")
    journal = add("journal", help="the record of all changes")
    actions = journal.add_subparsers(title="actions", metavar="ACTION", required=True)
    verify = _read(
        actions.add_parser,
        "verify",
        "whether the journal is as it was written",
        "Exit code 1 where it is not.",
        command="journal verify",
    )
    verify.add_argument(
        "--state-dir",
        metavar="DIR",
        help="read the journal in this directory instead of asking a server",
    )


def _add_declared(add: Add) -> None:
    for made in (
        _read(add, "diff", "what apply would change"),
        _change(add, "apply", "bring the traffic to what a file declares"),
    ):
        made.add_argument(
            "-f",
            "--file",
            required=True,
            metavar="FILE",
            help="TOML, or JSON where its name ends with .json; - for TOML on stdin",
        )


def _add_golden(add: Add) -> None:
    golden = add("golden", help="requests whose answers a new version must give")
    actions = golden.add_subparsers(title="actions", metavar="ACTION", required=True)
    record = _read(
        actions.add_parser,
        "record",
        "write live requests and their answers as golden requests",
        "One file for each request; the same request and answer have the same file. Exit code 1 "
        "where none came.",
        command="golden record",
    )
    record.add_argument("model", metavar="MODEL")
    record.add_argument(
        "-n", "--count", type=int, default=50, metavar="N", help="requests (default: 50)"
    )
    record.add_argument(
        "--version", metavar="VERSION", help="that answers them (default: the stable one)"
    )
    record.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS", help="for so many (default: 60)"
    )
    record.add_argument("-o", "--output", default="golden", metavar="DIR", help="(default: golden)")


def _add_watching(add: Add) -> None:
    tail = _read(
        add,
        "tail",
        "watch a model's predictions go by",
        "A line for each, until Ctrl-C. What is too fast for this terminal is dropped, and counted "
        "on stderr.",
    )
    tail.add_argument("model", metavar="MODEL")
    tail.add_argument("-n", "--limit", type=int, metavar="N", help="end after so many")
    tail.add_argument(
        "--sample", type=float, metavar="SHARE", help="of the requests, above 0 (default: 1)"
    )
    tail.add_argument(
        "--fields", metavar="NAME,NAME,...", help="tensors and features to show (default: all)"
    )
    labels = _read(
        add,
        "labels",
        "tell what was true of a model's predictions",
        "With FILE, send labels: CSV, Parquet, JSON or JSON lines with id, value and maybe row and "
        "time; sending them again does no harm. Without, tell what became of all.",
    )
    labels.add_argument("model", metavar="MODEL")
    labels.add_argument("file", metavar="FILE", nargs="?", help="- for stdin, with --format")
    labels.add_argument(
        "--format", choices=("csv", "parquet", "json", "jsonl"), help="(default: as FILE ends)"
    )


def _add_alerts(add: Add) -> None:
    alerts = _change(
        add,
        "alerts",
        "what has drifted, and what is done about it",
        "Without an option, tell how the alerts stand. Exit code 1 with --exit-code where a "
        "version that serves has drifted.",
    )
    alerts.add_argument("model", metavar="MODEL", nargs="?")
    action = alerts.add_mutually_exclusive_group()
    action.add_argument(
        "--acknowledge",
        dest="action",
        action="store_const",
        const="acknowledge",
        help="say that you know of the open episode: until it ends nobody is told of its alerts",
    )
    action.add_argument(
        "--silence",
        type=_seconds,
        metavar="SECONDS",
        help="tell nobody for so long, and begin no episode",
    )
    action.add_argument(
        "--end-silence",
        dest="action",
        action="store_const",
        const="end-silence",
        help="end a silence before its time",
    )
    alerts.add_argument(
        "--exit-code", action="store_true", help="exit code 1 if a version that serves has drifted"
    )
    alerts.add_argument("--all", action="store_true", help="show the alerts that are ok, too")


def _add_drift(add: Add) -> None:
    drift = _read(
        add,
        "drift",
        "how far a model's predictions are from its reference",
        "Exit code 1 with --exit-code where the last window of a loaded version has drifted.",
    )
    drift.add_argument("model", metavar="MODEL")
    drift.add_argument(
        "--windows", type=int, default=1, metavar="N", help="of each version (default: 1)"
    )
    drift.add_argument("--all", action="store_true", help="every figure, not the worst 20 alone")
    drift.add_argument(
        "--exit-code", action="store_true", help="exit code 1 if a version has drifted"
    )


def _read(
    add: Add, name: str, text: str, more: str = "", command: str = ""
) -> argparse.ArgumentParser:
    """The parser of a command that asks the server and changes nothing."""
    parser = add(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip())
    group = parser.add_argument_group("server")
    group.add_argument(
        "--admin",
        "--url",
        metavar="URL",
        help="the server's admin API [ONNX_GATEWAY_ADMIN] (default: http://127.0.0.1:8003)",
    )
    group.add_argument("--json", action="store_true", help="the answer as JSON")
    parser.set_defaults(command=_verb(command or name), by="", reason="")
    return parser


def _change(add: Add, name: str, text: str, more: str = "") -> argparse.ArgumentParser:
    """The parser of a command that changes something."""
    parser = _read(add, name, text, more)
    record = parser.add_argument_group("for the record")
    record.add_argument("--reason", default="", metavar="TEXT", help="why")
    record.add_argument("--by", metavar="NAME", help="who (default: the login name)")
    parser.set_defaults(by=None)
    return parser


def _verb(name: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        code: int = import_module("gateway.commands.verbs").run(name, options)
        return code

    return run


def _add_numbers(group: argparse._ArgumentGroup, plan: type[Any], helps: dict[str, str]) -> None:
    """Options for the numbers of ``plan``, a dataclass; ``None`` where they are not given."""
    known: dict[str, Field[Any]] = {each.name: each for each in fields(plan)}
    for name, text in helps.items():
        default = known[name].default
        assert default is not MISSING
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            metavar="N",
            help=f"{text} (default: {default:g})".replace("%", "%%"),
        )


def _percentages(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        message = f"expected percentages such as {_STEPS_SHOWN}; got '{text}'"
        raise argparse.ArgumentTypeError(message) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
        if not 0 < seconds <= 86_400:
            raise ValueError
    except ValueError:
        message = f"expected seconds above 0; got '{text}'"
        raise argparse.ArgumentTypeError(message) from None
    return seconds
