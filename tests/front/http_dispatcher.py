"""A dispatcher over numpy functions: real requests and real answers, no batching, no model files.

It keeps the dispatcher's contract: ``reply`` is called once, on the loop's thread, after
``submit`` has returned, and never after ``cancel``. A request to a *held* model waits until the
test releases it, so that a test decides when and in which order answers come.
"""

import asyncio
from collections.abc import Callable

import numpy as np

from gateway.errors import GatewayError, ModelNotFound
from gateway.types import (
    DATATYPES,
    Array,
    DataType,
    InferOutput,
    InferRequest,
    InferResponse,
    Reply,
)

Function = Callable[[dict[str, Array]], dict[str, tuple[DataType, Array]]]


def echo(inputs: dict[str, Array], datatypes: dict[str, DataType]) -> list[InferOutput]:
    return [InferOutput(name, datatypes[name], array) for name, array in inputs.items()]


class Ticket:
    def __init__(self, request: InferRequest, reply: Reply) -> None:
        self.request = request
        self.reply = reply
        self.cancelled = False
        self.answered = False

    def cancel(self) -> None:
        self.cancelled = True


class NumpyDispatcher:
    """Serves the model ``echo``, which gives its inputs back under their names; ``held`` likewise.

    ``fail`` raises its string input as an error by the class named there.
    """

    def __init__(self) -> None:
        self.submitted: list[Ticket] = []
        self.refusal: GatewayError | None = None
        self.outputs: dict[str, tuple[str, Array]] = {}
        self._due: list[Ticket] = []

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
            self._due.append(ticket)
            asyncio.get_running_loop().call_soon(self._answer_due)
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

    def release(self, ticket: Ticket, answer: GatewayError | None = None) -> None:
        """Answer a held request."""
        if not ticket.cancelled:
            ticket.answered = True
            ticket.reply(answer or self._run(ticket.request))

    def _answer_due(self) -> None:
        due, self._due = self._due, []
        for ticket in due:
            self.release(ticket)

    def _run(self, request: InferRequest) -> InferResponse:
        if request.model == "fixed":
            outputs = [
                InferOutput(name, DATATYPES[datatype], array)
                for name, (datatype, array) in self.outputs.items()
            ]
        else:
            outputs = [
                InferOutput(tensor.name, tensor.datatype, np.ascontiguousarray(tensor.array()))
                for tensor in request.inputs
            ]
        if request.outputs is not None:
            by_name = {output.name: output for output in outputs}
            outputs = [by_name[requested.name] for requested in request.outputs]
        return InferResponse(request.model, request.version or "1", request.id, outputs)
