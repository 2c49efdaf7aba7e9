import pytest

from gateway.serving.lifecycle import TRANSITIONS, State, TransitionError, check_transition


def test_the_table_covers_every_state() -> None:
    assert set(TRANSITIONS) == set(State)


def test_the_straight_way_from_new_to_unloaded_is_legal() -> None:
    state = State.NEW
    for following in ("LOADING", "WARMING", "VALIDATING", "READY", "DRAINING", "UNLOADED"):
        state = check_transition(state, State(following))
    assert state.final


@pytest.mark.parametrize("state", [s for s in State if not s.final])
def test_any_living_state_may_fail(state: State) -> None:
    assert check_transition(state, State.FAILED) is State.FAILED


@pytest.mark.parametrize(
    ("current", "following"),
    [
        (State.NEW, State.READY),
        (State.READY, State.LOADING),
        (State.READY, State.UNLOADED),
        (State.DRAINING, State.READY),
        (State.UNLOADED, State.LOADING),
        (State.FAILED, State.READY),
        (State.READY, State.READY),
    ],
)
def test_a_move_outside_the_table_is_refused_and_told(current: State, following: State) -> None:
    with pytest.raises(TransitionError, match=f"from {current.value} to {following.value}"):
        check_transition(current, following)
