"""The raw binary request: a body that is nothing but the bytes of the model's only input.

A client asks for it with ``Inference-Header-Content-Length: 0``. Type and shape follow from the
model's metadata and the size of the body.
"""

import json
from math import prod
from typing import Any

import numpy as np

from gateway.errors import InvalidTensor
from gateway.types import BYTES, DATATYPES, InferInput, InferRequest


def decode_raw_request(
    model: str, version: str, body: bytes, metadata: dict[str, Any], received_ns: int
) -> InferRequest:
    """The request that ``body`` is, by the model's ``metadata``; its input is a view of ``body``.

    One variable size is measured by the body: the number of rows where the rest is fixed, else
    another one, and then there is one row. BYTES are one element, without its length.

    Raises:
        InvalidTensor: the model has not exactly one input, or no shape follows from the size.
    """
    specs = metadata["inputs"]
    if len(specs) != 1:
        raise InvalidTensor(
            f"a body without a JSON header is one input, but model '{model}' has {len(specs)}"
        )
    (spec,) = specs
    name, datatype = spec["name"], DATATYPES[spec["datatype"]]
    axes = json.loads(metadata.get("properties", {}).get("batch_axes", "{}"))
    if datatype is BYTES:
        shape = _shape_of(spec, axes.get(name), 1)
        element = np.empty(1, np.object_)
        element[0] = body
        tensor = InferInput(name, datatype, shape, element.reshape(shape))
    else:
        count, rest = divmod(len(body), datatype.itemsize)
        if rest:
            raise InvalidTensor(
                f"input '{name}' of model '{model}' is {datatype.name}, {datatype.itemsize} bytes "
                f"an element: {len(body)} bytes are no whole number of them"
            )
        tensor = InferInput(name, datatype, _shape_of(spec, axes.get(name), count), body)
    return InferRequest(model, version, "", [tensor], None, {}, 0, received_ns)


def _shape_of(spec: dict[str, Any], batch_axis: int | None, count: int) -> tuple[int, ...]:
    """The shape of ``count`` elements that fits the input."""
    shape = list(spec["shape"])
    if shape.count(-1) > 1 and batch_axis is not None:
        shape[batch_axis] = 1
    if shape.count(-1) == 1:
        one = prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = count // one if one else 0
    if -1 in shape or prod(shape) != count:
        raise InvalidTensor(
            f"input '{spec['name']}' has the shape {spec['shape']}, which {count} elements without "
            "a JSON header do not determine; send them with one"
        )
    return tuple(shape)
