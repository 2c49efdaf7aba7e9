"""A control plane in memory: what the admin port and its commands are tested against."""

from collections.abc import Mapping
from typing import Any

from gateway.control.traffic import Canary, CanaryPlan, ModelTraffic, ShadowPlan, as_table
from gateway.errors import ConfigError, Conflict, ModelNotFound

TRAFFIC = ModelTraffic(
    stable="1",
    previous=("0",),
    labels={"champion": "1"},
    canary=Canary(plan=CanaryPlan(version="2"), step=1),
    shadow=ShadowPlan(version="3", percent=25),
)

STATUS: dict[str, Any] = {
    "model": "digits",
    "serving": "1",
    "traffic": as_table(TRAFFIC),
    "labels": {"champion": "1", "stable": "1", "canary": "2", "latest": "3"},
    "versions": [
        {"version": "1", "state": "READY", "reason": "", "digest": "ab" * 32},
        {"version": "2", "state": "READY", "reason": "", "digest": "cd" * 32},
        {"version": "3", "state": "READY", "reason": "", "digest": "ef" * 32},
        {"version": "4", "state": "FAILED", "reason": "not an ONNX model", "digest": ""},
    ],
}

GATES: list[dict[str, Any]] = [
    {
        "gate": "errors",
        "verdict": "pass",
        "stable": 0.001,
        "candidate": 0.002,
        "difference": 0.001,
        "low": -0.002,
        "high": 0.004,
        "limit": 0.01,
        "stable_trials": 8000,
        "candidate_trials": 2000,
        "category": "",
    },
    {
        "gate": "outputs:label",
        "verdict": "inconclusive",
        "stable": 0.1,
        "candidate": 0.12,
        "difference": 0.02,
        "low": -0.01,
        "high": 0.16,
        "limit": 0.1,
        "stable_trials": 8000,
        "candidate_trials": 2000,
        "category": "7",
    },
]

FINDING: dict[str, Any] = {
    "subject": "price",
    "test": "psi",
    "value": 0.41,
    "p_value": None,
    "threshold": 0.2,
    "level": "drifted",
    "detail": "",
}

DRIFT: dict[str, Any] = {
    "model": "digits",
    "versions": [
        {
            "version": "1",
            "state": "watching",
            "reason": "",
            "level": "drifted",
            "windows": 13,
            "rows": 6500,
            "reports": [
                {
                    "number": 12,
                    "began": 1.0,
                    "ended": 2.0,
                    "rows": 500,
                    "level": "drifted",
                    "findings": [FINDING],
                }
            ],
        }
    ],
}

EPISODE: dict[str, Any] = {
    "id": "7e0e2c8a",
    "model": "digits",
    "version": "1",
    "began": 1_760_000_000.25,
    "alerts": ["rule:many", "subject:price"],
    "evidence": {"window": 12, "findings": [FINDING]},
    "firings": [
        {
            "action": "retrain",
            "phase": "pending",
            "attempts": 2,
            "next_at": 1_760_000_060.0,
            "result": "status 503: busy",
        }
    ],
    "acknowledged": "ada",
    "ended": None,
    "ended_by": "",
}

ALERTS: dict[str, Any] = {
    "model": "digits",
    "serving": "1",
    "versions": [
        {
            "version": "1",
            "state": "drifted",
            "window": 12,
            "alerts": [
                {"kind": "subject", "alert": "price", "state": "drifted", "finding": FINDING},
                {"kind": "subject", "alert": "area", "state": "ok", "finding": None},
                {
                    "kind": "rule",
                    "alert": "many",
                    "state": "drifted",
                    "finding": {
                        **FINDING,
                        "subject": "",
                        "test": "drifted_share",
                        "value": 0.5,
                        "threshold": 0.3,
                        "detail": "1 of 2 drifted: price",
                    },
                },
            ],
        }
    ],
    "episode": EPISODE,
    "silence": {"model": "digits", "until": 1_760_003_600.0, "by": "ada", "reason": "migration"},
    "recent": [{**EPISODE, "ended": 1_759_000_000.0, "ended_by": "1"}],
}

VERDICT: dict[str, Any] = {
    "model": "digits",
    "version": "2",
    "stable": "1",
    "phase": "running",
    "step": 1,
    "steps": 3,
    "percent": 20.0,
    "verdict": "running",
    "result": "Running",
    "reason": "",
    "evidence": "inconclusive",
    "gates": GATES,
    "requests": {"stable": 8000, "candidate": 2000},
    "errors": {"stable": 8, "candidate": 4},
}


def share(count: int, of: int) -> dict[str, Any]:
    return {"count": count, "of": of, "share": count / of, "low": 0.9, "high": 1.0}


