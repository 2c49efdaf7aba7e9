"""The ``onnxruntime`` module: the one place that imports it to make sessions.

``onnxruntime`` and ``onnxruntime-gpu`` share one import name, so neither is a hard dependency;
this module is what notices that none is there.
"""

import functools
import logging
from types import ModuleType
from typing import Final

from gateway.errors import StartupError

log = logging.getLogger(__name__)

MINIMUM_VERSION: Final = (1, 31)


@functools.cache
def runtime() -> ModuleType:
    """The ``onnxruntime`` module, checked once a process.

    Raises:
        StartupError: it is not installed, does not import, or is too old.
    """
    install = "pip install onnx-gateway[cpu]' or 'pip install onnx-gateway[gpu]"
    try:
        import onnxruntime
    except ImportError as error:
        raise StartupError(
            f"ONNX Runtime is not there ({error}): install it with '{install}' (one of the two)"
        ) from error
    version = getattr(onnxruntime, "__version__", "")
    if not version:
        # What is left behind when one of the two distributions is removed while both were there.
        raise StartupError(
            "the package onnxruntime is there but empty: uninstall onnxruntime and onnxruntime-gpu,"
            f" then '{install}' (one of the two)"
        )
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_VERSION:
        wanted = ".".join(map(str, MINIMUM_VERSION))
        raise StartupError(
            f"ONNX Runtime {version} is too old, {wanted} or later is needed: '{install}'"
        )
    # Everything at "error" that concerns one session is raised as an exception too; what the
    # default logger says at that level (a provider's library that does not load) is not.
    onnxruntime.set_default_logger_severity(0 if log.isEnabledFor(logging.DEBUG) else 3)
    module: ModuleType = onnxruntime
    return module
