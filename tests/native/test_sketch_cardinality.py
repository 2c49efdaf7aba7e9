"""Estimating how many different values there were."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.sketch_cardinality import Cardinality
from tests.native.sketches import NUMBERS, at_once, blocks, damaged


@pytest.mark.parametrize("distinct", [0, 1, 10, 1000, 3000, 10_000, 20_000, 300_000])
def test_the_estimate_is_within_the_stated_error(distinct):
    # The small and the middle ranges are where other estimators are biased.
    errors = []
    for seed in range(20):
        values = np.random.default_rng(seed).random(distinct)
        seen = Cardinality(12)
        seen.add(values)
        seen.add(values[::3])
        errors.append((seen.estimate - distinct) / max(distinct, 1))
    stated = Cardinality(12).standard_error
    assert stated == pytest.approx(0.01625)
    assert np.sqrt(np.mean(np.square(errors))) < 1.5 * stated
    assert abs(np.mean(errors)) < 4 * stated / np.sqrt(20)


@pytest.mark.parametrize("precision", [4, 8, 16])
def test_other_precisions_have_other_errors(precision):
    errors = []
    for seed in range(30):
        seen = Cardinality(precision)
        seen.add(np.random.default_rng(seed).random(50_000))
        errors.append(seen.estimate / 50_000 - 1)
    assert np.sqrt(np.mean(np.square(errors))) < 1.5 * Cardinality(precision).standard_error


def test_counting_numbers_in_a_row_and_texts():
    numbers, texts = Cardinality(14), Cardinality(14)
    numbers.add(np.arange(100_000))
    texts.add_texts([f"user-{i}" for i in range(100_000)])
    assert numbers.estimate == pytest.approx(100_000, rel=0.03)
    assert texts.estimate == pytest.approx(100_000, rel=0.03)


def test_a_value_is_the_same_whatever_its_type():
    seen = Cardinality()
    for dtype in ("i1", "u4", "i8", "f4", "f8"):
        seen.add(np.arange(100).astype(dtype))
    seen.add(np.array([-0.0, 0.0]))
    assert seen.estimate == pytest.approx(100, rel=0.03)
    texts = Cardinality()
    texts.add_texts(["a", b"a", None, "", "b"])
    assert round(texts.estimate) == 2
    assert texts.missing == 2


@settings(deadline=None)
@given(st.lists(NUMBERS, max_size=80), st.lists(st.integers(0, 20), max_size=6))
def test_blocks_and_merges_see_as_all_at_once(values, sizes):
    column = np.array(values, np.float64)
    whole, by_blocks, merged = (Cardinality(6) for _ in range(3))
    whole.add(column)
    for block in blocks(len(column), sizes):
        by_blocks.add(column[block])
        part = Cardinality(6)
        part.add(column[block])
        merged.merge(Cardinality.from_bytes(part.to_bytes()))
    assert whole.to_bytes() == by_blocks.to_bytes() == merged.to_bytes()
    assert whole.missing == np.isnan(column).sum()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="precision must be from 4 to 18, not 3"):
        Cardinality(3)
    with pytest.raises(ValueError, match="of one precision"):
        Cardinality(4).merge(Cardinality(5))
    with pytest.raises(TypeError, match="expected str, bytes or None, not float"):
        Cardinality().add_texts([1.5])


def test_threads_count_at_once():
    parts = [Cardinality() for _ in range(4)]
    values = np.arange(200_000.0)
    at_once([lambda p=p, at=at: p.add(values[at::4]) for at, p in enumerate(parts)])
    for part in parts[1:]:
        parts[0].merge(part)
    whole = Cardinality()
    whole.add(values)
    assert parts[0].to_bytes() == whole.to_bytes()


@settings(deadline=None)
@given(st.data())
def test_bytes_that_were_changed_or_cut_are_refused_or_harmless(draw):
    seen = Cardinality(4)
    seen.add(np.arange(100.0))
    data = seen.to_bytes()
    with pytest.raises(ValueError, match="not a readable sketch of kind 'card'"):
        Cardinality.from_bytes(data[: draw.draw(st.integers(0, len(data) - 1))])
    at, value = draw.draw(st.integers(0, len(data) - 1)), draw.draw(st.integers(1, 255))
    try:
        read = Cardinality.from_bytes(damaged(data, at, value))
    except ValueError:
        return
    read.add(np.arange(10.0))
    assert read.estimate > 0
