"""What the monitors have found, for people."""

import time
from collections.abc import Mapping
from typing import Any, Final

from gateway.commands.show import clean, columns

#: Lines of findings of a version, the worst first, unless all are asked for.
_SHOWN: Final = 20
_LEVELS: Final = ("no data", "ok", "warning", "drifted")


def drift(answer: Mapping[str, Any], *, everything: bool = False) -> str:
    """How each version of a model is watched, and its last windows."""
    return "\n\n".join(
        _version(answer["model"], version, everything) for version in answer["versions"]
    )


def exit_code(answer: Mapping[str, Any]) -> int:
    """1 where the last window of a version that is loaded has drifted, else 0."""
    return int(
        any(v["level"] == "drifted" and v["state"] != "unloaded" for v in answer["versions"])
    )


def _version(model: str, version: Mapping[str, Any], everything: bool) -> str:
    lines = [f"{clean(model)} version {clean(version['version'])}: {clean(version['level'])}"]
    state = version["state"]
    if version["reason"]:
        lines.append(f"  {state}: {clean(version['reason'])}")
    if version.get("rows_to_collect"):
        lines.append(
            f"  collecting the reference: {version['rows_to_collect']:,} more predictions are "
            "wanted"
        )
    if version.get("reference"):
        reference = version["reference"]
        lines.append(f"  reference  {reference['rows']:,} rows of {clean(reference['name'])}")
    if version.get("unlike_rows"):
        lines.append(
            f"  {version['unlike_rows']:,} predictions are unlike the reference and were not "
            "looked at"
        )
    if not version["reports"]:
        if state == "watching":
            lines.append(f"  no window has ended yet; {version['rows']:,} predictions so far")
        return "\n".join(lines)
    for report in version["reports"]:
        lines += _report(report, everything)
    return "\n".join(lines)


def _report(report: Mapping[str, Any], everything: bool) -> list[str]:
    began, ended = (
        time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(report[key])) for key in ("began", "ended")
    )
    lines = [
        f"  window {report['number']}: {report['rows']:,} rows, {began} to {ended} UTC, "
        f"{clean(report['level'])}"
    ]
    found = sorted(report["findings"], key=lambda f: -_LEVELS.index(f["level"]))
    shown = found if everything else found[:_SHOWN]
    if shown:
        head = ("feature", "test", "value", "p", "threshold", "level", "")
        lines += columns([head, *map(_cells, shown)], "    ")
    if len(found) > len(shown):
        lines.append(f"    and {len(found) - len(shown)} more; --all shows them")
    return lines


def _cells(finding: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        clean(finding["subject"] or "(model)"),
        clean(finding["test"]),
        _figure(finding["value"]),
        _figure(finding["p_value"]),
        _figure(finding["threshold"] or None),
        clean(finding["level"]),
        clean(finding["detail"]),
    )


def _figure(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4g}"
