"""Sticky assignment: who answers is the key's own, and a larger share moves only the difference."""

import subprocess
import sys
from hashlib import blake2b

import numpy as np
import pytest

from gateway.dispatch.split import Split, key_place
from gateway.serving.lifecycle import State
from gateway.serving.registry import ModelVersion
from gateway.types import InferRequest

KEYS = 1_000_000
#: An even spread strays further than this many standard deviations once in 25 million counts.
SIGMAS = 5.5


def version(number, state=State.READY):
    made = ModelVersion("m", number)
    made.move(State.LOADING)
    if state is not State.LOADING:
        made.move(State.READY)
    if state not in (State.LOADING, State.READY):
        made.move(state)
    return made


def split(share, *, model="m", candidate=State.READY, **more):
    return Split(model, version("1"), version("2", candidate), share, **more)


def request(*, metadata=None, **parameters):
    return InferRequest("m", "", "", [], None, parameters, 0, 0, metadata)


def chosen(of, asked):
    return of.choose(asked).version


def places_of(model):
    """Where the keys 0 to ``KEYS`` lie for a model, by the function that ``Split`` uses."""
    salt = blake2b(model.encode(), digest_size=16).digest()
    return np.fromiter((key_place(salt, b"%d" % key) for key in range(KEYS)), float, KEYS)


@pytest.fixture(scope="module")
def places():
    return places_of("m")


def candidates(share):
    """For each key whether ``Split`` itself gives it to the candidate."""
    made = split(share, parameter="user")
    asked = request()
    choose, candidate, parameters = made.choose, made.candidate, asked.parameters

    def gets_candidate(key):
        parameters["user"] = key
        return choose(asked) is candidate

    return np.fromiter(map(gets_candidate, range(KEYS)), bool, KEYS)


def assert_binomial(count, trials, chance):
    spread = (trials * chance * (1 - chance)) ** 0.5
    assert abs(count - trials * chance) <= SIGMAS * spread


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.2, 0.5, 0.9, 0.999])
def test_of_a_million_keys_the_candidate_gets_its_share(places, share):
    assert_binomial(np.count_nonzero(places < share), KEYS, share)


def test_the_keys_lie_evenly_on_the_line(places):
    for count in np.histogram(places, bins=100, range=(0, 1))[0]:
        assert_binomial(count, KEYS, 0.01)


def test_raising_5_to_20_percent_moves_15_percent_and_all_of_them_to_the_candidate(places):
    """Measured on ``choose`` itself, with each of a million keys at either share."""
    few, more = candidates(0.05), candidates(0.2)
    assert not (few & ~more).any(), "nobody goes back to the stable version"
    assert ((~few & more) == ((places >= 0.05) & (places < 0.2))).all()
    assert_binomial(np.count_nonzero(~few & more), KEYS, 0.15)
    assert (few == (places < 0.05)).all()


def test_keys_of_different_models_are_spread_independently(places):
    """Else the same users would meet every canary there is."""
    other = places_of("another")
    both = np.count_nonzero((places < 0.2) & (other < 0.2))
    assert_binomial(both, KEYS, 0.04)
    assert abs(np.corrcoef(places, other)[0, 1]) < SIGMAS / KEYS**0.5


#: Computed once and for all: a release that moved these would move every user of every canary.
FIXED = {"alice": "2", "bob": "1", "": "2", "user-42": "1", "Zoë": "2"}


def test_a_key_has_the_same_version_in_every_release_and_process():
    told = (
        "from tests.dispatch.test_split import FIXED, chosen, request, split;"
        "print({k: chosen(split(0.5, parameter='user'), request(user=k)) for k in FIXED})"
    )
    for seed in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-c", told],
            env={"PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert output.strip() == str(FIXED)


def test_asking_again_changes_nothing():
    made = split(0.5, parameter="user")
    for key in range(200):
        assert len({chosen(made, request(user=f"{key}")) for _ in range(5)}) == 1


#: Keys on either side of one half.
STABLE, CANDIDATE = "bob", "alice"


def test_the_header_goes_before_the_parameter():
    made = split(0.5, header="x-user", parameter="user")
    for header, parameter, answers in (
        (CANDIDATE, STABLE, "2"),
        (STABLE, CANDIDATE, "1"),
    ):
        metadata = {b"x-user": header.encode()}
        assert chosen(made, request(metadata=metadata, user=parameter)) == answers


@pytest.mark.parametrize("metadata", [None, {}, {b"x-user": b""}, {b"x-other": b"alice"}])
def test_without_the_header_the_parameter_decides(metadata):
    made = split(0.5, header="x-user", parameter="user", chance=lambda: 1 / 0)
    assert chosen(made, request(metadata=metadata, user=CANDIDATE)) == "2"
    assert chosen(made, request(metadata=metadata, user=STABLE)) == "1"


def test_a_header_and_a_parameter_of_one_value_are_one_user():
    by_header, by_parameter = split(0.5, header="x-user"), split(0.5, parameter="user")
    for key in range(200):
        metadata = {b"x-user": b"%d" % key}
        assert chosen(by_header, request(metadata=metadata)) == chosen(
            by_parameter, request(user=str(key))
        )


def test_a_parameter_that_is_a_number_is_the_key_that_it_reads_as():
    made = split(0.5, parameter="user")
    for key in range(200):
        assert chosen(made, request(user=key)) == chosen(made, request(user=str(key)))


@pytest.mark.parametrize("options", [{}, {"header": "x-user"}, {"parameter": "user"}])
def test_a_request_without_a_key_goes_by_chance(options):
    chances = iter([0.0, 0.049, 0.05, 0.999])
    made = split(0.05, chance=lambda: next(chances), **options)
    assert [chosen(made, request(metadata={})) for _ in range(4)] == ["2", "2", "1", "1"]


@pytest.mark.parametrize("state", [State.LOADING, State.DRAINING, State.FAILED])
def test_a_candidate_that_does_not_serve_gets_nothing(state):
    made = split(1.0, candidate=state, parameter="user", chance=lambda: 0.0)
    assert chosen(made, request(user=CANDIDATE)) == "1"
    assert chosen(made, request()) == "1"


def test_all_or_nothing():
    everything, nothing = split(1.0, parameter="user"), split(0.0, parameter="user")
    for key in range(1000):
        assert chosen(everything, request(user=key)) == "2"
        assert chosen(nothing, request(user=key)) == "1"
