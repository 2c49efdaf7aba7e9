"""Many tests at once: p-values as if there were one."""

import numpy as np
import pytest
from scipy import stats

from gateway.monitor.p_values import CORRECTIONS, benjamini_hochberg, bonferroni, holm

P_VALUES = [0.001, 0.04, 0.03, 0.9, 0.005]


def test_bonferroni_multiplies_by_the_number_of_tests():
    assert bonferroni(P_VALUES) == pytest.approx([0.005, 0.2, 0.15, 1.0, 0.025])


def test_holm_multiplies_the_least_by_all_the_next_by_one_less():
    assert holm(P_VALUES) == pytest.approx([0.005, 0.09, 0.09, 0.9, 0.02])


def test_benjamini_hochberg_is_scipys():
    assert benjamini_hochberg(P_VALUES) == pytest.approx(stats.false_discovery_control(P_VALUES))


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_correction_keeps_the_order_and_makes_none_smaller(name):
    given = np.random.default_rng(1).random(200).tolist()
    corrected = CORRECTIONS[name](given)
    order = np.argsort(given, kind="stable")
    assert (np.diff(np.array(corrected)[order]) >= 0).all()
    assert all(after >= before for before, after in zip(given, corrected, strict=True))
    assert max(corrected) <= 1


@pytest.mark.parametrize("name", CORRECTIONS)
def test_a_test_alone_stays_as_it_is(name):
    assert CORRECTIONS[name]([0.03]) == [0.03]
    assert CORRECTIONS[name]([]) == []
