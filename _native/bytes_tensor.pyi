import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

class DecodeError(ValueError):
    offset: int
    expected: str
    def __init__(self, offset: int, expected: str) -> None: ...

def encode_bytes_tensor(elements: list[bytes] | list[str] | npt.NDArray[np.object_]) -> bytes: ...
def decode_bytes_tensor(buf: Buffer, count: int) -> list[bytes]: ...
