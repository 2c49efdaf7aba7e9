"""From what is decided and what is READY to who serves."""

import pytest

from gateway.control.routing import Routing, Watchers
from gateway.control.traffic import (
    LATEST,
    Canary,
    CanaryPhase,
    CanaryPlan,
    CanaryStep,
    ModelTraffic,
    ShadowPlan,
)
from gateway.errors import ModelNotFound, ModelNotReady, NoAvailableVersion
from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion, Registry
from gateway.types import InferRequest


class Models:
    """A registry whose versions a test moves by hand, and the route table that follows."""

    def __init__(self, **options):
        self.registry = Registry()
        self.tables = []
        self._policies = set()
        self.routing = Routing(self.registry, self.tables.append, **options)

    def add(self, *versions, model="m", state=State.READY):
        """Make versions known, in that state; until a test says another one, the policy has all."""
        for number in versions:
            entry = ModelVersion(model, number)
            entry.move(State.LOADING)
            if state is not State.LOADING:
                entry.move(state, "broken" if state is State.FAILED else "")
            self.registry.add(entry)
        if model not in self._policies:
            known = frozenset(self.registry.versions(model))
            self.routing.set_policy(model, known)
        self.routing.publish()
        return self

    def policy(self, *versions, model="m"):
        self._policies.add(model)
        self.routing.set_policy(model, frozenset(versions))
        self.routing.publish()

    def move(self, number, *states, model="m"):
        for state in states:
            self.registry.get(model, number).move(state)
        self.routing.publish()

    def decide(self, model="m", **traffic):
        self.routing.decide({model: ModelTraffic(**traffic)})

    @property
    def table(self):
        return self.tables[-1]

    def serving(self, version="", model="m", **parameters):
        """Which version the table chooses."""
        request = InferRequest(model, version, "", [], None, parameters, 0, 0)
        return self.table.choose(request).version


@pytest.fixture
def models():
    return Models()


# -- the default ------------------------------------------------------------------------------


def test_latest_is_the_highest_version_that_serves_as_people_count(models):
    models.add("9", "10", "2")
    assert models.serving() == "10"
    assert models.routing.default("m").version == "10"


def test_latest_follows_what_becomes_ready_and_what_leaves(models):
    models.add("1").add("2", state=State.LOADING)
    assert models.serving() == "1"
    models.move("2", State.READY)
    assert models.serving() == "2"
    models.move("2", State.DRAINING)
    assert models.serving() == "1"


def test_latest_means_only_what_the_version_policy_chooses(models):
    """Version 3 is loaded because the traffic names it; nobody is served it unasked."""
    models.add("1", "2", "3")
    models.policy("1", "2")
    assert models.serving() == "2"
    assert models.serving("3") == "3"
    assert models.routing.labels("m")[LATEST] == "2"
    assert models.routing.policy("m") == {"1", "2"}


def test_before_the_version_policy_is_known_no_version_is_the_latest(models):
    """What the traffic names is loaded first, and must not serve for being the only one."""
    models.policy()
    models.add("3")
    with pytest.raises(NoAvailableVersion):
        models.serving()
    assert models.serving("3") == "3"
    models.policy("3")
    assert models.serving() == "3"


def test_a_pinned_version_serves_whatever_else_is_there(models):
    models.add("1", "2")
    models.decide(stable="1")
    models.add("3")
    assert models.serving() == "1"
    assert models.routing.labels("m")[LATEST] == "3"


def test_a_pinned_version_need_not_be_one_of_the_policy(models):
    models.add("1", "2")
    models.policy("1")
    models.decide(stable="2")
    assert models.serving() == "2"


@pytest.mark.parametrize("state", [State.LOADING, State.WARMING])
def test_nobody_stands_in_for_a_pinned_version_that_is_on_its_way(models, state):
    """It would be a change of version that comes and goes with every restart."""
    models.add("1").add("2", state=state)
    models.decide(stable="2", previous=("1",))
    with pytest.raises(ModelNotReady, match=f"version '2' is {state.value}"):
        models.serving()
    models.move("2", State.READY)
    assert models.serving() == "2"


def test_nobody_stands_in_for_a_pinned_version_that_is_not_known_yet(models):
    models.add("1")
    models.decide(stable="2", previous=("1",))
    with pytest.raises(NoAvailableVersion, match=r"none is loaded; \['1'\] can be asked for"):
        models.serving()


def test_the_version_that_served_before_stands_in_for_a_pinned_one_that_failed(models):
    models.add("1", "3").add("2", state=State.FAILED)
    models.decide(stable="2", previous=("1",))
    assert models.serving() == "1", "and not 3, which nobody ever chose"
    assert models.routing.labels("m")["stable"] == "1"


