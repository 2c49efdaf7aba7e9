"""V1 predictions: bytes in base64."""

from typing import Any

import pytest

from gateway.errors import InvalidTensor
from gateway.front.wire_v1 import decode_instances


def elements(instances: list[Any], *names: str) -> list[Any]:
    specs = [{"name": name, "datatype": "BYTES", "shape": [-1, -1]} for name in names]
    request = decode_instances("m", {"instances": instances}, {"inputs": specs})
    return [tensor.array().tolist() for tensor in request.inputs]


def test_bytes_come_as_text_or_in_base64() -> None:
    assert elements([["text", {"b64": "/wA="}]], "x") == [[["text", b"\xff\x00"]]]
    assert elements([{"b64": "aGk="}, "text"], "x") == [[b"hi", "text"]]
    assert elements([{"b64": "aGk="}, {"b64": ""}], "x") == [[b"hi", b""]]


def test_bytes_in_base64_by_name() -> None:
    rows = [{"x": {"b64": "aGk="}, "y": ["a"]}]
    assert elements(rows, "x", "y") == [[b"hi"], [["a"]]]
    assert elements([{"x": [{"b64": "aGk="}]}], "x") == [[[b"hi"]]]


def test_an_input_may_have_the_name_b64() -> None:
    assert elements([{"b64": "aGk="}], "b64") == [["aGk="]]
    assert elements([{"b64": {"b64": "aGk="}}], "b64") == [[b"hi"]]


@pytest.mark.parametrize("value", ["a", "ä===", 7, None, ["aGk="]])
def test_what_is_no_base64(value: Any) -> None:
    with pytest.raises(InvalidTensor, match="'x': an element's b64 is not base64"):
        elements([[{"b64": value}]], "x")


def test_other_objects_are_no_bytes() -> None:
    with pytest.raises(InvalidTensor, match="BYTES takes strings"):
        elements([[{"b64": "aGk=", "more": 1}]], "x")
