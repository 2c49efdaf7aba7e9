"""Counting categories, against a counter of Python's."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.sketch_categories import CategoryCounts
from tests.native.sketches import at_once, blocks, damaged

TEXTS = st.one_of(st.sampled_from(["a", "b", "ab", "é", ""]), st.text("abcé\0", max_size=4))
VALUES = st.one_of(
    TEXTS, TEXTS.map(lambda text: text.encode()), st.just(None), st.just(float("nan"))
)
NUMBERS = st.one_of(st.integers(-3, 6).map(float), st.sampled_from([-0.0, np.nan, np.inf, 0.5]))


def text_of(value):
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, str) else ""


def check(counted: CategoryCounts, values: list, most_new: int) -> None:
    """``values`` have ``""`` or ``None`` where they are missing."""
    there = Counter(value for value in values if value not in ("", None))
    assert counted.missing == len(values) - there.total()
    assert counted.counts.tolist() == [there.pop(known, 0) for known in counted.known]
    assert counted.new == there.total()
    assert counted.total == len(values) - counted.missing
    new = dict(counted.new_categories())
    assert len(new) == min(most_new, len(there))
    assert sum(new.values()) + counted.unlisted == counted.new
    if not counted.unlisted:
        assert new == dict(there)


@settings(deadline=None)
@given(
    st.lists(VALUES, max_size=60),
    st.sets(TEXTS.filter(bool), max_size=4),
    st.integers(0, 6),
    st.lists(st.integers(0, 20), max_size=5),
)
def test_texts_are_counted_and_merged(values, known, most_new, sizes):
    def empty():
        return CategoryCounts(sorted(known), text=True, most_new=most_new)

    whole, by_blocks, merged = empty(), empty(), empty()
    whole.add_texts(values)
    for block in blocks(len(values), sizes):
        by_blocks.add_texts(values[block])
        part = empty()
        part.add_texts(values[block])
        merged.merge(CategoryCounts.from_bytes(part.to_bytes()))
    texts = [text_of(value) for value in values]
    check(whole, texts, most_new)
    assert by_blocks.to_bytes() == whole.to_bytes()
    assert merged.counts.tolist() == whole.counts.tolist()
    assert (merged.new, merged.missing) == (whole.new, whole.missing)
    if not any(each.unlisted for each in (whole, merged)):
        assert sorted(merged.new_categories()) == sorted(whole.new_categories())


@settings(deadline=None)
@given(st.lists(NUMBERS, max_size=60), st.sets(st.integers(-3, 3), max_size=4), st.integers(0, 6))
def test_numbers_are_counted(values, known, most_new):
    counted = CategoryCounts(sorted(known), text=False, most_new=most_new)
    counted.add(np.array(values, np.float64))
    check(counted, [None if v != v else v + 0.0 for v in values], most_new)


@pytest.mark.parametrize("dtype", ["?", "i1", "i8", "u2", "f4", "f8"])
def test_every_type_of_number_is_read(dtype):
    column = (np.arange(30) % 4).astype(dtype)
    counted = CategoryCounts([0, 1, 9], text=False)
    counted.add(column[::2, None])
    check(counted, column[::2].astype(float).tolist(), 64)


def test_arrays_of_objects_are_counted_like_lists():
    counted = CategoryCounts(["x", b"y"], text=True)
    counted.add_texts(np.array([["x", b"x"], ["y", "z"]], object))
    assert counted.known == ("x", "y")
    assert counted.counts.tolist() == [2, 1]
    assert counted.new_categories() == [("z", 1)]


def test_long_new_texts_are_told_apart_but_shown_cut():
    long = ["é" * 500 + end for end in "ab"]
    counted = CategoryCounts([long[0]], text=True)
    counted.add_texts([*long, long[1], long[1] + "c"])
    assert counted.counts.tolist() == [1]
    assert [count for _, count in counted.new_categories()] == [2, 1]
    assert {len(name) for name, _ in counted.new_categories()} == {64}
    again = CategoryCounts.from_bytes(counted.to_bytes())
    again.add_texts(long)
    assert again.counts.tolist() == [2]
    assert [count for _, count in again.new_categories()] == [3, 1]


def test_a_flood_of_new_categories_takes_no_memory():
    counted = CategoryCounts(["known"], text=True, most_new=8)
    before = len(counted.to_bytes())
    counted.add_texts([f"n{i}" for i in range(100_000)])
    assert (counted.new, counted.unlisted) == (100_000, 99_992)
    assert len(counted.to_bytes()) < before + 8 * 64


def test_what_is_cleared_counts_anew():
    counted = CategoryCounts(["a", "b"], text=True, most_new=2)
    counted.add_texts(["a", "x", "y", "z", None])
    counted.clear()
    assert counted.to_bytes() == CategoryCounts(["a", "b"], text=True, most_new=2).to_bytes()
    counted.add_texts(["z", "b"])
    assert counted.new_categories() == [("z", 1)]
    counted.merge(counted)
    assert counted.counts.tolist() == [0, 2]
    assert counted.new_categories() == [("z", 2)]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="'a' is there twice"):
        CategoryCounts(["a", "b", b"a"], text=True)
    with pytest.raises(TypeError, match="to be a text, not 3"):
        CategoryCounts([3], text=True)
    with pytest.raises(ValueError, match="NaN is what is missing"):
        CategoryCounts([np.nan], text=False)
    texts, numbers = CategoryCounts([], text=True), CategoryCounts([], text=False)
    with pytest.raises(TypeError, match="use add_texts"):
        texts.add(np.zeros(3))
    with pytest.raises(TypeError, match="use add"):
        numbers.add_texts(["a"])
    with pytest.raises(TypeError, match="expected str, bytes or None, not int"):
        texts.add_texts(["a", 3])
    with pytest.raises(ValueError, match="same known categories"):
        texts.merge(numbers)


def test_threads_count_at_once():
    words = [f"w{i % 37}" for i in range(20_000)]
    parts = [CategoryCounts(["w1", "w2"], text=True) for _ in range(4)]
    at_once([lambda part=part: part.add_texts(words) for part in parts])
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    check(merged, words * 4, 64)


@settings(deadline=None)
@given(st.data(), st.booleans())
def test_bytes_that_were_changed_or_cut_are_refused_or_harmless(draw, text):
    if text:
        counted = CategoryCounts(["a", "bc"], text=True, most_new=3)
        counted.add_texts(["a", "x", "x" * 200, None])
    else:
        counted = CategoryCounts([1, 2.5], text=False, most_new=3)
        counted.add(np.array([1, 7, 7, np.nan]))
    data = counted.to_bytes()
    with pytest.raises(ValueError, match="not a readable sketch of kind 'cats'"):
        CategoryCounts.from_bytes(data[: draw.draw(st.integers(0, len(data) - 1))])
    at, value = draw.draw(st.integers(0, len(data) - 1)), draw.draw(st.integers(1, 255))
    try:
        read = CategoryCounts.from_bytes(damaged(data, at, value))
    except ValueError:
        return
    before = read.total
    if read.text:
        read.add_texts(["q", "a"])
    else:
        read.add(np.array([1.0, 3.0]))
    assert read.total == before + 2
