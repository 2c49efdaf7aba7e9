"""Fuzz the core's codecs: ``python -m tests.fuzz [TARGET ...]``, or ``make fuzz``.

Exits with status 1 if there is a finding. Its input is in ``build/fuzz/findings``, what was said
about it in ``build/fuzz/<target>.log``.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

from tests.fuzz.build import BUILD, DRIVER, ROOT, FuzzError, build, find_clang
from tests.fuzz.seeds import found
from tests.fuzz.target import corpus, names

FINDINGS = BUILD / "findings"
WORK = BUILD / "corpus"
SECONDS_AN_INPUT = 10
START_OF_A_FINDING = re.compile(r"ERROR: |runtime error: |^Traceback ")
LINES_OF_A_FINDING = 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names())}")
    parser.add_argument("--seconds", type=int, default=600, help="for each target (%(default)s)")
    parser.add_argument("--inputs", type=Path, nargs="+", help="run the one target on these alone")
    parser.add_argument("--keep", action="store_true", help="keep in corpus/ what runs have found")
    parser.add_argument("--ready", action="store_true", help="only say whether clang is there")
    options = parser.parse_args()
    targets = options.targets or names()
    if unknown := set(targets) - set(names()):
        parser.error(f"expected targets of {', '.join(names())}, found {', '.join(unknown)}")
    if options.inputs and len(targets) != 1:
        parser.error("--inputs wants the one target that they are for")
    try:
        if options.ready:
            find_clang()
            return 0
        build()
    except FuzzError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 1
    if options.inputs:
        return run_alone(targets[0], options.inputs)
    if options.keep:
        for name in targets:
            keep(name)
        return 0
    findings = sum(fuzz(name, options.seconds) for name in targets)
    return 1 if findings else 0


def drive(
    name: str, *arguments: str | Path, output: IO[bytes] | int | None = None, asan: str = ""
) -> int:
    """Run the driver on one target; its exit code.

    It prints to ``output``, if given. ``asan`` are options of AddressSanitizer's, and the last of
    them is $ASAN_OPTIONS.
    """
    FINDINGS.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "FUZZ_TARGET": name,
        "FUZZ_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "PYTHONMALLOC": "malloc",
        "PYTHONHASHSEED": "0",
        "ASAN_OPTIONS": f"detect_leaks=1:{asan}:{os.environ.get('ASAN_OPTIONS', '')}",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [DRIVER, f"-artifact_prefix={FINDINGS}/{name}-", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=output, stderr=output
    ).returncode


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target, from what is kept and what earlier runs found; whether it has a finding.

    Leaks are looked for once, at the end: after every input it would take most of the time.
    """
    print(f"{name}: fuzzing for {seconds} s", flush=True)
    work = WORK / name
    work.mkdir(parents=True, exist_ok=True)
    log = BUILD / f"{name}.log"
    limits = (f"-max_total_time={seconds}", f"-timeout={SECONDS_AN_INPUT}", "-detect_leaks=0")
    with log.open("wb") as file:
        code = drive(name, *limits, "-print_final_stats=1", work, corpus(name), output=file)
    said = log.read_text(errors="replace")
    if code:
        show_finding(name, said)
        print(f"{name}: FOUND the above; {log} has the whole of it")
    else:
        edges = re.findall(r"\bcov: (\d+)", said)
        inputs = re.findall(r"number_of_executed_units: (\d+)", said)
        print(f"{name}: {int(inputs[-1]):,} inputs, {edges[-1]} edges of the core, no finding")
    return code != 0


def show_finding(name: str, said: str) -> None:
    """Print how the report in ``said`` begins, and what shows it again."""
    lines = said.splitlines()
    starts = (at for at, line in enumerate(lines) if START_OF_A_FINDING.search(line))
    start = next(starts, max(len(lines) - LINES_OF_A_FINDING, 0))
    print("\n".join(lines[start : start + LINES_OF_A_FINDING]))
    inputs = re.findall(r"Test unit written to (\S+)", said)
    if "LeakSanitizer" in said:
        # It is found at the end: the input that was saved is only the last one.
        for path in inputs:
            Path(path).unlink(missing_ok=True)
        inputs = [f"{WORK / name}/*", f"{corpus(name)}/*"]
    print(f"{name}: again: {sys.executable} -m tests.fuzz {name} --inputs {' '.join(inputs)}")


def run_alone(name: str, inputs: list[Path]) -> int:
    """Run one target on each input once, up to the first finding; a leak's origin is told."""
    paths = [path.absolute() for path in inputs]
    return drive(name, *paths, asan="fast_unwind_on_malloc=0")


def keep(name: str) -> None:
    """Let the corpus have the seeds and the fewest inputs that reach whatever they do not."""
    merged = BUILD / "merged" / name
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    for path in corpus(name).iterdir():
        if not found(path):
            shutil.copy(path, merged)
    merging = ("-set_cover_merge=1", "-use_counters=0")
    if drive(name, *merging, merged, corpus(name), WORK / name, output=subprocess.DEVNULL):
        raise SystemExit(f"{name}: merging stopped at a finding; fuzz the target first")
    for path in corpus(name).iterdir():
        if found(path):
            path.unlink()
    shutil.copytree(merged, corpus(name), dirs_exist_ok=True)
    print(f"{name}: {len(list(corpus(name).iterdir()))} inputs are kept")


if __name__ == "__main__":
    sys.exit(main())
