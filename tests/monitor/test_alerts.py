"""When an alert goes up and down, against a reference that looks at the whole past."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.monitor.alert_settings import AlertSettings, Hysteresis, rank, read_alerts
from gateway.monitor.alerts import AlertKey, AlertKind, Standing, VersionAlerts
from gateway.monitor.findings import Finding, Level, WindowReport

OK, WARNING, DRIFTED, NO_DATA = Level.OK, Level.WARNING, Level.DRIFTED, Level.NO_DATA

HYSTERESES = st.builds(
    lambda count, more, clear, silent, cooldown: Hysteresis(
        raise_count=count,
        raise_windows=count + more,
        clear_windows=clear,
        silent_windows=silent,
        cooldown_s=cooldown,
    ),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0.0, 3.0, 10.0]),
)


def reference(past, hysteresis):
    """What an alert shows after the windows ``past``: each a level and when it was judged.

    Every step is made from the whole list of what was seen until then.
    """
    level, lowered, shown = OK, None, NO_DATA
    for end in range(1, len(past) + 1):
        known = [(seen, at) for seen, at in past[:end] if seen is not NO_DATA]
        silent = 0
        for seen, _ in reversed(past[:end]):
            if seen is not NO_DATA:
                break
            silent += 1
        if past[end - 1][0] is not NO_DATA:
            now = past[end - 1][1]
            levels = [seen for seen, _ in known]

            def reached(least, levels=levels):
                last = levels[-hysteresis.raise_windows :]
                return sum(rank(each) >= rank(least) for each in last) >= hysteresis.raise_count

            supported = DRIFTED if reached(DRIFTED) else WARNING if reached(WARNING) else OK
            calm = levels[-hysteresis.clear_windows :]
            stays_below = len(calm) == hysteresis.clear_windows and all(
                rank(each) < rank(level) for each in calm
            )
            if rank(supported) > rank(level):
                if lowered is None or now - lowered >= hysteresis.cooldown_s:
                    level = supported
            elif stays_below and rank(supported) < rank(level):
                level, lowered = max(*calm, supported, key=rank), now
        covered = not known or silent >= hysteresis.silent_windows
        shown = NO_DATA if covered else level
    return level, shown


@given(
    HYSTERESES,
    st.lists(
        st.tuples(st.sampled_from(list(Level)), st.sampled_from([0.5, 1.0, 5.0])), max_size=40
    ),
)
def test_an_alert_stands_as_its_whole_past_says(hysteresis, windows):
    standing, now, past = Standing(), 0.0, []
    for seen, wait in windows:
        now += wait
        past.append((seen, now))
        standing = standing.step(seen, now, hysteresis)
        assert (standing.level, standing.shown) == reference(past, hysteresis)
    assert len(standing.recent) <= max(hysteresis.raise_windows, hysteresis.clear_windows)


def walk(levels, **options):
    hysteresis = replace(Hysteresis(cooldown_s=0), **options)
    standing, shown = Standing(), []
    for now, seen in enumerate(levels):
        standing = standing.step(seen, float(now), hysteresis)
        shown.append(standing.shown)
    return shown


def test_one_bad_window_is_no_alert_and_two_of_three_are():
    assert walk([OK, DRIFTED, OK, OK, DRIFTED, OK, DRIFTED]) == [OK] * 6 + [DRIFTED]


def test_it_clears_after_as_many_good_windows_in_a_row_and_not_before():
    levels = [DRIFTED, DRIFTED, OK, OK, DRIFTED, OK, OK, OK]
    assert walk(levels) == [OK, DRIFTED, DRIFTED, DRIFTED, DRIFTED, DRIFTED, DRIFTED, OK]


def test_what_a_long_memory_still_says_is_not_cleared():
    """Else it would be raised again by the very next window."""
    shown = walk([DRIFTED, DRIFTED, *[OK] * 9], raise_windows=10, clear_windows=2)
    assert shown == [OK, *[DRIFTED] * 9, OK]


def test_a_drift_that_eases_becomes_a_warning():
    assert walk([DRIFTED, DRIFTED, WARNING, WARNING, WARNING])[-1] is WARNING


def test_nothing_is_raised_while_it_cools_down():
    bad, good = [DRIFTED] * 2, [OK] * 3
    assert walk([*bad, *good, *bad, DRIFTED], cooldown_s=3)[-3:] == [OK, OK, DRIFTED]


def test_silence_covers_a_level_and_does_not_clear_it():
    shown = walk([NO_DATA, OK, DRIFTED, DRIFTED, *[NO_DATA] * 4, OK])
    assert shown == [NO_DATA, OK, OK, DRIFTED, DRIFTED, DRIFTED, NO_DATA, NO_DATA, DRIFTED]


# What a version's alerts are


def finding(subject, level, test="psi", value=0.5):
    value = None if level is NO_DATA else value
    return Finding(subject=subject, test=test, value=value, threshold=0.2, level=level)


def report(*findings, number=0):
    return WindowReport(
        model="m", version="1", number=number, began=0.0, ended=1.0, rows=10, findings=findings
    )


AT_ONCE = {"raise_after": [1, 1], "clear_after": 1, "cooldown_s": 0}


def alerts(**table):
    return VersionAlerts(read_alerts("alerts", {**AT_ONCE, **table}))


def shown(of):
    return {key.text: standing.shown for key, standing in of.standings()}


def test_a_feature_has_one_alert_for_the_worst_of_its_tests():
    of = alerts()
    changes = of.take(report(finding("x", OK), finding("x", DRIFTED, "ks", 0.7)), 0.0)
    assert shown(of)["subject:x"] is DRIFTED
    assert next(str(c) for c in changes) == "x no data -> drifted (ks 0.7, limit 0.2)"


def test_measures_of_the_whole_model_come_in_windows_of_their_own_and_keep_their_alerts():
    """Labels come later than requests: the window that has the one lacks the other."""
    of = alerts(raise_after=[2, 2])
    for number in range(3):
        of.take(report(finding("", DRIFTED, "accuracy"), number=number), float(number))
        of.take(report(finding("", OK, "two_sample"), number=number), float(number))
    assert shown(of) == {"test:accuracy": DRIFTED, "test:two_sample": OK}


def test_without_rules_a_version_has_drifted_when_half_of_its_subjects_have():
    of = alerts()
    for drifted, level in ((0, OK), (1, WARNING), (2, DRIFTED)):
        levels = [DRIFTED] * drifted + [OK] * (4 - drifted)
        of.take(report(*(finding(f"x{n}", each) for n, each in enumerate(levels))), 0.0)
        assert of.level is level
    assert "2 of 4 drifted: x0, x1" in of.findings[AlertKey(AlertKind.RULE, "drifted_share")].detail


def test_a_share_is_of_those_that_have_data_and_of_those_that_are_meant():
    of = alerts(rules={"some": {"drifted_share": 0.6, "warning_share": 0.4, "subjects": ["x*"]}})
    seen = [
        finding("x1", DRIFTED),
        finding("x2", OK),
        finding("x3", NO_DATA),
        finding("y", DRIFTED),
    ]
    of.take(report(*seen), 0.0)
    assert shown(of)["rule:some"] is WARNING
    assert of.findings[AlertKey(AlertKind.RULE, "some")].value == 0.5
    of.take(report(finding("x1", NO_DATA)), 1.0)
    assert of.findings[AlertKey(AlertKind.RULE, "some")].value is None
    assert of.take(report(finding("", OK, "accuracy")), 2.0)[0].key.kind is AlertKind.TEST


@pytest.mark.parametrize(
    ("value", "level"), [(0.9, OK), (0.84, WARNING), (0.79, DRIFTED), (None, NO_DATA)]
)
def test_a_figure_has_limits_of_its_own(value, level):
    of = alerts(rules={"right": {"test": "accuracy", "below": 0.8, "warning_below": 0.85}})
    of.take(report(finding("", OK, "accuracy", 0.5)), 0.0)
    seen = Finding(subject="", test="accuracy", value=value, level=OK)
    of.take(report(seen), 1.0)
    judged = of.findings[AlertKey(AlertKind.RULE, "right")]
    assert (judged.value, judged.level) == (value, level)


def test_a_rule_may_be_steadier_than_the_others():
    of = alerts(rules={"x": {"subject": "x", "test": "psi", "above": 0.1, "raise_after": [2, 2]}})
    of.take(report(finding("x", DRIFTED)), 0.0)
    assert shown(of) == {"subject:x": DRIFTED, "rule:x": OK}
    assert of.level is OK


def test_a_first_window_in_which_all_is_well_is_nothing_to_tell():
    of = alerts()
    assert not any(c.to_be_told for c in of.take(report(finding("x", OK)), 0.0))
    assert all(c.to_be_told for c in of.take(report(finding("x", DRIFTED)), 1.0))


def test_after_a_restart_a_known_drift_is_cleared_by_windows_and_not_by_the_restart():
    known = [AlertKey(AlertKind.SUBJECT, "x"), AlertKey(AlertKind.RULE, "gone")]
    of = VersionAlerts(read_alerts("alerts", {"clear_after": 2}), known)
    assert shown(of) == {"subject:x": NO_DATA}
    of.take(report(finding("x", OK)), 0.0)
    assert shown(of)["subject:x"] is DRIFTED
    of.take(report(finding("x", OK)), 1.0)
    assert shown(of)["subject:x"] is OK


# What a table may hold


def test_a_table_says_all_of_it():
    settings = read_alerts(
        "alerts",
        {
            "raise_after": [3, 5],
            "clear_after": 4,
            "silent_after": 2,
            "cooldown_s": 60,
            "channels": ["oncall"],
            "actions": [],
            "rules": {"many": {"drifted_share": 0.3}, "a": {"test": "auc", "below": 0.7}},
        },
    )
    assert settings.hysteresis == Hysteresis(
        raise_count=3, raise_windows=5, clear_windows=4, silent_windows=2, cooldown_s=60.0
    )
    assert (settings.channels, settings.actions) == (("oncall",), ())
    assert [rule.name for rule in settings.in_force] == ["many", "a"]
    assert all(rule.hysteresis == settings.hysteresis for rule in settings.rules)
    assert AlertSettings().in_force[0].name == "drifted_share"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"raise_after": [3, 2]}, "alerts.raise_after must be two whole numbers"),
        ({"raise_after": [True, 2]}, "alerts.raise_after must be two whole numbers"),
        ({"clear_after": 0}, "alerts.clear_after must be an integer of at least 1"),
        ({"clear_after": 5000}, "alerts.clear_after must be an integer from 1 to 1000"),
        ({"cooldown": 1}, "alerts.unknown key 'cooldown'; did you mean 'cooldown_s'?"),
        ({"command": ["rm"]}, "alerts.unknown key 'command'"),
        ({"actions": "x"}, "alerts.actions must be a list"),
        ({"rules": {"a": {}}}, "alerts.rules.a needs either a drifted_share, or a test"),
        ({"rules": {"a": {"test": "psi"}}}, "needs either"),
        ({"rules": {"a": {"above": 1}}}, "needs either"),
        ({"rules": {"a": {"drifted_share": 0}}}, "must be a number above 0"),
        ({"rules": {"a": {"drifted_share": 0.1, "warning_share": 0.2}}}, "it would never warn"),
        ({"rules": {"a": {"drifted_share": 0.1, "test": "psi"}}}, "mixes two kinds of rules"),
        ({"rules": {"a": {"test": "psi", "above": float("nan")}}}, "must be a finite number"),
    ],
)
def test_a_wrong_table_is_told(table, told):
    with pytest.raises(ConfigError) as error:
        read_alerts("alerts", table)
    assert told in str(error.value)


def test_a_limit_may_be_negative():
    of = alerts(rules={"r2": {"test": "r2", "below": -1.5}})
    of.take(report(finding("", OK, "r2", -2.0)), 0.0)
    assert shown(of)["rule:r2"] is DRIFTED
