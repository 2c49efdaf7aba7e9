"""Writes every target's seeds to its corpus: ``python -m tests.fuzz.seeds``.

Run it after a change in the ``seeds`` of a target. What fuzzing found stays; a seed that is no
longer one goes.
"""

from pathlib import Path

from tests.fuzz.target import corpus, load, names


def found(path: Path) -> bool:
    """Whether this file of a corpus was found by fuzzing: libFuzzer's names are SHA-1 sums."""
    return len(path.name) == 40 and not path.name.strip("0123456789abcdef")


def main() -> None:
    for name in names():
        directory = corpus(name)
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            if not found(path):
                path.unlink()
        for seed, data in load(name).seeds():
            directory.joinpath(seed).write_bytes(data)


if __name__ == "__main__":
    main()
