"""What a monitor found in one window of a model version's predictions."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is, from good to bad; ``NO_DATA`` where there is too little to say."""

    NO_DATA = "no data"
    OK = "ok"
    WARNING = "warning"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One measure of one subject.

    Attributes:
        subject: the feature or output, ``""`` for the model as a whole.
        test: the measure, e.g. ``"psi"``.
        value: the figure; ``None`` where there was too little data.
        p_value: after correction for the number of subjects; ``None`` where the test has none.
        threshold: what ``value`` (or ``p_value``) was held against to be ``DRIFTED``.
        level: what follows.
        detail: a sentence for people; ``""`` where the figures say it all.
    """

    subject: str
    test: str
    value: float | None
    p_value: float | None = None
    threshold: float = 0.0
    level: Level = Level.OK
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowReport:
    """All findings of one window.

    Attributes:
        number: counts the windows of the model version, from 0.
        began, ended: when its first and last predictions were answered, Unix seconds.
        rows: predictions in it.
    """

    model: str
    version: str
    number: int
    began: float
    ended: float
    rows: int
    findings: tuple[Finding, ...]
