"""What the monitors tell, as JSON values and as samples of metrics."""

import math
from itertools import islice
from typing import Any, Final

from gateway.drift_metrics import DriftSample, DriftValue
from gateway.monitor.findings import Finding, WindowReport
from gateway.monitor.version_monitor import LEVELS, VersionMonitor, level_of

#: Most findings of a version that have a metric of their own; the rest is in the reports.
MAX_VALUES: Final = 500


def version_table(
    version: str, monitor: VersionMonitor | None, *, problem: str, loaded: bool, windows: int
) -> dict[str, Any]:
    """How a version is watched, and the last ``windows`` reports, the newest first."""
    made: dict[str, Any] = {
        "version": version,
        "state": _state(monitor, problem, loaded),
        "reason": problem or (monitor.broken if monitor is not None else ""),
    }
    if monitor is None:
        return {**made, "level": "no data", "windows": 0, "rows": 0, "reports": []}
    settings, profile = monitor.settings, monitor.profile
    return {
        **made,
        "level": monitor.level.value,
        "reference": None
        if profile is None
        else {
            "name": profile.source.name,
            "rows": profile.rows,
            "made": profile.made,
            "digest": profile.digest,
        },
        "rows_to_collect": monitor.to_collect,
        "window": {
            "rows": settings.window.rows or None,
            "seconds": settings.window.seconds or None,
            "step": settings.window.step or None,
            "min_rows": settings.window.min_rows if settings.window.seconds else None,
        },
        "correction": settings.correction,
        "windows": monitor.windows,
        "rows": monitor.rows,
        "unlike_rows": monitor.lost_rows,
        "reports": [report_table(r) for r in islice(reversed(tuple(monitor.reports)), windows)],
    }


def report_table(report: WindowReport) -> dict[str, Any]:
    """A report; figures that are not finite are ``None``, as JSON has none such."""
    return {
        "number": report.number,
        "began": report.began,
        "ended": report.ended,
        "rows": report.rows,
        "level": level_of(report).value,
        "findings": [_finding_table(finding) for finding in report.findings],
    }


def _finding_table(finding: Finding) -> dict[str, Any]:
    return {
        "subject": finding.subject,
        "test": finding.test,
        "value": _finite(finding.value),
        "p_value": _finite(finding.p_value),
        "threshold": _finite(finding.threshold),
        "level": finding.level.value,
        "detail": finding.detail,
    }


def version_sample(monitor: VersionMonitor, *, problem: bool) -> DriftSample:
    """A version's last window, for the metrics."""
    report = monitor.reports[-1] if monitor.reports else None
    told = [f for f in report.findings if f.value is not None] if report is not None else []
    return DriftSample(
        model=monitor.source.model,
        version=monitor.source.version,
        level=LEVELS.index(monitor.level),
        windows=monitor.windows,
        rows=monitor.rows,
        unlike_rows=monitor.lost_rows,
        rows_to_collect=monitor.to_collect,
        failed=problem or bool(monitor.broken),
        values=tuple(
            DriftValue(f.subject, f.test, f.value, f.p_value, LEVELS.index(f.level))
            for f in told[:MAX_VALUES]
            if f.value is not None
        ),
        values_left_out=max(len(told) - MAX_VALUES, 0),
    )


def _state(monitor: VersionMonitor | None, problem: str, loaded: bool) -> str:
    if not loaded:
        return "unloaded"
    if monitor is None:
        return "failed" if problem else "starting"
    if monitor.broken:
        return "failed"
    if problem:
        return "outdated"
    return "watching" if monitor.profile is not None else "collecting"


def _finite(figure: float | None) -> float | None:
    return figure if figure is not None and math.isfinite(figure) else None
