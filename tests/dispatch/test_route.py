"""From a model's name to the version that serves it, or to the reason why none does."""

import pytest

from gateway.dispatch.route import RouteTable
from gateway.dispatch.split import Split
from gateway.errors import ModelNotFound, ModelNotReady, NoAvailableVersion, SwapInPlace
from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion
from gateway.types import InferRequest


def version(number, *states, name="digits", reason=""):
    made = ModelVersion(name, number)
    for state in states:
        made.move(state, reason)
    return made


READY = (State.LOADING, State.READY)


def test_a_request_without_a_version_gets_the_default_one():
    old, new = version("1", *READY), version("2", *READY)
    table = RouteTable([old, new], {"digits": new})
    assert table.resolve("digits", "") is new
    assert table.resolve("digits", "1") is old


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("cats", "", "unknown model 'cats'"),
        ("cats", "3", "unknown model 'cats' version '3'"),
        ("digits", "3", r"unknown version '3' of model 'digits', which has \['1'\]"),
    ],
)
def test_what_nobody_knows_is_not_found(name, number, message):
    known = version("1", *READY)
    with pytest.raises(ModelNotFound, match=message):
        RouteTable([known], {"digits": known}).resolve(name, number)


def test_a_model_on_its_way_is_not_ready_and_says_where_it_is():
    table = RouteTable([version("1", State.LOADING)], {})
    with pytest.raises(ModelNotReady, match="is not ready: version '1' is LOADING"):
        table.resolve("digits", "")


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ((*READY, State.DRAINING), "has no available versions: none is loaded"),
        ((*READY, State.DRAINING, State.UNLOADED), "has no available versions: none is loaded"),
        ((State.FAILED,), r"has no available versions: version '1' is FAILED \(no such operator\)"),
    ],
)
def test_a_model_of_which_nothing_is_loaded_has_no_available_versions(states, message):
    table = RouteTable([version("1", *states, reason="no such operator")], {})
    with pytest.raises(NoAvailableVersion, match=message):
        table.resolve("digits", "")


def test_a_model_that_is_swapped_in_place_says_so_and_when_to_come_back():
    gone = version("1", *READY, State.DRAINING, State.UNLOADED)
    coming = version("2", State.LOADING, reason="reading the graph")
    table = RouteTable(
        [gone, coming], {}, labels={"digits": {"stable": gone}}, swaps={"digits": gone}
    )
    for asked in ("", "stable"):
        with pytest.raises(
            SwapInPlace,
            match=r"'1' makes room for another one \(version '2' is LOADING \(reading the graph",
        ) as told:
            table.resolve("digits", asked)
        assert told.value.retry_after_s == 1.0
    with pytest.raises(ModelNotReady, match="version '1' is UNLOADED"):
        table.resolve("digits", "1")
    with pytest.raises(ModelNotFound, match="unknown version '3'"):
        table.resolve("digits", "3")


def test_a_version_asked_for_by_name_tells_its_own_state():
    serving, failed = version("1", *READY), version("2", State.FAILED, reason="corrupt file")
    table = RouteTable([serving, failed], {"digits": serving})
    with pytest.raises(ModelNotReady, match=r"version '2' is FAILED \(corrupt file\)"):
        table.resolve("digits", "2")


def test_a_draining_version_takes_nothing_new_even_from_an_old_table():
    leaving = version("1", *READY)
    table = RouteTable([leaving], {"digits": leaving})
    leaving.move(State.DRAINING)
    with pytest.raises(ModelNotReady, match="is DRAINING"):
        table.resolve("digits", "")


# -- labels -----------------------------------------------------------------------------------


def labelled(*versions, **labels):
    """A table of ``digits`` with these labels, and the first version as the default."""
    return RouteTable(versions, {"digits": versions[0]}, labels={"digits": labels})


def test_a_label_is_addressed_as_a_version_is():
    old, new = version("1", *READY), version("2", *READY)
    table = labelled(old, new, champion=new)
    assert table.resolve("digits", "champion") is new
    assert table.resolve("digits", "") is old
    assert table.labels("digits") == {"champion": new}
    assert table.labels("cats") == {}


