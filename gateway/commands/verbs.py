"""What the commands that change the traffic of models do, and the codes that they end with.

0 for success; 1 where the server refuses, or a verdict that was asked for is bad; 2 where the
arguments are wrong; 3 where no server answers.
"""

import argparse
import getpass
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from gateway.commands import drift, show, watch
from gateway.commands.admin_client import DEFAULT_URL, AdminClient, Refused, Unreachable
from gateway.commands.parsers import GATE_OPTIONS, SHADOW_OPTIONS
from gateway.config import environment
from gateway.control.traffic import DEFAULT_STEPS
from gateway.errors import ConfigError

UNREACHABLE: Final = 3

#: Seconds that the server has beyond those that it is asked to wait.
_MARGIN_S: Final = 60.0


def run(name: str, options: argparse.Namespace) -> int:
    """Run the command ``name``; its exit code. Raises ``ConfigError`` and ``Refused``."""
    try:
        return _VERBS[name](options)
    except Unreachable as error:
        print(f"onnx-gateway: {error}", file=sys.stderr)
        return UNREACHABLE


def _client(options: argparse.Namespace, **more: Any) -> AdminClient:
    url = options.admin or environment("ADMIN") or DEFAULT_URL
    by = _login_name() if options.by is None else options.by
    return AdminClient(url, by, **more)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container may run under a number that has no name.
        return ""


def _tell(options: argparse.Namespace, answer: Any, text: Callable[[Any], str]) -> int:
    """Print an answer, as ``text`` puts it or as JSON; the exit code for success."""
    print(json.dumps(answer, indent=2) if options.json else text(answer), flush=True)
    return 0


def _why(options: argparse.Namespace) -> dict[str, str]:
    return {"reason": options.reason} if options.reason else {}


# -- who serves -------------------------------------------------------------------------------


def _promote(options: argparse.Namespace) -> int:
    body = {"version": options.version, **_why(options)}
    answer = _client(options).post("models", options.model, "promote", body=body)
    return _tell(options, answer, show.status)


def _rollback(options: argparse.Namespace) -> int:
    answer = _client(options).post("models", options.model, "rollback", body=_why(options))
    return _tell(options, answer, show.status)


def _follow_latest(options: argparse.Namespace) -> int:
    answer = _client(options).post("models", options.model, "follow-latest", body=_why(options))
    return _tell(options, answer, show.status)


def _label(options: argparse.Namespace) -> int:
    if (options.version is None) != options.remove:
        raise ConfigError("label: expected either a VERSION or --remove")
    path = ("models", options.model, "labels", options.label)
    client = _client(options)
    if options.remove:
        answer = client.delete(*path, reason=options.reason)
    else:
        answer = client.put(*path, body={"version": options.version, **_why(options)})
    return _tell(options, answer, show.status)


# -- canary -----------------------------------------------------------------------------------

_STEP_OPTIONS: Final = ("steps", "hold", "min_requests")
_PLAN_OPTIONS: Final = ("sticky_header", "sticky_parameter", "auto_promote")


def _canary(options: argparse.Namespace) -> int:
    _check_plan(options, "canary", (*_STEP_OPTIONS, *_PLAN_OPTIONS, *GATE_OPTIONS))
    if options.exit_code and (options.version or options.action not in (None, "status")):
        raise ConfigError("canary: --exit-code goes with --status alone")
    client, path = _client(options), ("models", options.model, "canary")
    if options.version is not None:
        answer = client.put(*path, body={**canary_plan(options), **_why(options)})
    elif options.action == "abort":
        answer = client.delete(*path, reason=options.reason)
    elif options.action in ("pause", "resume"):
        answer = client.post(*path, options.action, body=_why(options))
    else:
        verdict = client.get(*path)
        _tell(options, verdict, show.canary)
        return int(options.exit_code and verdict["verdict"] == "fail")
    return _tell(options, answer, show.status)


def canary_plan(options: argparse.Namespace) -> dict[str, Any]:
    """The table of the ``CanaryPlan`` that was asked for; what is not given is the server's."""
    plan = {"version": options.version, **_given(options, _PLAN_OPTIONS)}
    if _given(options, _STEP_OPTIONS):
        lasting = {"hold_s": options.hold, "min_requests": options.min_requests}
        percentages = options.steps or [step.percent for step in DEFAULT_STEPS]
        plan["steps"] = [{"percent": each, **_without_none(lasting)} for each in percentages]
    if gates := _given(options, GATE_OPTIONS):
        plan["gates"] = gates
    return plan


# -- shadow -----------------------------------------------------------------------------------


def _shadow(options: argparse.Namespace) -> int:
    _check_plan(options, "shadow", ("of_model", *SHADOW_OPTIONS))
    client, path = _client(options), ("models", options.model, "shadow")
    if options.version is not None:
        plan = {"version": options.version, **_given(options, SHADOW_OPTIONS)}
        if options.of_model is not None:
            plan["model"] = options.of_model
        return _tell(options, client.put(*path, body={**plan, **_why(options)}), show.status)
    if options.action == "stop":
        return _tell(options, client.delete(*path, reason=options.reason), show.status)
    if options.action == "worst":
        return _tell(options, client.get(*path, "worst"), show.worst)
    return _tell(options, client.get(*path), show.shadow)


def _check_plan(options: argparse.Namespace, verb: str, names: tuple[str, ...]) -> None:
    """Raise ``ConfigError`` for an action beside a version, and for a plan without one."""
    if options.version is None:
        if given := _given(options, names):
            option = next(iter(given)).replace("_", "-")
            raise ConfigError(f"{verb}: --{option} needs a VERSION to begin with")
    elif options.action is not None:
        raise ConfigError(f"{verb}: expected a VERSION or --{options.action}, not both")


