"""Alerts over a real state store, fed with windows made by hand."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.control.monitor_record import MonitorRecord
from gateway.control.state_store import StateStore
from gateway.monitor.alert_settings import AlertSettings, read_alerts
from gateway.monitor.alerting import Alerting, Serving
from gateway.monitor.findings import Finding, Level, WindowReport
from gateway.serving.registry import Registry

AT_ONCE = {"raise_after": [1, 1], "clear_after": 1, "cooldown_s": 0}


class Alerted:
    """``alerting`` with what it knows of the models: one, ``m``, of which version 1 serves."""

    def __init__(self, directory: Path | None, table: dict[str, Any], **options: Any) -> None:
        self.now = 1_760_000_000.0
        self.serving = "1"
        self.settings: AlertSettings = read_alerts("alerts", {**AT_ONCE, **table})
        self.store = StateStore(directory)
        self.record = options.pop("record", MonitorRecord)(self.store, Registry())
        self._windows = 0
        serving = Serving(
            models=lambda: ["m"],
            version=lambda model: self.serving,
            settings=lambda model, version: self.settings,
        )
        self.alerting = Alerting(
            self.record,
            serving,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            **options,
        )

    async def window(self, level: Level, version: str = "1", value: float = 0.5) -> None:
        """A window in which feature ``x`` is ``level``; returns once it is judged."""
        finding = Finding(subject="x", test="psi", value=value, threshold=0.2, level=level)
        self.alerting.report(
            WindowReport(
                model="m",
                version=version,
                number=self._windows,
                began=self.now - 1,
                ended=self.now,
                rows=100,
                findings=(finding,),
            )
        )
        self._windows += 1
        await self.judged()

    async def judged(self) -> None:
        """What was reported is judged; actions may still run."""
        await self.alerting.judged()

    async def history(self) -> list[Any]:
        """The journal's events, the oldest first."""
        return [entry.event for entry in reversed(await self.store.history())]

    async def verbs(self) -> list[str]:
        return [event.verb for event in await self.history()]


def on_alerted(
    test: Callable[[Alerted], Awaitable[Any]],
    directory: Path | None = None,
    table: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    async def run() -> Any:
        alerted = Alerted(directory, table or {}, **options)
        await alerted.store.open()
        await alerted.alerting.open()
        alerted.alerting.routed()
        await alerted.judged()
        try:
            return await test(alerted)
        finally:
            await alerted.alerting.close()
            await alerted.store.close()

    return asyncio.run(run())
