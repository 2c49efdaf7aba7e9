"""A control plane in memory: what the admin port and its commands are tested against."""

from collections.abc import Mapping
from typing import Any

from gateway.errors import ConfigError, Conflict, ModelNotFound, NotFound

STATUS = {
    "model": "digits",
    "traffic": {
        "stable": "1",
        "previous": [],
        "labels": {"champion": "1"},
        "canary": {
            "plan": {
                "version": "2",
                "steps": [
                    {"percent": 5, "hold_s": 300, "min_requests": 0},
                    {"percent": 20, "hold_s": 300, "min_requests": 0},
                ],
            },
            "phase": "running",
            "step": 1,
            "reason": "",
        },
        "shadow": {"version": "3", "model": "", "percent": 25.0},
    },
    "serving": "1",
    "versions": [
        {"version": "1", "state": "READY", "reason": "", "digest": "ab" * 32},
        {"version": "2", "state": "READY", "reason": "", "digest": "cd" * 32},
        {"version": "4", "state": "FAILED", "reason": "not an ONNX model", "digest": ""},
    ],
    "labels": {"champion": "1", "stable": "1", "canary": "2", "latest": "2"},
}

VERDICT = {
    "model": "digits",
    "version": "2",
    "stable": "1",
    "phase": "running",
    "step": 1,
    "percent": 20.0,
    "verdict": "pass",
    "result": "Successful",
    "reason": "",
    "gates": [
        {
            "gate": "errors",
            "verdict": "pass",
            "difference": 0.001,
            "low": -0.002,
            "high": 0.004,
            "limit": 0.01,
        },
        {
            "gate": "latency",
            "verdict": "inconclusive",
            "difference": 0.02,
            "low": -0.01,
            "high": 0.06,
            "limit": 0.05,
        },
    ],
    "requests": {"stable": 8000, "candidate": 2000},
}

REPORT = {"model": "digits", "version": "3", "verdict": "pass", "agreement": 0.998, "pairs": 1204}

ENTRIES = [
    {
        "seq": seq,
        "time": f"2025-01-01T10:00:0{seq}Z",
        "by": "ada",
        "action": "promote",
        "model": "digits",
        "reason": f"number {seq}",
    }
    for seq in (3, 2, 1)
]


class FakeAdmin:
    """Knows one model, ``digits``, and keeps each call as ``(name, arguments, keywords)``.

    ``refusal`` is raised by the next calls; ``verdict`` is what its canary is told to be, ``None``
    for no canary.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.refusal: Exception | None = None
        self.verdict: dict[str, Any] | None = VERDICT
        self.golden: list[dict[str, Any]] = []
        self.worst: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.broken = False

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
        return STATUS

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
        return [STATUS]

    def canary_verdict(self, model: str) -> dict[str, Any]:
        self._status(model)
        if self.verdict is None:
            raise NotFound(f"{model} has no canary")
        return self.verdict

    def shadow_report(self, model: str) -> dict[str, Any]:
        self._status(model)
        return REPORT

    def shadow_worst(self, model: str) -> list[dict[str, Any]]:
        self._status(model)
        return self.worst

    async def history(
        self, model: str = "", *, limit: int = 100, before: int = 0
    ) -> list[dict[str, Any]]:
        self._take("history", model, limit=limit, before=before)
        return ENTRIES

    async def verify_journal(self) -> dict[str, Any]:
        if self.broken:
            return {"entries": 3, "intact": False, "first_broken": 2, "reason": "hash of 2 differs"}
        return {"entries": 3, "intact": True, "first_broken": None, "reason": ""}

    async def diff(self, tables: Mapping[str, Any]) -> list[dict[str, Any]]:
        self._take("diff", tables)
        return self.changes

    async def apply(self, tables: Mapping[str, Any], **who: str) -> dict[str, Any]:
        self._take("apply", tables, **who)
        return {"changes": self.changes}

    async def record_golden(
        self, model: str, count: int, *, version: str = "", timeout_s: float
    ) -> list[dict[str, Any]]:
        self._take("record_golden", model, count, version=version, timeout_s=timeout_s)
        return self.golden[:count]
