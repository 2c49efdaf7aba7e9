"""What is unloaded leaves nothing behind; ``make reloads`` is the same over 1,000 cycles."""

import asyncio
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from loadtests import models, payloads
from loadtests.reloads import cycle
from tests.control.plane import ControlPlane, on_plane
from tests.repository import ModelDirectory, rows
from tests.server import GatewayProcess


@pytest.mark.parametrize("settings", ["", "inline = false\n"], ids=["on the loop", "on a runner"])
def test_an_unloaded_version_is_freed_without_the_garbage_collector(
    tmp_path: Path, settings: str
) -> None:
    directory = ModelDirectory(tmp_path)
    directory.add("rows", rows, settings)

    async def test(plane: ControlPlane) -> None:
        await plane.manager.start()
        await plane.infer("rows", x=np.ones((1, 4), np.float32))
        version = plane.manager.routed("rows")
        assert version is not None
        assert version.lane is not None
        session = weakref.ref(version.lane.loaded.sessions[0].raw)
        gc.disable()
        try:
            await plane.service.unload_model("rows", {})
            # The last callback of a runner may still hold its slot.
            await asyncio.sleep(0)
            assert session() is None
        finally:
            gc.enable()

    on_plane(test, tmp_path)


def growth(directory: Path, warm_up: int, cycles: int) -> float:
    """By which part of itself resident memory grows over loads and unloads of 25 MB."""
    model = models.MEDIUM
    models.build_versions(directory, model, ["1"], "")
    payload = payloads.http_binary(model)
    with GatewayProcess(directory) as gateway:

        def ask() -> None:
            status, _, body = gateway.request("POST", payload.path, payload.body, payload.headers)
            assert status == 200, body

        cycle(gateway.http_port, model, ask, warm_up)
        before = gateway.rss_bytes()
        cycle(gateway.http_port, model, ask, cycles)
        return gateway.rss_bytes() / before - 1


def test_ten_loads_and_unloads(tmp_path: Path) -> None:
    # One version that stays would be 15% of the whole.
    assert growth(tmp_path, 3, 10) < 0.05


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_loads_and_unloads(tmp_path: Path) -> None:
    assert growth(tmp_path, 20, 200) < 0.05
