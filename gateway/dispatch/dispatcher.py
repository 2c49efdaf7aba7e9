"""The way of a request from a front to a lane and back."""

import asyncio

from gateway.dispatch.classification import classify
from gateway.dispatch.mirror import Mirror
from gateway.dispatch.route import Recorder, RouteTable
from gateway.errors import GatewayError, InvalidTensor, ModelNotReady, QueueFull, ShuttingDown
from gateway.serving.lane import Lane
from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion
from gateway.serving.slices import Place, Sink
from gateway.serving.template import InferTemplate, Ticket, make_template
from gateway.types import BYTES, Array, InferOutput, InferRequest, InferResponse, Reply

#: Which outputs a request gets: the index in the signature, and the classes asked for.
Selection = list[tuple[int, int]]

#: Heads that are known at once; a model of variable shapes has one for each.
MAX_TEMPLATES = 4096
READY = State.READY


class Pending:
    """A request that was accepted and not yet answered; the sink of its ticket."""

    __slots__ = ("_dispatcher", "_lane", "_place", "_reply", "_request", "_selection")

    def __init__(
        self,
        dispatcher: "Dispatcher",
        lane: Lane,
        request: InferRequest,
        selection: Selection | None,
        reply: Reply,
        mirror: Mirror | None,
    ) -> None:
        self._dispatcher = dispatcher
        self._lane = lane
        self._request = request
        self._selection = selection
        self._reply = reply
        if mirror is None:
            self._place = lane.submit(request, self)
        else:
            self._place = _submit_mirrored(mirror, lane, request, self)

    def cancel(self) -> None:
        """Nobody waits any more: ``reply`` is not called after this; a waiting place is freed.

        Does nothing once the request has been answered.
        """
        if self._reply is not _nobody:
            self._reply = _nobody
            self._dispatcher.inflight -= 1
            self._lane.cancel(self._place)

    def complete(self, arrays: list[Array]) -> None:
        """Called by the lane with the outputs in the signature's order."""
        loaded = self._lane.loaded
        request = self._request
        specs = loaded.signature.outputs
        if self._selection is None:
            outputs = [
                InferOutput(spec.name, spec.datatype, array)
                for spec, array in zip(specs, arrays, strict=True)
            ]
        else:
            outputs = []
            for index, classes in self._selection:
                spec, array = specs[index], arrays[index]
                if classes:
                    outputs.append(InferOutput(spec.name, BYTES, classify(array, spec, classes)))
                else:
                    outputs.append(InferOutput(spec.name, spec.datatype, array))
        self._answer(InferResponse(loaded.name, loaded.version, request.id, outputs))

    def fail(self, error: GatewayError) -> None:
        """Called by the lane when there is no answer."""
        self._answer(error)

    def cancelled(self) -> None:
        """Called by the lane within ``cancel``."""

    def request_id(self) -> str:
        """See ``Sink``."""
        return self._request.id

    def header(self, name: bytes) -> bytes | None:
        """See ``Sink``."""
        metadata = self._request.metadata
        return None if metadata is None else metadata.get(name)

    def _answer(self, answer: InferResponse | GatewayError) -> None:
        reply, self._reply = self._reply, _nobody
        self._dispatcher.inflight -= 1
        reply(answer)


def _nobody(answer: InferResponse | GatewayError) -> None:
    """The reply of a request that has been answered or left."""


