"""When a batch leaves, and how large: the rules of ``plan``, each by itself and all by oracle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native.plan import LatencyCurve, decide
from tests.native import oracle

MS = 1_000_000


def curve(**points):
    made = LatencyCurve()
    for rows, ns in points.items():
        made.observe(int(rows[1:]), ns)
    return made


def test_a_free_runner_with_work_never_waits_at_low_load():
    assert decide(LatencyCurve(), now_ns=5, rows=1, oldest_ns=5, max_rows=32) == (1, 0)


def test_nothing_waiting_means_nothing_to_do():
    assert decide(LatencyCurve(), now_ns=5, rows=0, oldest_ns=0, max_rows=32) == (0, 0)


def test_a_batch_is_never_larger_than_the_limit():
    assert decide(LatencyCurve(), now_ns=5, rows=100, oldest_ns=5, max_rows=32) == (32, 0)


def test_with_a_delay_a_batch_waits_for_company_until_its_oldest_has_waited_that_long():
    ask = {"rows": 3, "oldest_ns": 10, "max_rows": 8, "max_delay_ns": 100}
    assert decide(LatencyCurve(), now_ns=50, **ask) == (0, 110)
    assert decide(LatencyCurve(), now_ns=110, **ask) == (3, 0)


def test_a_preferred_size_leaves_at_once():
    ask = {"oldest_ns": 10, "now_ns": 11, "max_rows": 16, "max_delay_ns": 100}
    assert decide(LatencyCurve(), rows=5, preferred=[4, 8], **ask) == (4, 0)
    assert decide(LatencyCurve(), rows=9, preferred=[4, 8], **ask) == (8, 0)
    assert decide(LatencyCurve(), rows=3, preferred=[4, 8], **ask) == (0, 110)


def test_the_latency_objective_caps_the_batch_at_what_ends_in_time():
    learned = curve(n1=1 * MS, n2=2 * MS, n4=4 * MS, n8=8 * MS, n16=16 * MS)
    ask = {"rows": 16, "oldest_ns": 0, "max_rows": 16, "objective_ns": 10 * MS}
    assert decide(learned, now_ns=2 * MS, **ask) == (8, 0)


def test_when_nothing_would_end_in_time_throughput_comes_first():
    learned = curve(n1=1 * MS, n16=16 * MS)
    ask = {"rows": 16, "oldest_ns": 0, "max_rows": 16, "objective_ns": 10 * MS}
    assert decide(learned, now_ns=50 * MS, **ask) == (16, 0)


def test_an_urgent_deadline_makes_a_smaller_batch():
    learned = curve(n1=1 * MS, n2=2 * MS, n4=4 * MS, n8=8 * MS)
    taken = decide(learned, now_ns=0, rows=8, oldest_ns=0, deadline_ns=4 * MS, max_rows=8)
    assert taken == (4, 0)


def test_with_an_objective_a_batch_waits_only_while_a_row_more_saves_more_than_its_wait():
    learned = curve(n1=10 * MS, n2=10 * MS, n4=10 * MS, n8=10 * MS)
    ask = {"now_ns": 0, "rows": 2, "oldest_ns": 0, "max_rows": 8}
    assert decide(learned, gap_ns=1 * MS, objective_ns=100 * MS, **ask) == (0, 1 * MS)
    # No slack left, arrivals too rare, or no objective: it leaves.
    assert decide(learned, gap_ns=1 * MS, objective_ns=10 * MS, **ask) == (2, 0)
    assert decide(learned, gap_ns=20 * MS, objective_ns=100 * MS, **ask) == (2, 0)
    assert decide(learned, gap_ns=1 * MS, **ask) == (2, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_rows": 0},
        {"max_rows": 4, "preferred": [8]},
        {"max_rows": 4, "preferred": [0]},
        {"max_rows": 4, "max_delay_ns": -1},
        {"max_rows": 99, "preferred": range(1, 40)},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"max_rows|preferred|negative"):
        decide(LatencyCurve(), now_ns=0, rows=1, oldest_ns=0, **wrong)


times = st.integers(0, 10**10)
observations = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 10**9)), max_size=30)


@given(observations)
def test_the_curve_learns_as_the_oracle_does_and_never_falls(seen):
    core, model = LatencyCurve(), oracle.Curve()
    for rows, ns in seen:
        core.observe(rows, ns)
        model.observe(rows, ns)
    learned = [core.at(rows) for rows in range(1, 300)]
    assert learned == [model.at(rows) for rows in range(1, 300)]
    assert learned == sorted(learned)


@given(
    observations,
    times,
    st.integers(1, 100),
    times,
    times,
    st.integers(0, 10**8),
    st.integers(1, 64),
    st.sampled_from([0, 1, 10**6, 10**9]),
    st.sampled_from([0, 10**6, 10**8]),
    st.sets(st.integers(1, 64), max_size=4),
)
def test_every_decision_is_the_oracles(
    seen, now, rows, oldest, deadline, gap, max_rows, delay, objective, preferred
):
    core, model = LatencyCurve(), oracle.Curve()
    for size, ns in seen:
        core.observe(size, ns)
        model.observe(size, ns)
    preferred = tuple(size for size in preferred if size <= max_rows)
    got = decide(
        core,
        now_ns=now,
        rows=rows,
        oldest_ns=oldest,
        deadline_ns=deadline,
        gap_ns=gap,
        max_rows=max_rows,
        max_delay_ns=delay,
        objective_ns=objective,
        preferred=preferred,
    )
    policy = oracle.Policy(max_rows, delay, objective, preferred)
    assert got == oracle.plan(policy, model, now, rows, oldest, deadline, gap)
    taken, until = got
    assert (taken == 0) == (until != 0), "either some rows go now, or there is a time to ask again"
    assert taken <= max_rows
    assert until == 0 or until > now, "a time to ask again lies ahead"
