from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
from typing_extensions import Buffer

_Parameters: TypeAlias = dict[str, bool | int | float | str]
EncodedOutput: TypeAlias = tuple[
    str, str, tuple[int, ...], Buffer | npt.NDArray[Any] | None, _Parameters | None
]

def encode_infer_response(
    model_name: str,
    model_version: str,
    id: str,
    parameters: _Parameters | None,
    outputs: Sequence[EncodedOutput],
    *,
    stream: bool = False,
) -> bytes: ...
