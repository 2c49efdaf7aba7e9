"""Traffic from a file: a model that is named is declared whole, and applying twice does nothing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.declaration import Change, Declared, difference, read_declaration, target
from gateway.control.traffic import (
    LATEST,
    Canary,
    CanaryGates,
    CanaryPhase,
    CanaryPlan,
    CanaryStep,
    ModelTraffic,
    ShadowPlan,
    as_table,
)
from gateway.errors import ConfigError
from tests.control.traffics import DECLARED, TRAFFICS

WHOLE = """
[models.iris]
stable = "2"
[models.iris.labels]
champion = "1"
[models.iris.shadow]
version = "3"
percent = 50
[models.iris.canary]
version = 4
sticky_header = "X-User-Id"
steps = [{ percent = 5, hold_s = 300, min_requests = 500 }, { percent = 50 }]
[models.iris.canary.gates]
max_error_increase = 0.005
"""
PLAN = CanaryPlan(version="3")
CANARY = """
[models.iris]
stable = "2"
canary = { version = "3" }
"""


def applied(text: str, current: ModelTraffic, keep_previous: int = 1) -> ModelTraffic:
    return target(current, read_declaration(text)["iris"], keep_previous)


def changed(text: str, current: ModelTraffic) -> list[tuple[str, object, object]]:
    changes = difference({"iris": current}, read_declaration(text))
    return [(change.field, change.before, change.after) for change in changes]


def test_all_that_can_be_declared() -> None:
    assert applied(WHOLE, ModelTraffic()) == ModelTraffic(
        stable="2",
        labels={"champion": "1"},
        shadow=ShadowPlan(version="3", percent=50.0),
        canary=Canary(
            plan=CanaryPlan(
                version="4",
                sticky_header="x-user-id",
                steps=(
                    CanaryStep(percent=5.0, hold_s=300.0, min_requests=500),
                    CanaryStep(percent=50.0),
                ),
                gates=CanaryGates(max_error_increase=0.005),
            )
        ),
    )


def test_tables_are_read_as_the_toml_that_they_stand_for() -> None:
    tables = {"models": {"iris": {"stable": "2", "canary": {"version": "3"}}}}
    assert read_declaration(tables) == read_declaration(CANARY)


def test_a_model_that_is_named_is_declared_whole() -> None:
    current = ModelTraffic(
        stable="2", labels={"champion": "1"}, shadow=ShadowPlan(version="3"), previous=("1",)
    )
    assert applied("[models.iris]", current) == ModelTraffic(stable="2", previous=("1",))
    assert changed("[models.iris]", current) == [
        ("labels.champion", "1", None),
        ("shadow", as_table(ShadowPlan(version="3")), None),
    ]


def test_models_that_are_not_named_are_not_touched() -> None:
    current = {"iris": ModelTraffic(stable="1"), "other": ModelTraffic(stable="9")}
    (change,) = difference(current, read_declaration('models.iris.stable = "2"'))
    assert change == Change("iris", "stable", "1", "2")
    assert change.as_table() == {"model": "iris", "field": "stable", "from": "1", "to": "2"}


def test_changes_are_told_by_model_then_in_the_order_of_the_traffic() -> None:
    declared = read_declaration(WHOLE + '[models.a]\nstable = "1"\n')
    told = [(change.model, change.field) for change in difference({}, declared)]
    assert told == [
        ("a", "stable"),
        ("iris", "stable"),
        ("iris", "labels.champion"),
        ("iris", "canary"),
        ("iris", "shadow"),
    ]


def test_a_new_stable_version_keeps_the_one_before_for_a_rollback() -> None:
    current = ModelTraffic(stable="2", previous=("1",))
    assert applied('models.iris.stable = "3"', current).previous == ("2",)
    assert applied('models.iris.stable = "3"', current, keep_previous=2).previous == ("2", "1")
    assert applied('models.iris.stable = "latest"', current) == replace(current, stable=LATEST)


def test_the_smallest_part_that_differs_is_told() -> None:
    current = applied(CANARY, ModelTraffic(stable="2"))
    stricter = CANARY.replace('"3" }', '"3", gates = { alpha = 0.01 } }')
    assert changed(stricter, current) == [("canary.plan.gates.alpha", 0.05, 0.01)]


@pytest.mark.parametrize("phase", list(CanaryPhase))
def test_a_canary_that_was_started_is_not_started_again(phase: CanaryPhase) -> None:
    canary = Canary(plan=PLAN, phase=phase, step=1, reason="as it happened")
    current = ModelTraffic(stable="2", canary=canary)
    assert applied(CANARY, current) == current
    assert changed(CANARY, current) == []


@pytest.mark.parametrize("phase", list(CanaryPhase))
def test_another_plan_is_another_canary(phase: CanaryPhase) -> None:
    plan = replace(PLAN, steps=(CanaryStep(percent=50),))
    current = ModelTraffic(stable="2", canary=Canary(plan=plan, phase=phase))
    assert applied(CANARY, current).canary == Canary(plan=PLAN)


def test_a_promotion_is_not_undone_by_the_file_that_asked_for_the_canary() -> None:
    promoted = Canary(plan=PLAN, phase=CanaryPhase.PROMOTED)
    current = ModelTraffic(stable="3", previous=("2",), canary=promoted)
    assert applied(CANARY, current) == current
    without = 'models.iris.stable = "2"'
    assert applied(without, current).stable == "2", "without the canary it says what it says"


def test_a_candidate_that_failed_does_not_become_stable_as_the_latest() -> None:
    text = 'models.iris = { stable = "latest", canary = { version = "3" } }'
    failed = Canary(plan=PLAN, phase=CanaryPhase.ROLLED_BACK)
    current = ModelTraffic(stable="2", canary=failed)
    assert applied(text, current) == current


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ('models.iris.stable = "3"', CanaryPhase.PROMOTED),
        ('models.iris.stable = "2"', CanaryPhase.ABORTED),
        ("[models.iris]", CanaryPhase.ABORTED),
    ],
)
def test_a_canary_that_runs_and_is_not_declared_is_over(text: str, phase: CanaryPhase) -> None:
    after = applied(text, ModelTraffic(stable="2", canary=Canary(plan=PLAN)))
    assert after.canary is not None
    assert after.canary.phase is phase
    assert "declared" in after.canary.reason


def test_a_model_that_shadows_itself_by_name_is_the_model_itself() -> None:
    after = applied('models.iris.shadow = { model = "iris", version = "3" }', ModelTraffic())
    assert after.shadow == ShadowPlan(version="3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected a table \[models.NAME\] for each model"),
        ("models = {}", "nothing is declared"),
        ("models = 3", "models must be a table, not 3"),
        ("model.iris.stable = '1'", "unknown key 'model'; did you mean 'models'"),
        ("models.iris = '1'", "models.iris must be a table, not '1'"),
        ("models.iris.stabel = '1'", "models.iris.unknown key 'stabel'; did you mean 'stable'"),
        ("models.iris.stable = 1.5", "models.iris.stable must be text, not 1.5"),
        ("models.iris.stable = 1979-05-27", "models.iris.stable must be text, not"),
        ("models.iris.labels.canary = '1'", "'canary' is always there"),
        ("models.iris.canary = {}", "models.iris.canary.version is missing"),
        ("models.iris.shadow = {}", "models.iris.shadow.version is missing"),
        (
            "models.iris.canary = { version = '1', steps = [{ percent = 5, hold_s = inf }] }",
            r"steps\[0\].hold_s must be a finite number of at least 0, not inf",
        ),
        (
            "models.iris = { stable = '1', canary = { version = '1' } }",
            "models.iris.canary.version is '1', which is declared stable",
        ),
        (
            "models.iris = { stable = '1', shadow = { version = 1 } }",
            "models.iris.shadow.version is '1', which is declared stable",
        ),
        ("models.iris.stable = ", "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_declaration(text)


@given(TRAFFICS, DECLARED, st.integers(0, 3))
def test_nothing_differs_just_where_nothing_would_change(
    current: ModelTraffic, declared: Declared, keep_previous: int
) -> None:
    after = target(current, declared, keep_previous)
    changes = difference({"iris": current}, {"iris": declared})
    assert (changes == []) is (after == current)
    assert all(change.before != change.after for change in changes)


@given(TRAFFICS, DECLARED, st.integers(0, 3))
def test_applying_twice_does_nothing(
    current: ModelTraffic, declared: Declared, keep_previous: int
) -> None:
    once = target(current, declared, keep_previous)
    assert target(once, declared, keep_previous) == once


@given(TRAFFICS, DECLARED, st.integers(0, 3))
def test_after_applying_there_is_what_was_declared(
    current: ModelTraffic, declared: Declared, keep_previous: int
) -> None:
    after = target(current, declared, keep_previous)
    assert (after.labels, after.shadow) == (declared.labels, declared.shadow)
    assert after.loaded == current.loaded
    running = after.running_canary
    assert running is None or running.plan == declared.canary
    if declared.canary is None and declared.stable is not None:
        assert after.stable == declared.stable