class Dispatcher:
    """Admission, routing, and the hand-over to a lane. For the event loop's thread only.

    Attributes:
        routes: who serves; the control plane replaces it as a whole.
        templates: what is known of requests by their heads, which are the wire's own keys; good
            for these routes only, and emptied with them.
        inflight: requests accepted and not yet answered, over all models.
        draining: set at shutdown, from when on new work is refused.
        refused: requests that never reached a lane, by reason.

    Args:
        max_inflight: most requests in flight; more are refused.
    """

    def __init__(self, routes: RouteTable, *, max_inflight: int) -> None:
        self._routes = routes
        #: Of the route table's mirrors those that do not rest.
        self._mirrors: dict[ModelVersion, Mirror] = {}
        self._find_mirrors()
        self.templates: dict[bytes, InferTemplate] = {}
        self.inflight = 0
        self.draining = False
        self.refused: dict[str, int] = {}
        self._max_inflight = max_inflight

    @property
    def routes(self) -> RouteTable:
        """Who serves."""
        return self._routes

    @routes.setter
    def routes(self, routes: RouteTable) -> None:
        self._routes = routes
        self._find_mirrors()
        # They hold on to lanes, which may be gone with the old routes.
        self.templates.clear()

    def _find_mirrors(self) -> None:
        mirrors = self._routes.mirrors
        for mirror in mirrors.values():
            mirror.tell_rests(self._find_mirrors)
        self._mirrors = {target: m for target, m in mirrors.items() if not m.rests}

    def submit(self, request: InferRequest, reply: Reply) -> Pending:
        """Accept a request; ``reply`` is called once, later, with its answer or error.

        The arrays of an answer are valid until ``reply`` returns.

        Raises:
            ShuttingDown: the server drains.
            QueueFull: the server, or the version's queue, holds as much as it may.
            NotFound, ModelNotReady: nobody serves that model or version.
            InvalidTensor: the inputs, or the outputs asked for, do not fit the model.
        """
        try:
            if self.draining or self.inflight >= self._max_inflight:
                raise self._refusal()
            routes = self._routes
            target = routes.choose(request)
            lane = target.lane
            assert lane is not None, "a READY version has a lane"
            selection = None if request.outputs is None else _select(lane, request)
            if routes.recorders and (record := routes.recorders.get(target)) is not None:
                reply = _recorded(record, request, reply)
            mirror = self._mirrors.get(target) if self._mirrors else None
            pending = Pending(self, lane, request, selection, reply, mirror)
        except GatewayError as error:
            self._count_refusal(error)
            raise
        self.inflight += 1
        return pending

    def learn(self, head: bytes, request: InferRequest) -> None:
        """Make a template of ``request``, which was accepted, for requests with the same head.

        Does nothing where such requests differ in more than their id and their tensors' bytes, or
        where each of them is decided about anew.
        """
        routes = self._routes
        if not request.version and request.model in routes.splits:
            return
        target = routes.resolve(request.model, request.version)
        assert target.lane is not None, "a READY version has a lane"
        if target in routes.recorders:
            return
        template = make_template(target, target.lane, request)
        mirror = routes.mirrors.get(target)
        if template is not None and (mirror is None or mirror.learn(template, request)):
            if len(self.templates) >= MAX_TEMPLATES:
                # The oldest; one that is in use is learned again.
                del self.templates[next(iter(self.templates))]
            self.templates[head] = template

    def submit_known(self, template: InferTemplate, ticket: Ticket, now_ns: int) -> None:
        """Accept a request that is proven by ``template``; its ticket's sink is told its answer.

        The sink takes the request off ``inflight``. Raises as ``submit`` does.
        """
        try:
            if self.draining or self.inflight >= self._max_inflight:
                raise self._refusal()
            if template.target.state is not READY:
                target = template.target
                raise ModelNotReady(f"{target.label} is not ready: it is {target.state.value}")
            if self._mirrors and (mirror := self._mirrors.get(template.target)) is not None:
                _accept_mirrored(mirror, template, ticket, now_ns)
            else:
                template.lane.accept(ticket, now_ns)
        except GatewayError as error:
            self._count_refusal(error)
            raise
        self.inflight += 1

    def _refusal(self) -> GatewayError:
        if self.draining:
            return ShuttingDown("the server is shutting down and takes no new requests")
        return QueueFull(
            f"the server holds {self.inflight} requests, as many as it may "
            "(--max-inflight-requests)"
        )

    def _count_refusal(self, error: GatewayError) -> None:
        reason = type(error).__name__
        self.refused[reason] = self.refused.get(reason, 0) + 1

    async def infer(self, request: InferRequest) -> InferResponse:
        """Submit and wait; the answer's arrays are the caller's to keep.

        Raises:
            GatewayError: as ``submit``, or what became of the request.
        """
        future: asyncio.Future[InferResponse] = asyncio.get_running_loop().create_future()

        def reply(answer: InferResponse | GatewayError) -> None:
            if isinstance(answer, GatewayError):
                future.set_exception(answer)
                return
            for output in answer.outputs:
                output.array = output.array.copy()
            future.set_result(answer)

        pending = self.submit(request, reply)
        try:
            return await future
        finally:
            pending.cancel()


def _submit_mirrored(mirror: Mirror, lane: Lane, request: InferRequest, sink: Sink) -> Place:
    """Submit a request, and a copy of it where ``mirror`` wants one."""
    pair = mirror.watch(lane, sink)
    if pair is None:
        return lane.submit(request, sink)
    try:
        place = lane.submit(request, pair)
    except GatewayError:
        mirror.refused()
        raise
    mirror.send(pair, request)
    return place


def _accept_mirrored(mirror: Mirror, template: InferTemplate, ticket: Ticket, now_ns: int) -> None:
    """Accept a ticket, and a copy of it where ``mirror`` wants one."""
    pair = mirror.watch(template.lane, ticket.sink)
    if pair is None:
        template.lane.accept(ticket, now_ns)
        return
    ticket.sink = pair
    try:
        template.lane.accept(ticket, now_ns)
    except GatewayError:
        mirror.refused()
        raise
    mirror.send_known(pair, template, ticket)


def _recorded(record: Recorder, request: InferRequest, reply: Reply) -> Reply:
    """``reply``, and a look at every good answer for ``record``."""

    def reply_and_record(answer: InferResponse | GatewayError) -> None:
        if not isinstance(answer, GatewayError):
            # Before the reply: its arrays are valid until that returns.
            record(request, answer)
        reply(answer)

    return reply_and_record


def _select(lane: Lane, request: InferRequest) -> Selection:
    selection = []
    known = lane.output_index
    for output in request.outputs or ():
        index = known.get(output.name)
        if index is None:
            raise InvalidTensor(
                f"{lane.label} has no output '{output.name}', its outputs are {list(known)}"
            )
        selection.append((index, output.class_count))
    return selection
