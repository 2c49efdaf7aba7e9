"""The RPC by which monitors attach: ``PredictionStream.Subscribe``, free of any server."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from gateway.errors import InvalidRequest, MalformedRequest, RequestCancelled
from gateway.front.grpc_calls import Call, Method, StreamMethod
from gateway.front.live_feed import STALL_S, Batch, Feed, LiveStream, Pace, Tensor, Watched
from gateway.protos import STREAM_SERVICE, stream_message
from gateway.types import BYTES, Array

#: Seconds of silence after which a client is told what was dropped.
_TELL_S: Final = 1.0
#: Bytes of tensors in a message, about; a request is not divided.
_MESSAGE_BYTES: Final = 512 << 10
#: Patterns and fields in one request.
_MOST_NAMES: Final = 1000

_Request: Final = stream_message("SubscribeRequest")
_Response: Final = stream_message("SubscribeResponse")


class PredictionCalls:
    """The service. For the event loop's thread only."""

    def __init__(self, live: LiveStream) -> None:
        self._live: Final = live
        self._pace: Final = Pace()

    def methods(self) -> dict[str, Method]:
        """The service's methods by their full path."""
        return {f"/{STREAM_SERVICE}/Subscribe": StreamMethod(self.subscribe)}

    async def subscribe(self, call: Call) -> None:
        """Send predictions until the client leaves, its limit is reached, or the server drains."""
        data = await call.read()
        if data is None:
            raise InvalidRequest("Subscribe takes one SubscribeRequest; got none")
        request = _parse(data)
        feed = self._live.open(
            "grpc",
            list(request.models) or ["*"],
            request.sample or 1.0,
            list(request.fields),
        )
        try:
            await self._send(call, feed, request.limit)
        finally:
            feed.close()

    async def _send(self, call: Call, feed: Feed, limit: int) -> None:
        sent = 0
        while not feed.ended and not 0 < limit <= sent:
            batch = await feed.next(_TELL_S)
            requests = [] if batch is None else batch.requests
            if limit:
                requests = requests[: limit - sent]
            sent += len(requests)
            for part in _parts(batch, requests):
                async with self._pace:
                    message = _message(batch, part, feed.dropped())
                await _write(call, message)
            feed.delivered()
            if batch is None and (dropped := feed.dropped()):
                await _write(call, _message(None, (), dropped))


async def _write(call: Call, message: bytes) -> None:
    """Raises ``RequestCancelled`` where the client takes nothing for too long."""
    try:
        async with asyncio.timeout(STALL_S):
            await call.write(message)
    except TimeoutError:
        raise RequestCancelled(f"the client has taken nothing for {STALL_S:g} seconds") from None


def _parse(data: bytes) -> Any:
    try:
        request = _Request.FromString(data)
    except DecodeError as error:
        raise MalformedRequest(f"the bytes are no SubscribeRequest: {error}") from None
    if not 0 <= request.sample <= 1:
        raise InvalidRequest(f"sample must be a share from 0 to 1, not {request.sample:g}")
    if len(request.models) + len(request.fields) > _MOST_NAMES:
        raise InvalidRequest(f"models and fields may have {_MOST_NAMES} entries together")
    return request


def _parts(batch: Batch | None, requests: Sequence[Watched]) -> Iterator[Sequence[Watched]]:
    """``requests`` in parts that fit a message."""
    if batch is None or not requests:
        return
    tensors = (*batch.inputs, *batch.outputs)
    last = requests[-1]
    row_bytes = sum(_nbytes(tensor.array) for tensor in tensors) / (last.first + last.rows)
    begin = rows = 0
    for place, request in enumerate(requests):
        rows += request.rows
        if rows * row_bytes >= _MESSAGE_BYTES:
            yield requests[begin : place + 1]
            begin, rows = place + 1, 0
    if begin < len(requests):
        yield requests[begin:]


def _message(
    batch: Batch | None,
    requests: Sequence[Watched],
    dropped: Mapping[str, Mapping[str, int]],
) -> bytes:
    response = _Response()
    if batch is not None:
        predictions = response.predictions
        predictions.model, predictions.version = batch.model, batch.version
        predictions.time_unix_ns = int(batch.at * 1e9)
        for request in requests:
            predictions.requests.add(
                id=request.id,
                rows=request.rows,
                first_row=request.row,
                latency_ns=max(request.latency_ns, 0),
            )
        begin, end = requests[0].first, requests[-1].first + requests[-1].rows
        for tensors, described in (
            (batch.inputs, predictions.inputs),
            (batch.outputs, predictions.outputs),
        ):
            for tensor in tensors:
                array = tensor.array[begin:end]
                described.add(
                    name=tensor.name,
                    datatype=tensor.datatype.name,
                    shape=array.shape,
                    features=tensor.features,
                )
                predictions.raw_contents.append(_raw(tensor, array))
    for model, reasons in dropped.items():
        for reason, rows in reasons.items():
            response.dropped.add(model=model, reason=reason, rows=rows)
    encoded: bytes = response.SerializeToString()
    return encoded


def _raw(tensor: Tensor, array: Array) -> bytes:
    if tensor.datatype is not BYTES:
        return array.tobytes()
    parts: list[bytes] = []
    for element in array.flat:
        text = element if isinstance(element, bytes) else str(element).encode()
        parts += (len(text).to_bytes(4, "little"), text)
    return b"".join(parts)


def _nbytes(array: Array) -> int:
    if array.dtype == np.object_:
        return sum(len(element) + 4 for element in array.flat)
    return array.nbytes
