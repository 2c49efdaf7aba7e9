"""The reference profile of a model version: what its features and outputs looked like in training.

``profile_file.py`` reads and writes it, ``profile_builder.py`` makes one, ``counts.py`` counts a
stream into its bins.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gateway.monitor.features import FeatureTable, Layout, Part, Side
from gateway.stream.block import Block
from gateway.types import Array

Floats: TypeAlias = npt.NDArray[np.float64]
Int64s: TypeAlias = npt.NDArray[np.int64]

#: The file of a version's profile, beside its model.
PROFILE_NAME: Final = "profile.json"
#: The shares whose quantiles a profile holds.
QUANTILES: Final = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class NumericReference:
    """The distribution of a number.

    The edges are those of two histograms together, so that one look-up a value serves both: the
    Doane bins of the reference, equally wide from its least to its greatest number, as numpy makes
    them and NannyML's Jensen-Shannon distance uses them; and the tenths of the reference, for the
    population stability index. A bin holds its lower edge, and the last one its upper edge too.

    Attributes:
        edges: ascending.
        counts: reference values below the edges, in each bin, and above.
        doane: places in ``edges`` of the Doane edges; the first and the last are among them.
        tenths: places in ``edges`` of the inner edges of the tenths; ties make them fewer than 9.
        mean, std, minimum, maximum: of the finite values; the standard deviation is that of the
            population. 0 where there were none.
        quantiles: at the shares ``QUANTILES``, interpolated as numpy does by default.
    """

    edges: Floats
    counts: Int64s
    doane: tuple[int, ...]
    tenths: tuple[int, ...]
    mean: float
    std: float
    minimum: float
    maximum: float
    quantiles: tuple[float, ...]

    def in_doane(self, counts: Int64s) -> Int64s:
        """``counts`` over ``edges`` as counts of the Doane bins, and the rest in a last one."""
        inside = np.add.reduceat(counts[1:-1], self.doane[:-1])
        return np.append(inside, counts[0] + counts[-1])

    def in_tenths(self, counts: Int64s) -> Int64s:
        """``counts`` over ``edges`` as counts of the reference's tenths, which have no ends."""
        # Bin i of the counts ends at edge i, so a tenth begins with the bin behind its edge.
        starts = [0, *(place + 1 for place in self.tenths)]
        return np.add.reduceat(counts, starts)


@dataclass(frozen=True, slots=True, eq=False)
class CategoricalReference:
    """The distribution of a category.

    Attributes:
        text: whether categories are texts; else they are numbers.
        categories: the most frequent ones, the most frequent first.
        counts: of each of them.
        other: reference values of all other categories.
        distinct: how many different ones there were.
    """

    text: bool
    categories: tuple[Any, ...]
    counts: Int64s
    other: int
    distinct: int


@dataclass(frozen=True, slots=True, eq=False)
class FeatureProfile:
    """One feature or output of the reference.

    Attributes:
        rows: of the reference.
        missing: NaNs and empty texts among them.
        reference: how the others are distributed.
    """

    name: str
    side: Side
    tensor: str
    part: Part
    rows: int
    missing: int
    reference: NumericReference | CategoricalReference

    @property
    def missing_rate(self) -> float:
        """The share of rows where it is missing."""
        return self.missing / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSource:
    """Where the reference data came from.

    Attributes:
        name: of the file without its directories, or ``"live predictions"``.
        rows: that were read.
        sha256: of the file, ``""`` where there is none.
    """

    name: str
    rows: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """The reference of one model version.

    Attributes:
        digest: of the model that it is bound to, ``"sha256:..."``.
        made: when, as an ISO 8601 text in UTC.
        options: what it was made with.
        layout: how blocks become its features.
        features: in the order of ``layout.names()``.
        sample: rows of the reference, a uniform sample, as ``encode`` gives them.
        subjects: for each wide tensor the flattened rows of a uniform sample, float32.
    """

    model: str
    version: str
    digest: str
    made: str
    source: ProfileSource
    options: dict[str, Any]
    rows: int
    layout: Layout
    features: tuple[FeatureProfile, ...]
    sample: Floats
    subjects: dict[str, Array]

    def feature(self, name: str) -> FeatureProfile:
        """The feature of that name; ``KeyError`` where there is none."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)

    def encode(self, block: Block) -> Floats:
        """The rows of a block as numbers, ``[rows, features]``: see ``encode``.

        Raises:
            UnlikeBlock: the block has not the tensors that the profile was made of.
        """
        return encode(self.layout.tables(block), self.features)


def encode(tables: list[FeatureTable], features: tuple[FeatureProfile, ...]) -> Floats:
    """Features as numbers: a category as its place in the reference, another one as the place
    behind the last, what is missing as NaN.
    """
    columns: list[Floats] = []
    for table in tables:
        for place in range(len(table.names)):
            reference = features[len(columns)].reference
            values = table.values[:, place]
            if isinstance(reference, CategoricalReference):
                columns.append(_codes(values, reference))
            else:
                columns.append(values.astype(np.float64))
    return np.stack(columns, axis=1) if columns else np.empty((0, 0))


def _codes(values: Array, reference: CategoricalReference) -> Floats:
    known = {category: place for place, category in enumerate(reference.categories)}
    if reference.text:
        return np.array([_text_code(value, known) for value in values.tolist()], np.float64)
    numbers = values.astype(np.float64)
    codes = np.full(len(numbers), float(len(known)))
    for category, place in known.items():
        codes[numbers == category] = place
    codes[np.isnan(numbers)] = np.nan
    return codes


def _text_code(value: Any, known: dict[Any, int]) -> float:
    text = as_text(value)
    return known.get(text, len(known)) if text else float("nan")


def as_text(value: Any) -> str:
    """A text of a tensor as ``str``; empty where it is missing."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else ""
