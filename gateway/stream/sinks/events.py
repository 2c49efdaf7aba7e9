"""Predictions as CloudEvents, with the attributes that KServe's inference logger gives them.

A request becomes two events of one id: what was asked, and what was answered. Their data is the
protocol's JSON.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import orjson

from gateway.stream.block import Block
from gateway.stream.columns import Column
from gateway.stream.sinks.encoding import (
    JSON_OPTIONS,
    Breather,
    Values,
    block_values,
    present,
    timestamp,
)
from gateway.stream.sinks.sink import Parcel
from gateway.tables import Check, choice, table_of, text

REQUEST: Final = "org.kubeflow.serving.inference.request"
RESPONSE: Final = "org.kubeflow.serving.inference.response"

#: KServe's ``mode`` of a logger, and the types of the events that it sends.
MODES: Final = {"all": (REQUEST, RESPONSE), "request": (REQUEST,), "response": (RESPONSE,)}

CONTENT_TYPE: Final = "application/json"

Head = TypeVar("Head")


@dataclass(frozen=True, slots=True)
class EventSettings:
    """What is said in every event.

    Attributes:
        types: of the events that are sent.
        source: who sends them, a URI or a part of one.
        inferenceservicename: ``""`` for the model's name.
        namespace, component, endpoint: as KServe's.
        annotations: further text by name.
    """

    types: Sequence[str] = MODES["all"]
    source: str = "/onnx-gateway"
    inferenceservicename: str = ""
    namespace: str = "default"
    component: str = "predictor"
    endpoint: str = "default"
    annotations: Mapping[str, str] = field(default_factory=dict)


#: Keys of a sink's table that are about its events.
EVENT_FIELDS: Final[dict[str, Check]] = {
    "mode": choice(*MODES),
    "source": text,
    "inferenceservicename": text,
    "namespace": text,
    "component": text,
    "endpoint": text,
    "annotations": table_of(text),
}


def event_settings(options: dict[str, Any]) -> EventSettings:
    """What ``options``, read by ``EVENT_FIELDS``, say; it takes them out."""
    given = {key: options.pop(key) for key in EVENT_FIELDS if key in options}
    return EventSettings(types=MODES[given.pop("mode", "all")], **given)


class Letter:
    """One event on its way, in the form in which the sink sends it; it is in one parcel."""

    __slots__ = ("arrived", "content", "model", "name", "refusal")

    def __init__(self, content: Any, model: str, name: str) -> None:
        self.content = content
        self.model = model
        self.name = name
        self.arrived = False
        self.refusal = ""


def letters_of(parcels: Sequence[Parcel]) -> list[Letter]:
    """The letters of ``parcels`` that are still on their way."""
    return [
        letter
        for parcel in parcels
        for letter in parcel.content
        if not letter.arrived and not letter.refusal
    ]


def mark(parcels: Sequence[Parcel]) -> None:
    """Mark the parcels whose letters have all arrived, or of which one is refused."""
    for parcel in parcels:
        letters = parcel.content
        if all(letter.arrived or letter.refusal for letter in letters):
            parcel.refusal = next((each.refusal for each in letters if each.refusal), "")
            parcel.arrived = not parcel.refusal


class EventWriter:
    """Makes events of blocks."""

    def __init__(
        self, settings: EventSettings, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._settings: Final = settings
        self._wall_clock: Final = wall_clock
        # What names a letter for whoever takes out duplicates: neither the callers' ids, which
        # they may use again, nor ours, which begin anew with each start, would do.
        self._run: Final = (
            f"{int(wall_clock() * 1e6):x}-{np.random.default_rng().integers(2**32):x}"
        )
        self._count = 0

    def parcels(
        self,
        blocks: Sequence[Block],
        head: Callable[[dict[str, str]], Head],
        form: Callable[[str, Head, bytes], Any],
    ) -> list[Parcel]:
        """A parcel for each request of ``blocks``: its letters.

        Args:
            head: the sink's form of those attributes that all events of a block and a type share.
            form: the sink's form of an event: its id, that head, and its data.
        """
        breather = Breather()
        parcels: list[Parcel] = []
        for block in blocks:
            parcels += self._of_block(block, head, form)
            breather.did(block.rows)
        return parcels

    def _of_block(
        self,
        block: Block,
        head: Callable[[dict[str, str]], Head],
        form: Callable[[str, Head, bytes], Any],
    ) -> Iterator[Parcel]:
        made = {REQUEST: ("inputs", present(block)), RESPONSE: ("outputs", block.columns.outputs)}
        values = dict(zip((REQUEST, RESPONSE), block_values(block), strict=True))
        kinds = [
            (type, *made[type], values[type], head(self._attributes(block, type)))
            for type in self._settings.types
        ]
        ids = block.request_ids()
        event_ids = block.event_ids or ids
        begin = 0
        for id, event_id, rows in zip(ids, event_ids, block.request_rows.tolist(), strict=True):
            letters = []
            for type, key, columns, arrays, shared in kinds:
                body: dict[str, Any] = {"id": id}
                if type is RESPONSE:
                    body |= {"model_name": block.model, "model_version": block.version}
                body[key] = [_tensor(c, arrays[c.name][begin : begin + rows]) for c in columns]
                data = orjson.dumps(body, option=JSON_OPTIONS)
                content = form(event_id or id, shared, data)
                letters.append(Letter(content, block.model, f"{self._run}-{self._count}"))
                self._count += 1
            yield Parcel([(block, rows)], letters)
            begin += rows

    def _attributes(self, block: Block, type: str) -> dict[str, str]:
        """The attributes of an event of that type but its id, and ``datacontenttype``."""
        settings = self._settings
        attributes = {
            "specversion": "1.0",
            "type": type,
            "source": settings.source,
            "time": timestamp(block.at),
            "recordedtime": timestamp(self._wall_clock()),
            "inferenceservicename": settings.inferenceservicename or block.model,
            "namespace": settings.namespace,
            "component": settings.component,
            "endpoint": settings.endpoint,
            # KServe puts request headers here where it is told which; none are kept with a block.
            "metadata": "{}",
        }
        if settings.annotations:
            attributes["annotations"] = orjson.dumps(settings.annotations).decode()
        return attributes


def _tensor(column: Column, values: Values) -> dict[str, Any]:
    """A tensor of one request in the protocol's form: its rows where the request had them."""
    data, shape = _laid_out(column, values)
    return {"name": column.name, "shape": shape, "datatype": column.datatype.name, "data": data}


def _laid_out(column: Column, values: Values) -> tuple[Any, list[int]]:
    array = np.array(values, object) if isinstance(values, list) else values
    if column.batch_axis is None:
        array = array[0]
    elif column.batch_axis:
        array = np.moveaxis(array, 0, column.batch_axis)
    shape = list(np.shape(array))
    flat = np.ascontiguousarray(array).reshape(-1)
    return (flat.tolist() if flat.dtype.hasobject else flat), shape


def header_text(value: str) -> str:
    """``value`` as CloudEvents writes it into a header: what could break one is escaped."""
    if value.isascii() and value.isprintable() and not any(c in ' "%' for c in value):
        return value
    return "".join(
        chr(byte) if 0x20 < byte < 0x7F and byte not in b'"%' else f"%{byte:02X}"
        for byte in value.encode("utf-8", "surrogatepass")
    )
