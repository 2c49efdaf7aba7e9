"""Copies of a version's requests for another version, whose answers are compared and thrown away.

The primary's answer comes first in everything: a copy is made only of what has been accepted, it
is the first thing left out when there is much to do, and the shadow gets it once the caller has
the primary's answer, so that the two never run side by side for one request. What happens to each
request is counted, so that at any time::

    offered = sampled_out + skipped (by reason) + sent
    sent    = paired + cancelled + open

A copy counts as sent from when it is made. One that the shadow refuses when it gets it is taken
back, and counts as skipped.
"""

from collections.abc import Callable
from random import random
from typing import Any, Final, NamedTuple

from gateway.clock import Clock, monotonic_ns
from gateway.dispatch.pace import Pace
from gateway.errors import GatewayError
from gateway.serving.lane import Lane
from gateway.serving.slices import Sink
from gateway.serving.template import InferTemplate, Ticket
from gateway.types import Array, InferInput, InferRequest

#: Primary batches that may wait while copies are still made.
PRIMARY_BATCHES: Final = 4
#: Batches of copies that may be on their way.
SHADOW_BATCHES: Final = 8


class Side(NamedTuple):
    """What one of the two made of a request: its outputs, or ``None`` where it failed.

    ``ns`` is the time from acceptance to the answer.
    """

    outputs: list[Array] | None
    ns: int


class Pair:
    """One request, twice: the sink of the primary, in front of the caller's own.

    Attributes:
        copy: what the shadow is to be given, until it is.
        inputs: the inputs of that, for whoever wants to look at them.
    """

    __slots__ = ("_accepted_ns", "_mirror", "_sink", "copy", "inputs", "primary", "shadow")

    def __init__(self, mirror: "Mirror", sink: Sink) -> None:
        self._mirror = mirror
        self._sink = sink
        self._accepted_ns = mirror.clock()
        self.copy: InferRequest | Ticket | None = None
        self.inputs: Any = None
        self.primary: Side | None = None
        self.shadow: Side | None = None

    def complete(self, arrays: list[Array]) -> None:
        """The primary's lane: its answer, which the caller gets before anything else happens."""
        now_ns = self._mirror.clock()
        try:
            self._sink.complete(arrays)
        finally:
            # Whatever came of its delivery, it is the answer.
            self._answered(Side([array.copy() for array in arrays], now_ns - self._accepted_ns))

    def fail(self, error: GatewayError) -> None:
        """The primary's lane: there is no answer."""
        now_ns = self._mirror.clock()
        try:
            self._sink.fail(error)
        finally:
            self._answered(Side(None, now_ns - self._accepted_ns))

    def cancelled(self) -> None:
        """The primary's lane: the caller has left."""
        self._sink.cancelled()
        self._mirror.cancelled(self)

    def request_id(self) -> str:
        """The caller's sink's."""
        return self._sink.request_id()

    def header(self, name: bytes) -> bytes | None:
        """The caller's sink's."""
        return self._sink.header(name)

    def _answered(self, side: Side) -> None:
        self.primary = side
        self._mirror.answered(self)


class _ShadowSink:
    """Who waits for the shadow's answer."""

    __slots__ = ("_accepted_ns", "_pair")

    def __init__(self, pair: Pair, accepted_ns: int) -> None:
        self._pair = pair
        self._accepted_ns = accepted_ns

    def complete(self, arrays: list[Array]) -> None:
        self._answered([array.copy() for array in arrays])

    def fail(self, error: GatewayError) -> None:
        self._answered(None)

    def cancelled(self) -> None:
        """Nobody cancels a copy."""

    def request_id(self) -> str:
        """A copy has none: it is nobody's request."""
        return ""

    def header(self, name: bytes) -> bytes | None:
        """As ``request_id``."""
        return None

    def _answered(self, outputs: list[Array] | None) -> None:
        pair = self._pair
        mirror = pair._mirror
        pair.shadow = Side(outputs, mirror.clock() - self._accepted_ns)
        mirror.paired(pair)


