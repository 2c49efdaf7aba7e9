"""The per-feature monitor: each feature and output of a window beside the reference."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from gateway.monitor.counts import FeatureCounts
from gateway.monitor.features import FeatureTable
from gateway.monitor.findings import Finding, Level
from gateway.monitor.kinds import Watched
from gateway.monitor.measures import MEASURES, Limits, Measure
from gateway.monitor.observed import Observed, kind_of, of_reference, of_window
from gateway.monitor.p_values import CORRECTIONS
from gateway.monitor.profile import Profile
from gateway.monitor.samples import FeatureSamples
from gateway.monitor.windows import Window
from gateway.stream.block import Block


class _Figures(NamedTuple):
    """A test's figure, and the chance of one as large while nothing has changed."""

    value: float
    chance: float | None


class FeatureMonitor:
    """Tests every watched feature at each window's end; a ``WindowMonitor``.

    It holds the counts of each step of a window, whatever its length.

    Attributes:
        tests: by feature, its tests and their limits.
    """

    def __init__(self, watched: Watched) -> None:
        settings, profile = watched.settings, watched.profile
        self.tests: Final = _tests(watched)
        sampled = [
            name
            for name, tests in self.tests.items()
            if any(MEASURES[test].samples for test in tests)
        ]
        places = {feature.name: at for at, feature in enumerate(profile.features)}
        self._layout: Final = profile.layout
        self._reference: Final = {
            name: of_reference(
                profile.feature(name),
                profile.sample[:, places[name]] if name in sampled else None,
            )
            for name in self.tests
        }
        self._correct: Final = CORRECTIONS[settings.correction]
        self._significance: Final = settings.significance
        self._parts: Final = settings.window.parts
        rows, parts = settings.window.sample, self._parts
        self._steps: Final = [_Step(profile, sampled, rows, parts, at) for at in range(parts)]
        self._merged: Final = _Step(profile, sampled, rows, parts, parts) if parts > 1 else None
        self._current = 0

    def take(self, block: Block) -> None:
        """See ``WindowMonitor``."""
        self._steps[self._current].add(self._layout.tables(block))

    def end(self, window: Window) -> Iterable[Finding]:
        """See ``WindowMonitor``."""
        found = self._findings(self._whole(), window) if window.full else []
        self._current = (self._current + 1) % self._parts
        self._steps[self._current].clear()
        return found

    def _whole(self) -> "_Step":
        """The counts of all steps."""
        if self._merged is None:
            return self._steps[0]
        self._merged.clear()
        for step in self._steps:
            self._merged.merge(step)
        return self._merged

    def _findings(self, step: "_Step", window: Window) -> list[Finding]:
        seen = step.observed(self.tests) if window.judged else {}
        measured = {
            (feature, test): _measured(
                MEASURES[test], limits, self._reference[feature], seen.get(feature)
            )
            for feature, tests in self.tests.items()
            for test, limits in tests.items()
        }
        chances = self._corrected(measured)
        return [
            self._finding(feature, test, figures.value, chances.get((feature, test)))
            if figures is not None
            else Finding(subject=feature, test=test, value=None, level=Level.NO_DATA)
            for (feature, test), figures in measured.items()
        ]

    def _corrected(
        self, measured: Mapping[tuple[str, str], "_Figures | None"]
    ) -> dict[tuple[str, str], float]:
        """The chances, each corrected for the number of features that have the same test."""
        families: dict[str, list[tuple[tuple[str, str], float]]] = {}
        for key, figures in measured.items():
            if figures is not None and figures.chance is not None:
                families.setdefault(key[1], []).append((key, figures.chance))
        corrected: dict[tuple[str, str], float] = {}
        for family in families.values():
            keys = [key for key, _ in family]
            corrected.update(zip(keys, self._correct([p for _, p in family]), strict=True))
        return corrected

    def _finding(self, feature: str, test: str, value: float, chance: float | None) -> Finding:
        measure, limits = MEASURES[test], self.tests[feature][test]
        detail = ""
        if measure.by_p_value:
            level = limits.level(1.0 if chance is None else chance, falling=True)
        else:
            level = limits.level(value)
            if level is not Level.OK and chance is not None and chance >= self._significance:
                detail = f"not more than chance makes of so few rows (p = {chance:.2g})"
                level = Level.OK
        threshold = limits.drifted if limits.drifted is not None else limits.warning
        return Finding(
            subject=feature,
            test=test,
            value=value,
            p_value=chance if measure.by_p_value else None,
            threshold=threshold or 0.0,
            level=level,
            detail=detail,
        )


class _Step:
    """What is held of one step."""

    def __init__(
        self, profile: Profile, sampled: list[str], rows: int, steps: int, seed: int
    ) -> None:
        self.counts: Final = FeatureCounts(profile)
        self.samples: Final = FeatureSamples(sampled, rows, steps, seed)

    def add(self, tables: list[FeatureTable]) -> None:
        self.counts.add_tables(tables)
        self.samples.add_tables(tables)

    def merge(self, other: "_Step") -> None:
        self.counts.merge(other.counts)
        self.samples.merge(other.samples)

    def clear(self) -> None:
        self.counts.clear()
        self.samples.clear()

    def observed(self, names: Iterable[str]) -> dict[str, Observed]:
        wanted, values = set(names), self.samples.values()
        return {
            feature.name: of_window(feature, found, values.get(feature.name))
            for feature, found in self.counts.features()
            if feature.name in wanted
        }


def _measured(
    measure: Measure, limits: Limits, reference: Observed, seen: Observed | None
) -> _Figures | None:
    """The figures of a test; ``None`` where there is too little to say."""
    if seen is None or not seen.rows or not reference.rows:
        return None
    if measure.name != "missing_rate" and not (seen.values and reference.values):
        return None
    if measure.samples and (seen.sample is None or reference.sample is None):
        return None
    value, chance = measure.measure(reference, seen)
    if measure.chance is not None:
        # Of a figure within its limits nobody asks. As 1 it counts among the features that the
        # others are corrected for, which can only make those larger.
        within = limits.level(value) is Level.OK
        chance = 1.0 if within else measure.chance(reference, seen)
    return _Figures(value, chance)


def _tests(watched: Watched) -> dict[str, dict[str, Limits]]:
    """The tests of each watched feature that fit its kind."""
    made = {}
    for feature in watched.profile.features:
        if watched.settings.watches(feature.name):
            tests = {
                test: limits
                for test, limits in watched.settings.tests_of(feature.name).items()
                if kind_of(feature) in MEASURES[test].kinds
            }
            if tests:
                made[feature.name] = tests
    return made
