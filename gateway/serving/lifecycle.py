"""The states of a model version, and the one table of the moves between them."""

from enum import Enum
from typing import Final


class State(Enum):
    """Where a model version is in its life.

    READY is announced after it is true, DRAINING before it is: whoever reads READY may submit.
    """

    #: Known from the repository; nothing of it is in memory.
    NEW = "NEW"
    #: Its file is being read and its sessions are being opened.
    LOADING = "LOADING"
    #: It is being run on samples: every batch size has its first, slow run before it serves.
    WARMING = "WARMING"
    #: It is being checked: rows that run together must equal the same rows run alone.
    VALIDATING = "VALIDATING"
    #: It serves.
    READY = "READY"
    #: It takes no new requests and finishes those it has.
    DRAINING = "DRAINING"
    #: It served and was taken out of memory.
    UNLOADED = "UNLOADED"
    #: It cannot serve; its reason says why.
    FAILED = "FAILED"

    @property
    def final(self) -> bool:
        """Whether nothing follows: loading the same version again makes a new ``ModelVersion``."""
        return not TRANSITIONS[self]


#: The legal moves. A loader may leave out the phases that a version does not need (nothing to
#: warm, nothing to validate), so each loading state reaches all later ones up to READY.
TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.NEW: frozenset({State.LOADING, State.UNLOADED, State.FAILED}),
    State.LOADING: frozenset({State.WARMING, State.VALIDATING, State.READY, State.FAILED}),
    State.WARMING: frozenset({State.VALIDATING, State.READY, State.FAILED}),
    State.VALIDATING: frozenset({State.WARMING, State.READY, State.FAILED}),
    State.READY: frozenset({State.DRAINING, State.FAILED}),
    State.DRAINING: frozenset({State.UNLOADED, State.FAILED}),
    State.UNLOADED: frozenset(),
    State.FAILED: frozenset(),
}


class TransitionError(RuntimeError):
    """A move that ``TRANSITIONS`` does not hold: a defect of the caller, never of a request."""


def check_transition(current: State, following: State) -> State:
    """Return ``following``, or raise ``TransitionError`` where the table forbids the move."""
    if following not in TRANSITIONS[current]:
        allowed = ", ".join(sorted(s.value for s in TRANSITIONS[current])) or "nothing"
        raise TransitionError(
            f"a model version cannot go from {current.value} to {following.value}; "
            f"from there it may go to {allowed}"
        )
    return following
