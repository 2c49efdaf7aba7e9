"""The sample of a stream's rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native.sketch_reservoir import Reservoir
from tests.native.sketches import at_once, blocks, damaged


def chi_square(counts: np.ndarray) -> float:
    expected = counts.mean()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("merged", [False, True], ids=["one", "merged"])
def test_every_row_is_as_likely_as_any_other(merged):
    rows, capacity, rounds = 200, 20, 3000
    taken = np.zeros(rows)
    for seed in range(rounds):
        sample = Reservoir(capacity, 1, seed=2 * seed)
        numbers = np.arange(float(rows))
        if merged:  # two streams of unlike length
            other = Reservoir(capacity, 1, seed=2 * seed + 1)
            sample.add(numbers[:150])
            other.add(numbers[150:])
            sample.merge(other)
        else:
            sample.add(numbers)
        taken[sample.rows()[:, 0].astype(int)] += 1
    assert taken.sum() == capacity * rounds
    # 199 degrees of freedom, drawn without replacement: 260 is passed once in 400 times.
    assert chi_square(taken) < 260


@settings(deadline=None)
@given(
    st.integers(0, 60),
    st.integers(1, 20),
    st.lists(st.integers(0, 25), max_size=5),
    st.integers(0, 2**64 - 1),
    st.sampled_from(["float32", "float64"]),
)
def test_blocks_do_not_matter_and_rows_stay_whole(rows, capacity, sizes, seed, dtype):
    table = np.arange(rows * 3).reshape(rows, 3).astype(dtype)
    whole, by_blocks = Reservoir(capacity, 3, dtype, seed), Reservoir(capacity, 3, dtype, seed)
    whole.add(table)
    for block in blocks(rows, sizes):
        by_blocks.add(table[block])
    assert whole.to_bytes() == by_blocks.to_bytes()
    kept = whole.rows()
    assert (kept.shape, kept.dtype) == ((min(rows, capacity), 3), np.dtype(dtype))
    assert len(whole) == len(kept)
    assert whole.seen == rows
    found = {tuple(row) for row in kept.tolist()}
    assert len(found) == len(kept)
    assert found <= {tuple(row) for row in table.tolist()}


def test_samples_merge_whatever_the_order():
    parts = [Reservoir(10, 2, seed=seed) for seed in range(5)]
    for place, part in enumerate(parts):
        part.add(np.full((100 * (place + 1), 2), place) + np.arange(2))
    data = [part.to_bytes() for part in parts]
    results = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
        sample = Reservoir.from_bytes(data[order[0]])
        for at in order[1:]:
            sample.merge(Reservoir.from_bytes(data[at]))
        results.append(sample.rows().tolist())
        assert sample.seen == 1500
    assert results[0] == results[1]


@pytest.mark.parametrize("columns", [1, 255, 256, 257, 1000])
def test_wide_and_strided_rows_are_kept_whole(columns):
    table = np.random.default_rng(1).normal(size=(50, 2 * columns)).astype("f4")[::-1, ::2]
    sample = Reservoir(50, columns, "float32")
    sample.add(table)
    assert sorted(map(tuple, sample.rows().tolist())) == sorted(map(tuple, table.tolist()))


def test_what_is_cleared_samples_anew_with_other_bits():
    sample = Reservoir(5, 1)
    sample.add(np.arange(100.0))
    first = sample.rows().tolist()
    sample.clear()
    assert (len(sample), sample.seen) == (0, 0)
    sample.add(np.arange(100.0))
    assert sample.rows().tolist() != first


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="1 or more rows and columns"):
        Reservoir(0, 1)
    with pytest.raises(ValueError, match="take at most"):
        Reservoir(2**40, 2)
    with pytest.raises(ValueError, match="float32 or float64, not as int32"):
        Reservoir(1, 1, "int32")
    with pytest.raises(ValueError, match="of 2 columns, not of 3"):
        Reservoir(1, 2).add(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="same seed"):
        Reservoir(1, 2).merge(Reservoir(1, 2))
    with pytest.raises(ValueError, match="one capacity"):
        Reservoir(1, 2).merge(Reservoir(2, 2, seed=1))


def test_threads_sample_at_once():
    tables = [np.random.default_rng(seed).normal(size=(50_000, 4)) for seed in range(4)]
    samples = [Reservoir(100, 4, seed=seed) for seed in range(4)]
    at_once([lambda s=s, t=t: s.add(t) for s, t in zip(samples, tables, strict=True)])
    for seed, (sample, table) in enumerate(zip(samples, tables, strict=True)):
        alone = Reservoir(100, 4, seed=seed)
        alone.add(table)
        assert alone.to_bytes() == sample.to_bytes()


@settings(deadline=None)
@given(st.data())
def test_bytes_that_were_changed_or_cut_are_refused_or_harmless(draw):
    sample = Reservoir(4, 2, seed=3)
    sample.add(np.arange(40.0).reshape(20, 2))
    data = sample.to_bytes()
    with pytest.raises(ValueError, match="not a readable sketch of kind 'rows'"):
        Reservoir.from_bytes(data[: draw.draw(st.integers(0, len(data) - 1))])
    at, value = draw.draw(st.integers(0, len(data) - 1)), draw.draw(st.integers(1, 255))
    try:
        read = Reservoir.from_bytes(damaged(data, at, value))
    except ValueError:
        return
    before = read.seen
    read.add(np.zeros((30, 2)))
    assert read.seen == before + 30
    assert len(read) == min(read.capacity, read.seen)
