"""Chances of a statistic as large as one that was seen, and their correction for many tests.

With numpy alone: the statistics package that everybody has takes longer to import than a window
lasts, and holds the interpreter meanwhile.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Most values of a sample for which ``"auto"`` is exact, as scipy's.
EXACT_AT_MOST: Final = 10_000
_ENOUGH: Final = 1e-16
_STEPS: Final = 100_000


# -- chi-square -------------------------------------------------------------------------------


def chi_square_tail(statistic: float, freedom: int) -> float:
    """The chance of at least ``statistic`` under chi-square with so many degrees of freedom."""
    if freedom <= 0 or statistic <= 0:
        return 1.0
    if math.isinf(statistic):
        return 0.0
    return _upper_gamma(freedom / 2, statistic / 2)


def _upper_gamma(a: float, x: float) -> float:
    """The regularized upper incomplete gamma function Q(a, x) (DLMF 8.7.1 and 8.9.2)."""
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for n in range(1, _STEPS):
            term *= x / (a + n)
            total += term
            if term < total * _ENOUGH:
                break
        return max(1 - scale * total, 0.0)
    # Lentz's way through the continued fraction.
    b = x + 1 - a
    c, d = 1e300, 1 / b
    fraction = d
    for n in range(1, _STEPS):
        factor = n * (a - n)
        b += 2
        d = 1 / (factor * d + b)
        c = b + factor / c
        fraction *= c * d
        if abs(c * d - 1) < _ENOUGH * 10:
            break
    return scale * fraction


# -- Kolmogorov-Smirnov -----------------------------------------------------------------------


def kolmogorov_smirnov_tail(
    statistic: float, reference: float, current: float, method: str = "auto"
) -> float:
    """The chance that two samples of one distribution differ by at least ``statistic``.

    Args:
        reference, current: the sizes of the samples; the exact chance is of whole ones.
        method: see ``drift.kolmogorov_smirnov``.
    """
    if method not in ("auto", "exact", "asymp"):
        raise ValueError(f"method must be 'auto', 'exact' or 'asymp', not {method!r}")
    exact = method == "exact" or (method == "auto" and max(reference, current) <= EXACT_AT_MOST)
    if exact and float(reference).is_integer() and float(current).is_integer():
        return _exact_two_sample(statistic, int(reference), int(current))
    effective = round(reference * current / (reference + current))
    return one_sample_tail(max(effective, 1), statistic)


def _exact_two_sample(statistic: float, m: int, n: int) -> float:
    """The share of all lattice paths from (0, 0) to (m, n) that leave ``|x/m - y/n| < d``.

    J. L. Hodges (1958), in chances instead of counts, which overflow: of all ways to a point the
    share ``i / (i + j)`` comes from the left and the rest from below. All points with one
    ``i + j`` are made at once.
    """
    common = math.lcm(m, n)
    # Differences of the two distributions are whole multiples of 1 / common.
    limit = round(statistic * common)
    if limit == 0:
        return 1.0
    across, up = common // m, common // n
    left = np.zeros(m + 2)  # left[i + 1]: the share of the ways to (i, total - i) that left
    for total in range(1, m + n + 1):
        first, last = max(total - n, 0), min(total, m)
        i = np.arange(first, last + 1)
        j = total - i
        # Of the diagonal before, (i - 1, j) and (i, j - 1); at the border one of them has no part.
        now = (left[i] * i + left[i + 1] * j) / total
        now[np.abs(i * across - j * up) >= limit] = 1.0
        left[i + 1] = now
    return float(left[m + 1])


def one_sample_tail(n: int, statistic: float) -> float:
    """The chance that a sample of ``n`` differs by at least ``statistic`` from its distribution.

    The ways of R. Simard and P. L'Ecuyer (2011): exact where the chance is small, which is twice
    the one-sided one, else the series of W. Pelz and I. J. Good (1976), right to 1e-6 and better
    from ``n`` = 140 on.
    """
    if statistic <= 0:
        return 1.0
    if statistic >= 1:
        return 0.0
    squared = n * statistic * statistic
    if squared >= 370:
        return 0.0
    if statistic >= 0.5 or squared >= 2.2:
        return min(2 * _one_sided(n, statistic), 1.0)
    return min(max(1 - _pelz_good(n, statistic), 0.0), 1.0)


def _one_sided(n: int, d: float) -> float:
    """The chance that the sample's distribution rises above the true one by ``d`` (Smirnov)."""
    j = np.arange(int(n * (1 - d)) + 1, dtype=np.float64)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    ways = logs[n] - logs[j.astype(np.int64)] - logs[n - j.astype(np.int64)]
    rest = 1 - d - j / n
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.where(n == j, 0.0, (n - j) * np.log(np.maximum(rest, 0)))
    terms = ways + (j - 1) * np.log(d + j / n) + power
    return float(d * np.exp(terms).sum())


