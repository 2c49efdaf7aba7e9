from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
from typing_extensions import Buffer

from gateway._native.bytes_tensor import DecodeError as DecodeError

COPY_LIMIT: int
MAX_TENSORS: int

_Parameters: TypeAlias = dict[str, bool | int | float | str]
DecodedInput: TypeAlias = tuple[
    str, str, tuple[int, ...], _Parameters | None, bytes | memoryview | list[bytes] | None
]
DecodedOutput: TypeAlias = tuple[str, _Parameters | None]
DecodedRequest: TypeAlias = tuple[
    str, str, str, _Parameters | None, list[DecodedInput], list[DecodedOutput]
]
EncodedOutput: TypeAlias = tuple[
    str, str, tuple[int, ...], Buffer | npt.NDArray[Any] | None, _Parameters | None
]

def decode_infer_request(buf: Buffer) -> DecodedRequest: ...
def encode_infer_response(
    model_name: str,
    model_version: str,
    id: str,
    parameters: _Parameters | None,
    outputs: Sequence[EncodedOutput],
    *,
    stream: bool = False,
) -> bytes: ...
