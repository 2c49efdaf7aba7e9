"""Confidence sequences: intervals that hold at every look at once, not at one look planned ahead.

An interval of level ``alpha`` covers the truth at *all* sample sizes together with probability
``1 - alpha``, so that it may be looked at after every request and acted on at once. Those for
proportions are exact: Robbins' mixture of likelihoods (H. Robbins, 1970, "Statistical methods
related to the law of the iterated logarithm") with Ville's inequality, as in S. Howard, A. Ramdas,
J. McAuliffe and J. Sekhon, 2021, "Time-uniform, nonparametric, nonasymptotic confidence
sequences". The one for means is asymptotic: I. Waudby-Smith, D. Arbour, R. Sinha, E. Kennedy and
A. Ramdas, 2021, "Time-uniform central limit theory and asymptotic confidence sequences".

All functions take scalars or arrays, broadcast them, and return ``float64`` of that shape.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

#: Halvings of a bracket no wider than 1, and of one of 80 in a logarithm: to 1e-15 and 1e-8. What
#: is left of the bracket goes to the interval.
_PROPORTION_HALVINGS: Final = 50
_TILT_HALVINGS: Final = 33
#: In place of 0 in a logarithm.
_TINY: Final = 1e-300
_LOG_PI: Final = math.log(math.pi)
#: Sample size at which the sequence for a mean is tightest.
TUNED_FOR: Final = 1000


def proportion_bounds(
    successes: npt.ArrayLike, trials: npt.ArrayLike, alpha: npt.ArrayLike
) -> tuple[Floats, Floats]:
    """The interval for a proportion after ``trials`` of which ``successes`` succeeded.

    It holds every ``p`` whose likelihood is more than ``alpha`` times the likelihood that
    Jeffreys' mixture, Beta(1/2, 1/2), gives to the same outcomes. Of 0 trials it is (0, 1).
    """
    hits, trials, alpha = _floats(successes, trials, alpha)
    misses = trials - hits
    bar = -np.log(alpha) - _log_mixture(hits, misses)
    # The upper bound is 1 minus the lower one of the misses; both are found in one go.
    low, low_of_misses = _lower_proportion(
        np.stack([hits, misses]), np.stack([misses, hits]), np.stack([bar, bar])
    )
    return low, 1.0 - low_of_misses


def difference_bounds(
    stable_successes: npt.ArrayLike,
    stable_trials: npt.ArrayLike,
    candidate_successes: npt.ArrayLike,
    candidate_trials: npt.ArrayLike,
    alpha: npt.ArrayLike,
) -> tuple[Floats, Floats]:
    """The interval for a difference of two proportions, candidate minus stable.

    Outcomes may come in any order, and who gets the next one may depend on all before. The product
    of both arms' mixture ratios is then a martingale itself; the pairs of proportions for which it
    stays below ``1 / alpha`` are a confidence region, and the differences in it the interval. That
    is narrower than one arm's upper bound less the other's lower, at half of ``alpha`` each.
    """
    hits_s, trials_s, hits_c, trials_c, alpha = _floats(
        stable_successes, stable_trials, candidate_successes, candidate_trials, alpha
    )
    misses_s, misses_c = trials_s - hits_s, trials_c - hits_c
    bar = -np.log(alpha) - _log_mixture(hits_s, misses_s) - _log_mixture(hits_c, misses_c)
    # The upper bound is minus the lower one of the arms exchanged; both are found in one go.
    low, low_of_exchanged = _lower_difference(
        (np.stack([hits_s, hits_c]), np.stack([misses_s, misses_c])),
        (np.stack([hits_c, hits_s]), np.stack([misses_c, misses_s])),
        np.stack([bar, bar]),
    )
    return low, -low_of_exchanged


def exceeds(
    stable_successes: npt.ArrayLike,
    stable_trials: npt.ArrayLike,
    candidate_successes: npt.ArrayLike,
    candidate_trials: npt.ArrayLike,
    limit: npt.ArrayLike,
    alpha: npt.ArrayLike,
) -> npt.NDArray[np.bool_]:
    """Whether the lower bound of ``difference_bounds`` is above ``limit``; cheap where it is not.

    Any pair of proportions that differ by the limit, and that the region holds, shows that it is
    not: a pair near the likeliest such one settles almost every look without finding the bound.
    """
    hits_s, trials_s, hits_c, trials_c, limit, alpha = _floats(
        stable_successes, stable_trials, candidate_successes, candidate_trials, limit, alpha
    )
    above = hits_c * trials_s - hits_s * trials_c > limit * trials_s * trials_c
    found = np.asarray(above & (trials_s > 0) & (trials_c > 0))
    if found.any():
        some = found.copy()
        stable = hits_s[some], (trials_s - hits_s)[some]
        candidate = hits_c[some], (trials_c - hits_c)[some]
        found[some] = _above(stable, candidate, limit[some], alpha[some])
    return found


def mean_bounds(
    count: npt.ArrayLike,
    mean: npt.ArrayLike,
    variance: npt.ArrayLike,
    alpha: npt.ArrayLike,
    tuned_for: int = TUNED_FOR,
) -> tuple[Floats, Floats]:
    """The asymptotic interval for a mean, from what was observed of any distribution.

    It is right in the limit of many observations, as a t-interval is, but at every look; it is
    narrowest around ``tuned_for`` of them. Of fewer than 2 it is all numbers.
    """
    count, mean, variance, alpha = _floats(count, mean, variance, alpha)
    odds = -2 * np.log(alpha)
    rho = (odds + np.log(odds) + 1) / tuned_for
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = count * rho + 1
        width = np.sqrt(variance * 2 * spread / (count**2 * rho) * np.log(np.sqrt(spread) / alpha))
    width = np.where(count < 2, np.inf, width)
    return mean - width, mean + width


@dataclass(slots=True)
class Moments:
    """Count, mean and variance of numbers that come in parts; ``minimum`` and ``maximum`` too."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in ``values``, finite numbers of any shape."""
        if values.size == 0:
            return
        mean = float(values.mean(dtype=np.float64))
        squares = float(np.square(values - mean, dtype=np.float64).sum())
        low, high = float(values.min()), float(values.max())
        self.merge(Moments(values.size, mean, squares, low, high))

    def merge(self, other: "Moments") -> None:
        """Take in what ``other`` has seen (T. Chan, G. Golub and R. LeVeque, 1979)."""
        count = self.count + other.count
        if count == 0:
            return
        apart = other.mean - self.mean
        self.mean += apart * other.count / count
        self.squares += other.squares + apart**2 * self.count * other.count / count
        self.count = count
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    @property
    def variance(self) -> float:
        """The unbiased variance; 0 of fewer than 2 numbers."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0

    def bounds(self, alpha: float, tuned_for: int = TUNED_FOR) -> tuple[float, float]:
        """``mean_bounds`` of what was seen."""
        low, high = mean_bounds(self.count, self.mean, self.variance, alpha, tuned_for)
        return float(low), float(high)


def _floats(*values: npt.ArrayLike) -> tuple[Floats, ...]:
    return np.broadcast_arrays(*(np.asarray(value, np.float64) for value in values))


def _log_gamma(x: Floats) -> Floats:
    """Stirling's series for x of at least 1/2, seven places up, where four terms do for 1e-10."""
    z = x + 7.0
    rising = x * (x + 1) * (x + 2) * (x + 3) * (x + 4) * (x + 5) * (x + 6)
    inverse = 1.0 / z
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    value: Floats = (z - 0.5) * np.log(z) - z + 0.5 * math.log(2 * math.pi) + series
    return value - np.log(rising)


