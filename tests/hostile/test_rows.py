"""Every row's answer is its own, however many rows come from however many callers at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.fronts import FRONTS, Front, Request, Tensor
from tests.hostile.victim import Victim
from tests.repository import rows_of

THREADS = 8
REQUESTS = 40


def distinct_rows(start: int, count: int) -> np.ndarray:
    """Rows of small whole numbers that occur nowhere else, exact in float32 sums."""
    rows = start + np.arange(count, dtype=np.float32)[:, None]
    return rows + np.array([0, 0.25, 0.5, 0.75], np.float32)


@pytest.mark.parametrize("model", ["rows", "sliced"])
def test_ragged_requests_at_once(victim: Victim, model: str) -> None:
    """Of 0 to 40 rows each; the ``sliced`` model runs at most eight together."""

    def work(thread: int) -> None:
        rng = np.random.default_rng(thread)
        front: Front = FRONTS[thread % len(FRONTS)](victim.gateway)
        for i in range(REQUESTS):
            count = int(rng.choice([0, 1, 1, 1, 2, 3, 7, 8, 9, 16, 17, 40]))
            x = distinct_rows((thread * REQUESTS + i) * 64, count)
            answer = front.infer(Request(model, (Tensor.of("x", x),)))
            np.testing.assert_array_equal(answer["y"], rows_of(x))
        front.close()

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, thread) for thread in range(THREADS)]:
            done.result()


@pytest.mark.parametrize("front_class", FRONTS, ids=lambda front: front.name)
@pytest.mark.parametrize("count", [8, 9, 64, 1001])
def test_more_rows_than_run_together(victim: Victim, front_class: type[Front], count: int) -> None:
    front = front_class(victim.gateway)
    x = distinct_rows(0, count)
    answer = front.infer(Request("sliced", (Tensor.of("x", x),)))
    np.testing.assert_array_equal(answer["y"], rows_of(x))
    front.close()
