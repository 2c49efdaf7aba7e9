"""Takes golden requests from live traffic."""

import asyncio
from contextlib import suppress
from typing import Any, Final

from gateway.errors import InvalidTensor
from gateway.serving.golden import golden_document
from gateway.types import InferRequest, InferResponse


class GoldenRecorder:
    """Keeps the first ``count`` requests that it is shown, with their answers.

    Event loop's thread only.
    """

    def __init__(self, count: int) -> None:
        self._count: Final = count
        self._documents: list[dict[str, Any]] = []
        self._full = asyncio.Event()

    def record(self, request: InferRequest, response: InferResponse) -> None:
        """See ``dispatch.route.Recorder``. What JSON cannot hold is passed over."""
        if len(self._documents) < self._count:
            with suppress(InvalidTensor):
                self._documents.append(golden_document(request, response))
        if len(self._documents) >= self._count:
            self._full.set()

    async def wait(self, timeout_s: float) -> list[dict[str, Any]]:
        """The documents once there are enough, or those that there are after ``timeout_s``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._full.wait()
        return self._documents
