from typing import TypeAlias

from typing_extensions import Buffer

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

def decode_infer_request(buf: Buffer) -> DecodedRequest: ...