def _pelz_good(n: int, d: float) -> float:
    """The chance of less than ``d``: the limit and its first three corrections.

    The equations are (8) to (11) of Simard and L'Ecuyer, with ``w`` for theta's argument.
    """
    z = math.sqrt(n) * d
    if z < 0.05:
        return 0.0
    pi2 = math.pi**2
    terms = math.ceil(16 * z / math.pi) + 1
    k = np.arange(terms)
    half2 = (k + 0.5) ** 2 * pi2
    odd = np.exp(-half2 / (2 * z * z))
    whole = np.arange(1, terms + 1) ** 2 * pi2
    even = np.exp(-whole / (2 * z * z))
    root = math.sqrt(2 * math.pi)
    k0 = root / z * odd.sum()
    k1 = root / (6 * z**4) * ((half2 - z * z) * odd).sum()
    k2 = (
        root
        / (72 * z**7)
        * (
            (6 * z**6 + 2 * z**4 + (2 * z**4 - 5 * z**2) * half2 + (1 - 2 * z**2) * half2**2) * odd
        ).sum()
        - root / (36 * z**3) * (whole * even).sum()
    )
    k3 = (
        root
        / (6480 * z**10)
        * (
            (
                (5 - 30 * z**2) * half2**3
                + (-60 * z**2 + 212 * z**4) * half2**2
                + (135 * z**4 - 96 * z**6) * half2
                - (30 * z**6 + 90 * z**8)
            )
            * odd
        ).sum()
        + root / (216 * z**6) * ((3 * z**2 - whole) * whole * even).sum()
    )
    return float(k0 + k1 / n**0.5 + k2 / n + k3 / n**1.5)


# -- many tests -------------------------------------------------------------------------------


def bonferroni(p_values: Sequence[float]) -> list[float]:
    """Each times their number: the chance that any is wrong stays below the level."""
    return [min(p * len(p_values), 1.0) for p in p_values]


def holm(p_values: Sequence[float]) -> list[float]:
    """The same promise as Bonferroni's with more power (S. Holm, 1979)."""
    count = len(p_values)
    adjusted = [0.0] * count
    reached = 0.0
    for rank, place in enumerate(sorted(range(count), key=p_values.__getitem__)):
        reached = max(reached, min(p_values[place] * (count - rank), 1.0))
        adjusted[place] = reached
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """The share of the wrong among those below the level stays below it (1995)."""
    count = len(p_values)
    adjusted = [0.0] * count
    reached = 1.0
    for rank, place in enumerate(sorted(range(count), key=p_values.__getitem__, reverse=True)):
        reached = min(reached, p_values[place] * count / (count - rank))
        adjusted[place] = reached
    return adjusted


def uncorrected(p_values: Sequence[float]) -> list[float]:
    """Each as it is."""
    return list(p_values)


#: By the name in ``monitor.toml``.
CORRECTIONS: Final = {
    "holm": holm,
    "bonferroni": bonferroni,
    "benjamini_hochberg": benjamini_hochberg,
    "none": uncorrected,
}