def test_a_version_goes_before_a_label_of_the_same_name():
    """A label that is set first must not hide the version that is added under its name later."""
    old, new = version("1", *READY), version("2", *READY)
    table = labelled(old, new, **{"2": old})
    assert table.resolve("digits", "2") is new


def test_a_version_that_does_not_serve_is_not_replaced_by_a_label_of_its_name():
    serving, failed = version("1", *READY), version("2", State.FAILED, reason="corrupt file")
    table = labelled(serving, failed, **{"2": serving})
    with pytest.raises(ModelNotReady, match=r"version '2' is FAILED \(corrupt file\)"):
        table.resolve("digits", "2")


def test_a_label_of_what_does_not_serve_tells_the_version_and_its_state():
    serving, coming = version("1", *READY), version("2", State.LOADING)
    table = labelled(serving, coming, champion=coming)
    with pytest.raises(ModelNotReady, match="'digits' is not ready: version '2' is LOADING"):
        table.resolve("digits", "champion")


def test_an_unknown_version_is_told_the_versions_and_the_labels_that_there_are():
    known = version("1", *READY)
    told = r"unknown version 'x' of model 'digits', which has \['1'\] and the labels \['a', 'b'\]"
    with pytest.raises(ModelNotFound, match=told):
        labelled(known, b=known, a=known).resolve("digits", "x")


def test_a_label_of_one_model_means_nothing_for_another():
    ours, other = version("1", *READY), version("1", *READY, name="cats")
    table = RouteTable([ours, other], {}, labels={"digits": {"champion": ours}})
    with pytest.raises(ModelNotFound, match="unknown version 'champion' of model 'cats'"):
        table.resolve("cats", "champion")


# -- splits -----------------------------------------------------------------------------------


def asked(number="", name="digits", **parameters):
    return InferRequest(name, number, "", [], None, parameters, 0, 0)


@pytest.fixture
def split_table():
    """A table in which version 2 gets all that a split may give it; and the two versions."""
    stable, candidate = version("1", *READY), version("2", *READY)
    other = version("1", *READY, name="cats")
    table = RouteTable(
        [stable, candidate, other],
        {"digits": stable, "cats": other},
        labels={"digits": {"stable": stable}},
        splits={"digits": Split("digits", stable, candidate, 1.0)},
    )
    return table, stable, candidate, other


def test_a_split_divides_the_requests_that_name_no_version(split_table):
    table, stable, candidate, other = split_table
    assert table.choose(asked()) is candidate
    assert table.choose(asked("1")) is stable
    assert table.choose(asked("stable")) is stable
    assert table.choose(asked(name="cats")) is other


def test_a_candidate_that_leaves_costs_no_request(split_table):
    table, stable, candidate, _ = split_table
    candidate.move(State.DRAINING)
    assert table.choose(asked()) is stable


def test_where_neither_side_of_a_split_serves_the_refusal_is_the_usual_one(split_table):
    table, stable, candidate, _ = split_table
    for leaving in (stable, candidate):
        leaving.move(State.DRAINING)
    with pytest.raises(ModelNotReady, match="'digits' is not ready: version '1' is DRAINING"):
        table.choose(asked())


def test_what_is_chosen_without_a_split_is_what_resolves():
    only = version("1", *READY)
    table = RouteTable([only], {"digits": only})
    assert table.choose(asked()) is table.resolve("digits", "") is only
    with pytest.raises(ModelNotFound):
        table.choose(asked(name="cats"))


def test_a_table_does_not_change_with_what_it_was_made_of():
    old, new = version("1", *READY), version("2", *READY)
    versions, defaults, labels = [old], {"digits": old}, {"digits": {"champion": old}}
    table = RouteTable(versions, defaults, labels=labels)
    versions.append(new)
    defaults["digits"] = labels["digits"]["champion"] = new
    table.labels("digits")["champion"] = new
    assert table.resolve("digits", "") is table.resolve("digits", "champion") is old
    with pytest.raises(ModelNotFound):
        table.resolve("digits", "2")