def _log_mixture(hits: Floats, misses: Floats) -> Floats:
    """Logarithm of the mean likelihood over p from Beta(1/2, 1/2): never above the largest."""
    return (
        _log_gamma(hits + 0.5) + _log_gamma(misses + 0.5) - _log_gamma(hits + misses + 1) - _LOG_PI
    )


def _cost(hits: Floats, misses: Floats, p: Floats, q: Floats) -> Floats:
    """Minus the log-likelihood of ``p``, with ``q = 1 - p``; what never happened costs nothing."""
    return -hits * np.log(np.maximum(p, _TINY)) - misses * np.log(np.maximum(q, _TINY))


def _above(
    stable: tuple[Floats, Floats], candidate: tuple[Floats, Floats], limit: Floats, alpha: Floats
) -> npt.NDArray[np.bool_]:
    """``exceeds`` for hits and misses in one dimension, where the observed difference does."""
    (hits_s, misses_s), (hits_c, misses_c) = stable, candidate
    bar = -np.log(alpha) - _log_mixture(*stable) - _log_mixture(*candidate)
    trials_c = hits_c + misses_c
    p = (hits_s + hits_c - trials_c * limit) / (hits_s + misses_s + trials_c)
    p = np.clip(p, np.maximum(0, -limit), np.minimum(1, 1 - limit))
    witness = _cost(*stable, p, 1 - p) + _cost(*candidate, p + limit, 1 - p - limit)
    found: npt.NDArray[np.bool_] = witness >= bar
    low = _lower_difference(
        (hits_s[found], misses_s[found]), (hits_c[found], misses_c[found]), bar[found]
    )
    found[found] = low > limit[found]
    return found


def _lower_proportion(hits: Floats, misses: Floats, bar: Floats) -> Floats:
    """The p below the observed share at which ``_cost`` reaches ``bar``; 0 where none does."""
    low = np.zeros_like(hits)
    high = np.divide(hits, hits + misses, out=np.zeros_like(hits), where=hits > 0)
    for _ in range(_PROPORTION_HALVINGS):
        middle = (low + high) / 2
        outside = _cost(hits, misses, middle, 1 - middle) >= bar
        low = np.where(outside, middle, low)
        high = np.where(outside, high, middle)
    return low


def _lower_difference(
    stable: tuple[Floats, Floats], candidate: tuple[Floats, Floats], bar: Floats
) -> Floats:
    """The least difference, candidate minus stable, where the two costs together reach ``bar``.

    At that point neither arm gains by giving to the other (Lagrange): the slopes of both costs are
    one number, the tilt, which fixes both proportions in closed form. The costs rise with it.
    """
    (hits_s, misses_s), (hits_c, misses_c) = stable, candidate
    low, high = np.full_like(bar, -20.0), np.full_like(bar, 60.0)
    for _ in range(_TILT_HALVINGS):
        middle = (low + high) / 2
        tilt = np.exp(middle)
        p = _tilted_down(hits_c, misses_c, tilt)
        q = _tilted_down(misses_s, hits_s, tilt)
        costs = _cost(hits_c, misses_c, p, 1 - p) + _cost(misses_s, hits_s, q, 1 - q)
        outside = costs >= bar
        low = np.where(outside, low, middle)
        high = np.where(outside, middle, high)
    tilt = np.exp(high)
    return _tilted_down(hits_c, misses_c, tilt) + _tilted_down(misses_s, hits_s, tilt) - 1.0


def _tilted_down(hits: Floats, misses: Floats, tilt: Floats) -> Floats:
    """The p below the observed share at which the slope of ``_cost`` is ``-tilt``."""
    trials = hits + misses + tilt
    root = np.sqrt(np.maximum(trials * trials - 4 * tilt * hits, 0.0))
    return 2 * hits / (trials + root)