def _given(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return _without_none({name: getattr(options, name) for name in names})


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


# -- what stands ------------------------------------------------------------------------------


def _status(options: argparse.Namespace) -> int:
    client = _client(options)
    while True:
        standing = _standing(client, options.model)
        if options.watch and not options.json and sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        # A model that was asked for by its name is one document, not a list.
        _tell(options, standing[0] if options.model else standing, show.standing)
        if not options.watch:
            return 0
        time.sleep(options.watch)


def _standing(client: AdminClient, model: str | None) -> list[dict[str, Any]]:
    """The status of one model or of all, with the canary's verdict and the shadow's report."""
    statuses = [client.get("models", model)] if model else client.get("models")
    return [
        {
            **status,
            "canary": _if_any(client, status, "canary"),
            "shadow": _if_any(client, status, "shadow"),
        }
        for status in statuses
    ]


def _if_any(client: AdminClient, status: Mapping[str, Any], what: str) -> Any:
    """The model's canary or shadow, ``None`` where it has none, or none that works yet."""
    if status["traffic"][what] is None:
        return None
    try:
        return client.get("models", status["model"], what)
    except Refused as refusal:
        if refusal.status in (404, 503):
            return None
        raise


def _sinks(options: argparse.Namespace) -> int:
    found = _client(options).get("stream")
    _tell(options, found, show.sinks)
    return int(options.exit_code and any(sink["state"] == "down" for sink in found["sinks"]))


def _history(options: argparse.Namespace) -> int:
    query = {"model": options.model, "limit": options.limit, "before": options.before}
    return _tell(options, _client(options).get("history", **query), show.history)


def _verify(options: argparse.Namespace) -> int:
    if options.state_dir is None:
        found = _client(options).get("history", "verify")
    else:
        # SQLite is needed here alone.
        from gateway.control.state_store import verify_directory

        found = asdict(verify_directory(Path(options.state_dir)))
    _tell(options, found, show.verification)
    return 0 if found["intact"] else 1


# -- declared ---------------------------------------------------------------------------------


def _diff(options: argparse.Namespace) -> int:
    return _tell(options, _declared(options, "diff"), show.changes)


def _apply(options: argparse.Namespace) -> int:
    return _tell(
        options, _declared(options, "apply"), lambda answer: show.changes(answer["changes"])
    )


def _declared(options: argparse.Namespace, what: str) -> Any:
    name = options.file
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from None
    client = _client(options)
    if not name.endswith(".json"):
        query = {"reason": options.reason}
        return client.call("POST", (what,), content, "application/toml", query)
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{name}: expected a JSON object")
    return client.post(what, body={**document, **_why(options)})


# -- golden requests --------------------------------------------------------------------------


def _record(options: argparse.Namespace) -> int:
    client = _client(options, answer_timeout_s=options.wait + _MARGIN_S)
    body = {"count": options.count, "timeout_s": options.wait}
    if options.version:
        body["version"] = options.version
    documents = client.post("models", options.model, "golden", body=body)
    directory = Path(options.output)
    files = sorted({_write(directory, document) for document in documents})
    answer = {
        "asked": options.count,
        "recorded": len(documents),
        "directory": options.output,
        "files": files,
    }
    _tell(options, answer, show.recorded)
    return 0 if documents else 1


def _write(directory: Path, document: Mapping[str, Any]) -> str:
    """Write a golden document under a name that its content gives; the file's path."""
    text = json.dumps(document, indent=1) + "\n"
    file = directory / f"golden-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from None
    return str(file)


# -- predictions ------------------------------------------------------------------------------


def _tail(options: argparse.Namespace) -> int:
    return watch.tail(_client(options), options)


def _labels(options: argparse.Namespace) -> int:
    return _tell(options, watch.labels(_client(options), options), watch.shown_labels)


# -- alerts -----------------------------------------------------------------------------------


def _alerts(options: argparse.Namespace) -> int:
    client = _client(options)
    path = ("models", options.model, "alerts")
    changes = options.action is not None or options.silence is not None
    if changes and options.model is None:
        raise ConfigError("alerts: expected a MODEL to acknowledge or silence")
    if options.silence is not None:
        answer = client.put(*path, "silence", body={"for_s": options.silence, **_why(options)})
    elif options.action == "acknowledge":
        answer = client.post(*path, "acknowledge", body=_why(options))
    elif options.action == "end-silence":
        answer = client.delete(*path, "silence", reason=options.reason)
    else:
        answer = client.get(*path) if options.model else client.get("alerts")
    models = answer if isinstance(answer, list) else [answer]
    _tell(options, answer, lambda _: show.alerts(models, everything=options.all))
    return int(options.exit_code and any(show.has_drifted(model) for model in models))


# -- drift ------------------------------------------------------------------------------------


def _drift(options: argparse.Namespace) -> int:
    answer = _client(options).get("models", options.model, "drift", windows=options.windows)
    _tell(options, answer, lambda found: drift.drift(found, everything=options.all))
    return drift.exit_code(answer) if options.exit_code else 0


_VERBS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "promote": _promote,
    "rollback": _rollback,
    "follow-latest": _follow_latest,
    "canary": _canary,
    "shadow": _shadow,
    "label": _label,
    "status": _status,
    "sinks": _sinks,
    "history": _history,
    "journal verify": _verify,
    "diff": _diff,
    "apply": _apply,
    "golden record": _record,
    "tail": _tail,
    "labels": _labels,
    "alerts": _alerts,
    "drift": _drift,
}
