"""Live predictions as server-sent events (``text/event-stream``), one for each request."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import orjson
from starlette.types import Receive, Scope, Send

from gateway.clock import Clock, monotonic_ns
from gateway.front.live_feed import PIECE_NS, STALL_S, Batch, Feed, Pace, Tensor, Watched
from gateway.serving.samples import from_datatype
from gateway.types import BYTES, Array

#: Seconds of silence after which a comment is sent, so that nobody in between takes the connection
#: for dead.
KEEP_ALIVE_S: Final = 10.0
#: Elements of a tensor that are written in one step, and bytes of a piece.
_ELEMENTS: Final = 8192
_PIECE_BYTES: Final = 32 << 10

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx would else gather events before it passes them on.
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """A response of the events of ``feed``, an ASGI application; closes the feed at its end.

    Events: ``columns`` before the first prediction of a version, with the names of its features;
    ``prediction``; ``dropped``, how many were lost on the way here since the last such event;
    ``end`` with the reason.

    Args:
        limit: predictions after which it ends; 0 for no end.
    """

    def __init__(
        self, feed: Feed, pace: Pace, limit: int = 0, *, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        self._feed: Final = feed
        self._pace: Final = pace
        self._limit: Final = limit
        self._keep_alive_s: Final = keep_alive_s
        self._sent = 0
        self._known: Final[set[tuple[str, str]]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves, or they end."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            writing = asyncio.create_task(self._write(send))
            leaving = asyncio.create_task(_gone(receive))
            try:
                await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
                if writing.done() and isinstance(writing.exception(), TimeoutError):
                    # The client takes nothing: what is written for it would stay for ever.
                    scope["state"]["abort"]()
                    await leaving
            finally:
                leaving.cancel()
                writing.cancel()
                await asyncio.wait((writing, leaving))
            if not leaving.done() or leaving.cancelled():
                writing.result()
        finally:
            self._feed.close()

    async def _write(self, send: Send) -> None:
        feed = self._feed
        # At once: the client learns that it is heard, and where a comment goes an event does.
        await _send(send, b": predictions from now on\n\n")
        while not self._is_full() and not feed.ended:
            batch = await feed.next(self._keep_alive_s)
            if batch is not None:
                await self._write_pieces(send, self._events(batch))
                feed.delivered()
            lost = b"".join(self._dropped())
            if lost or (batch is None and not feed.ended):
                await _send(send, lost or b": still here\n\n")
        reason = "limit" if self._is_full() else "shutdown"
        await _send(send, _event("end", orjson.dumps({"reason": reason})))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _is_full(self) -> bool:
        return 0 < self._limit <= self._sent

    async def _write_pieces(self, send: Send, events: Iterator[bytes]) -> None:
        """Send ``events``, a piece a turn of the loop."""
        going = True
        while going:
            async with self._pace:
                piece, going = _gather(events)
            if piece:
                await _send(send, piece)

    def _events(self, batch: Batch) -> Iterator[bytes]:
        if (batch.model, batch.version) not in self._known:
            self._known.add((batch.model, batch.version))
            yield _columns(batch)
        for request in batch.requests:
            if self._is_full():
                return
            self._sent += 1
            yield from _prediction(batch, request)

    def _dropped(self) -> Iterator[bytes]:
        for model, reasons in self._feed.dropped().items():
            told = {"model": model, "dropped": sum(reasons.values()), "reasons": reasons}
            yield _event("dropped", orjson.dumps(told))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, body: bytes) -> None:
    """Raises ``TimeoutError`` where the client takes nothing for too long."""
    async with asyncio.timeout(STALL_S):
        await send({"type": "http.response.body", "body": body, "more_body": True})


def _gather(pieces: Iterator[bytes], clock: Clock = monotonic_ns) -> tuple[bytes, bool]:
    """The next pieces, as many as go into one turn of the loop, and whether there are more."""
    end_ns = clock() + PIECE_NS
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= _PIECE_BYTES or clock() >= end_ns:
            return bytes(gathered), True
    return bytes(gathered), False


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _columns(batch: Batch) -> bytes:
    sides = {
        side: [
            {"name": t.name, "datatype": t.datatype.name, "features": t.features} for t in tensors
        ]
        for side, tensors in (("inputs", batch.inputs), ("outputs", batch.outputs))
    }
    head = {"model": batch.model, "version": batch.version}
    return _event("columns", orjson.dumps({**head, **sides}))


def _prediction(batch: Batch, request: Watched) -> Iterator[bytes]:
    head = orjson.dumps(
        {
            "id": request.id,
            "model": batch.model,
            "version": batch.version,
            "time": batch.at,
            "latency_ms": request.latency_ns / 1e6,
            "rows": request.rows,
            "first_row": request.row,
        }
    )
    yield b"event: prediction\ndata: " + head[:-1]
    for side, tensors in ((b"inputs", batch.inputs), (b"outputs", batch.outputs)):
        yield b',"%b":{' % side
        for number, tensor in enumerate(tensors):
            yield (b"," if number else b"") + orjson.dumps(tensor.name) + b":"
            yield from _values(tensor, tensor.array[request.first : request.first + request.rows])
        yield b"}"
    yield b"}\n\n"


def _values(tensor: Tensor, array: Array) -> Iterator[bytes]:
    """``array`` as nested lists, a bounded part at a time; what is not finite is null."""
    if array.size > _ELEMENTS and array.ndim > 1:
        for number, part in enumerate(array):
            yield b"," if number else b"["
            yield from _values(tensor, part)
        yield b"]"
        return
    for start in range(0, max(len(array), 1), _ELEMENTS):
        encoded = orjson.dumps(_plain(tensor, array[start : start + _ELEMENTS]), option=_NUMPY)
        last = start + _ELEMENTS >= len(array)
        yield (b"," if start else b"[") + encoded[1:-1] + (b"]" if last else b"")


_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY


def _plain(tensor: Tensor, array: Array) -> Any:
    """``array`` as orjson takes it."""
    if tensor.datatype is BYTES:
        return _texts(array)
    values = from_datatype(array, tensor.datatype)
    return values if values.flags.c_contiguous else values.copy(order="C")


def _texts(array: Array) -> list[Any]:
    if array.ndim > 1:
        return [_texts(part) for part in array]
    return [
        element.decode("utf-8", "replace") if isinstance(element, bytes) else element
        for element in array
    ]
