"""Says what this machine lacks for building onnx-gateway, and which Debian package has it.

Runs under the interpreter that will own the virtual environment, however old it is, so it
keeps to the syntax of early ones.
"""

import os
import shlex
import shutil
import sys
import sysconfig

WANTED = (3, 11)


def problems():
    """Yield a sentence for each thing that is missing."""
    here = f"{sys.executable} (Python {sys.version_info[0]}.{sys.version_info[1]})"
    if sys.version_info[:2] < WANTED:
        yield (
            f"{here} is too old: Python 3.11 or later is needed. Debian 12 and later have it;"
            " name another interpreter with: make PYTHON=/path/to/python3.11"
        )
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        yield f"{here} has no venv module. Debian: apt install python3-venv"
    include = sysconfig.get_paths()["include"]
    if not os.path.exists(os.path.join(include, "Python.h")):
        yield f"the C headers of {here} are not in {include}. Debian: apt install python3-dev"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        yield f"there is no C compiler ({compiler}). Debian: apt install build-essential"


if __name__ == "__main__":
    missing = list(problems())
    for problem in missing:
        sys.stderr.write(f"onnx-gateway: {problem}\n")
    sys.exit(1 if missing else 0)