REPORT: dict[str, Any] = {
    "model": "digits",
    "primary": "1",
    "shadow": {"model": "digits", "version": "3"},
    "plan": as_table(TRAFFIC.shadow),
    "requests": {
        "offered": 6000,
        "sampled_out": 4000,
        "skipped": {"busy": 790, "queue_full": 0},
        "sent": 1210,
        "paired": 1204,
        "cancelled": 2,
        "open": 4,
    },
    "verdict": "inconclusive",
    "reasons": ["pairs that agree: 1,200 of 1,204, which may or may not be at least 99.00%"],
    "pairs": 1204,
    "agreement": share(1200, 1204),
    "argmax_flips": share(2, 1204),
    "errors": {
        "requests": 1204,
        "primary": 0,
        "shadow": 1,
        "both": 0,
        "difference": 0.0008,
        "low": -0.001,
        "high": 0.003,
    },
    "latency": {
        "difference_ms": {"mean": 1.25, "low": 1.0, "high": 1.5},
        "primary": {"p50_ms": 2.0, "p99_ms": 5.0},
        "shadow": {"p50_ms": 3.0, "p99_ms": 7.5},
    },
    "outputs": [
        {
            "output": "probabilities",
            "pairs": 1204,
            "agreement": share(1200, 1204),
            "shape_mismatches": 0,
            "max_absolute_difference": 0.25,
            "mean_absolute_difference": {"mean": 0.001, "low": 0.0, "high": 0.002},
        },
        {
            "output": "label",
            "pairs": 1204,
            "agreement": share(1202, 1204),
            "shape_mismatches": 1,
        },
    ],
}


def entry(seq: int, **fields: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "time": f"2025-01-01T10:00:0{seq}.250000+00:00",
        "by": "ada",
        "verb": "promote",
        "model": "digits",
        "version": "2",
        "outcome": "ok",
        "reason": "",
        "digest": "cd" * 32,
        "before": None,
        "after": None,
        "evidence": None,
        "lineage": None,
        "previous": f"{seq - 1:064x}",
        "hash": f"{seq:064x}",
        **fields,
    }


ENTRIES = [
    entry(3, by="gateway", verb="canary_rollback", reason="errors: 5% of 200"),
    entry(2, outcome="failed", version="4", reason="not an ONNX model"),
    entry(1, reason="better on the new data"),
]

STREAM: dict[str, Any] = {
    "served": [{"model": "digits", "version": "1", "rows": 1200}],
    "sinks": [
        {
            "sink": "logger",
            "type": "cloud_events",
            "state": "down",
            "models": ["digits", "fr*"],
            "buffered_bytes": 4096,
            "buffer_bytes": 16384,
            "retries": 7,
            "last_error": "http://logger: Connection refused",
            "last_error_at": "2026-01-31T12:00:00.000000Z",
            "last_delivery_at": None,
            "accounts": [
                {
                    "model": "digits",
                    "served": 1200,
                    "sampled_out": 200,
                    "dropped": {"buffer_full": 50, "rerun": 2},
                    "delivered": 900,
                    "lost": {},
                    "buffered": 48,
                }
            ],
        }
    ],
}

VERIFIED = {"entries": 3, "intact": True, "first_broken": None, "reason": ""}


DRIFT: dict[str, Any] = {
    "model": "digits",
    "versions": [
        {
            "version": "1",
            "state": "watching",
            "reason": "",
            "level": "drifted",
            "reference": {"name": "train.csv", "rows": 9, "made": "2026", "digest": "sha256:0"},
            "rows_to_collect": 0,
            "window": {"rows": 500, "seconds": None, "step": None, "min_rows": None},
            "correction": "holm",
            "windows": 1,
            "rows": 512,
            "unlike_rows": 0,
            "reports": [
                {
                    "number": 0,
                    "began": 1.5,
                    "ended": 2.5,
                    "rows": 500,
                    "level": "drifted",
                    "findings": [
                        {
                            "subject": "age",
                            "test": "psi",
                            "value": 0.5,
                            "p_value": None,
                            "threshold": 0.2,
                            "level": "drifted",
                            "detail": "",
                        }
                    ],
                }
            ],
        }
    ],
}


