"""Every test of the study over windows of rows, as the gateway's monitors have them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.monitor import binning, drift
from gateway.monitor.findings import Level
from gateway.monitor.multivariate import MultivariateMonitor
from gateway.monitor.online import Kind, OnlineMonitor, Reference

Floats = npt.NDArray[np.float64]

#: The chance of a false alarm in a window, over all features, of each test that has such a knob.
LEVEL = 0.05
#: What the tests are asked for: half of it, so that a test that has exactly what it is asked for
#: stays under the level over 200 windows, and not by luck.
ASKED = LEVEL / 2
#: Rows of a window, and of the reference, that the tests of all features at once look at.
SAMPLE_ROWS, SAMPLED_REFERENCE = 500, 4000
#: Rows that KSWIN sees of a window: it costs 0.3 ms a value.
KSWIN_ROWS = 100
#: Thresholds of the distances: those that the monitors have unless others are set.
PSI_LIMIT, WASSERSTEIN_LIMIT = 0.2, 0.2
#: Deviations of the reference's own windows: NannyML's.
DEVIATIONS = 3.0

#: Windows that are drawn from the reference for the limit of the resampled distance.
RESAMPLED = 4000

COUNTED = ("jensen_shannon", "jensen_shannon_resampled", "psi", "chi_square")
SAMPLED = ("kolmogorov_smirnov", "wasserstein")
#: Those that are for numbers alone, and the one for categories alone.
TYPED = (*SAMPLED, "chi_square")
ONLINE = tuple(kind.value for kind in Kind)
TOGETHER = ("classifier_two_sample", "mmd")
TESTS = (*COUNTED, *SAMPLED, *ONLINE, *TOGETHER)

#: How the limit of each test is set, for people.
LIMITS = {
    "jensen_shannon": "mean + 3 deviations of the reference's windows, each feature (NannyML)",
    "jensen_shannon_resampled": f"a level of {ASKED} by {RESAMPLED:,} drawn windows, Bonferroni",
    "psi": f"{PSI_LIMIT}, each feature",
    "chi_square": f"p < {ASKED}, Bonferroni",
    "kolmogorov_smirnov": f"p < {ASKED}, Bonferroni",
    "wasserstein": f"{WASSERSTEIN_LIMIT} deviations, each feature (Evidently's figure)",
    "adwin": f"delta from a level of {ASKED}",
    "page_hinkley": f"threshold from a level of {ASKED}",
    "kswin": f"alpha from a level of {ASKED}; {KSWIN_ROWS} rows a window",
    "classifier_two_sample": f"p < {ASKED}",
    "mmd": f"p < {ASKED}",
}

#: Subjects that alarm, by test; ``""`` for all features together.
Alarms = dict[str, list[str]]


class Bins:
    """NannyML's bins of a reference, and one more for all that is outside: a counter's memory."""

    def __init__(self, reference: Floats) -> None:
        values = np.unique(reference)
        few = len(values) <= binning.NANNYML_FEW
        self._values = values if few else None
        self._edges = np.zeros(0) if few else binning.doane_edges(reference)
        self.reference = self.count(reference)

    def count(self, values: Floats) -> Floats:
        if self._values is None:
            counts = np.histogram(values, self._edges)[0]
        else:
            places = np.minimum(np.searchsorted(self._values, values), len(self._values) - 1)
            known = self._values[places] == values
            counts = np.bincount(places[known], minlength=len(self._values))
        return np.append(counts, len(values) - counts.sum()).astype(np.float64)


@dataclass
class Suite:
    """The tests against one reference. Windows are to be given in their order.

    Attributes:
        figures: what each test that has a figure for each feature said of the last window.
        rows: rows of the windows so far.
        firsts: the row of the first detection of each online test in the last window.
    """

    features: tuple[str, ...]
    categorical: frozenset[str]
    reference: npt.NDArray[np.float32]
    window: int
    seed: int = 0
    tests: tuple[str, ...] = TESTS
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: int = 0
    firsts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._columns = dict(zip(self.features, self.reference.T.astype(np.float64), strict=True))
        self._numeric = [name for name in self.features if name not in self.categorical]
        self._bins = {name: Bins(values) for name, values in self._columns.items()}
        self._samples = {name: drift.Sample.of(self._columns[name]) for name in self._numeric}
        self._limits = {name: self._own_limit(name) for name in self.features}
        random = np.random.default_rng(self.seed)
        each = ASKED / len(self.features)
        self._resampled = {
            name: resampled_limit(bins.reference, self.window, each, random)
            for name, bins in self._bins.items()
        }
        known = {name: Reference.of(self._columns[name]) for name in self._numeric}
        kinds = [kind for kind in Kind if kind.value in self.tests]
        self._online = OnlineMonitor(
            dict(known),
            kinds,
            level=ASKED,
            window_rows=self.window,
            per_second={
                Kind.ADWIN: None,
                Kind.PAGE_HINKLEY: None,
                # The clock goes by windows.
                Kind.KSWIN: KSWIN_ROWS * max(len(known), 1),
            },
            given={Kind.KSWIN: {"alpha": ASKED / max(len(known), 1) / KSWIN_ROWS}},
        )
        self._together = MultivariateMonitor(
            "x",
            level=ASKED,
            reference=self.reference,
            sample_rows=SAMPLE_ROWS,
            reference_rows=SAMPLED_REFERENCE,
            budget_s=60.0,
            seed=self.seed,
        )

    def _own_limit(self, name: str) -> float:
        """NannyML's for Jensen-Shannon: of the reference's own windows, the last one shorter."""
        bins = self._bins[name]
        parts = windows_of(self._columns[name], self.window)
        found = [drift.jensen_shannon(bins.reference, bins.count(part)) for part in parts]
        return float(np.mean(found) + DEVIATIONS * np.std(found))

    def look(self, rows: npt.NDArray[np.float32]) -> Alarms:
        """The subjects that alarm in a window."""
        columns = dict(zip(self.features, rows.T.astype(np.float64), strict=True))
        alarms: Alarms = {test: [] for test in self.tests}
        self.figures = {}
        self._one_by_one(columns, alarms)
        if any(test in self.tests for test in ONLINE):
            self._value_by_value(columns, alarms)
        if any(test in self.tests for test in TOGETHER):
            self._together.add(rows)
            for finding in self._together.findings():
                if finding.level is Level.DRIFTED and finding.test in alarms:
                    alarms[finding.test].append("")
        self.rows += len(rows)
        return alarms

    def _one_by_one(self, columns: Mapping[str, Floats], alarms: Alarms) -> None:
        each = ASKED / len(self.features)
        tests: dict[str, Callable[[str, Floats], tuple[float, bool]]] = {
            "jensen_shannon": lambda name, values: _above(
                drift.jensen_shannon(*self._counts(name, values)), self._limits[name]
            ),
            "jensen_shannon_resampled": lambda name, values: _above(
                drift.jensen_shannon(*self._counts(name, values)), self._resampled[name]
            ),
            "psi": lambda name, values: _above(drift.psi(*self._counts(name, values)), PSI_LIMIT),
            "chi_square": lambda name, values: _below(
                drift.chi_square(*self._counts(name, values)), each
            ),
            "kolmogorov_smirnov": lambda name, values: _below(
                drift.kolmogorov_smirnov(
                    self._samples[name], drift.Sample.of(values), method="asymp"
                ),
                each,
            ),
            "wasserstein": lambda name, values: _above(
                drift.wasserstein_over_deviation(
                    self._samples[name], drift.Sample.of(values), float(self._columns[name].std())
                ),
                WASSERSTEIN_LIMIT,
            ),
        }
        for test, measure in tests.items():
            if test not in self.tests:
                continue
            for name, values in columns.items():
                # Chi-square is for categories: of a number's bins many hold too few values.
                if (test in SAMPLED) == (name in self.categorical) and test in TYPED:
                    continue
                figure, alarmed = measure(name, values)
                self.figures.setdefault(test, {})[name] = figure
                if alarmed:
                    alarms[test].append(name)

    def _counts(self, name: str, values: Floats) -> tuple[Floats, Floats]:
        return self._bins[name].reference, self._bins[name].count(values)

    def _value_by_value(self, columns: Mapping[str, Floats], alarms: Alarms) -> None:
        self.firsts = {}
        numeric = {name: columns[name] for name in self._numeric}
        if not numeric:
            return
        self._online.add(numeric, float(self._online.rows // self.window))
        for detection in self._online.detections:
            self.firsts.setdefault(detection.kind.value, detection.row)
        for finding in self._online.findings():
            if finding.level is Level.DRIFTED:
                alarms[finding.test].append(finding.subject)


def resampled_limit(
    counts: Floats, window: int, level: float, random: np.random.Generator
) -> float:
    """What the Jensen-Shannon distance passes with this chance where nothing has changed.

    By windows, and references as large as this one, that are drawn from its shares. A value beyond
    either end of what it has seen is to be expected once in as many rows: the last bin has two.
    """
    shares = counts.copy()
    shares[-1] += 2
    shares /= shares.sum()
    before = random.multinomial(int(counts.sum()), shares, RESAMPLED) / counts.sum()
    after = random.multinomial(window, shares, RESAMPLED) / window
    middle = (before + after) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(p > 0, p * np.log2(p / middle), 0.0).sum(axis=1) for p in (before, after)]
    divergence = np.maximum((parts[0] + parts[1]) / 2, 0.0)
    return float(np.quantile(np.sqrt(divergence), 1 - level))


def _above(figure: float, limit: float) -> tuple[float, bool]:
    return figure, figure > limit


def _below(tested: tuple[float, float], limit: float) -> tuple[float, bool]:
    return tested[1], tested[1] < limit


def windows_of(rows: Any, size: int) -> list[Any]:
    """``rows`` in windows of ``size``, the last one shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
