"""What a model's alerts are, from the table ``[alerts]`` of its ``monitor.toml``.

::

    [alerts]
    raise_after = [2, 3]     # in 2 of the last 3 windows
    clear_after = 3          # windows in a row
    silent_after = 3         # windows in a row that had too little data
    cooldown_s = 600
    actions = ["retrain"]    # of the operator's file; without this key all that watch the model
    [alerts.rules.many]
    drifted_share = 0.3      # of the features and outputs
    warning_share = 0.1
    [alerts.rules.price]
    subject = "nswprice"
    test = "psi"
    above = 0.25
    [alerts.rules.accuracy]
    test = "accuracy"        # without a subject: of the model as a whole
    below = 0.8
    raise_after = [1, 1]

What a channel or an action is stands in the operator's file alone: a model's directory may name
them, and can neither reach a new address nor run anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.monitor.findings import Finding, Level, WindowReport
from gateway.tables import Check, integer, list_of, number, read_table, share, table, text, wrong

#: The rule of a model that has none of its own: any subject that drifts is a warning, half of
#: them are a drift of the model.
DEFAULT_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Hysteresis:
    """How much must be seen before an alert changes.

    Attributes:
        raise_count, raise_windows: it is raised to a level that so many of the last so many
            windows had reached.
        clear_windows: it is lowered once so many windows in a row stayed below it.
        silent_windows: it says ``NO_DATA`` once so many in a row had too little data.
        cooldown_s: seconds after it was lowered, for which it is not raised again.
    """

    raise_count: int = 2
    raise_windows: int = 3
    clear_windows: int = 3
    silent_windows: int = 3
    cooldown_s: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRule:
    """Looks at how many subjects drifted in a window, as a share of those with enough data.

    ``warning_share`` of 0 warns of any. ``subjects`` are patterns as of a shell.
    """

    name: str
    hysteresis: Hysteresis
    drifted_share: float = DEFAULT_SHARE
    warning_share: float = 0.0
    subjects: tuple[str, ...] = ("*",)

    def judge(self, report: WindowReport) -> tuple[Level, Finding] | None:
        """What the window says of it; ``None`` where it has nothing on these subjects."""
        worst: dict[str, Level] = {}
        for finding in report.findings:
            if finding.subject and any(fnmatchcase(finding.subject, p) for p in self.subjects):
                seen = worst.get(finding.subject, Level.NO_DATA)
                worst[finding.subject] = max(seen, finding.level, key=rank)
        if not worst:
            return None
        known = [level for level in worst.values() if level is not Level.NO_DATA]
        drifted = sorted(name for name, level in worst.items() if level is Level.DRIFTED)
        found = len(drifted) / len(known) if known else None
        level = Level.NO_DATA if found is None else Level.OK
        if drifted and found is not None:
            if found >= self.drifted_share:
                level = Level.DRIFTED
            elif found >= self.warning_share:
                level = Level.WARNING
        named = ", ".join(drifted[:10]) + (", ..." if len(drifted) > 10 else "")
        detail = f"{len(drifted)} of {len(known)} drifted" + (f": {named}" if named else "")
        return level, Finding(
            subject="",
            test="drifted_share",
            value=found,
            threshold=self.drifted_share,
            level=level,
            detail=detail,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRule:
    """Holds one figure of one subject against limits of its own.

    ``subject`` is ``""`` for the model as a whole. At least one limit is set; those of ``above``
    are passed by larger figures, those of ``below`` by smaller ones.
    """

    name: str
    hysteresis: Hysteresis
    test: str
    subject: str = ""
    above: float | None = None
    below: float | None = None
    warning_above: float | None = None
    warning_below: float | None = None

    def judge(self, report: WindowReport) -> tuple[Level, Finding] | None:
        """What the window says of it; ``None`` where it has no such figure."""
        for finding in report.findings:
            if (finding.subject, finding.test) == (self.subject, self.test):
                return self._judge(finding)
        return None

    def _judge(self, finding: Finding) -> tuple[Level, Finding]:
        value = finding.value
        level, limit = Level.OK, self.above if self.above is not None else self.below
        if value is None:
            level = Level.NO_DATA
        elif _passes(value, self.above, self.below):
            level = Level.DRIFTED
        elif _passes(value, self.warning_above, self.warning_below):
            level = Level.WARNING
            limit = self.warning_above if self.warning_above is not None else self.warning_below
        return level, Finding(
            subject=finding.subject,
            test=finding.test,
            value=value,
            p_value=finding.p_value,
            threshold=finding.threshold if limit is None else limit,
            level=level,
            detail=finding.detail,
        )


Rule = ShareRule | FigureRule


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """A model's ``[alerts]``.

    Attributes:
        hysteresis: of the alerts of features, outputs and tests; a rule may have its own.
        rules: what makes an episode, besides what is found of the model as a whole.
        channels, actions: names of the operator's; ``None`` for all that watch the model.
    """

    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    rules: tuple[Rule, ...] = ()
    channels: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None

    @property
    def in_force(self) -> tuple[Rule, ...]:
        """The rules, or the one of a model that has none."""
        return self.rules or (ShareRule(name="drifted_share", hysteresis=self.hysteresis),)


def rank(level: Level) -> int:
    """Its place from good to bad, 0 for ``NO_DATA``."""
    return _RANKS[level]


def read_alerts(where: str, value: Any) -> AlertSettings:
    """A check of ``gateway.tables``: the table ``[alerts]``."""
    values = read_table(table(where, value), _FIELDS, f"{where}.")
    common = _hysteresis(values, Hysteresis(), where)
    rules = values.get("rules", {})
    return AlertSettings(
        hysteresis=common,
        rules=tuple(_rule(f"{where}.rules.{name}", name, rules[name], common) for name in rules),
        channels=values.get("channels"),
        actions=values.get("actions"),
    )


def _passes(value: float, above: float | None, below: float | None) -> bool:
    return (above is not None and value > above) or (below is not None and value < below)


def _hysteresis(values: Mapping[str, Any], common: Hysteresis, where: str) -> Hysteresis:
    count, windows = values.get("raise_after", (common.raise_count, common.raise_windows))
    return Hysteresis(
        raise_count=count,
        raise_windows=windows,
        clear_windows=values.get("clear_after", common.clear_windows),
        silent_windows=values.get("silent_after", common.silent_windows),
        cooldown_s=values.get("cooldown_s", common.cooldown_s),
    )


def _rule(where: str, name: str, value: Any, common: Hysteresis) -> Rule:
    values = read_table(table(where, value), _RULE_FIELDS, f"{where}.")
    hysteresis = _hysteresis(values, common, where)
    given = {key: item for key, item in values.items() if key not in _HYSTERESIS_FIELDS}
    of_share = {"drifted_share", "warning_share", "subjects"} & given.keys()
    of_figure = given.keys() - of_share
    if of_share and of_figure:
        raise ConfigError(
            f"{where} mixes two kinds of rules: {', '.join(sorted(of_share))} count subjects, "
            f"{', '.join(sorted(of_figure))} look at one figure; make it two rules"
        )
    if of_share:
        rule = ShareRule(name=name, hysteresis=hysteresis, **given)
        if rule.warning_share > rule.drifted_share:
            raise ConfigError(
                f"{where}.warning_share is {rule.warning_share:g}, above drifted_share, "
                f"{rule.drifted_share:g}: it would never warn"
            )
        return rule
    if "test" not in given or not given.keys() - {"test", "subject"}:
        raise ConfigError(
            f"{where} needs either a drifted_share, or a test and at least one of above, below, "
            "warning_above and warning_below"
        )
    return FigureRule(name=name, hysteresis=hysteresis, **given)


def _raise_after(where: str, value: Any) -> tuple[int, int]:
    expected = "two whole numbers [n, m], n of the last m windows, 1 <= n <= m <= 1000"
    if not isinstance(value, list) or len(value) != 2:
        raise wrong(where, expected, value)
    for item in value:
        if not isinstance(item, int) or isinstance(item, bool):
            raise wrong(where, expected, value)
    if not 1 <= value[0] <= value[1] <= MAX_WINDOWS:
        raise wrong(where, expected, value)
    return value[0], value[1]


def _windows(where: str, value: Any) -> int:
    if integer(1)(where, value) > MAX_WINDOWS:
        raise wrong(where, f"an integer from 1 to {MAX_WINDOWS}", value)
    return int(value)


def _finite(where: str, value: Any) -> float:
    number(where, abs(value) if isinstance(value, int | float) else value)
    return float(value)


def _share_above_0(where: str, value: Any) -> float:
    if share(where, value) == 0:
        raise wrong(where, "a number above 0 and at most 1", value)
    return float(value)


_RANKS: Final = {Level.NO_DATA: 0, Level.OK: 1, Level.WARNING: 2, Level.DRIFTED: 3}
#: Most windows that an alert looks back on.
MAX_WINDOWS: Final = 1000

_HYSTERESIS_FIELDS: Final[dict[str, Check]] = {
    "raise_after": _raise_after,
    "clear_after": _windows,
    "silent_after": _windows,
    "cooldown_s": number,
}
_FIELDS: Final[dict[str, Check]] = {
    **_HYSTERESIS_FIELDS,
    "rules": table,
    "channels": list_of(text),
    "actions": list_of(text),
}
_RULE_FIELDS: Final[dict[str, Check]] = {
    **_HYSTERESIS_FIELDS,
    "drifted_share": _share_above_0,
    "warning_share": share,
    "subjects": list_of(text),
    "subject": text,
    "test": text,
    "above": _finite,
    "below": _finite,
    "warning_above": _finite,
    "warning_below": _finite,
}
