"""Which version may answer which request, while a model's versions are swapped."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class SwapLog:
    """When each version could serve, as the one who swaps sees it; times as ``time.monotonic``'s.

    A version may answer from the moment at which its swap is asked for, and no request that is sent
    after the next swap has returned.

    Attributes:
        versions: those that served, in their order; the last one serves now.
    """

    versions: list[str]
    _asked_s: list[float] = field(default_factory=lambda: [0.0])
    _returned_s: list[float] = field(default_factory=lambda: [0.0])

    @contextmanager
    def swap(self, version: str) -> Iterator[None]:
        """``version`` takes the traffic over within the block; not where an error ends it."""
        self.versions.append(version)
        self._asked_s.append(time.monotonic())
        try:
            yield
        except BaseException:
            self.versions.pop()
            self._asked_s.pop()
            raise
        self._returned_s.append(time.monotonic())

    def allows(self, version: str, sent_s: float, answered_s: float) -> bool:
        """Whether ``version`` may have answered a request with these times."""
        for number, served in enumerate(self.versions):
            if served != version:
                continue
            ends = self._returned_s[number + 1 : number + 2]
            if answered_s >= self._asked_s[number] and (not ends or sent_s <= ends[0]):
                return True
        return False
