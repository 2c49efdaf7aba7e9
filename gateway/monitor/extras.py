"""Packages that a monitor needs and a gateway without monitors does not."""

import importlib
from types import ModuleType
from typing import Final

from gateway.errors import ConfigError

#: The extra of this package that installs them.
EXTRA: Final = "monitor"


def require(module: str, wanted_by: str) -> ModuleType:
    """Import ``module`` for ``wanted_by``, the test that cannot do without it.

    Raises:
        ConfigError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{wanted_by} needs the package '{module.partition('.')[0]}', which is not installed "
            f"({error}): pip install 'onnx-gateway[{EXTRA}]', or leave {wanted_by} out"
        ) from None
