"""Answers of the admin port for people: aligned text, a line for each thing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

_BAR: Final = 20
#: Elements of a tensor that are shown.
_ELEMENTS: Final = 8
#: Characters of a reason where it is one thing of many; ``--json`` has it whole.
_REASON: Final = 100
#: Digits of a digest, enough to tell versions apart.
_DIGEST: Final = 12
_OVER: Final = ("promoted", "rolled_back", "aborted")


def columns(rows: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """``rows`` as lines whose cells begin at the same places."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        indent + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def clean(text: Any) -> str:
    """``text`` on one line: what a terminal might obey or break is shown as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def short(text: str) -> str:
    """``text`` on one line, cut where it is long."""
    line = clean(text)
    return line if len(line) <= _REASON else f"{line[: _REASON - 3].rstrip()}..."


def bar(percent: float) -> str:
    """A share of 100 as a bar."""
    filled = round(percent / 100 * _BAR)
    return f"[{'#' * filled}{'-' * (_BAR - filled)}] {percent:g}%"


# -- what stands ------------------------------------------------------------------------------


def standing(answer: dict[str, Any] | list[dict[str, Any]]) -> str:
    """The status of one model or of several, with verdict and report."""
    models = answer if isinstance(answer, list) else [answer]
    if not models:
        return "there are no models"
    return "\n\n".join(status(each, each["canary"], each["shadow"]) for each in models)


def status(
    answer: Mapping[str, Any],
    verdict: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
) -> str:
    """The status of a model, a block of lines."""
    traffic = answer["traffic"]
    serving = clean(answer["serving"] or "nothing")
    follows = " (the latest)" if traffic["stable"] == "latest" else ""
    lines = [clean(answer["model"]), f"  serves    {serving}{follows}"]
    if traffic["previous"]:
        lines.append(f"  previous  {', '.join(map(clean, traffic['previous']))}")
    own = {**traffic["labels"]}
    if own:
        named = ", ".join(f"{clean(label)} = {clean(v)}" for label, v in sorted(own.items()))
        lines.append(f"  labels    {named}")
    if traffic["canary"] is not None:
        lines += _canary_lines(traffic["canary"], verdict)
    if traffic["shadow"] is not None:
        lines += _shadow_lines(traffic["shadow"], answer["model"], report)
    lines += _version_lines(answer["versions"])
    return "\n".join(lines)


def _version_lines(versions: Sequence[Mapping[str, Any]]) -> list[str]:
    if not versions:
        return ["  versions  none"]
    rows = [
        (
            clean(each["version"]),
            clean(each["state"]),
            clean(each["digest"].removeprefix("sha256:")[:_DIGEST]),
            short(each["reason"]),
        )
        for each in versions
    ]
    first, *more = columns(rows)
    return [f"  versions  {first}", *(f"            {line}" for line in more)]


def _canary_lines(state: Mapping[str, Any], verdict: Mapping[str, Any] | None) -> list[str]:
    steps = state["plan"]["steps"]
    head = f"  canary    {clean(state['plan']['version'])} {_phase(state['phase'])}"
    if state["phase"] in _OVER:
        return [f"{head}{': ' + short(state['reason']) if state['reason'] else ''}"]
    percent = steps[state["step"]]["percent"]
    lines = [f"{head}, step {state['step'] + 1} of {len(steps)}  {bar(percent)}"]
    if state["reason"]:
        lines.append(f"            {short(state['reason'])}")
    if verdict is not None and verdict["gates"]:
        lines += columns(map(_gate_cells, verdict["gates"]), " " * 12)
    return lines


def _gate_cells(gate: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _gate_name(gate),
        f"{gate['difference']:+.2%}",
        f"[{gate['low']:+.2%}, {gate['high']:+.2%}]",
        f"limit {gate['limit']:+.2%}",
        clean(gate["verdict"]),
    )


def _gate_name(gate: Mapping[str, Any]) -> str:
    category = gate.get("category")
    return clean(f"{gate['gate']} ({category})" if category else gate["gate"])


def _phase(phase: str) -> str:
    return clean(phase.replace("_", " "))


def _shadow_lines(
    plan: Mapping[str, Any], model: str, report: Mapping[str, Any] | None
) -> list[str]:
    of = f" of {clean(plan['model'])}" if plan["model"] not in ("", model) else ""
    head = f"  shadow    {clean(plan['version'])}{of}, {plan['percent']:g}% of the traffic"
    if report is None:
        return [f"{head}: not at work yet"]
    agreement = _share(report["agreement"])
    return [f"{head}: {report['pairs']:,} pairs, {agreement} agree  {clean(report['verdict'])}"]


def _share(table: Mapping[str, Any]) -> str:
    return f"{table['share']:.2%} [{table['low']:.2%}, {table['high']:.2%}]"


# -- canary and shadow ------------------------------------------------------------------------


def canary(verdict: Mapping[str, Any]) -> str:
    """How a canary stands: its phase, and each gate with the shares and the difference."""
    stable, candidate = clean(verdict["stable"]), clean(verdict["version"])
    against = f" against {stable}" if stable != candidate else ""
    phase = f"{_phase(verdict['phase'])}, step {verdict['step'] + 1} of {verdict['steps']}"
    if verdict["phase"] not in _OVER:
        phase += f"  {bar(verdict['percent'])}"
    lines = [
        f"canary of {clean(verdict['model'])}: version {candidate}{against}",
        f"  phase     {phase}",
        f"  verdict   {clean(verdict['verdict'])}",
    ]
    for number, reason in enumerate(verdict["reason"].split("; ")):
        if reason:
            lines.append(f"  {'' if number else 'reason':8}  {clean(reason)}")
    if verdict["gates"]:
        sides = (("candidate", candidate), ("stable", stable))
        counts = [
            f"{verdict['requests'][side]:,} to version {name} ({verdict['errors'][side]:,} failed)"
            for side, name in sides
        ]
        lines.append(f"  requests  {', '.join(counts)}")
        head = ("gate", "stable", "candidate", "difference", "surely between", "limit", "verdict")
        rows = [
            (
                _gate_name(gate),
                f"{gate['stable']:.2%}",
                f"{gate['candidate']:.2%}",
                f"{gate['difference']:+.2%}",
                f"{gate['low']:+.2%} and {gate['high']:+.2%}",
                f"{gate['limit']:+.2%}",
                clean(gate["verdict"]),
            )
            for gate in verdict["gates"]
        ]
        lines += ["", *columns([head, *rows], "  ")]
    return "\n".join(lines)


def shadow(report: Mapping[str, Any]) -> str:
    """How alike a shadow's answers are."""
    of = report["shadow"]
    other = f" of {clean(of['model'])}" if of["model"] != report["model"] else ""
    requests, errors = report["requests"], report["errors"]
    left_out = {"not sampled": requests["sampled_out"], **requests["skipped"]}
    told = ", ".join(f"{count:,} {clean(why)}" for why, count in left_out.items() if count)
    lines = [
        f"shadow of {clean(report['model'])}: version {clean(of['version'])}{other} "
        f"beside {clean(report['primary'])}",
        f"  verdict    {clean(report['verdict'])}",
        *(f"             {clean(reason)}" for reason in report["reasons"]),
        f"  requests   {requests['offered']:,}, {requests['sent']:,} copied"
        f"{'; left out: ' + told if told else ''}",
        f"  pairs      {report['pairs']:,}",
        f"  agreement  {_share(report['agreement'])}",
    ]
    if report["argmax_flips"]["of"]:
        lines.append(f"  flips      {_share(report['argmax_flips'])}")
    lines += [
        f"  errors     {errors['primary']:,} of the primary, {errors['shadow']:,} of the shadow, "
        f"{errors['both']:,} of both",
        f"  latency    {_latency(report['latency'])}",
    ]
    if report["outputs"]:
        lines += ["", *columns(map(_output_cells, report["outputs"]), "  ")]
    return "\n".join(lines)


