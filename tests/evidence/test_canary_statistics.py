"""How often canaries that are no worse are rolled back, with a look after every batch."""

import pytest

from loadtests.canary_statistics import ALTERNATIVES, NULLS, simulate


@pytest.mark.parametrize("scenario", NULLS, ids=lambda scenario: scenario.name)
def test_false_rollbacks_stay_under_alpha_over_2000_canaries(scenario) -> None:
    assert simulate(scenario, 2_000).rolled_back <= scenario.limits.alpha


def test_the_same_canaries_are_rolled_back_by_a_test_that_is_made_for_one_look() -> None:
    """What is checked above can fail."""
    assert simulate(NULLS[0], 300).peeked > 3 * NULLS[0].limits.alpha


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("errors +3 points, limits 0", 0.99),
        ("slow x4, default limits", 0.99),
        ("one class +0.2, default limits", 0.99),
    ],
)
def test_candidates_that_are_much_worse_are_rolled_back(name: str, power: float) -> None:
    scenario = next(scenario for scenario in ALTERNATIVES if scenario.name == name)
    assert simulate(scenario, 200).rolled_back >= power
