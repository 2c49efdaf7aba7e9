"""Where a window ends: pure arithmetic over rows and times that are passed in."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.monitor.monitor_file import WindowSettings
from gateway.monitor.spans import Span


@dataclass(frozen=True, slots=True)
class Window:
    """A window that has ended, or a step of one.

    Attributes:
        number: counts the steps of the model version, from 0.
        began, ended: when its first and last predictions were answered, or, by time, from when to
            when it is; Unix seconds.
        rows: predictions in it.
        full: whether it is as long as it is to be; a sliding window grows at first.
        judged: whether it has enough predictions.
    """

    number: int
    began: float
    ended: float
    rows: int
    full: bool
    judged: bool


@dataclass(frozen=True, slots=True)
class _Step:
    began: float
    ended: float
    rows: int


class Windows:
    """Cuts the predictions of one version where its steps end.

    A window is one step, or the last ``settings.parts`` of them. By time, steps begin at whole
    multiples of their length since 1970, so that those of several processes are the same ones.
    """

    def __init__(self, settings: WindowSettings) -> None:
        self._settings: Final = settings
        self._length: Final = settings.step or settings.rows or settings.seconds
        self._steps: Final[list[_Step]] = []
        self._number = 0
        self._rows = 0
        self._began = 0.0
        self._end: float | None = None

    def take(self, span: Span) -> Iterator[tuple[Span | None, Window | None]]:
        """``span`` cut into parts: each is to be counted, then the window, if any, ends.

        By time all of its rows must be of one step: of blocks with one ``step_of``.
        """
        if self._settings.seconds:
            at = span.time(0)
            while (window := self.tick(at)) is not None:
                yield None, window
            self._rows += span.rows
            yield span, None
            return
        start = 0
        while start < span.rows:
            stop = min(start + int(self._length) - self._rows, span.rows)
            if self._rows == 0:
                self._began = span.time(start)
            self._rows += stop - start
            ended = self._close(span.time(stop - 1)) if self._rows == self._length else None
            yield span.part(start, stop), ended
            start = stop

    def step_of(self, at: float) -> int:
        """The step that a time is in; what blocks must have in common to be one span."""
        return math.floor(at / self._length) if self._settings.seconds else 0

    def tick(self, now: float) -> Window | None:
        """The window that has ended by the clock, if one has; to be asked until none has."""
        if not self._settings.seconds:
            return None
        if self._end is None:
            self._open(now)
            return None
        if now < self._end:
            return None
        window = self._close(self._end)
        if now >= self._end + self._length * (self._settings.parts + 1):
            # Nobody asked for long, as after a machine's sleep: what nobody saw is not told of.
            self._steps.clear()
            self._end = None
            self._open(now)
        return window

    def _open(self, at: float) -> None:
        if self._end is None:
            self._began = self.step_of(at) * self._length
            self._end = self._began + self._length

    def _close(self, ended: float) -> Window:
        parts = self._settings.parts
        self._steps.append(_Step(self._began, ended, self._rows))
        del self._steps[:-parts]
        rows = sum(step.rows for step in self._steps)
        window = Window(
            self._number,
            self._steps[0].began,
            ended,
            rows,
            len(self._steps) == parts,
            bool(self._settings.rows) or rows >= self._settings.min_rows,
        )
        self._number += 1
        self._rows = 0
        if self._end is not None:
            self._began, self._end = self._end, self._end + self._length
        return window