def _latency(latency: Mapping[str, Any]) -> str:
    sides = [
        f"{side} p50 {latency[side]['p50_ms']:.2f} ms, p99 {latency[side]['p99_ms']:.2f} ms"
        for side in ("primary", "shadow")
    ]
    difference = latency["difference_ms"]
    told = f"{'; '.join(sides)}; difference {difference['mean']:+.2f} ms"
    if difference["low"] is None or difference["high"] is None:
        return told
    return f"{told} [{difference['low']:+.2f}, {difference['high']:+.2f}]"


def _output_cells(output: Mapping[str, Any]) -> tuple[str, ...]:
    largest = ""
    if "max_absolute_difference" in output:
        mean = output["mean_absolute_difference"]["mean"]
        largest = (
            f"differs by {mean:.3g} in the mean, {output['max_absolute_difference']:.3g} at most"
        )
    unlike = output["shape_mismatches"]
    return (
        f"output {clean(output['output'])}",
        f"{_share(output['agreement'])} agree",
        largest,
        f"{unlike:,} of unlike shapes" if unlike else "",
    )


def worst(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The pairs that disagree most: each tensor's first elements."""
    if not pairs:
        return "no pair disagrees"
    blocks = []
    for number, pair in enumerate(pairs, 1):
        rows = [
            (side, *_tensor_cells(tensor))
            for side, tensors in (
                ("input", pair["inputs"]),
                ("primary", pair["primary"]),
                ("shadow", pair["shadow"]),
            )
            for tensor in tensors
        ]
        head = f"{number}. distance {pair['distance']:.4g}"
        blocks.append("\n".join([head, *columns(rows, "   ")]))
    return "\n\n".join(blocks)


def _tensor_cells(tensor: Mapping[str, Any]) -> tuple[str, ...]:
    data = list(flat(tensor["data"], _ELEMENTS + 1))
    shown = ", ".join(
        f"{each:.5g}" if isinstance(each, float) else clean(each) for each in data[:_ELEMENTS]
    )
    shape = "x".join(map(str, tensor["shape"]))
    more = ", ..." if len(data) > _ELEMENTS else ""
    return (clean(tensor["name"]), clean(tensor["datatype"]), shape, f"{shown}{more}")


def flat(data: Any, limit: int) -> Iterable[Any]:
    """The first ``limit`` elements of nested lists."""
    if not isinstance(data, list):
        return [data]
    found: list[Any] = []
    for each in data[:limit]:
        found += flat(each, limit - len(found))
        if len(found) >= limit:
            break
    return found


# -- the stream -------------------------------------------------------------------------------


def sinks(found: Mapping[str, Any]) -> str:
    """A block for each sink: how it fares, and its account of each model."""
    if not found["sinks"]:
        return "there are no sinks: name them in the file of --monitoring"
    return "\n\n".join(map(_sink, found["sinks"]))


def _sink(sink: Mapping[str, Any]) -> str:
    filled = sink["buffered_bytes"] / sink["buffer_bytes"]
    lines = [
        f"{clean(sink['sink'])} ({clean(sink['type'])})",
        f"  state   {clean(sink['state'])}, {sink['retries']:,} retries",
        f"  models  {', '.join(map(clean, sink['models']))}",
        f"  buffer  {sink['buffered_bytes']:,} of {sink['buffer_bytes']:,} bytes ({filled:.0%})",
    ]
    if sink["last_error"]:
        lines.append(f"  error   {_moment(sink['last_error_at'])}  {short(sink['last_error'])}")
    if sink["accounts"]:
        head = ("model", "served", "delivered", "buffered", "sampled out", "dropped", "lost")
        lines += columns([head, *map(_account_cells, sink["accounts"])], "  ")
    return "\n".join(lines)


def _moment(time: str) -> str:
    return clean(time)[:19].replace("T", " ")


def _account_cells(account: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        clean(account["model"]),
        *(f"{account[name]:,}" for name in ("served", "delivered", "buffered", "sampled_out")),
        _reasons(account["dropped"]),
        _reasons(account["lost"]),
    )


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{rows:,} {clean(why)}" for why, rows in sorted(counts.items())) or "0"


# -- the record -------------------------------------------------------------------------------


def history(entries: Sequence[Mapping[str, Any]]) -> str:
    """A line for each entry of the journal."""
    if not entries:
        return "there are no entries"
    rows = [
        (
            str(entry["seq"]),
            clean(entry["time"])[:19].replace("T", " "),
            clean(entry["by"]),
            clean(entry["verb"]),
            clean(f"{entry['model']} {entry['version']}".strip()),
            clean(entry["outcome"]),
            short(entry["reason"]),
        )
        for entry in entries
    ]
    return "\n".join(columns(rows))


def verification(found: Mapping[str, Any]) -> str:
    """Whether the journal is as it was written."""
    if found["intact"]:
        head = f"; the last hash is {found['head']}" if found.get("head") else ""
        return f"the journal is intact: {found['entries']:,} entries{head}"
    place = "" if found["first_broken"] is None else f" at entry {found['first_broken']:,}"
    return f"the journal is BROKEN{place}: {clean(found['reason'])}"


def changes(found: Sequence[Mapping[str, Any]]) -> str:
    """A line for each change."""
    if not found:
        return "nothing to change"
    return "\n".join(
        columns(
            (
                clean(change["model"]),
                clean(change["field"]),
                f"{_value(change['from'])} -> {_value(change['to'])}",
            )
            for change in found
        )
    )


def _value(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


def has_drifted(model: Mapping[str, Any]) -> bool:
    """Whether the version of a model that serves has drifted."""
    return any(
        each["version"] == model["serving"] and each["state"] == "drifted"
        for each in model["versions"]
    )


def alerts(models: Sequence[Mapping[str, Any]], *, everything: bool = False) -> str:
    """How the alerts of models stand: those that are not ok, and what is done about them."""
    if not models:
        return "there are no models"
    return "\n\n".join("\n".join(_alerts(model, everything)) for model in models)


def _alerts(model: Mapping[str, Any], everything: bool) -> list[str]:
    lines = [clean(model["model"])]
    if not model["versions"]:
        lines.append("  no window has been judged yet")
    for version in model["versions"]:
        serves = " (serves)" if version["version"] == model["serving"] else ""
        lines.append(
            f"  version {clean(version['version'])}{serves}: {version['state']}, "
            f"window {version['window']}"
        )
        shown = [each for each in version["alerts"] if everything or each["state"] != "ok"]
        rows = [
            (each["kind"], clean(each["alert"]), each["state"], _finding(each)) for each in shown
        ]
        lines += columns(rows, "    ") if rows else []
        if hidden := len(version["alerts"]) - len(shown):
            lines.append(f"    {hidden} ok")
    if (episode := model["episode"]) is not None:
        lines += _episode(episode)
    if (silence := model["silence"]) is not None:
        until = _utc(silence["until"])
        lines.append(
            f"  silenced until {until} by {clean(silence['by'])} {short(silence['reason'])}"
        )
    return lines


def _finding(alert: Mapping[str, Any]) -> str:
    """The last window's figure; an alert may stand at another level than that window's."""
    finding = alert["finding"]
    if finding is None or finding["value"] is None:
        return ""
    value, p_value, limit = finding["value"], finding["p_value"], finding["threshold"]
    text = f"{clean(finding['test'])} {value:.4g}" if isinstance(value, float | int) else str(value)
    text += f", p {p_value:.2g}" if isinstance(p_value, float | int) else ""
    text += f" (limit {limit:g})" if isinstance(limit, float | int) and limit else ""
    text += f" {short(finding['detail'])}" if finding["detail"] else ""
    return (
        text if finding["level"] == alert["state"] else f"{text}; in this window {finding['level']}"
    )


def _episode(episode: Mapping[str, Any]) -> list[str]:
    known = f", known to {clean(episode['acknowledged'])}" if episode["acknowledged"] else ""
    lines = [
        f"  episode {clean(episode['id'])} of version {clean(episode['version'])} since "
        f"{_utc(episode['began'])}{known}"
    ]
    rows = [
        (
            clean(each["action"]),
            each["phase"],
            f"{each['attempts']} attempts" if each["attempts"] != 1 else "1 attempt",
            short(each["result"]),
        )
        for each in episode["firings"]
    ]
    return lines + (columns(rows, "    ") if rows else ["    no action"])


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")[:19]


def recorded(answer: Mapping[str, Any]) -> str:
    """What was recorded, and where."""
    count, files = answer["recorded"], len(answer["files"])
    if not count:
        return "no request came in time"
    alike = f" ({count - files} were alike)" if count > files else ""
    text = f"recorded {count} of {answer['asked']} requests in {files} files{alike}"
    return f"{text} in {clean(answer['directory'])}"
