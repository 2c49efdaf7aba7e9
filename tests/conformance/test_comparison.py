"""The conformance run finds an answer that is not ONNX Runtime's own."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from tests.conformance.__main__ import differs_in_bits, record
from tests.conformance.cases import Case, node_cases, spread, traits
from tests.conformance.reference import Reference, run_in_process
from tests.conformance.report import Report
from tests.repository import rows

CASE = Case("rows", rows(), {}, [], rtol=1e-3, atol=1e-7, inexpressible="")
VALUES = np.array([1.5, np.nan, -0.0], np.float32)


def reference(array: np.ndarray, random: bool = False) -> Reference:
    return Reference({"y": array}, random=random)


@pytest.mark.parametrize(
    "given",
    [
        VALUES + np.float32(0.1),
        VALUES.astype(np.float64),
        VALUES[:2],
        VALUES[None],
        np.array([1.5, 0, -0.0], np.float32),
    ],
    ids=["values", "dtype", "size", "rank", "NaN"],
)
def test_wrong_answer(given: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        differs_in_bits(CASE, reference(VALUES), {"y": given})


def test_same_bits() -> None:
    for array in (VALUES, VALUES.astype(ml_dtypes.bfloat16), np.float16(np.nan)[None]):
        assert differs_in_bits(CASE, reference(array), {"y": array.copy()}) is False


def test_values_within_the_tolerances_are_told_apart_from_equal_ones() -> None:
    near = np.nextafter(VALUES, np.float32(9))
    assert differs_in_bits(CASE, reference(VALUES), {"y": near}) is True


def test_strings() -> None:
    words = reference(np.array([["é", ""]], object))
    assert not differs_in_bits(CASE, words, {"y": np.array([["é".encode(), b""]], object)})
    with pytest.raises(AssertionError):
        differs_in_bits(CASE, words, {"y": np.array([[b"e", b""]], object)})


def test_random_values_are_compared_by_dtype_and_shape() -> None:
    drawn = reference(VALUES, random=True)
    assert not differs_in_bits(CASE, drawn, {"y": VALUES + 1})
    with pytest.raises(AssertionError):
        differs_in_bits(CASE, drawn, {"y": VALUES[:1]})


def test_one_protocol_that_fails_fails_the_case() -> None:
    class Right:
        name = "right"

        def infer(self, case: Case) -> dict[str, np.ndarray]:
            return {"y": VALUES}

    class Wrong(Right):
        name = "wrong"

        def infer(self, case: Case) -> dict[str, np.ndarray]:
            return {"y": VALUES * 2}

    report = Report()
    record(CASE, reference(VALUES), [Right(), Wrong()], report)
    assert not report.passed
    (problem,) = report.failed["rows"]
    assert problem.startswith("wrong: ")


def test_case_that_the_runtime_does_not_pass_is_not_a_reference() -> None:
    case = node_cases()[0]
    assert case.name == "test_abs"
    assert not run_in_process(case).failure
    assert run_in_process(replace(case, expected=[case.expected[0] + 1])).failure


def test_the_subset_shows_every_trait_of_the_whole() -> None:
    cases = [case for case in node_cases() if not case.inexpressible]
    whole = set().union(*(traits(case) for case in cases))
    assert set().union(*(traits(case) for case in spread(cases, 120))) == whole
