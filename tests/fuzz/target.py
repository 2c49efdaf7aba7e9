"""The targets: the files ``fuzz_<name>.py`` beside this one, and their corpora."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Target:
    """One target; ``tests/fuzz/__init__.py`` tells what its functions owe."""

    name: str
    one_input: Callable[[bytes], None]
    seeds: Callable[[], Iterator[tuple[str, bytes]]]


def names() -> list[str]:
    return sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))


def load(name: str) -> Target:
    module = importlib.import_module(f"tests.fuzz.fuzz_{name}")
    return Target(name, module.one_input, module.seeds)


def corpus(name: str) -> Path:
    """The directory of the inputs that are kept."""
    return HERE / "corpus" / name
