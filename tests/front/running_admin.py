"""The admin port over the control plane in memory, on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

import uvloop

from gateway.front.admin import AdminFront
from gateway.front.admin_alerts import AlertEndpoints
from gateway.front.admin_drift import DriftEndpoints
from gateway.front.admin_live import WatchEndpoints
from gateway.stream.live import LiveStream
from gateway.stream.stream import PredictionStream
from tests.front.fake_admin import STREAM, FakeAdmin, FakeTruth
from tests.front.running_front import DEADLINE_S

T = TypeVar("T")


class RunningAdmin:
    def __init__(self, **options: Any) -> None:
        self.admin = FakeAdmin()
        self.truth = FakeTruth()
        watch = WatchEndpoints(self.admin, LiveStream(PredictionStream(), 1), self.truth)
        self.front = AdminFront(
            self.admin,
            version="1.2.3",
            **{"host": "127.0.0.1", "port": 0, "stream": lambda: STREAM, **options},
            more=[
                *watch.routes(),
                *AlertEndpoints(self.admin).routes(),
                *DriftEndpoints(self.admin).routes(),
            ],
        )
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "RunningAdmin":
        self._thread.start()
        try:
            self._run(self.front.start())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self.front.close(0))
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        return self.front.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front.port}"

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)
