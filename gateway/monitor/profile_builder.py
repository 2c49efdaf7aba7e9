"""Makes a reference profile of blocks: of data that a model ran over, or of live predictions."""

import contextlib
import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gateway import __version__
from gateway._native.sketch_bins import BinCounts
from gateway._native.sketch_reservoir import Reservoir
from gateway.errors import ConfigError
from gateway.monitor.features import FeatureTable, Layout, Part, Side, layout_of, together
from gateway.monitor.profile import (
    QUANTILES,
    CategoricalReference,
    FeatureProfile,
    Floats,
    NumericReference,
    Profile,
    ProfileSource,
    as_text,
    encode,
)
from gateway.stream.block import Block
from gateway.types import Array

#: Of all values of the reference that are held until the profile is made.
MOST_HELD_BYTES: Final = 512 << 20
#: Rows that are looked at to tell what the features are.
_LAYOUT_ROWS: Final = 256
#: Of one sample in the profile, before it is packed.
MOST_SAMPLE_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """What a profile is made with.

    Attributes:
        few: a column of whole numbers with at most so many different ones, each some 10 times in
            the mean, is categorical.
        most_categories: that are told apart; others count together.
        sample_rows: of the reference that the profile holds, fewer where they would take more than
            4 MiB.
        categorical, numeric: names of features that are so whatever they look like.
        seed: of the sample.
    """

    few: int = 20
    most_categories: int = 100
    sample_rows: int = 1000
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    seed: int = 0

    def document(self) -> dict[str, Any]:
        """The options as JSON values, with what made them so."""
        return {
            "edges": "Doane bins of the reference, and its tenths",
            "few": self.few,
            "most_categories": self.most_categories,
            "sample_rows": self.sample_rows,
            "categorical": list(self.categorical),
            "numeric": list(self.numeric),
            "seed": self.seed,
            "made_by": f"onnx-gateway {__version__}",
        }


