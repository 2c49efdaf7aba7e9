"""Says what this machine lacks for building onnx-gateway, and which Debian package has it.

Runs under the interpreter that will own the virtual environment, whatever its age, so it keeps to
syntax that every Python 3 knows.
"""

import os
import shlex
import shutil
import sys
import sysconfig

WANTED = (3, 11)


def problems():
    """Yield a sentence for each thing that is missing."""
    here = "%s (Python %d.%d)" % (sys.executable, sys.version_info[0], sys.version_info[1])
    if sys.version_info[:2] < WANTED:
        yield (
            "%s is too old: Python 3.11 or later is needed. Debian 12 and later have it as python3;"
            " name another interpreter with: make PYTHON=/path/to/python3.11" % here
        )
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        yield "%s has no venv module. Debian: apt install python3-venv" % here
    include = sysconfig.get_paths()["include"]
    if not os.path.exists(os.path.join(include, "Python.h")):
        yield "the C headers of %s are not in %s. Debian: apt install python3-dev" % (here, include)
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        yield "there is no C compiler (%s). Debian: apt install build-essential" % compiler


if __name__ == "__main__":
    missing = list(problems())
    for problem in missing:
        sys.stderr.write("onnx-gateway: %s\n" % problem)
    sys.exit(1 if missing else 0)
