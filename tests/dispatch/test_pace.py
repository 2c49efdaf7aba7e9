"""How much is let through, by what the process was seen to use."""

import pytest

from gateway.dispatch.pace import (
    LAG_LIMIT_S,
    LEAST,
    LOOP_LIMIT,
    PROCESS_LIMIT,
    Load,
    Pace,
    load_now,
)

SPAN_S = 0.05
CORES = 2


class Process:
    """A process that a pace is told of, one span after the other."""

    def __init__(self, cores=CORES):
        self.pace = Pace(cores)
        self._load = Load(100.0, 3.0, 5.0)
        self.pace.update(self._load, self._load.at_s)

    def spend(self, *, loop=0.0, others=0.0, late_s=0.0):
        """Let a span pass in which the loop's thread and the others used so much of a core each.

        ``late_s`` is how much later the timer came than it was due. Returns the share.
        """
        load = self._load
        due_s = load.at_s + SPAN_S
        span_s = SPAN_S + late_s
        self._load = Load(
            load.at_s + span_s,
            load.loop_s + loop * span_s,
            load.process_s + (loop + others) * span_s,
        )
        self.pace.update(self._load, due_s)
        return self.pace.share


def test_at_first_everything_goes_through():
    assert Pace(1).share == 1.0
    assert Process().pace.share == 1.0, "one look at a process tells nothing of what it uses"


@pytest.mark.parametrize(
    "used",
    [
        {"loop": LOOP_LIMIT + 0.01},
        {"loop": 0.5, "others": PROCESS_LIMIT * CORES - 0.5 + 0.01},
        {"late_s": LAG_LIMIT_S + 0.001},
    ],
    ids=["the loop is busy", "all cores are busy", "the timer came late"],
)
def test_one_busy_span_halves_the_share(used):
    assert Process().spend(**used) == 0.5


@pytest.mark.parametrize(
    "used",
    [
        {"loop": LOOP_LIMIT - 0.01},
        {"loop": 0.5, "others": PROCESS_LIMIT * CORES - 0.5 - 0.01},
        {"late_s": LAG_LIMIT_S - 0.001},
        {"late_s": -0.01},
    ],
    ids=["the loop has some time", "a core has some time", "a little late", "early"],
)
def test_what_is_left_over_is_used(used):
    assert Process().spend(**used) == 1.0


def test_one_core_is_used_up_sooner_than_two():
    assert Process(cores=1).spend(loop=0.2, others=0.75) == 0.5
    assert Process(cores=2).spend(loop=0.2, others=0.75) == 1.0


def test_while_it_stays_busy_nothing_is_left_after_a_few_looks():
    process = Process()
    shares = [process.spend(loop=1.0) for _ in range(8)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0.0, "not even a trickle"
    assert all(share == 0.0 or share >= LEAST for share in shares)
    assert process.spend(loop=1.0) == 0.0


def test_it_grows_back_in_small_steps_and_never_beyond_all():
    process = Process()
    for _ in range(8):
        process.spend(loop=1.0)
    shares = [process.spend() for _ in range(25)]
    steps = [after - before for before, after in zip([0.0, *shares], shares, strict=False)]
    assert all(0 <= step <= 0.05 + 1e-9 for step in steps)
    assert shares[18] < 1.0
    assert shares[-1] == 1.0


def test_a_process_that_is_busy_now_and_then_is_given_less_than_it_could_take():
    """Each busy span costs more than the next quiet one gives back, down to a balance."""
    process = Process()
    for _ in range(200):
        process.spend(loop=1.0)
        process.spend()
    assert process.pace.share <= 0.1


def test_a_clock_that_stood_still_decides_nothing():
    pace = Pace(1)
    load = Load(1.0, 1.0, 1.0)
    pace.update(load, 1.0)
    pace.update(load._replace(loop_s=9.0, process_s=9.0), 1.0)
    assert pace.share == 1.0


def test_the_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3})
    process = Process(cores=None)
    assert process.spend(loop=0.2, others=0.75) == 0.5


def test_the_load_of_this_process_only_grows():
    before = load_now()
    sum(range(100_000))
    after = load_now()
    assert after.at_s > before.at_s
    assert after.loop_s > before.loop_s
    assert after.process_s >= before.process_s
