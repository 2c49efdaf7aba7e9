"""From a model's name to the version that serves it, or to the reason why none does."""

import pytest

from gateway.dispatch.route import RouteTable
from gateway.errors import ModelNotFound, ModelNotReady, NoAvailableVersion, SwapInPlace
from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion


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