class FakeAdmin:
    """Knows one model, ``digits``, and keeps each call as ``(name, arguments, keywords)``.

    ``refusal`` is raised by the calls that are kept. What is read is an attribute each; there is
    no canary where ``verdict`` is ``None``, no shadow where ``report`` is.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.asked_windows = 0
        self.refusal: Exception | None = None
        self.verdict: dict[str, Any] | None = VERDICT
        self.report: dict[str, Any] | None = REPORT
        self.golden: list[dict[str, Any]] = []
        self.worst: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.verification: dict[str, Any] = VERIFIED
        self.standing = STATUS
        self.entries = ENTRIES
        self.alerting = ALERTS

    def _take(self, name: str, *arguments: Any, **keywords: Any) -> None:
        self.calls.append((name, arguments, keywords))
        if self.refusal is not None:
            raise self.refusal

    def _changed(self, name: str, model: str, *arguments: Any, **keywords: Any) -> dict[str, Any]:
        self._take(name, model, *arguments, **keywords)
        return self._status(model)

    def _status(self, model: str) -> dict[str, Any]:
        if model != "digits":
            raise ModelNotFound(f"there is no model '{model}'")
        return self.standing

    async def promote(self, model: str, version: str, **who: str) -> dict[str, Any]:
        if version == "4":
            raise Conflict("version 4 of digits is FAILED: not an ONNX model")
        return self._changed("promote", model, version, **who)

    async def rollback(self, model: str, **who: str) -> dict[str, Any]:
        return self._changed("rollback", model, **who)

    async def follow_latest(self, model: str, **who: str) -> dict[str, Any]:
        return self._changed("follow_latest", model, **who)

    async def start_canary(self, model: str, plan: Mapping[str, Any], **who: str) -> dict[str, Any]:
        if "version" not in plan:
            raise ConfigError("version is missing: which version is the candidate?")
        return self._changed("start_canary", model, plan, **who)

    async def pause_canary(self, model: str, **who: str) -> dict[str, Any]:
        return self._changed("pause_canary", model, **who)

    async def resume_canary(self, model: str, **who: str) -> dict[str, Any]:
        return self._changed("resume_canary", model, **who)

    async def abort_canary(self, model: str, **who: str) -> dict[str, Any]:
        return self._changed("abort_canary", model, **who)

    async def start_shadow(self, model: str, plan: Mapping[str, Any], **who: str) -> dict[str, Any]:
        return self._changed("start_shadow", model, plan, **who)

    async def stop_shadow(self, model: str, **who: str) -> dict[str, Any]:
        return self._changed("stop_shadow", model, **who)

    async def set_label(self, model: str, label: str, version: str, **who: str) -> dict[str, Any]:
        return self._changed("set_label", model, label, version, **who)

    async def remove_label(self, model: str, label: str, **who: str) -> dict[str, Any]:
        return self._changed("remove_label", model, label, **who)

    def status(self, model: str) -> dict[str, Any]:
        self._take("status", model)
        return self._status(model)

    def statuses(self) -> list[dict[str, Any]]:
        self._take("statuses")
        return [self.standing]

    def canary_verdict(self, model: str) -> dict[str, Any]:
        self._status(model)
        if self.verdict is None:
            raise ModelNotFound(f"model '{model}' has had no canary")
        return self.verdict

    async def shadow_report(self, model: str) -> dict[str, Any]:
        self._status(model)
        if self.report is None:
            raise ModelNotFound(f"model '{model}' has no shadow")
        return self.report

    async def shadow_worst(self, model: str) -> list[dict[str, Any]]:
        self._status(model)
        return self.worst

    async def history(
        self, model: str = "", *, limit: int = 100, before: int = 0
    ) -> list[dict[str, Any]]:
        self._take("history", model, limit=limit, before=before)
        return self.entries

    async def verify_journal(self) -> dict[str, Any]:
        return self.verification

    async def diff(self, tables: Mapping[str, Any]) -> list[dict[str, Any]]:
        self._take("diff", tables)
        return self.changes

    async def apply(self, tables: Mapping[str, Any], **who: str) -> dict[str, Any]:
        self._take("apply", tables, **who)
        return {"changes": self.changes}

    def drift(self, model: str, windows: int = 1) -> dict[str, Any]:
        self.asked_windows = windows
        self._take("drift", model, windows)
        self._status(model)
        return DRIFT

    def alerts(self, model: str) -> dict[str, Any]:
        self._take("alerts", model)
        self._status(model)
        return self.alerting

    def all_alerts(self) -> list[dict[str, Any]]:
        self._take("all_alerts")
        return [self.alerting]

    def _alerted(self, name: str, model: str, *arguments: Any, **who: str) -> dict[str, Any]:
        self._changed(name, model, *arguments, **who)
        return self.alerting

    async def acknowledge(self, model: str, **who: str) -> dict[str, Any]:
        return self._alerted("acknowledge", model, **who)

    async def silence(self, model: str, for_s: float, **who: str) -> dict[str, Any]:
        return self._alerted("silence", model, for_s, **who)

    async def end_silence(self, model: str, **who: str) -> dict[str, Any]:
        return self._alerted("end_silence", model, **who)

    async def record_golden(
        self, model: str, count: int, *, version: str = "", timeout_s: float
    ) -> list[dict[str, Any]]:
        self._take("record_golden", model, count, version=version, timeout_s=timeout_s)
        return self.golden[:count]


OUTCOMES: dict[str, int] = {
    "received": 9,
    "joined": 3,
    "corrected": 1,
    "duplicate": 1,
    "late": 1,
    "row_missing": 1,
    "unmatched": 1,
    "waiting": 1,
}


class FakeTruth:
    """Keeps the labels that it is given as ``(model, kind, body)``."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str, bytes]] = []

    async def submit(self, model: str, kind: str, body: bytes) -> dict[str, Any]:
        self.given.append((model, kind, body))
        return OUTCOMES

    def report(self, model: str) -> dict[str, Any]:
        settings = {"hold_rows": 200_000, "hold_hours": 168.0, "wait_hours": 1.0, "outputs": []}
        return {
            "model": model,
            "settings": settings,
            **OUTCOMES,
            "held": 1200,
            "too_late": {"monitor": 2},
        }
