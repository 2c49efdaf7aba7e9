"""Where a model version comes from: its data, its code, its parameters, its training run.

Read from ``lineage.toml`` beside the version's model file::

    [dataset]
    name = "elec2"
    version = "2024-03"
    digest = "sha256:..."
    [code]
    repository = "https://example.com/models.git"
    commit = "4f1d0c2"
    [parameters]
    hidden_layers = [64]
    [run]
    id = "a81c"
    tracker = "https://example.com/runs/a81c"

Nothing in it is required and further keys are kept as they are: what is worth knowing differs from
team to team. Without the file, the key/value pairs of the model's own ONNX metadata stand for it.
"""

import math
import tomllib
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Final

from gateway.errors import LoadError

FILE_NAME: Final = "lineage.toml"
#: Lineage goes into every journal entry about the version.
MAX_BYTES: Final = 64 << 10

#: What the reader of the graph adds to the file's own key/value pairs.
_ADDED: Final = frozenset(
    ("producer_name", "producer_version", "domain", "model_version", "description", "graph")
)
_ADDED_PREFIX: Final = "classes."


def read_lineage(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The lineage of the version whose model file is ``path``, as JSON values; may be empty.

    Args:
        metadata: the ONNX file's own, used where there is no ``lineage.toml``.

    Raises:
        LoadError: the file is no TOML, cannot be read, or is larger than ``MAX_BYTES``.
    """
    file = path.parent / FILE_NAME
    if not file.is_file():
        return {
            key: value
            for key, value in metadata.items()
            if key not in _ADDED and not key.startswith(_ADDED_PREFIX)
        }
    try:
        text = file.read_bytes()
        if len(text) > MAX_BYTES:
            raise LoadError(
                f"{file} has {len(text)} bytes, {MAX_BYTES} are the most: refer to what is large"
            )
        return {key: _plain(value) for key, value in tomllib.loads(text.decode()).items()}
    except OSError as error:
        raise LoadError(f"{file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LoadError(f"{file} is not TOML: {error}") from error


def _plain(value: Any) -> Any:
    """A TOML value as JSON has it: times as text, and no number that JSON lacks."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
