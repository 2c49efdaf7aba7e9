"""The tests of one feature by the names that ``monitor.toml`` has for them.

Every test takes the reference and a window and gives a figure, and some a p-value. What is
*drifted* is a figure at or above a threshold, or, where there is a p-value, one below it.

A figure of a small window is never 0, however still the world stands: of 500 rows in 20 bins a
Jensen-Shannon distance of 0.1 is nothing to speak of. So most figures have a *chance* as well, the
p-value of a test beside it, and count only where that is below ``significance``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.monitor import drift
from gateway.monitor.findings import Level
from gateway.monitor.observed import Kind, Observed

#: A figure, and a p-value where the test has one.
Measured = tuple[float, float | None]
Measurement = Callable[[Observed, Observed], Measured]
Chance = Callable[[Observed, Observed], float]


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a test says what.

    Attributes:
        warning: the level is ``WARNING`` from here on; ``None`` for never.
        drifted: it is ``DRIFTED`` from here on; ``None`` for never.
    """

    warning: float | None
    drifted: float | None

    def level(self, figure: float, *, falling: bool = False) -> Level:
        """The level of a figure; ``falling`` where small ones are bad, as p-values are."""

        def passed(limit: float | None) -> bool:
            return limit is not None and (figure < limit if falling else figure >= limit)

        if passed(self.drifted):
            return Level.DRIFTED
        return Level.WARNING if passed(self.warning) else Level.OK


@dataclass(frozen=True, slots=True)
class Measure:
    """A test.

    Attributes:
        kinds: the features that it is for.
        by_p_value: whether its p-value is held against the limits, else its figure.
        chance: of a window to be so far away while nothing has changed; ``None`` where nobody can
            tell, or where the test has a p-value itself.
        samples: whether it needs a sample of the values; the others need counts alone.
        limits: unless others are set.
        convention: whose way of counting it follows, for people.
    """

    name: str
    kinds: tuple[Kind, ...]
    measure: Measurement
    limits: Limits
    by_p_value: bool = False
    chance: Chance | None = None
    samples: bool = False
    convention: str = ""


def _jensen_shannon(base: float) -> Measurement:
    def measure(reference: Observed, window: Observed) -> Measured:
        return drift.jensen_shannon(reference.counts, window.counts, base=base), None

    return measure


def _psi(reference: Observed, window: Observed) -> Measured:
    # A bin that is empty on both sides is no bin.
    either = (reference.tenths + window.tenths) > 0
    return drift.psi(reference.tenths[either], window.tenths[either]), None


def _kolmogorov_smirnov(reference: Observed, window: Observed) -> Measured:
    # The exact p-value takes time by the product of the sizes, on every feature of every window.
    return _apart(reference, window).kolmogorov_smirnov("asymp")


def _wasserstein(reference: Observed, window: Observed) -> Measured:
    return _apart(reference, window).wasserstein(), None


def _wasserstein_over_deviation(reference: Observed, window: Observed) -> Measured:
    distance = _apart(reference, window).wasserstein()
    return drift.over_deviation(distance, reference.deviation), None


def _apart(reference: Observed, window: Observed) -> drift.Apart:
    if not window.apart:
        if reference.sample is None or window.sample is None:
            raise ValueError("a sample of the values is needed on both sides")
        window.apart.append(drift.Apart(reference.sample, window.sample))
    return window.apart[0]


def _chi_square(reference: Observed, window: Observed) -> Measured:
    return drift.chi_square(reference.counts, window.counts)


def _chi_square_fit(reference: Observed, window: Observed) -> Measured:
    return drift.chi_square_fit(reference.counts, window.counts)


def _missing_rate(reference: Observed, window: Observed) -> Measured:
    return window.missing_share - reference.missing_share, None


def _outside_rate(reference: Observed, window: Observed) -> Measured:
    return window.outside_share - reference.outside_share, None


def _chance_of_counts(reference: Observed, window: Observed) -> float:
    return drift.chance(reference.counts, window.counts)


def _chance_of_tenths(reference: Observed, window: Observed) -> float:
    return drift.chance(reference.tenths, window.tenths)


def _chance_of_samples(reference: Observed, window: Observed) -> float:
    return _apart(reference, window).kolmogorov_smirnov("asymp")[1]


def _chance_of_missing(reference: Observed, window: Observed) -> float:
    pairs = [[side.missing, side.rows - side.missing] for side in (reference, window)]
    return drift.chi_square(*pairs)[1]


def _chance_of_outside(reference: Observed, window: Observed) -> float:
    pairs = [
        [int(side.counts[-1]), side.values - int(side.counts[-1])] for side in (reference, window)
    ]
    return drift.chi_square(*pairs)[1]


_NUMERIC, _CATEGORY = (Kind.NUMERIC,), (Kind.CATEGORY,)
_BOTH: Final = (Kind.NUMERIC, Kind.CATEGORY)
_P_VALUE: Final = Limits(None, 0.01)
_RATE: Final = Limits(0.01, 0.05)

#: Every test, by its name.
MEASURES: Final[dict[str, Measure]] = {
    measure.name: measure
    for measure in (
        Measure(
            "jensen_shannon",
            _BOTH,
            _jensen_shannon(2.0),
            Limits(0.05, 0.1),
            chance=_chance_of_counts,
            convention="NannyML",
        ),
        Measure(
            "jensen_shannon_e",
            _BOTH,
            _jensen_shannon(math.e),
            Limits(0.05, 0.1),
            chance=_chance_of_counts,
            convention="natural logarithm, as Evidently",
        ),
        Measure(
            "psi",
            _BOTH,
            _psi,
            Limits(0.1, 0.2),
            chance=_chance_of_tenths,
            convention="tenths of the reference, Evidently's filling",
        ),
        Measure(
            "kolmogorov_smirnov",
            _NUMERIC,
            _kolmogorov_smirnov,
            _P_VALUE,
            by_p_value=True,
            samples=True,
            convention="scipy, asymptotic",
        ),
        Measure(
            "wasserstein",
            _NUMERIC,
            _wasserstein,
            Limits(None, None),
            samples=True,
            convention="scipy",
        ),
        Measure(
            "wasserstein_over_deviation",
            _NUMERIC,
            _wasserstein_over_deviation,
            Limits(0.1, 0.2),
            chance=_chance_of_samples,
            samples=True,
            convention="Evidently",
        ),
        Measure(
            "chi_square",
            _BOTH,
            _chi_square,
            _P_VALUE,
            by_p_value=True,
            convention="scipy.stats.chi2_contingency, NannyML",
        ),
        Measure(
            "chi_square_fit",
            _BOTH,
            _chi_square_fit,
            _P_VALUE,
            by_p_value=True,
            convention="scipy.stats.chisquare, Evidently",
        ),
        Measure("missing_rate", _BOTH, _missing_rate, _RATE, chance=_chance_of_missing),
        Measure(
            "out_of_range_rate",
            _NUMERIC,
            _outside_rate,
            _RATE,
            chance=_chance_of_outside,
        ),
        Measure(
            "new_category_rate",
            _CATEGORY,
            _outside_rate,
            _RATE,
            chance=_chance_of_outside,
        ),
    )
}

#: What is tested unless something else is set.
DEFAULT_TESTS: Final = ("jensen_shannon", "missing_rate", "out_of_range_rate", "new_category_rate")
