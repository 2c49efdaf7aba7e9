"""Alarms over a classifier's errors as they become known, one by one.

DDM: J. Gama, P. Medas, G. Castillo and P. Rodrigues, 2004, "Learning with drift detection"; alarms
when the error rate has risen. EDDM: M. Baena-Garcia and others, 2006, "Early drift detection
method"; alarms when the distance between errors has shrunk, and sees slow changes sooner. Both find
what river's detectors of these names find, value by value.

DDM asks after each value whether the rate is three deviations above its lowest, so that in a long
stream false alarms are many more than one value's 0.1%: ``drift_deviations`` is the knob.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from gateway.monitor.findings import Level


class ErrorAlarm(Protocol):
    """Watches errors."""

    @property
    def level(self) -> Level:
        """``OK``, ``WARNING`` or ``DRIFTED``, after the last value."""

    def add(self, wrong: bool) -> Level:
        """Take one outcome; the level after it. After ``DRIFTED`` it begins anew."""


@dataclass(slots=True)
class ErrorRateAlarm:
    """DDM.

    Args:
        least: outcomes before it says anything.
        warning_deviations, drift_deviations: above the lowest error rate.

    Attributes:
        level: see ``ErrorAlarm``.
        count, rate: outcomes since it last began anew, and the share of errors among them.
    """

    least: int = 30
    warning_deviations: float = 2.0
    drift_deviations: float = 3.0
    level: Level = Level.OK
    count: int = 0
    rate: float = 0.0
    _least_rate: float = 0.0
    _least_deviation: float = 0.0
    _least_sum: float = math.inf

    def add(self, wrong: bool) -> Level:
        """See ``ErrorAlarm``."""
        if self.level is Level.DRIFTED:
            self.count, self.rate, self._least_sum, self.level = 0, 0.0, math.inf, Level.OK
        self.count += 1
        self.rate += (wrong - self.rate) / self.count
        if self.count <= self.least:
            return self.level
        deviation = math.sqrt(max(self.rate * (1 - self.rate), 0.0) / self.count)
        height = self.rate + deviation
        if height <= self._least_sum:
            self._least_rate, self._least_deviation, self._least_sum = self.rate, deviation, height
        if height > self._least_rate + self.drift_deviations * self._least_deviation:
            self.level = Level.DRIFTED
        elif height > self._least_rate + self.warning_deviations * self._least_deviation:
            self.level = Level.WARNING
        else:
            self.level = Level.OK
        return self.level


@dataclass(slots=True)
class ErrorDistanceAlarm:
    """EDDM.

    Args:
        least: outcomes, and errors, before it says anything.
        warning_ratio, drift_ratio: of the distance now to the largest one, below which it warns
            and alarms.

    Attributes:
        level: see ``ErrorAlarm``.
        count, errors: since it last began anew.
    """

    least: int = 30
    warning_ratio: float = 0.95
    drift_ratio: float = 0.9
    level: Level = Level.OK
    count: int = 0
    errors: int = 0
    _last: int = 0
    _mean: float = 0.0
    _squares: float = 0.0
    _largest: float = -1.0

    def add(self, wrong: bool) -> Level:
        """See ``ErrorAlarm``."""
        if self.level is Level.DRIFTED:
            self.count = self.errors = self._last = 0
            self._mean = self._squares = 0.0
            self._largest, self.level = -1.0, Level.OK
        self.count += 1
        if not wrong:
            return self.level
        self.errors += 1
        distance = self.count - self._last
        self._last = self.count
        apart = distance - self._mean
        self._mean += apart / self.errors
        self._squares += apart * (distance - self._mean)
        if self.count > self.least:
            self._judge()
        return self.level

    def _judge(self) -> None:
        variance = self._squares / (self.errors - 1) if self.errors > 1 else 0.0
        now = self._mean + 2 * math.sqrt(variance)
        if now > self._largest:
            self._largest = now
        elif self.errors > self.least:
            ratio = now / self._largest
            if ratio < self.drift_ratio:
                self.level = Level.DRIFTED
            else:
                self.level = Level.WARNING if ratio < self.warning_ratio else Level.OK