class Mirror:
    """Sends copies to a shadow and hands on the pairs. For the event loop's thread only.

    While the pace lets nothing through the mirror *rests*: requests go by it as if there were no
    shadow, and it counts them by what the primary has accepted meanwhile. So those who look at each
    request of a server that has no time to spare cost it none.

    Attributes:
        offered, sampled_out, sent, cancelled_pairs, paired_count: see above, requests.
        paused: whether no copies are made, because those who get the pairs are behind.
        skipped: requests by the reason for which they were not copied: ``busy`` (the process has
            no time to spare), ``primary_queue`` (the primary has enough to do), ``backlog`` (the
            shadow is behind, or those who get the pairs are), ``refused`` (the shadow does not take
            such a request), ``primary_refused`` (nor did the primary).

    Args:
        lane: the shadow's own lane, apart from the version's other traffic.
        share: of the requests that are copied, 0 to 1.
        pace: how much can be afforded.
        keep: gets every complete pair.
        primary: the lane whose requests are copied, all of them and no others; without it the
            mirror never rests.
        hold: copies that are held until there are so many, or until ``flush``; then the shadow's
            threads, which share the interpreter with the primary, wake once for all of them.
        chance: numbers from 0 to below 1.
    """

    def __init__(
        self,
        lane: Lane,
        share: float,
        pace: Pace,
        keep: Callable[[Pair], None],
        *,
        primary: Lane | None = None,
        hold: int = 1,
        chance: Callable[[], float] = random,
        clock: Clock = monotonic_ns,
    ) -> None:
        self.lane: Final = lane
        self.share: Final = share
        self.clock: Final = clock
        self._offered = 0
        self.sampled_out = 0
        self.sent = 0
        self.paired_count = 0
        self.cancelled_pairs = 0
        self._skipped: dict[str, int] = {}
        self.paused = False
        self._pace = pace
        self._keep = keep
        self._chance = chance
        self._primary = primary
        #: What the primary had accepted when the rest began, ``None`` while there is none.
        self._rest_began: int | None = None
        self._rest_changed: Callable[[], None] = _nobody
        self._hold = hold
        self._held: list[Pair] = []
        self._open: set[Pair] = set()
        self._max_open = SHADOW_BATCHES * max(lane.max_rows, 8)

    @property
    def open(self) -> int:
        """Copies that were sent, of pairs that are not complete."""
        return len(self._open)

    @property
    def offered(self) -> int:
        """Requests of the primary since the beginning."""
        return self._offered + self._went_by

    @property
    def skipped(self) -> dict[str, int]:
        """Requests by the reason for which they were not copied; see above."""
        skipped = dict(self._skipped)
        if went_by := self._went_by:
            skipped["busy"] = skipped.get("busy", 0) + went_by
        return skipped

    @property
    def _went_by(self) -> int:
        """Requests of the rest that lasts."""
        if self._primary is None or self._rest_began is None:
            return 0
        return self._primary.accepted - self._rest_began

    @property
    def rests(self) -> bool:
        """Whether requests are to go by; see above."""
        return self._rest_began is not None

    def tell_rests(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called whenever a rest has begun or ended."""
        self._rest_changed = changed

    def update(self) -> None:
        """Begin or end a rest, as the pace is now."""
        if self._primary is None or (self._pace.share == 0) == self.rests:
            return
        if self.rests:
            self._offered, self._skipped = self.offered, self.skipped
            self._rest_began = None
        else:
            self._rest_began = self._primary.accepted
        self._rest_changed()

    def watch(self, primary: Lane, sink: Sink) -> Pair | None:
        """A pair in front of ``sink``, for a request that is to be copied; ``None`` for others."""
        self._offered += 1
        if self.share < 1 and self._chance() >= self.share:
            self.sampled_out += 1
            return None
        pace = self._pace.share
        if pace < 1 and (not pace or self._chance() >= pace):
            self._skip("busy")
            return None
        if primary.waiting >= PRIMARY_BATCHES * primary.max_rows:
            self._skip("primary_queue")
            return None
        if self.paused or len(self._open) >= self._max_open:
            self._skip("backlog")
            return None
        return Pair(self, sink)

    def refused(self) -> None:
        """The primary did not accept a request that was watched."""
        self._skip("primary_refused")

    def send(self, pair: Pair, request: InferRequest) -> None:
        """Make a copy of ``request``, which the primary has accepted."""
        pair.inputs = [_lasting(tensor) for tensor in request.inputs]
        copy = InferRequest(request.model, request.version, "", pair.inputs, None, {}, 0, 0)
        self._sent(pair, copy)

    def learn(self, template: InferTemplate, request: InferRequest) -> bool:
        """Prepare to copy requests of ``template`` from their tickets; whether that can be done."""
        try:
            plan = self.lane.binder.plan(request.inputs)
        except GatewayError:
            return False
        if plan is None or plan.rows > self.lane.max_rows:
            return False
        if not template.group.like(plan.group):
            return False
        # Kept there, so that it goes with the template.
        template.copies = plan.group
        return True

    def send_known(self, pair: Pair, template: InferTemplate, ticket: Ticket) -> None:
        """Make a copy of a ticket, which the primary has accepted."""
        assert template.copies is not None, "it was learned"
        twin = ticket.twin(template.copies, None)
        pair.inputs = (twin.group.shapes, twin.rows, twin.buffers())
        self._sent(pair, twin)

    def _sent(self, pair: Pair, copy: InferRequest | Ticket) -> None:
        pair.copy = copy
        self.sent += 1
        self._open.add(pair)

    def answered(self, pair: Pair) -> None:
        """The caller of the primary has its answer: now the shadow may have the copy."""
        if pair.copy is not None:
            self._held.append(pair)
            if len(self._held) >= self._hold:
                self.flush()

    def flush(self) -> None:
        """Let the shadow have the copies that are held."""
        held, self._held = self._held, []
        now_ns = self.clock()
        for pair in held:
            copy, pair.copy = pair.copy, None
            sink = _ShadowSink(pair, now_ns)
            try:
                if isinstance(copy, InferRequest):
                    copy.received_ns = now_ns
                    self.lane.submit(copy, sink)
                elif copy is not None:
                    copy.sink = sink
                    self.lane.accept(copy, now_ns)
            except GatewayError:
                if isinstance(copy, Ticket):
                    copy.release()
                self._open.discard(pair)
                self.sent -= 1
                self._skip("refused")

    def paired(self, pair: Pair) -> None:
        """Both answers of ``pair`` are there."""
        self._open.discard(pair)
        self.paired_count += 1
        self._keep(pair)

    def cancelled(self, pair: Pair) -> None:
        """The caller of the primary has left: there is nothing to compare with."""
        if pair.copy is not None:
            pair.copy = None
            self._open.discard(pair)
            self.cancelled_pairs += 1

    def _skip(self, reason: str) -> None:
        self._skipped[reason] = self._skipped.get(reason, 0) + 1


def _nobody() -> None:
    """Nobody wants to know."""


def _lasting(tensor: InferInput) -> InferInput:
    """``tensor`` with bytes that nobody changes: a region of shared memory is the client's."""
    data = tensor.data
    if isinstance(data, memoryview) and not isinstance(data.obj, bytes):
        return InferInput(tensor.name, tensor.datatype, tensor.shape, bytes(data))
    return tensor