def test_of_several_that_served_before_the_last_one_that_can_stands_in(models):
    models.add("1", "2").add("4", "3", state=State.FAILED)
    models.decide(stable="4", previous=("3", "2", "1"))
    assert models.serving() == "2"


def test_a_version_that_failed_and_that_nothing_served_before_has_no_stand_in(models):
    models.add("1").add("2", state=State.FAILED)
    models.decide(stable="2")
    told = r"version '2' is FAILED \(broken\); \['1'\] can be asked for by name"
    with pytest.raises(NoAvailableVersion, match=told):
        models.serving()


def test_the_one_that_was_pinned_serves_again_once_it_is_loaded_anew(models):
    models.add("1").add("2", state=State.FAILED)
    models.decide(stable="2", previous=("1",))
    models.add("2")
    assert models.serving() == "2"


def test_where_all_that_latest_may_mean_has_failed_the_one_before_stands_in(models):
    models.add("1").add("2", "3", state=State.FAILED)
    models.policy("2", "3")
    models.decide(previous=("1",))
    assert models.serving() == "1"
    models.add("3")
    assert models.serving() == "3"


def test_while_any_that_latest_may_mean_can_still_come_nobody_stands_in(models):
    models.add("1").add("2", state=State.FAILED).add("3", state=State.LOADING)
    models.policy("2", "3")
    models.decide(previous=("1",))
    with pytest.raises(ModelNotReady):
        models.serving()


def test_a_model_of_which_nothing_is_known_is_not_found(models):
    models.add("1")
    with pytest.raises(ModelNotFound):
        models.serving(model="other")
    assert models.routing.default("other") is None


# -- what stays for a rollback ----------------------------------------------------------------


def test_a_version_that_latest_has_left_behind_is_the_previous_one(models):
    models.add("1")
    models.add("2")
    assert models.routing.traffic("m").previous == ("1",)
    assert models.routing.labels("m")["previous"] == "1"
    models.add("3")
    assert models.routing.traffic("m").previous == ("2",)


def test_as_many_are_kept_as_is_said():
    for keep, previous in ((0, ()), (1, ("3",)), (2, ("3", "2")), (9, ("3", "2", "1"))):
        models = Models(keep_previous=keep)
        for number in ("1", "2", "3", "4"):
            models.add(number)
        assert models.routing.traffic("m").previous == previous


def test_a_version_that_has_left_by_itself_is_no_previous_one(models):
    """It is gone: nothing could go back to it at once."""
    models.add("1", "2")
    models.move("2", State.DRAINING)
    assert models.serving() == "1"
    assert models.routing.traffic("m").previous == ()


def test_a_version_that_serves_again_is_no_previous_one_any_more(models):
    models.add("1")
    models.add("2")
    models.move("2", State.FAILED)
    assert models.serving() == "1"
    assert models.routing.traffic("m").previous == ()


def test_the_same_version_loaded_anew_leaves_nothing_behind(models):
    models.add("1")
    models.add("1")
    assert models.routing.traffic("m").previous == ()


def test_what_is_pinned_is_left_behind_by_a_decision_alone(models):
    models.add("1", "2")
    models.decide(stable="1")
    models.decide(stable="2")
    assert models.routing.traffic("m").previous == ()


# -- what must be loaded ----------------------------------------------------------------------


def test_all_that_the_traffic_names_must_be_loaded(models):
    models.decide(
        stable="5",
        previous=("4",),
        labels={"champion": "3"},
        canary=Canary(plan=CanaryPlan(version="6")),
        shadow=ShadowPlan(version="7"),
    )
    assert models.routing.named("m") == {"3", "4", "5", "6", "7"}
    assert models.routing.named("other") == set()


def test_the_shadow_of_another_model_must_be_loaded_too(models):
    models.decide(shadow=ShadowPlan(model="other", version="7"))
    assert models.routing.named("other") == {"7"}
    assert models.routing.named("m") == set(), "LATEST names no version"


def test_a_canary_that_is_over_needs_no_candidate(models):
    over = Canary(plan=CanaryPlan(version="6"), phase=CanaryPhase.ABORTED)
    models.decide(stable="5", canary=over)
    assert models.routing.named("m") == {"5"}


# -- labels -----------------------------------------------------------------------------------


def test_labels_are_those_that_were_given_and_those_that_follow(models):
    models.add("1", "2", "3")
    plan = CanaryPlan(version="3", steps=(CanaryStep(percent=100),))
    models.decide(stable="2", previous=("1",), labels={"champion": "1"}, canary=Canary(plan=plan))
    expected = {
        "champion": "1", "stable": "2", "latest": "3", "previous": "1", "canary": "3"
    }  # fmt: skip
    assert models.routing.labels("m") == expected
    assert {label: models.serving(label) for label in expected} == expected


