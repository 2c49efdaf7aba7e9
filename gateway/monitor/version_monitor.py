"""The windows of one model version: its reference, its monitors, and what they have found."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final, Protocol

from gateway.monitor.features import UnlikeBlock
from gateway.monitor.findings import Finding, Level, WindowReport
from gateway.monitor.kinds import MonitorKind, Watched, WindowMonitor
from gateway.monitor.monitor_file import MonitorSettings
from gateway.monitor.profile import Profile
from gateway.monitor.spans import Span, alike
from gateway.monitor.univariate import FeatureMonitor
from gateway.monitor.windows import Window, Windows
from gateway.stream.block import Block
from gateway.stream.stream import Source

log = logging.getLogger(__name__)

#: The levels from good to bad.
LEVELS: Final = tuple(Level)


class Collector(Protocol):
    """Makes a profile of the first predictions; ``ProfileBuilder`` behind ``live_profile.py``."""

    @property
    def wanted(self) -> int:
        """Rows that are still wanted."""

    def add(self, block: Block) -> Profile | None:
        """Take rows; the profile once there are enough."""


class VersionMonitor:
    """Watches one model version. Used on the monitors' thread; its figures may be read by any.

    Attributes:
        source: the version.
        settings: all of its ``monitor.toml``.
        profile: what it is compared with; ``None`` while that is being collected.
        reports: the last ones, the newest last.
        windows: how many windows there were.
        rows: predictions that were looked at.
        lost_rows: predictions that could not be, because they are unlike the profile.
        broken: why it watches no more, ``""`` while it does.
    """

    def __init__(
        self,
        source: Source,
        settings: MonitorSettings,
        reference: Profile | Collector,
        kinds: Sequence[MonitorKind],
        tell: Callable[[WindowReport], None],
        before: "VersionMonitor | None" = None,
    ) -> None:
        """Watch.

        Args:
            reference: the profile, or what collects it.
            kinds: of further monitors.
            tell: called with each window's report.
            before: what watched the version until its settings changed; its figures go on.

        Raises:
            ConfigError: the settings do not fit the profile.
        """
        self.source: Final = source
        self.settings: Final = settings
        self.profile: Profile | None = None
        self.reports: Final[deque[WindowReport]] = deque(
            before.reports if before else (), maxlen=settings.keep
        )
        self.windows: int = before.windows if before else 0
        self.rows: int = before.rows if before else 0
        self.lost_rows: int = before.lost_rows if before else 0
        self.broken = ""
        self._kinds: Final = kinds
        self._tell: Final = tell
        self._collector: Collector | None = None
        self._windows: Final = Windows(settings.window)
        self._monitors: list[WindowMonitor] = []
        self._told_unlike = False
        if isinstance(reference, Profile):
            self._watch(reference)
        else:
            self._collector = reference

    @property
    def level(self) -> Level:
        """The worst that was found in the last window."""
        return level_of(self.reports[-1]) if self.reports else Level.NO_DATA

    @property
    def to_collect(self) -> int:
        """Rows that the reference still needs."""
        return self._collector.wanted if self._collector is not None else 0

    def reference_for(
        self, source: Source, settings: MonitorSettings
    ) -> "Profile | Collector | None":
        """The reference that goes on under other settings; ``None`` where it is to be another."""
        if not settings.reference.live or settings.reference != self.settings.reference:
            return None
        return (self.profile or self._collector) if source.digest == self.source.digest else None

    def reference_words(self) -> str:
        """What it is compared with, for people."""
        if self.profile is None:
            return f"its next {self.to_collect:,} predictions become the reference"
        origin = self.profile.source
        return f"the reference is {self.profile.rows:,} rows of {origin.name}"

    def retire(self) -> None:
        """Free what was counted; the reports stay."""
        self._monitors = []
        self._collector = None

    def take(self, blocks: Sequence[Block]) -> None:
        """The next predictions.

        Raises:
            ConfigError: the reference that was collected cannot be used.
        """
        for span in self._spans(blocks):
            self.rows += span.rows
            try:
                self._take(span)
            except UnlikeBlock as error:
                self.lost_rows += span.rows
                self._tell_unlike(error)

    def tick(self, now: float) -> None:
        """End the windows that are over by the clock, Unix seconds."""
        if self._collector is None:
            while (window := self._windows.tick(now)) is not None:
                self._end(window)

    def _spans(self, blocks: Sequence[Block]) -> Iterator[Span]:
        def key(block: Block) -> tuple[object, ...]:
            return (self._windows.step_of(block.at), *alike(block))

        for _, run in groupby(blocks, key):
            yield Span.of(list(run))

    def _take(self, span: Span) -> None:
        if self._collector is not None:
            rows = min(self._collector.wanted, span.rows)
            profile = self._collector.add(span.part(0, rows).block)
            if profile is None:
                return
            self._watch(profile)
            self._collector = None
            if rows == span.rows:
                return
            span = span.part(rows, span.rows)
        for part, window in self._windows.take(span):
            if part is not None:
                for monitor in self._monitors:
                    monitor.take(part.block)
            if window is not None:
                self._end(window)

    def _watch(self, profile: Profile) -> None:
        watched = Watched(self.source, self.settings, profile)
        monitors: list[WindowMonitor] = [FeatureMonitor(watched)]
        monitors += [
            kind.make(self.settings.monitors[kind.name], watched)
            for kind in self._kinds
            if kind.name in self.settings.monitors
        ]
        self.profile = profile
        self._monitors = monitors

    def _end(self, window: Window) -> None:
        findings: list[Finding] = []
        for monitor in self._monitors:
            findings += monitor.end(window)
        if not window.full:
            return
        report = WindowReport(
            model=self.source.model,
            version=self.source.version,
            number=self.windows,
            began=window.began,
            ended=window.ended,
            rows=window.rows,
            findings=tuple(findings),
        )
        self.windows += 1
        self.reports.append(report)
        self._tell(report)

    def _tell_unlike(self, error: UnlikeBlock) -> None:
        if not self._told_unlike:
            log.warning(
                "predictions of model '%s' version '%s' cannot be compared with the reference, and "
                "are not looked at: %s",
                self.source.model,
                self.source.version,
                error,
            )
        self._told_unlike = True


def level_of(report: WindowReport) -> Level:
    """The worst that was found in a window."""
    return max((f.level for f in report.findings), key=LEVELS.index, default=Level.NO_DATA)
