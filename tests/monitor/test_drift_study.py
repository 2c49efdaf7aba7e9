"""The drift study's own parts, on made data: it must not find what is not there, nor lose rows."""

from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from gateway.monitor import binning, drift
from loadtests import drift_report
from loadtests.drift_serving import ROWS_A_REQUEST, save, stream
from loadtests.drift_suite import ONLINE, TESTS, Bins, Suite, resampled_limit


def test_its_counters_are_nannymls_bins() -> None:
    random = np.random.default_rng(1)
    for reference, window in (
        (random.normal(size=3000), random.normal(1, 2, 500)),
        (random.integers(0, 9, 3000).astype(float), random.integers(0, 12, 500).astype(float)),
    ):
        bins = Bins(reference)
        before, after = binning.nannyml_counts(reference, window)
        assert (bins.reference == before).all()
        assert (bins.count(window) == after).all()


def test_a_resampled_limit_is_passed_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    shares = np.array([0.5, 0.3, 0.15, 0.04, 0.01])
    passed = 0
    for _ in range(40):
        reference = random.multinomial(2000, shares).astype(float)
        limit = resampled_limit(reference, 400, 0.1, random)
        windows = random.multinomial(400, shares, 50)
        passed += sum(drift.jensen_shannon(reference, window) > limit for window in windows)
    assert 0.06 * 2000 < passed < 0.14 * 2000


def test_every_test_sees_a_feature_move_and_names_it() -> None:
    random = np.random.default_rng(3)
    suite = Suite(("moves", "stays"), frozenset(), random.normal(size=(6000, 2)).astype("f4"), 1000)
    still = suite.look(random.normal(size=(1000, 2)).astype(np.float32))
    assert all(not subjects for subjects in still.values()), still
    moved = suite.look(random.normal((1.5, 0), 1, (1000, 2)).astype(np.float32))
    for test in set(TESTS) - {"chi_square", "kswin"}:
        assert moved[test] in (["moves"], [""]), test
    assert all(1000 <= suite.firsts[test] < 1200 for test in ONLINE if test != "kswin")


def test_all_rows_come_out_of_a_running_gateways_stream_in_their_order(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    x = random.normal(size=(3 * ROWS_A_REQUEST + 7, 3)).astype(np.float32)
    model = LogisticRegression().fit(x, x[:, 0] > 0)
    save(model, ("a", "b", "c"), tmp_path / "m")
    seen = stream(tmp_path, "m", x)
    assert (seen.x == x).all()
    assert (seen.label == model.predict(x)).all()
    np.testing.assert_allclose(seen.probabilities, model.predict_proba(x), atol=1e-5)


def test_a_test_with_more_false_alarms_than_its_level_is_told_of_and_a_threshold_is_not() -> None:
    still = {"windows": 200, "alarmed": {"mmd": 11, "chi_square": 10, "psi": 150}}
    told = drift_report.too_many_false_alarms({"set": {"still": still}})
    assert told == ["set: mmd alarmed in 11 of 200 still windows"]
