"""The command ``onnx-gateway``.

Exit codes: 0 for success; 1 where a model cannot be served, the start failed, or a server refuses;
2 where the arguments or settings are wrong; 3 where no server answers; 128 + n where a second
signal n cut the shutdown short.
"""

import argparse
import json
import logging
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final, TextIO

from gateway import __version__
from gateway.commands.parsers import add_traffic_commands
from gateway.config import add_flags, load_config, service_links
from gateway.errors import ConfigError, InferenceFailed, InvalidTensor, StartupError
from gateway.logs import Logging

log = logging.getLogger(__name__)

PROGRAM: Final = "onnx-gateway"

_CHECK_SETTINGS: Final = ("models",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code and prints what went wrong on stderr."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 2
    try:
        code: int = options.command(options)
    except ConfigError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except StartupError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Serves ONNX models over the Open Inference Protocol, HTTP and gRPC.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve the models of a directory",
        description="Serve the models of one or more directories until a signal comes. Every "
        "setting is found, in this order, as its flag, in the environment under the name in "
        "brackets, in the TOML file, in its default.",
    )
    add_flags(serve)
    serve.set_defaults(command=_serve)
    check = commands.add_parser(
        "check",
        help="say what would be served, and why not, without serving",
        description="Load, probe and measure every model of one or more directories as serve "
        "would, and tell what came out. Exit code 1 where a model cannot be served.",
    )
    add_flags(check, _CHECK_SETTINGS)
    check.add_argument("--json", action="store_true", help="one JSON document on stdout")
    check.set_defaults(command=_check)
    add_traffic_commands(commands.add_parser)
    _add_profile(commands.add_parser)
    version = commands.add_parser("version", help="versions of the server and its parts")
    version.set_defaults(command=_version)
    return parser


def _add_profile(add: Callable[..., argparse.ArgumentParser]) -> None:
    profile = add("profile", help="what the training data look like, for the drift monitors")
    actions = profile.add_subparsers(title="actions", metavar="ACTION", required=True)
    build = actions.add_parser(
        "build",
        help="make the reference profile of a model version from a file of data",
        description="Make the reference profile of a model version from a CSV, Parquet or .npz "
        "file: of its inputs and, from the data or by running the model, its outputs.",
    )
    build.add_argument(
        "--model",
        required=True,
        type=Path,
        metavar="MODELS/NAME/VERSION",
        help="the version's directory, or the model's where it has no versions",
    )
    build.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="FILE",
        help=".csv (the first line names the columns; an empty field is missing), .parquet or .npz "
        "(an array for each tensor)",
    )
    build.add_argument(
        "--columns", type=_names, default=(), metavar="A,B,...", help="the input's, in its order"
    )
    build.add_argument(
        "--outputs-from-model",
        action="store_true",
        help="run the model over the data; without, outputs are those that the data has",
    )
    build.add_argument("--rows", type=int, metavar="N", help="only the first N rows")
    for kind in ("categorical", "numeric"):
        build.add_argument(
            f"--{kind}",
            type=_names,
            default=(),
            metavar="A,B,...",
            help=f"features that are {kind} whatever they look like",
        )
    build.add_argument(
        "--sample-rows",
        type=int,
        default=1000,
        metavar="N",
        help="rows that the profile holds for tests on raw rows (default: 1000)",
    )
    build.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="(default: profile.json beside the version's model)",
    )
    build.set_defaults(command=_profile_build)
    show = actions.add_parser("show", help="show a profile as a table")
    show.add_argument("file", type=Path, metavar="FILE")
    show.set_defaults(command=_profile_show)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


def _profile_build(options: argparse.Namespace) -> int:
    Logging("error", "human")
    if options.sample_rows < 1 or (options.rows is not None and options.rows < 1):
        raise ConfigError("--rows and --sample-rows must be at least 1")
    folder = options.model.resolve()
    repositories = _load_part("gateway.control.repository")
    name, version, path, settings = repositories.find_version(folder)
    load = _load_part("gateway.serving.loader").load_model
    make = _load_part("gateway.monitor.profile_build").build_profile
    choose = _load_part("gateway.monitor.profile_builder").ProfileOptions
    files = _load_part("gateway.monitor.profile_file")
    try:
        profile = make(
            load(name, version, path, settings),
            options.data,
            choose(
                sample_rows=options.sample_rows,
                categorical=options.categorical,
                numeric=options.numeric,
            ),
            columns=options.columns,
            run=options.outputs_from_model,
            most_rows=options.rows,
        )
    except (InferenceFailed, InvalidTensor) as error:
        raise StartupError(f"the model failed on the data: {error}") from error
    target = options.output or path.parent / _load_part("gateway.monitor.profile").PROFILE_NAME
    files.write_profile(target, profile)
    print(f"{target}: {profile.rows} rows, {len(profile.features)} features")
    return 0


def _profile_show(options: argparse.Namespace) -> int:
    profile = _load_part("gateway.monitor.profile_file").read_profile(options.file)
    print(_load_part("gateway.monitor.profile_show").shown(profile))
    return 0


def _serve(options: argparse.Namespace) -> int:
    config = load_config(vars(options))
    logs = Logging(config.log_level, config.log_format)
    for variable, text in service_links().items():
        log.info("%s=%s is passed over: it is Kubernetes' word for a service", variable, text)
    code: int = _load_part("gateway.app").serve(config, logs)
    return code


def _check(options: argparse.Namespace) -> int:
    config = load_config(vars(options))
    if not config.models:
        raise ConfigError(f"no model repository is named: '{PROGRAM} check MODELS'")
    Logging("error", "human")
    show, clear = _live_line(sys.stderr)
    reports = []
    for report in _load_part("gateway.control.report").check(config.models, show):
        clear()
        reports.append(report)
        if not options.json:
            print(report.text(), flush=True)
    clear()
    refused = sum(bool(report.problems) for report in reports)
    if options.json:
        print(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        print(f"{len(reports) - refused} of {len(reports)} models can be served whole")
    return 1 if refused or not reports else 0


def _version(_: argparse.Namespace) -> int:
    print(f"{PROGRAM} {__version__}")
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    try:
        runtime = _load_part("gateway.serving.onnx.session").runtime()
    except StartupError as error:
        print(error)
        return 1
    print(f"ONNX Runtime {runtime.__version__}: {', '.join(runtime.get_available_providers())}")
    return 0


def _live_line(stream: TextIO) -> tuple[Callable[[str], None], Callable[[], None]]:
    """Two functions: show a line of progress, and clear it. They do nothing off a terminal."""
    if not stream.isatty():
        return lambda _: None, lambda: None
    width = shutil.get_terminal_size().columns - 1

    def show(text: str) -> None:
        print(f"\r\x1b[K{text[:width]}", end="", file=stream, flush=True)

    return show, lambda: show("")


def _load_part(name: str) -> ModuleType:
    """Import a part that needs the compiled core.

    Raises:
        StartupError: the core was not compiled, or not for this Python.
    """
    try:
        return import_module(name)
    except ImportError as error:
        if not (error.name or "").startswith("gateway._native"):
            raise
        raise StartupError(
            f"the compiled core is not there ({error}). An installed onnx-gateway brings it: "
            f"'pip install onnx-gateway[cpu]'. In a source tree compile it with "
            f"'{sys.executable} setup.py build_ext --inplace' (needs a C compiler and Cython)."
        ) from None
