"""Every input that is kept for fuzzing, through the core as it is built for use."""

import gc
import sys

import pytest

from tests.fuzz.seeds import found
from tests.fuzz.target import corpus, load, names

MOST_INPUTS = 200
MOST_BYTES = 200_000


def inputs(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(corpus(name).iterdir())}


@pytest.mark.parametrize("name", names())
def test_every_input_is_read_or_refused_as_it_should_be(name):
    one_input = load(name).one_input
    for file, data in inputs(name).items():
        try:
            one_input(data)
        except Exception as error:
            error.add_note(f"with tests/fuzz/corpus/{name}/{file}")
            raise


@pytest.mark.parametrize("name", names())
def test_no_input_leaves_an_object_behind(name):
    one_input, kept = load(name).one_input, inputs(name).values()

    def blocks_after(rounds: int) -> int:
        for _ in range(rounds):
            for data in kept:
                one_input(data)
        gc.collect()
        return sys.getallocatedblocks()

    rounds = 20
    before = blocks_after(2)
    assert blocks_after(rounds) - before < rounds


@pytest.mark.parametrize("name", names())
def test_the_seeds_are_kept_and_the_corpus_is_small(name):
    kept = inputs(name)
    seeds = dict(load(name).seeds())
    assert {file for file in kept if not found(corpus(name) / file)} == seeds.keys()
    assert {file: kept[file] for file in seeds} == seeds
    assert len(kept) <= MOST_INPUTS
    assert sum(map(len, kept.values())) <= MOST_BYTES
