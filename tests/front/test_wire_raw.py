"""The raw binary request: which shape follows from the size of the body, and when none does."""

import json
from typing import Any

import numpy as np
import pytest

from gateway.errors import InvalidTensor
from gateway.front.wire_raw import decode_raw_request


def metadata(datatype: str, shape: list[int], batch_axis: int | None = 0) -> dict[str, Any]:
    axes = {} if batch_axis is None else {"x": batch_axis}
    return {
        "inputs": [{"name": "x", "datatype": datatype, "shape": shape}],
        "properties": {"batch_axes": json.dumps(axes)},
    }


@pytest.mark.parametrize(
    ("shape", "batch_axis", "count", "expected"),
    [
        ([-1, 4], 0, 4, (1, 4)),
        ([-1, 4], 0, 12, (3, 4)),
        ([-1, -1], 0, 7, (1, 7)),
        ([2, -1, -1], 1, 6, (2, 1, 3)),
        ([-1], None, 5, (5,)),
        ([2, 2], None, 4, (2, 2)),
        ([], None, 1, ()),
        ([-1, 4], 0, 0, (0, 4)),
        ([-1, 0], 0, 0, (0, 0)),
    ],
)
def test_the_variable_size_follows_from_the_body(
    shape: list[int], batch_axis: int | None, count: int, expected: tuple[int, ...]
) -> None:
    values = np.arange(count, dtype=np.int32)
    request = decode_raw_request(
        "m", "3", values.tobytes(), metadata("INT32", shape, batch_axis), 7
    )
    (tensor,) = request.inputs
    assert (request.version, request.received_ns) == ("3", 7)
    np.testing.assert_array_equal(tensor.array(), values.reshape(expected))


@pytest.mark.parametrize("shape", [[-1, 1], [1], [], [-1], [-1, -1]])
def test_bytes_are_one_element(shape: list[int]) -> None:
    request = decode_raw_request("m", "", b"any bytes", metadata("BYTES", shape), 7)
    (tensor,) = request.inputs
    array = tensor.array()
    assert array.shape == (1,) * len(shape)
    assert array.reshape(-1).tolist() == [b"any bytes"]


@pytest.mark.parametrize(
    ("described", "size", "message"),
    [
        (metadata("FP32", [-1, 4]), 10, "10 bytes are no whole number"),
        (metadata("FP32", [-1, 4]), 20, "5 elements"),
        (metadata("FP32", [2, 2], None), 8, "2 elements"),
        (metadata("FP32", [-1, -1], None), 8, "do not determine"),
        (metadata("FP32", [-1, -1, -1]), 8, "do not determine"),
        (metadata("BYTES", [-1, 2]), 8, "do not determine"),
        ({"inputs": []}, 8, "has 0"),
        ({"inputs": metadata("FP32", [1])["inputs"] * 2}, 8, "has 2"),
    ],
)
def test_what_has_no_shape_is_refused(described: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(InvalidTensor, match=message):
        decode_raw_request("m", "", bytes(size), described, 7)