class ProfileBuilder:
    """Takes blocks of one model version until there are enough rows; then it makes the profile.

    It holds the values of all features, because edges come from all of them: ``rows`` of them and
    no more, in at most 512 MiB. For one thread.

    Attributes:
        rows: that are wanted; ``None`` for as many as come.
        taken: that there are.

    Raises:
        ConfigError: the values would take too much memory.
    """

    def __init__(
        self,
        rows: int | None = None,
        options: ProfileOptions | None = None,
        labels: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.rows: Final = rows
        self.taken = 0
        self._options = options or ProfileOptions()
        self._labels = labels or {}
        self._layout: Layout | None = None
        self._waiting: list[tuple[Block, int]] = []
        self._lots: list[list[FeatureTable]] = []
        self._subjects: dict[str, Reservoir] = {}
        self._held = 0
        self._model = self._version = ""

    @property
    def full(self) -> bool:
        """Whether there are enough rows."""
        return self.rows is not None and self.taken >= self.rows

    def add(self, block: Block) -> bool:
        """Take the rows of a block, or as many of them as are wanted; returns whether it is full.

        Raises:
            UnlikeBlock: its tensors are not those of the first block.
            ConfigError: it is another model's, or too much is held.
        """
        if self.full:
            return True
        if not self.taken:
            self._model, self._version = block.model, block.version
        if (block.model, block.version) != (self._model, self._version):
            raise ConfigError(
                f"a profile is of one version: expected '{self._model}' {self._version}, given "
                f"'{block.model}' {block.version}"
            )
        wanted = block.rows if self.rows is None else min(block.rows, self.rows - self.taken)
        self.taken += wanted
        if self._layout is not None:
            self._take(self._layout, block, wanted)
            return self.full
        self._waiting.append((block, wanted))
        if self.full or self.taken >= _LAYOUT_ROWS:
            self._begin()
        return self.full

    def _begin(self) -> Layout:
        """Look at the first blocks together: one small one may mislead."""
        layout = layout_of(together([block for block, _ in self._waiting]), self._labels)
        for block, wanted in self._waiting:
            self._take(layout, block, wanted)
        self._layout, self._waiting = layout, []
        return layout

    def _take(self, layout: Layout, block: Block, wanted: int) -> None:
        tables = [_owned(table, wanted) for table in layout.tables(block)]
        subjects = layout.subjects(block)
        self._held += sum(_size(table.values) for table in tables)
        if self._held > MOST_HELD_BYTES:
            raise ConfigError(
                f"the features of {self.taken} rows take more than "
                f"{MOST_HELD_BYTES >> 20} MiB: profile fewer rows"
            )
        self._lots.append(tables)
        for name, rows in subjects.items():
            self._keep(name, rows[:wanted])

    def _keep(self, name: str, rows: Array) -> None:
        if name not in self._subjects:
            width = rows.shape[1]
            capacity = _sample_rows(self._options.sample_rows, width * 4)
            self._subjects[name] = Reservoir(capacity, width, np.float32, self._options.seed)
        self._subjects[name].add(rows)

    def profile(
        self,
        digest: str,
        source: ProfileSource,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> Profile:
        """The profile of what was taken.

        Raises:
            ConfigError: there were no rows or no features, or the options name a feature that is
                not there.
        """
        if not self.taken:
            raise ConfigError("there are no rows to make a profile of")
        layout = self._layout or self._begin()
        kinds = list(layout.names())
        if not kinds:
            raise ConfigError("the model has no tensor that a feature could be made of")
        self._check_names([name for name, *_ in kinds])
        tables = [_joined(lot) for lot in zip(*self._lots, strict=True)]
        columns = [table.values[:, at] for table in tables for at in range(len(table.names))]
        features = tuple(
            self._feature(column, *kind) for column, kind in zip(columns, kinds, strict=True)
        )
        encoded = encode(tables, features)
        capacity = _sample_rows(self._options.sample_rows, encoded.shape[1] * 8)
        sample = Reservoir(capacity, encoded.shape[1], np.float64, self._options.seed)
        sample.add(encoded)
        return Profile(
            model=self._model,
            version=self._version,
            digest=digest,
            made=now().isoformat(timespec="seconds"),
            source=source,
            options=self._options.document(),
            rows=self.taken,
            layout=layout,
            features=features,
            sample=sample.rows(),
            subjects={name: rows.rows() for name, rows in self._subjects.items()},
        )

    def _check_names(self, names: list[str]) -> None:
        for key, wanted in (
            ("categorical", self._options.categorical),
            ("numeric", self._options.numeric),
        ):
            for name in wanted:
                if name not in names:
                    raise ConfigError(
                        f"{key}: there is no feature {name!r}; known are {', '.join(names)}"
                    )

    def _feature(
        self, column: Array, name: str, side: Side, tensor: str, part: Part
    ) -> FeatureProfile:
        if column.dtype.hasobject:
            texts = Counter(map(as_text, column.tolist()))
            missing = texts.pop("", 0)
            reference: NumericReference | CategoricalReference = self._categories(True, texts)
        else:
            values = column.astype(np.float64)
            there = values[~np.isnan(values)]
            missing = len(values) - len(there)
            if self._is_categorical(column, there, name, part):
                finite = there[np.isfinite(there)]
                found, often = np.unique(finite + 0.0, return_counts=True)
                counted = Counter(dict(zip(found.tolist(), often.tolist(), strict=True)))
                reference = self._categories(False, counted, len(there) - len(finite))
            else:
                reference = numeric_reference(there)
        return FeatureProfile(name, side, tensor, part, len(column), missing, reference)

    def _is_categorical(self, column: Array, there: Floats, name: str, part: Part) -> bool:
        if name in self._options.numeric or part in (Part.MEAN, Part.STD):
            return False
        if name in self._options.categorical or part is Part.CLASS or column.dtype.kind == "b":
            return True
        if not there.size or not (np.isfinite(there) & (there == np.floor(there))).all():
            return False
        distinct = len(np.unique(there))
        return distinct <= self._options.few and distinct * 10 <= len(there)

    def _categories(
        self, text: bool, counted: "Counter[Any]", other: int = 0
    ) -> CategoricalReference:
        # Ties go by the category, so that the same data make the same profile.
        often = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
        kept, rest = (
            often[: self._options.most_categories],
            often[self._options.most_categories :],
        )
        return CategoricalReference(
            text,
            tuple(category for category, _ in kept),
            np.array([count for _, count in kept], np.int64),
            other + sum(count for _, count in rest),
            len(counted),
        )


def numeric_reference(values: Floats) -> NumericReference:
    """The distribution of numbers, none of them NaN; infinities count, but make no edges."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    doane = _doane(finite, low, high)
    inner = np.empty(0)
    if finite.size:
        inner = np.unique(np.quantile(finite, np.arange(1, 10) / 10))
        inner = inner[(inner > doane[0]) & (inner < doane[-1])]
    edges = np.unique(np.concatenate([doane, inner]))
    counts = BinCounts([edges])
    counts.add(values)
    quantiles = np.quantile(finite, QUANTILES) if finite.size else np.zeros(len(QUANTILES))
    mean, variance = float(counts.mean[0]), float(counts.variance[0])
    return NumericReference(
        edges,
        counts.counts(0),
        tuple(np.searchsorted(edges, doane).tolist()),
        tuple(np.searchsorted(edges, inner).tolist()),
        mean if np.isfinite(mean) else 0.0,
        float(np.sqrt(variance)) if np.isfinite(variance) else 0.0,
        low,
        high,
        tuple(np.maximum.accumulate(quantiles).tolist()),
    )


def _doane(finite: Floats, low: float, high: float) -> Floats:
    """numpy's Doane edges; one bin around a number that is the only one."""
    edges = np.array([low - 0.5, high + 0.5])
    if high > low and np.isfinite(high - low):
        edges = np.array([low, high])
        # Of numbers near the largest there are, moments overflow: then there is one bin.
        with np.errstate(all="ignore"), contextlib.suppress(ValueError, OverflowError):
            edges = np.histogram_bin_edges(finite, bins="doane")
    elif high > low:
        edges = np.array([low, high])
    edges = np.unique(edges[np.isfinite(edges)])
    if len(edges) < 2:
        edges = np.array([np.nextafter(low, -np.inf), np.nextafter(low, np.inf)])
    return edges


def _sample_rows(wanted: int, row_bytes: int) -> int:
    return max(1, min(wanted, MOST_SAMPLE_BYTES // max(row_bytes, 1)))


def _owned(table: FeatureTable, rows: int) -> FeatureTable:
    """The first rows of a table, and nothing of the block that they came in."""
    values = table.values[:rows]
    return FeatureTable(table.side, table.tensor, table.part, table.names, values.copy())


def _joined(lot: Iterable[FeatureTable]) -> FeatureTable:
    tables = list(lot)
    first = tables[0]
    values = np.concatenate([table.values for table in tables])
    return FeatureTable(first.side, first.tensor, first.part, first.names, values)


def _size(values: Array) -> int:
    if values.dtype.hasobject:
        return sum(
            len(value) + 64 if isinstance(value, str | bytes) else 64 for value in values.flat
        )
    return values.nbytes
