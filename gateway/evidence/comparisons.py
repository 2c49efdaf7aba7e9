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
        """What each difference lies between: in every step's interval, so in what these share."""
        (stable, candidate), (of_stable, of_candidate) = self.hits, self.trials
        lows, highs = difference_bounds(stable, of_stable, candidate, of_candidate, self.alpha)
        low, high = lows.max(axis=0), highs.min(axis=0)
        return (
            np.where(self.either_way, np.maximum(np.maximum(low, -high), 0.0), low),
            np.where(self.either_way, np.maximum(high, -low), high),
        )

    def shares(self) -> Floats:
        """Each arm's shares over all steps, ``[arm, comparison]``; 0 of no trials."""
        shares: Floats = self.hits.sum(axis=1) / np.maximum(self.trials.sum(axis=1), 1)
        return shares

    def differences(self) -> Floats:
        """Mean of the steps' differences, weighted as N. Mantel and W. Haenszel did (1959)."""
        of_stable, of_candidate = self.trials
        weights = of_stable * of_candidate / np.maximum(of_stable + of_candidate, 1)
        stable, candidate = self.hits / np.maximum(self.trials, 1)
        total = weights.sum(axis=0)
        mean = (weights * (candidate - stable)).sum(axis=0) / np.where(total > 0, total, 1)
        result: Floats = np.where(self.either_way, np.abs(mean), mean)
        return result
