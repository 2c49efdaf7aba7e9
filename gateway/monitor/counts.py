"""Counts a stream into the bins and categories of a reference profile, in constant memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway._native.sketch_bins import BinCounts
from gateway._native.sketch_categories import CategoryCounts
from gateway._native.sketch_form import Reader, pack
from gateway.monitor.features import FeatureTable
from gateway.monitor.profile import (
    CategoricalReference,
    FeatureProfile,
    Int64s,
    NumericReference,
    Profile,
)
from gateway.stream.block import Block

_KIND: Final = b"feat"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class NumericCounts:
    """What was counted of a number.

    Attributes:
        counts: below the reference's edges, in each bin, above.
        infinite: infinities, which ``counts`` has below or above.
        mean, std, minimum, maximum: of the finite values; NaN where there were none.
    """

    rows: int
    missing: int
    infinite: int
    counts: Int64s
    mean: float
    std: float
    minimum: float
    maximum: float

    @property
    def out_of_range(self) -> int:
        """Values beyond the least and the greatest of the reference."""
        return int(self.counts[0] + self.counts[-1])


@dataclass(frozen=True, slots=True, eq=False)
class CategoryTally:
    """What was counted of a category.

    Attributes:
        counts: of each category of the reference, in its order.
        other: values of no such category.
        new: some of those and how often they came, the most frequent first.
    """

    rows: int
    missing: int
    counts: Int64s
    other: int
    new: tuple[tuple[object, int], ...]


class FeatureCounts:
    """Counts blocks by a profile. For one thread at a time; the loops run without the GIL.

    A block costs some 10 us beside its rows, so small ones are best counted ``together``.

    Counts of several threads merge, and as bytes those of several processes.

    Attributes:
        rows: that were counted.
    """

    def __init__(self, profile: Profile) -> None:
        self.rows = 0
        self._profile = profile
        self._tables: list[_TableCounts] = []
        at = 0
        for size in _sizes(profile):
            self._tables.append(_TableCounts(profile.features[at : at + size]))
            at += size

    def add(self, block: Block) -> None:
        """Count the rows of a block.

        Raises:
            UnlikeBlock: it has not the tensors that the profile was made of; nothing is counted.
        """
        self.add_tables(self._profile.layout.tables(block))

    def add_tables(self, tables: list[FeatureTable]) -> None:
        """Count what the profile's layout has made of a block."""
        for counts, table in zip(self._tables, tables, strict=True):
            counts.add(table)
        self.rows += len(tables[0].values) if tables else 0

    def merge(self, other: "FeatureCounts") -> None:
        """Count what ``other`` has counted; ``ValueError`` where its profile is another."""
        if len(self._tables) != len(other._tables):
            raise ValueError("only counts by the same profile can be merged")
        for mine, theirs in zip(self._tables, other._tables, strict=True):
            mine.merge(theirs)
        self.rows += other.rows

    def clear(self) -> None:
        """Forget what was counted: another window begins."""
        for table in self._tables:
            table.clear()
        self.rows = 0

    def to_bytes(self) -> bytes:
        """What was counted, as bytes for another process with the same profile."""
        parts: list[int | bytes] = [self.rows]
        for sketch in self._sketches():
            data = sketch.to_bytes()
            parts += [len(data), data]
        return pack(_KIND, _VERSION, *parts)

    @staticmethod
    def from_bytes(profile: Profile, data: bytes) -> "FeatureCounts":
        """What ``to_bytes`` gave.

        Raises:
            ValueError: it is not that, or was counted by another profile.
        """
        reader = Reader(data, _KIND, _VERSION)
        made = FeatureCounts(profile)
        made.rows = reader.integer(0, 1 << 62)
        for sketch in made._sketches():
            its_bytes = reader.raw(reader.integer(0, len(data)))
            if isinstance(sketch, BinCounts):
                sketch.merge(BinCounts.from_bytes(its_bytes))
                rows = sketch.rows
            else:
                sketch.merge(CategoryCounts.from_bytes(its_bytes))
                rows = sketch.total + sketch.missing
            reader.check(rows == made.rows, "its features have other rows than it has")
        reader.end()
        return made

    def _sketches(self) -> Iterator[BinCounts | CategoryCounts]:
        for table in self._tables:
            yield from table.sketches()

    def features(self) -> Iterator[tuple[FeatureProfile, NumericCounts | CategoryTally]]:
        """What was counted of each feature, in the profile's order."""
        for table in self._tables:
            yield from table.features()


class _TableCounts:
    """The counts of features that come as one table."""

    def __init__(self, features: tuple[FeatureProfile, ...]) -> None:
        self._features = features
        self._numeric = [
            place
            for place, feature in enumerate(features)
            if isinstance(feature.reference, NumericReference)
        ]
        edges = [
            feature.reference.edges
            for feature in features
            if isinstance(feature.reference, NumericReference)
        ]
        self._bins = BinCounts(edges) if edges else None
        self._categories = {
            place: CategoryCounts(feature.reference.categories, text=feature.reference.text)
            for place, feature in enumerate(features)
            if isinstance(feature.reference, CategoricalReference)
        }

    def add(self, table: FeatureTable) -> None:
        values = table.values
        if self._bins is not None:
            whole = len(self._numeric) == len(self._features)
            self._bins.add(values if whole else values[:, self._numeric])
        for place, counts in self._categories.items():
            if counts.text:
                counts.add_texts(values[:, place])
            else:
                counts.add(values[:, place])

    def merge(self, other: "_TableCounts") -> None:
        if self._bins is not None and other._bins is not None:
            self._bins.merge(other._bins)
        for place, counts in self._categories.items():
            counts.merge(other._categories[place])

    def sketches(self) -> Iterator[BinCounts | CategoryCounts]:
        if self._bins is not None:
            yield self._bins
        yield from self._categories.values()

    def clear(self) -> None:
        if self._bins is not None:
            self._bins.clear()
        for counts in self._categories.values():
            counts.clear()

    def features(self) -> Iterator[tuple[FeatureProfile, NumericCounts | CategoryTally]]:
        numeric = dict(zip(self._numeric, self._numbers(), strict=True))
        for place, feature in enumerate(self._features):
            if place in numeric:
                yield feature, numeric[place]
                continue
            counts = self._categories[place]
            yield (
                feature,
                CategoryTally(
                    counts.total + counts.missing,
                    counts.missing,
                    counts.counts,
                    counts.new,
                    tuple(counts.new_categories()),
                ),
            )

    def _numbers(self) -> list[NumericCounts]:
        bins = self._bins
        if bins is None:
            return []
        missing, infinite = bins.missing.tolist(), bins.infinite.tolist()
        mean, std = bins.mean.tolist(), np.sqrt(bins.variance).tolist()
        low, high = bins.minimum.tolist(), bins.maximum.tolist()
        return [
            NumericCounts(
                bins.rows,
                missing[at],
                infinite[at],
                bins.counts(at),
                mean[at],
                std[at],
                low[at],
                high[at],
            )
            for at in range(bins.columns)
        ]


def _sizes(profile: Profile) -> Iterator[int]:
    """How many features each table of the layout has."""
    for layout in profile.layout.tensors:
        yield from (1, 1) if layout.wide else (len(layout.names),)
        if layout.scores:
            yield 1
