"""A request that does not fit the model is refused, on every front, with a message that helps.

The message names what was expected and what was given; a request that is right is answered by
the same connection right after.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.fronts import WAYS, Front, RefusedError, Request, Tensor, sample
from tests.repository import rows_of

X = sample("FP32", (2, 4), seed=1)
RIGHT = Request("rows", (Tensor.of("x", X),))
A = Tensor.of("A", sample("INT32", (1, 16), seed=2))
B = Tensor.of("B", sample("INT32", (1, 16), seed=3))

# JSON has elements where the other fronts have bytes, whose sizes can be wrong.
binary_fronts, json_fronts = (
    pytest.mark.parametrize(
        "front",
        [way for way in WAYS if way.front.binary is binary],
        ids=lambda way: way.name,
        indirect=True,
    )
    for binary in (True, False)
)


@pytest.fixture(autouse=True)
def _right_request_is_answered_afterwards(front: Front) -> Iterator[None]:
    yield
    np.testing.assert_array_equal(front.infer(RIGHT)["y"], rows_of(X))


def assert_refused(front: Front, request: Request, code: str, *words: str) -> None:
    """The request is refused with ``code``, in words among which are these."""
    with pytest.raises(RefusedError) as caught:
        front.infer(request)
    if caught.value.code is not None:
        assert caught.value.code == code
    missing = [word for word in words if word not in caught.value.message]
    assert not missing, f"{missing} not in {caught.value.message!r}"


def test_unknown_model(front: Front) -> None:
    assert_refused(front, replace(RIGHT, model="nobody"), "NOT_FOUND", "nobody")


def test_unknown_version(front: Front) -> None:
    assert_refused(front, replace(RIGHT, version="77"), "NOT_FOUND", "rows", "77")


def test_model_that_was_unloaded(front: Front) -> None:
    assert front.gateway.post("/v2/repository/models/unloadable/unload", {})[0] == 200
    try:
        request = replace(RIGHT, model="unloadable")
        assert_refused(front, request, "NOT_FOUND", "unloadable", "has no available versions")
        request = replace(request, version="1")
        assert_refused(front, request, "UNAVAILABLE", "unloadable", "is not ready", "UNLOADED")
    finally:
        assert front.gateway.post("/v2/repository/models/unloadable/load", {})[0] == 200
    np.testing.assert_array_equal(front.infer(replace(RIGHT, model="unloadable"))["y"], rows_of(X))


def test_model_of_which_nothing_could_be_loaded(front: Front) -> None:
    request = replace(RIGHT, model="broken")
    assert_refused(front, request, "NOT_FOUND", "broken", "has no available versions", "FAILED")
    request = replace(request, version="1")
    assert_refused(front, request, "UNAVAILABLE", "broken", "is not ready", "FAILED")


def test_version_that_could_not_be_loaded(front: Front) -> None:
    request = replace(RIGHT, model="versions", version="2")
    assert_refused(front, request, "UNAVAILABLE", "versions", "2", "is not ready", "FAILED")


def test_version_that_is_loaded_beside_one_that_could_not_be(front: Front) -> None:
    for version in ("1", ""):
        answer = front.infer(replace(RIGHT, model="versions", version=version))
        np.testing.assert_array_equal(answer["y"], rows_of(X))


def test_missing_input(front: Front) -> None:
    request = Request("sum_and_difference", (A,))
    assert_refused(front, request, "INVALID_ARGUMENT", "A", "B")


def test_no_inputs(front: Front) -> None:
    request = Request("sum_and_difference", ())
    assert_refused(front, request, "INVALID_ARGUMENT", "A", "B")


def test_unknown_input(front: Front) -> None:
    request = Request("sum_and_difference", (A, B, replace(B, name="stranger")))
    assert_refused(front, request, "INVALID_ARGUMENT", "stranger", "A", "B")


def test_repeated_input(front: Front) -> None:
    request = Request("sum_and_difference", (A, B, A))
    assert_refused(front, request, "INVALID_ARGUMENT", "A")


def test_repeated_input_in_the_place_of_another(front: Front) -> None:
    request = Request("sum_and_difference", (A, A))
    assert_refused(front, request, "INVALID_ARGUMENT", "A", "B")


def test_unknown_output(front: Front) -> None:
    request = replace(RIGHT, outputs=("y", "stranger"))
    assert_refused(front, request, "INVALID_ARGUMENT", "stranger", "y")


@pytest.mark.parametrize("shape", [(8,), (2, 2, 2), (1, 8), (4, 2), (0,), ()], ids=str)
def test_wrong_shape(front: Front, shape: tuple[int, ...]) -> None:
    x = Tensor.of("x", sample("FP32", shape))
    given = ", ".join(map(str, shape))
    assert_refused(front, Request("rows", (x,)), "INVALID_ARGUMENT", "x", "4", f"[{given}]")


def test_negative_dimension(front: Front) -> None:
    x = Tensor.of("x", X, shape=(-2, 4))
    assert_refused(front, Request("rows", (x,)), "INVALID_ARGUMENT", "x", "-2")


def test_negative_dimensions_whose_product_is_right(front: Front) -> None:
    x = Tensor.of("x", X, shape=(-2, -4))
    assert_refused(front, Request("echo", (x,)), "INVALID_ARGUMENT", "x", "-2")


def test_inputs_with_unlike_numbers_of_rows(front: Front) -> None:
    b = Tensor.of("B", sample("INT32", (2, 16)))
    assert_refused(front, Request("sum_and_difference", (A, b)), "INVALID_ARGUMENT", "1", "2")


def test_shape_of_more_elements_than_a_machine_word_counts(front: Front) -> None:
    x = Tensor.of("x", X, shape=(2**62, 4))
    assert_refused(front, Request("rows", (x,)), "INVALID_ARGUMENT", "x")


@pytest.mark.parametrize("datatype", ["FP64", "INT32", "BYTES"])
def test_wrong_datatype(front: Front, datatype: str) -> None:
    x = Tensor.of("x", sample(datatype, (2, 4)))
    assert_refused(front, Request("rows", (x,)), "INVALID_ARGUMENT", "x", "FP32", datatype)


def test_datatype_that_the_protocol_does_not_have(front: Front) -> None:
    x = Tensor.of("x", X, datatype="FLOAT32")
    assert_refused(front, Request("rows", (x,)), "INVALID_ARGUMENT", "FLOAT32")


@binary_fronts
@pytest.mark.parametrize("difference", [-4, -1, 1, 4])
def test_wrong_byte_size(front: Front, difference: int) -> None:
    raw = (X.tobytes() + b"\0" * 4)[: X.nbytes + difference]
    x = Tensor.of("x", X, raw=raw)
    sizes = (str(X.nbytes), str(X.nbytes + difference))
    assert_refused(front, Request("rows", (x,)), "INVALID_ARGUMENT", "x", *sizes)


@json_fronts
@pytest.mark.parametrize("count", [0, 7, 9])
def test_wrong_number_of_elements(front: Front, count: int) -> None:
    x = Tensor.of("x", X, elements=[1.5] * count)
    assert_refused(front, Request("rows", (x,)), "INVALID_ARGUMENT", "x", "8", str(count))


@binary_fronts
@pytest.mark.parametrize(
    "raw",
    [
        b"\x05\0\0\0abc",
        b"\x03\0\0\0abc\x01",
        b"\xff\xff\xff\xffabc",
        b"\x03\0\0\0abc\x00\0\0\0",
        b"",
    ],
    ids=["cut short", "cut in a length", "length of 4 GiB", "one too many", "none"],
)
def test_strings_whose_lengths_do_not_add_up(front: Front, raw: bytes) -> None:
    x = Tensor("x", "BYTES", (1, 1), raw, [])
    assert_refused(front, Request("strings", (x,)), "INVALID_ARGUMENT", "x")


def test_more_rows_than_a_model_takes_that_may_not_be_sliced(front: Front) -> None:
    x = Tensor.of("x", sample("FP32", (5, 4)))
    assert_refused(front, Request("strict", (x,)), "INVALID_ARGUMENT", "5", "4")


def test_as_many_rows_as_a_model_takes(front: Front) -> None:
    x = sample("FP32", (4, 4))
    answer = front.infer(Request("strict", (Tensor.of("x", x),)))
    np.testing.assert_array_equal(answer["y"], rows_of(x))


def test_failure_of_the_model_itself(front: Front) -> None:
    index = Tensor.of("index", np.array([[10]], np.int64))
    assert_refused(front, Request("lookup", (index,)), "INTERNAL", "Gather", "10")


def test_every_error_is_counted_but_not_as_a_success(front: Front) -> None:
    before = inference_counts(front)
    with pytest.raises(RefusedError):
        front.infer(Request("lookup", (Tensor.of("index", np.array([[-11]], np.int64)),)))
    after = inference_counts(front)
    assert (after["fail"] - before["fail"], after["success"] - before["success"]) == (1, 0)


def inference_counts(front: Front) -> dict[str, int]:
    status, document = front.gateway.get("/v2/models/lookup/stats")
    assert status == 200
    stats = document["model_stats"][0]["inference_stats"]
    return {kind: int(stats[kind]["count"]) for kind in ("success", "fail")}
