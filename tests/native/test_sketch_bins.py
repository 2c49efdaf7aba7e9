"""Counting tables into fixed bins, against numpy."""

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.sketch_bins import BinCounts
from tests.native.sketches import NUMBERS, at_once, blocks, damaged

DTYPES = ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


@st.composite
def edges(draw):
    if draw(st.booleans()):
        low = draw(st.floats(-1e6, 1e6))
        width = draw(st.floats(1e-3, 1e6))
        return np.linspace(low, low + width, draw(st.integers(2, 40)))
    values = draw(st.lists(st.floats(-1e308, 1e308), min_size=2, max_size=40, unique=True))
    return np.array(sorted(values))


def oracle(column, its_edges):
    """Counts below, in and above the bins, as numpy has them."""
    values = column.astype(np.float64)
    values = values[~np.isnan(values)]
    inside, _ = np.histogram(values, its_edges)
    below, above = (values < its_edges[0]).sum(), (values > its_edges[-1]).sum()
    return [below, *inside, above]


def same(a: BinCounts, b: BinCounts) -> None:
    assert a.rows == b.rows
    for column in range(a.columns):
        assert a.counts(column).tolist() == b.counts(column).tolist()
    for name in ("missing", "infinite", "minimum", "maximum"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@settings(deadline=None)
@given(edges(), st.lists(NUMBERS, max_size=50), st.data())
def test_counts_are_those_of_numpy(its_edges, values, draw):
    # The edges themselves and their neighbours are where a look-up goes wrong.
    near = draw.draw(st.lists(st.sampled_from(its_edges.tolist()), max_size=20))
    near += [np.nextafter(x, draw.draw(st.sampled_from([-np.inf, np.inf]))) for x in near]
    column = np.array(values + near, np.float64)
    counted = BinCounts([its_edges])
    counted.add(column)
    assert counted.counts(0).tolist() == oracle(column, its_edges)
    assert counted.missing.tolist() == [np.isnan(column).sum()]
    assert counted.infinite.tolist() == [np.isinf(column).sum()]
    assert counted.rows == len(column)
    finite = column[np.isfinite(column)]
    if finite.size:
        assert counted.minimum[0] == finite.min()
        assert counted.maximum[0] == finite.max()
    else:
        assert math.isnan(counted.minimum[0])
        assert math.isnan(counted.mean[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F", "strided", "reversed"])
def test_every_type_and_layout_of_numbers_is_read(dtype, order):
    random = np.random.default_rng(5)
    table = (random.normal(3, 40, (1000, 3)) % 256).astype(dtype)
    if order == "F":
        table = np.asfortranarray(table)
    elif order == "strided":
        table = np.repeat(np.repeat(table, 2, axis=0), 3, axis=1)[::2, ::3]
    elif order == "reversed":
        table = table[::-1, ::-1]
    its_edges = [np.linspace(0, 200, 21), np.array([0.0, 1, 2, 50]), np.array([-10.5, 10.5])]
    counted = BinCounts(its_edges)
    counted.add(table)
    for column in range(3):
        assert counted.counts(column).tolist() == oracle(table[:, column], its_edges[column])
    numbers = table.astype(np.float64)
    np.testing.assert_allclose(counted.sum, numbers.sum(0))
    np.testing.assert_allclose(counted.sum_of_squares, (numbers**2).sum(0))
    np.testing.assert_allclose(counted.mean, numbers.mean(0))
    np.testing.assert_allclose(counted.variance, numbers.var(0))


def test_the_doane_bins_of_real_columns_count_as_numpys_histogram_does():
    random = np.random.default_rng(6)
    reference = np.column_stack(
        [
            random.normal(size=5000),
            random.lognormal(size=5000),
            random.integers(0, 90, 5000),
            random.uniform(1e9, 1e9 + 1, 5000),
        ]
    )
    its_edges = [np.histogram_bin_edges(column, bins="doane") for column in reference.T]
    counted = BinCounts(its_edges)
    counted.add(reference)
    for column in range(4):
        inside, _ = np.histogram(reference[:, column], its_edges[column])
        assert counted.counts(column).tolist() == [0, *inside, 0]


@settings(deadline=None)
@given(edges(), st.lists(NUMBERS, max_size=60), st.lists(st.integers(0, 9), max_size=8))
def test_blocks_and_merges_count_as_all_at_once(its_edges, values, sizes):
    column = np.array(values, np.float64)
    whole = BinCounts([its_edges])
    whole.add(column)
    by_blocks, merged = BinCounts([its_edges]), BinCounts([its_edges])
    for block in blocks(len(column), sizes):
        by_blocks.add(column[block])
        part = BinCounts([its_edges])
        part.add(column[block])
        merged.merge(BinCounts.from_bytes(part.to_bytes()))
    same(by_blocks, whole)
    same(merged, whole)


def test_sums_stay_exact_far_from_zero():
    random = np.random.default_rng(7)
    column = random.normal(1e9, 1, 100_000)
    counted = BinCounts([np.linspace(1e9 - 5, 1e9 + 5, 20)])
    counted.add(column)
    assert counted.mean[0] == pytest.approx(column.mean(), rel=1e-15)
    assert counted.variance[0] == pytest.approx(column.var(), rel=1e-9)


def test_what_is_cleared_counts_anew():
    counted = BinCounts([[0.0, 1.0], [0.0, 2.0]])
    counted.add(np.ones((5, 2)))
    before = counted.copy()
    counted.clear()
    same(counted, BinCounts([[0.0, 1.0], [0.0, 2.0]]))
    assert before.rows == 5
    counted.merge(before)
    counted.merge(counted)
    assert counted.counts(0).tolist() == [0, 10, 0]


@pytest.mark.parametrize(
    ("its_edges", "message"),
    [
        ([], "1 to 65536 columns, not of 0"),
        ([[1.0]], "column 0: expected 2 to 65537 edges"),
        ([[0.0, 1.0], [0.0, 0.0]], "column 1: expected finite, ascending edges"),
        ([[0.0, np.nan]], "expected finite, ascending"),
        ([[0.0, np.inf]], "expected finite, ascending"),
        ([[1.0, 0.0]], "expected finite, ascending"),
    ],
)
def test_edges_that_are_none_are_refused(its_edges, message):
    with pytest.raises(ValueError, match=message):
        BinCounts(its_edges)


def test_tables_that_do_not_fit_are_refused():
    counted = BinCounts([[0.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="of 2 columns, not of 3"):
        counted.add(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="not of 3 dimensions"):
        counted.add(np.zeros((4, 3, 1)))
    for table in (np.zeros((4, 2), "f2"), np.zeros((4, 2), ">f8"), np.zeros((4, 2), complex)):
        with pytest.raises(TypeError, match="expected a table of integers, booleans, float32"):
            counted.add(table)
    with pytest.raises(ValueError, match="same edges"):
        counted.merge(BinCounts([[0.0, 1.0]]))
    assert counted.rows == 0


def test_threads_count_at_once_and_merge():
    random = np.random.default_rng(8)
    tables = [random.normal(size=(20_000, 10)) for _ in range(4)]
    its_edges = [np.linspace(-3, 3, 25)] * 10
    parts = [BinCounts(its_edges) for _ in tables]

    def count(part: BinCounts, table: np.ndarray) -> None:
        for at in range(0, len(table), 100):
            part.add(table[at : at + 100])

    at_once([lambda p=p, t=t: count(p, t) for p, t in zip(parts, tables, strict=True)])
    merged, whole = BinCounts(its_edges), BinCounts(its_edges)
    for part in parts:
        merged.merge(part)
    whole.add(np.concatenate(tables))
    same(merged, whole)


def test_a_thread_that_counts_leaves_the_interpreter_to_others():
    # While one thread counts, without the GIL, this one meets an object in use: that cannot be
    # seen while the GIL is held.
    table = np.zeros((4_000_000, 1))
    counted = BinCounts([[0.0, 1.0]])
    started = threading.Event()

    def count() -> None:
        started.set()
        while not seen.is_set():
            counted.add(table)

    def read_for_ever() -> None:
        while True:
            assert counted.counts(0)[1] % len(table) == 0

    seen = threading.Event()
    thread = threading.Thread(target=count)
    thread.start()
    started.wait()
    try:
        with pytest.raises(RuntimeError, match="in use by another thread"):
            read_for_ever()
    finally:
        seen.set()
        thread.join()
    assert counted.counts(0)[1] == counted.rows


def test_what_was_written_is_read_again():
    counted = BinCounts([[0.0, 0.5, 1.0], [-1.0, 1.0]])
    counted.add(np.array([[0.2, np.nan], [7, -np.inf], [0.5, 0.0]]))
    again = BinCounts.from_bytes(counted.to_bytes())
    same(again, counted)
    assert again.to_bytes() == counted.to_bytes()
    np.testing.assert_array_equal(again.edges(0), [0, 0.5, 1])


@settings(deadline=None)
@given(st.data())
def test_bytes_that_were_changed_or_cut_are_refused_or_harmless(draw):
    counted = BinCounts([[0.0, 0.5, 1.0], [-1.0, 1.0]])
    counted.add(np.array([[0.2, np.nan], [7, -np.inf], [0.5, 0.0]]))
    data = counted.to_bytes()
    with pytest.raises(ValueError, match="not a readable sketch of kind 'bins'"):
        BinCounts.from_bytes(data[: draw.draw(st.integers(0, len(data) - 1))])
    at, value = draw.draw(st.integers(0, len(data) - 1)), draw.draw(st.integers(1, 255))
    changed = bytearray(data)
    changed[at] ^= value
    if not 10 <= at < 12:  # two bytes of the head are spare
        with pytest.raises(ValueError, match="not a readable sketch"):
            BinCounts.from_bytes(bytes(changed))
    try:
        read = BinCounts.from_bytes(damaged(data, at, value))
    except ValueError:
        return
    read.add(np.zeros((3, 2)))
    assert read.counts(0).sum() + read.missing[0] == read.rows
