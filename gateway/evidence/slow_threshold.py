"""What counts as a slow request: a limit taken from the stable version before anything counts."""

from typing import Final

import numpy as np
import numpy.typing as npt

#: Requests of the stable version that the limit is made from.
LEARN: Final = 200


class SlowThreshold:
    """Fixes a quantile of the stable version's latency from its first ``learn`` requests.

    Those are not counted, nor is any request of the candidate before it is fixed, so that each one
    that is counted had no part in the limit. A request of the stable version is slow above the
    quantile, one of the candidate above ``ratio`` times it.

    Attributes:
        quantile_ns: what ``quantile`` of those requests stayed below; 0 until it is fixed.
    """

    def __init__(self, quantile: float, ratio: float, learn: int = LEARN) -> None:
        self.quantile_ns = 0.0
        self._quantile = quantile
        self._ratio = ratio
        self._learn = learn
        self._seen: list[npt.NDArray[np.int64]] = []

    def count(self, latencies_ns: npt.NDArray[np.int64], candidate: bool) -> tuple[int, int]:
        """How many of these requests count, and how many of those are slow."""
        if self.quantile_ns:
            limit = self.quantile_ns * self._ratio if candidate else self.quantile_ns
            return latencies_ns.size, int(np.count_nonzero(latencies_ns > limit))
        if not candidate and latencies_ns.size:
            # The caller may use its array again.
            self._seen.append(latencies_ns.copy())
            if sum(map(len, self._seen)) >= self._learn:
                seen = np.concatenate(self._seen)
                self.quantile_ns = max(1.0, float(np.quantile(seen, self._quantile)))
                self._seen = []
        return 0, 0
