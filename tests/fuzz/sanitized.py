"""What ``driver.c`` imports: the target to fuzz, on the sanitized core."""

import os
import sys
from typing import Any

import gateway._native
from tests.fuzz.build import CORE

# Before anything imports one of the core's modules.
gateway._native.__path__ = [str(CORE / "gateway/_native")]

from tests.fuzz.target import load  # noqa: E402


def abort(unraisable: Any) -> None:
    """Make a finding of an exception that Python can hand to nobody, in a ``noexcept`` function."""
    sys.__unraisablehook__(unraisable)
    os.abort()


sys.unraisablehook = abort
one_input = load(os.environ["FUZZ_TARGET"]).one_input
