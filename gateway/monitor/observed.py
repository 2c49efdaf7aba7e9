"""One feature as the tests take it: from the reference, or from a window."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from gateway.monitor.counts import CategoryTally, NumericCounts
from gateway.monitor.drift import Apart, Sample
from gateway.monitor.profile import FeatureProfile, Int64s, NumericReference


class Kind(StrEnum):
    """How a feature's values are counted."""

    #: In bins, by size.
    NUMERIC = "numeric"
    #: One by one, by equality.
    CATEGORY = "category"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observed:
    """What was counted of one feature. The reference and its windows have the same bins.

    Attributes:
        rows: predictions that were looked at, those without a value included.
        missing: those without a value.
        counts: values by the reference's Doane bins or categories, and last those in none of them.
        tenths: values by the reference's tenths; of categories the same as ``counts``.
        deviation: the standard deviation of the values, divided by their number; NaN of categories.
        sample: of the values; ``None`` where none was kept.
        apart: of a window, its sample beside the reference's, once a test has asked for it.
    """

    kind: Kind
    rows: int
    missing: int
    counts: Int64s
    tenths: Int64s
    deviation: float = float("nan")
    sample: Sample | None = None
    apart: list[Apart] = field(default_factory=list)

    @property
    def values(self) -> int:
        """How many values there were."""
        return int(self.counts.sum())

    @property
    def missing_share(self) -> float:
        """Of the rows, those without a value."""
        return self.missing / self.rows if self.rows else 0.0

    @property
    def outside_share(self) -> float:
        """Of the values, those in no bin or category of the reference."""
        values = self.values
        return int(self.counts[-1]) / values if values else 0.0


def kind_of(feature: FeatureProfile) -> Kind:
    """How the feature is counted."""
    return Kind.NUMERIC if isinstance(feature.reference, NumericReference) else Kind.CATEGORY


def of_reference(feature: FeatureProfile, values: npt.NDArray[np.float64] | None) -> Observed:
    """The reference of a feature; ``values`` is a sample of it."""
    reference = feature.reference
    if isinstance(reference, NumericReference):
        return Observed(
            kind=Kind.NUMERIC,
            rows=feature.rows,
            missing=feature.missing,
            counts=reference.in_doane(reference.counts),
            tenths=reference.in_tenths(reference.counts),
            deviation=reference.std,
            sample=_sample(values),
        )
    counts = np.append(reference.counts, reference.other)
    return Observed(
        kind=Kind.CATEGORY, rows=feature.rows, missing=feature.missing, counts=counts, tenths=counts
    )


def of_window(
    feature: FeatureProfile,
    found: NumericCounts | CategoryTally,
    values: npt.NDArray[np.float64] | None,
) -> Observed:
    """What was counted of a feature in a window; ``values`` is a sample of it."""
    reference = feature.reference
    if isinstance(reference, NumericReference) and isinstance(found, NumericCounts):
        return Observed(
            kind=Kind.NUMERIC,
            rows=found.rows,
            missing=found.missing,
            counts=reference.in_doane(found.counts),
            tenths=reference.in_tenths(found.counts),
            deviation=found.std,
            sample=_sample(values),
        )
    assert isinstance(found, CategoryTally)
    counts = np.append(found.counts, found.other)
    return Observed(
        kind=Kind.CATEGORY, rows=found.rows, missing=found.missing, counts=counts, tenths=counts
    )


def _sample(values: npt.NDArray[np.float64] | None) -> Sample | None:
    if values is None:
        return None
    sample = Sample.of(values)
    return sample if sample.size else None
