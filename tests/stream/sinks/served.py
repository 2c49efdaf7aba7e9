"""Real predictions of real models, brought to sinks of an operator's file."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway.monitoring_file import read_monitoring_file
from gateway.stream.sinks.sinks import Sinks
from gateway.stream.stream import PredictionStream
from gateway.types import DATATYPES, InferInput, InferRequest
from tests.control.plane import on_plane
from tests.repository import ModelDirectory


def monitoring(directory: Path, text: str) -> Path:
    path = directory / "monitoring.toml"
    path.write_text(text)
    return path


def request(model: str, arrays: dict, id: str = "", metadata: dict | None = None) -> InferRequest:
    by_dtype = {d.numpy: d for d in DATATYPES.values() if d.name != "BF16"}
    inputs = [
        InferInput(name, by_dtype[a.dtype], a.shape, a if a.dtype == object else a.tobytes())
        for name, a in arrays.items()
    ]
    return InferRequest(model, "", id, inputs, None, {}, 0, 1, metadata)


def serve(
    directory: Path,
    sinks: str,
    requests: list[InferRequest],
    models: dict[str, Callable],
    *,
    settings: str = "",
    flush_s: float = 20.0,
) -> dict[str, dict]:
    """Answer ``requests`` with the sinks at work and flush them; each sink's status by name."""
    repository = directory / "models"
    models_in = ModelDirectory(repository)
    for name, build in models.items():
        models_in.add(name, build, settings)
    found = Sinks(read_monitoring_file(str(monitoring(directory, sinks))).sinks)
    stream = PredictionStream()

    async def scenario(plane) -> None:
        found.start(stream)
        assert await plane.manager.start() == []
        await asyncio.gather(*(plane.dispatcher.infer(each) for each in requests))
        await asyncio.sleep(0)
        await found.close(stream, flush_s)

    on_plane(scenario, repository, taps=stream)
    return {each["sink"]: each for each in found.status()}


def accounted(status: dict) -> dict:
    """The one account of a sink, which adds up."""
    (account,) = status["accounts"]
    assert account["served"] == (
        account["sampled_out"]
        + sum(account["dropped"].values())
        + account["delivered"]
        + sum(account["lost"].values())
        + account["buffered"]
    )
    return account