def test_a_label_of_a_version_that_is_not_there_is_unknown(models):
    models.add("1")
    models.decide(labels={"champion": "9"})
    with pytest.raises(ModelNotFound, match="unknown version 'champion'"):
        models.serving("champion")


def test_a_label_of_a_version_that_does_not_serve_says_so(models):
    models.add("1").add("2", state=State.FAILED)
    models.decide(labels={"champion": "2"})
    with pytest.raises(ModelNotReady, match=r"version '2' is FAILED \(broken\)"):
        models.serving("champion")


def test_a_model_of_which_nothing_serves_has_no_labels_that_follow(models):
    models.add("1", state=State.LOADING)
    assert models.routing.labels("m") == {}


# -- splits -----------------------------------------------------------------------------------


def canary(version="2", *, percent=100, phase=CanaryPhase.RUNNING, **plan):
    steps = (CanaryStep(percent=percent),)
    return Canary(plan=CanaryPlan(version=version, steps=steps, **plan), phase=phase)


@pytest.mark.parametrize(
    "phase",
    [CanaryPhase.RUNNING, CanaryPhase.PAUSED, CanaryPhase.INCONCLUSIVE, CanaryPhase.PASSED],
)
def test_a_canary_that_is_not_over_has_its_share(models, phase):
    models.add("1", "2")
    models.decide(stable="1", canary=canary(phase=phase))
    assert models.serving() == "2"
    assert models.serving("1") == "1"
    assert models.routing.default("m").version == "1"


@pytest.mark.parametrize("phase", [phase for phase in CanaryPhase if phase.over])
def test_a_canary_that_is_over_has_none(models, phase):
    models.add("1", "2")
    models.decide(stable="1", canary=canary(phase=phase))
    assert models.table.splits == {}
    assert models.serving() == "1"


def test_the_share_and_the_keys_are_those_of_the_plan(models):
    models.add("1", "2")
    models.decide(stable="1", canary=canary(percent=20, sticky_parameter="user"))
    assert models.table.splits["m"].share == 0.2
    users = [str(n) for n in range(500)]
    first = [models.serving(user=user) for user in users]
    assert set(first) == {"1", "2"}
    assert [models.serving(user=user) for user in users] == first
    models.decide(stable="1", canary=canary(percent=50, sticky_parameter="user"))
    more = [models.serving(user=user) for user in users]
    assert all(after == "2" for before, after in zip(first, more, strict=True) if before == "2")


def test_a_candidate_that_is_not_loaded_yet_gets_nothing(models):
    models.add("1")
    models.decide(stable="1", canary=canary())
    assert models.serving() == "1"
    models.add("2", state=State.LOADING)
    assert models.serving() == "1"
    models.move("2", State.READY)
    assert models.serving() == "2"


def test_a_candidate_that_has_come_to_answer_everything_is_not_split(models):
    models.add("1", "2")
    models.decide(stable="2", canary=canary())
    assert models.table.splits == {}


# -- tables -----------------------------------------------------------------------------------


def test_each_decision_is_one_table_and_leaves_the_ones_before_as_they_were(models):
    models.add("1", "2")
    models.decide(stable="1")
    before, count = models.table, len(models.tables)
    models.decide(stable="2")
    assert len(models.tables) == count + 1
    assert before.resolve("m", "").version == "1"
    assert models.serving() == "2"


def test_decisions_about_several_models_hold_at_once(models):
    models.add("1", "2").add("1", "2", model="other")
    count = len(models.tables)
    models.routing.decide({"m": ModelTraffic(stable="1"), "other": ModelTraffic(stable="1")})
    assert len(models.tables) == count + 1
    assert models.serving() == models.serving(model="other") == "1"
    assert models.routing.decided().keys() == {"m", "other"}


def test_a_model_about_which_nothing_is_decided_has_the_defaults(models):
    assert models.routing.traffic("m") == ModelTraffic()
    assert models.routing.decided() == {}


def test_those_who_watch_are_asked_anew_for_each_table(models):
    models.add("1")
    version, mirror, recorder = models.registry.get("m", "1"), object(), object()
    models.routing.watchers = lambda: Watchers({version: mirror}, {version: recorder})
    models.routing.publish()
    assert models.table.mirrors == {version: mirror}
    assert models.table.recorders == {version: recorder}
    models.routing.watchers = Watchers
    models.routing.publish()
    assert models.table.mirrors == models.table.recorders == {}
