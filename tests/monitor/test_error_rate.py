"""DDM and EDDM: what river's detectors of these names say, value by value."""

import numpy as np
import pytest
from river.drift import binary

from gateway.monitor.error_rate import ErrorAlarm, ErrorDistanceAlarm, ErrorRateAlarm
from gateway.monitor.findings import Level


def errors(seed: int, *, worse: float) -> list[bool]:
    """4,000 outcomes: 10% wrong, from the middle on ``worse``, and better again at the end."""
    random = np.random.default_rng(seed)
    shares = np.repeat([0.1, worse, 0.05], [2000, 1000, 1000])
    return (random.random(4000) < shares).tolist()


def level_of(detector: binary.DDM | binary.EDDM) -> Level:
    if detector.drift_detected:
        return Level.DRIFTED
    return Level.WARNING if detector.warning_detected else Level.OK


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("make", "river"),
    [
        (ErrorRateAlarm, binary.DDM),
        (lambda: ErrorRateAlarm(100, 1.5, 4.0), lambda: binary.DDM(100, 1.5, 4.0)),
        (ErrorDistanceAlarm, binary.EDDM),
        (lambda: ErrorDistanceAlarm(50, 0.9, 0.8), lambda: binary.EDDM(50, 0.9, 0.8)),
    ],
    ids=["ddm", "ddm with other limits", "eddm", "eddm with other limits"],
)
def test_an_alarm_has_rivers_level_after_every_value(make, river, seed: int) -> None:
    alarm: ErrorAlarm = make()
    oracle = river()
    levels = set()
    for wrong in errors(seed, worse=0.4):
        oracle.update(wrong)
        assert alarm.add(wrong) is level_of(oracle)
        levels.add(alarm.level)
    assert Level.DRIFTED in levels
    assert Level.OK in levels


def test_an_error_rate_that_falls_raises_no_alarm() -> None:
    alarm = ErrorRateAlarm(least=200)
    random = np.random.default_rng(1)
    shares = np.linspace(0.5, 0.1, 2000)
    assert {alarm.add(wrong) for wrong in (random.random(2000) < shares).tolist()} == {Level.OK}
