"""Many differences of shares against their limits at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.evidence.confidence import Floats, difference_bounds, exceeds


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Shares of two arms, step by step, with what each difference may be and how sure to be of it.

    Attributes:
        hits, trials: ``[arm, step, comparison]``; the stable version is arm 0, the candidate 1.
        alpha: of each comparison, in each step.
        limit: of each comparison.
        either_way: whether the limit is for the difference without its sign.
    """

    hits: Floats
    trials: Floats
    alpha: Floats
    limit: Floats
    either_way: npt.NDArray[np.bool_]

    def fails(self) -> npt.NDArray[np.bool_]:
        """Which differences are surely above their limit, ``[step, comparison]``."""
        (stable, candidate), (of_stable, of_candidate) = self.hits, self.trials
        above = exceeds(stable, of_stable, candidate, of_candidate, self.limit, self.alpha)
        # No difference is above 1: that is the limit downwards where there is none.
        limit = np.where(self.either_way, self.limit, 1.0)
        return above | exceeds(candidate, of_candidate, stable, of_stable, limit, self.alpha)

    def bounds(self) -> tuple[Floats, Floats]:
        """What each difference surely lies between, ``[step, comparison]``."""
        (stable, candidate), (of_stable, of_candidate) = self.hits, self.trials
        low, high = difference_bounds(stable, of_stable, candidate, of_candidate, self.alpha)
        return (
            np.where(self.either_way, np.maximum(np.maximum(low, -high), 0.0), low),
            np.where(self.either_way, np.maximum(high, -low), high),
        )

    def shares(self) -> Floats:
        """The shares, ``[arm, step, comparison]``; 0 of no trials."""
        shares: Floats = self.hits / np.maximum(self.trials, 1)
        return shares
