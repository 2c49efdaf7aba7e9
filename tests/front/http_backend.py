"""What the HTTP front needs behind it, in process: three models that give back what they get.

The dispatcher keeps the contract of the real one: ``reply`` is called once, on the loop's thread,
after ``submit`` has returned, and never after ``cancel``.
"""

import asyncio
from typing import Any

import numpy as np

from gateway.errors import GatewayError, ModelNotFound
from gateway.types import InferOutput, InferRequest, InferResponse, Reply


class Ticket:
    def __init__(self, request: InferRequest, reply: Reply) -> None:
        self.request = request
        self.reply = reply
        self.cancelled = False
        self.answered = False

    def cancel(self) -> None:
        self.cancelled = True


class EchoDispatcher:
    """Serves ``echo``, which gives its inputs back under their names; ``held``, the same once a
    test releases the request; and ``fixed``, which answers ``self.outputs``."""

    def __init__(self) -> None:
        self.submitted: list[Ticket] = []
        self.refusal: GatewayError | None = None
        self.outputs: list[InferOutput] = []

    @property
    def inflight(self) -> int:
        return sum(not ticket.answered and not ticket.cancelled for ticket in self.submitted)

    def submit(self, request: InferRequest, reply: Reply) -> Ticket:
        if self.refusal is not None:
            raise self.refusal
        if request.model not in ("echo", "held", "fixed"):
            raise ModelNotFound(f"unknown model '{request.model}'")
        ticket = Ticket(request, reply)
        self.submitted.append(ticket)
        if request.model != "held":
            asyncio.get_running_loop().call_soon(self.release, ticket)
        return ticket

    async def infer(self, request: InferRequest) -> InferResponse:
        future: asyncio.Future[InferResponse | GatewayError] = (
            asyncio.get_running_loop().create_future()
        )
        self.submit(request, future.set_result)
        answer = await future
        if isinstance(answer, GatewayError):
            raise answer
        return answer

    def release(self, ticket: Ticket, error: GatewayError | None = None) -> None:
        """Answer a request, unless it was cancelled."""
        if not ticket.cancelled:
            ticket.answered = True
            ticket.reply(error or self._answer(ticket.request))

    def _answer(self, request: InferRequest) -> InferResponse:
        outputs = self.outputs
        if request.model != "fixed":
            outputs = [
                InferOutput(tensor.name, tensor.datatype, np.ascontiguousarray(tensor.array()))
                for tensor in request.inputs
            ]
        if request.outputs is not None:
            by_name = {output.name: output for output in outputs}
            outputs = [by_name[requested.name] for requested in request.outputs]
        return InferResponse(request.model, request.version or "1", request.id, outputs)


class SmallService:
    """A control plane of the three models."""

    def __init__(self) -> None:
        self.ready = True
        self.loaded = {"echo", "held", "fixed"}
        self.settings: dict[str, Any] = {"log_verbose_level": 0}
        self.inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]

    def is_live(self) -> bool:
        return True

    def is_ready(self) -> bool:
        return self.ready

    def server_metadata(self) -> dict[str, Any]:
        return {"name": "onnx-gateway", "version": "0.1.0", "extensions": ["binary_tensor_data"]}

    def model_names(self) -> list[str]:
        return ["echo", "fixed", "held"]

    def _find(self, name: str) -> None:
        if name not in self.model_names():
            raise ModelNotFound(f"unknown model '{name}'")

    def is_model_ready(self, name: str, version: str = "") -> bool:
        self._find(name)
        return name in self.loaded

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        self._find(name)
        return {
            "name": name,
            "versions": [version or "1"],
            "platform": "numpy",
            "inputs": self.inputs,
            "outputs": self.inputs,
        }

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        self._find(name)
        return {"name": name, "max_batch_size": 8}

    def statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        names = [name] if name else self.model_names()
        for each in names:
            self._find(each)
        return {"model_stats": [{"name": each, "version": version or "1"} for each in names]}

    def repository_index(self, ready_only: bool) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "version": "1",
                "state": "READY" if name in self.loaded else "UNAVAILABLE",
                "reason": "",
            }
            for name in self.model_names()
            if name in self.loaded or not ready_only
        ]

    async def load_model(self, name: str, parameters: dict[str, Any]) -> None:
        self._find(name)
        self.loaded.add(name)

    async def unload_model(self, name: str, parameters: dict[str, Any]) -> None:
        self._find(name)
        self.loaded.discard(name)

    def log_settings(self, update: dict[str, Any] | None) -> dict[str, Any]:
        self.settings |= update or {}
        return self.settings
