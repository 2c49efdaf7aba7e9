"""What the tests of the sketches share."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

#: Where infinities, NaNs, zeros of both signs and ties are as likely as anything else.
NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-5, 5).map(float),
    st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 1e300, -1e300, 5e-324]),
)


def blocks(rows: int, sizes: list[int]) -> list[slice]:
    """Slices that cut ``rows`` into pieces of about these sizes."""
    found, at = [], 0
    for size in sizes:
        found.append(slice(at, at + size))
        at += size
    return [*found, slice(at, rows)] if at < rows else found


def damaged(data: bytes, at: int, value: int) -> bytes:
    """``data`` with one byte changed, but a checksum that fits: what no accident does."""
    import zlib

    changed = bytearray(data)
    changed[at % len(data)] ^= value
    changed[12:16] = zlib.crc32(changed[16:]).to_bytes(4, "little")
    return bytes(changed)


def at_once(work: list[Callable[[], Any]]) -> None:
    """Run each on a thread of its own; the first error of any of them is raised."""
    errors: list[BaseException] = []
    gate = threading.Barrier(len(work))

    def run(job: Callable[[], Any]) -> None:
        gate.wait()
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
