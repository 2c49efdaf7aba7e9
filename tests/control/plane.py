"""A control plane without fronts: manager, service and dispatcher over a real repository."""

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gateway.control.manager import Manager
from gateway.control.rollouts import Rollouts
from gateway.control.routing import Routing
from gateway.control.service import ControlService
from gateway.control.state_store import StateStore
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.route import RouteTable
from gateway.logs import Logging
from gateway.serving.registry import Registry
from gateway.types import DATATYPES, Array, InferInput, InferRequest, InferResponse

T = TypeVar("T")


class ControlPlane:
    """Everything of a server but its fronts; made and used on a running loop."""

    def __init__(self, *repositories: Path, **options: Any) -> None:
        self.dispatcher = Dispatcher(RouteTable((), {}), max_inflight=1000)
        registry = Registry()
        state_dir = options.pop("state_dir", None)
        fault = options.pop("fault", None)
        clock = options.pop("clock", time.monotonic)
        routing = Routing(registry, self._publish, keep_previous=options.pop("keep_previous", 1))
        self.manager = Manager(
            repositories, registry, routing, **{"inline_threshold_ns": 500_000, **options}
        )
        store = StateStore(state_dir, fault=fault)
        self.rollouts = Rollouts(self.manager, routing, registry, store, clock=clock, fault=fault)
        self.log = io.StringIO()
        self.logs = Logging("error", "human", self.log)
        self.service = ControlService(self.manager, self.rollouts, self.logs)

    def _publish(self, routes: RouteTable) -> None:
        self.dispatcher.routes = routes

    async def infer(self, model: str, version: str = "", **tensors: Array) -> InferResponse:
        """One request; the tensors' data types follow from their dtypes."""
        by_dtype = {d.numpy: d for d in DATATYPES.values() if d.name != "BF16"}
        inputs = [
            InferInput(name, by_dtype[array.dtype], array.shape, array.tobytes())
            for name, array in tensors.items()
        ]
        request = InferRequest(model, version, "", inputs, None, {}, 0, time.monotonic_ns())
        return await self.dispatcher.infer(request)

    def state(self, model: str, version: str) -> str:
        """How the repository index names the version's state; ``""`` where it has none."""
        for entry in self.service.repository_index(ready_only=False):
            if (entry["name"], entry["version"]) == (model, version):
                return entry["state"]
        return ""


def on_plane(
    test: Callable[[ControlPlane], Awaitable[T]], *repositories: Path, **options: Any
) -> T:
    """Run ``test`` on a loop with a control plane of its own, which is closed afterwards."""

    async def run() -> T:
        plane = ControlPlane(*repositories, **options)
        await plane.rollouts.open()
        try:
            return await test(plane)
        finally:
            await plane.rollouts.close()
            await plane.manager.close()

    return asyncio.run(run())


async def until(condition: Callable[[], bool], deadline_s: float = 30.0) -> None:
    """Let the loop run until ``condition`` is true."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)


ROW = np.arange(4, dtype=np.float32).reshape(1, 4)
