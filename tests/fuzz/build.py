"""Compiles the sanitized core and the driver, with clang, into ``build/fuzz``."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/fuzz"
CORE = BUILD / "lib"
DRIVER = BUILD / f"driver-{sys.implementation.cache_tag}"
SOURCE = Path(__file__).with_name("driver.c")

SANITIZERS = "-fsanitize=address,undefined,fuzzer"
VERSIONS = range(22, 13, -1)
PROBE = "int LLVMFuzzerTestOneInput(const char *data, unsigned long size) { return 0; }"


class FuzzError(Exception):
    """What keeps the targets from being run, and how to mend it."""


def find_clang() -> str:
    """A clang that can link a fuzz target; ``$CLANG`` alone is tried where it is set.

    Raises:
        FuzzError: there is none.
    """
    given = os.environ.get("CLANG")
    tried = [given] if given else ["clang", *(f"clang-{version}" for version in VERSIONS)]
    for name in tried:
        if shutil.which(name) and links(name):
            return name
    raise FuzzError(
        f"fuzzing wants {given or 'clang'} and its libFuzzer and AddressSanitizer, and found no"
        " such pair. Debian 12: apt install clang-14 libclang-rt-14-dev; or name a clang with:"
        " make fuzz CLANG=/path/to/clang"
    )


def links(clang: str) -> bool:
    command = [clang, SANITIZERS, "-w", "-x", "c", "-", "-o", os.devnull]
    return subprocess.run(command, input=PROBE, text=True, capture_output=True).returncode == 0


def build() -> None:
    """Compile whatever has changed.

    Raises:
        FuzzError: there is no clang, or it refuses something.
    """
    clang = find_clang()
    BUILD.mkdir(parents=True, exist_ok=True)
    core = [sys.executable, "setup.py", "--quiet", "build_ext"]
    core += ["--build-lib", str(CORE), "--build-temp", str(BUILD / "temp")]
    environment = {
        "CC": clang,
        "LDSHARED": f"{clang} -shared",
        "ONNX_GATEWAY_SANITIZE": "1",
        "ONNX_GATEWAY_WERROR": "0",
    }
    must_pass(core, environment)
    if not DRIVER.exists() or DRIVER.stat().st_mtime < SOURCE.stat().st_mtime:
        must_pass([clang, "-g", "-O1", SANITIZERS, str(SOURCE), *embedding(), "-o", str(DRIVER)])


def embedding() -> list[str]:
    """Arguments that make a program contain this interpreter, from a shared or a static library.

    The program exports its symbols: the sanitizers' to the core, a static interpreter's too.
    """
    of = sysconfig.get_config_var
    return [
        f"-I{sysconfig.get_path('include')}",
        "-rdynamic",
        f"-L{of('LIBDIR')}",
        f"-L{of('LIBPL')}",
        f"-Wl,-rpath,{of('LIBDIR')}",
        f"-lpython{of('LDVERSION')}",
        *f"{of('LIBS')} {of('SYSLIBS')}".split(),
    ]


def must_pass(command: list[str], environment: dict[str, str] | None = None) -> None:
    log = BUILD / "build.log"
    with log.open("wb") as file:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | (environment or {}), stdout=file, stderr=file
        )
    if done.returncode:
        said = log.read_text(errors="replace")
        raise FuzzError(f"{' '.join(command)} failed with exit code {done.returncode}:\n{said}")
