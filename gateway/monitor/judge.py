"""From a figure with its interval to a finding: is it worse than it may be?"""

from dataclasses import dataclass

from gateway.monitor.findings import Finding, Level
from gateway.monitor.quality import LOSSES, Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How bad a figure may be.

    Attributes:
        drifted: beyond this by more than chance, the whole interval, it is ``DRIFTED``.
        warning: beyond this it is a ``WARNING``; by default where it is beyond ``drifted`` and may
            be so by chance.
    """

    drifted: float
    warning: float | None = None


def judge(test: str, estimate: Estimate, limit: Limit | None, rows: int, told: str) -> Finding:
    """The finding that a figure gives; ``OK`` without a limit, and told all the same.

    Args:
        test: the figure's name, one of those in ``quality.py`` or made of one (``estimated_f1``).
        told: what kind of rows those are, for people: ``labelled``.
    """
    detail = f"{estimate.low:.4g} to {estimate.high:.4g}, of {rows} {told} rows"
    if limit is None:
        return Finding(subject="", test=test, value=estimate.value, detail=detail)
    # Losses are turned over, so that lower is worse for all.
    loss = test.removeprefix("estimated_") in LOSSES
    sign = -1.0 if loss else 1.0
    best = -estimate.low if loss else estimate.high
    warning = limit.drifted if limit.warning is None else limit.warning
    level = Level.OK
    if best < sign * limit.drifted:
        level = Level.DRIFTED
    elif sign * estimate.value < sign * warning:
        level = Level.WARNING
    if level is not Level.OK:
        detail += f"; {'at most' if loss else 'at least'} {limit.drifted:g} is wanted"
    return Finding(
        subject="",
        test=test,
        value=estimate.value,
        threshold=limit.drifted,
        level=level,
        detail=detail,
    )
